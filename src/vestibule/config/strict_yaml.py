"""YAML read strictly: one document, no tags, no duplicate keys, bounded, with a place for every value.

Numbers with a point stay `Decimal` of the scalar's text (money is never a float).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import yaml

from vestibule.core.errors import ConfigError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_NODES = 20_000

Where = tuple[str | int, ...]

_ALLOWED_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")}


@dataclass
class Document:
    """A parsed document: plain values and the line (from 1) of each, keyed by its path."""

    name: str
    value: Any
    lines: dict[Where, int] = field(default_factory=dict)

    def where(self, path: Where) -> str:
        """`file:line` of the value at `path`, or of its nearest parent."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines.get(path, 1)}"


def parse(data: bytes, name: str) -> Document:
    """Parse one YAML document.

    Raises:
        ConfigError: naming file and line.
    """
    if len(data) > MAX_BYTES:
        raise ConfigError("the file is larger than 256 KiB", where=name, next_step="Shorten it.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError("the file is not UTF-8 text", where=name, why=f"Byte {error.start} is invalid.") from None
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = (error.problem_mark.line + 1) if error.problem_mark else 1
        raise ConfigError(f"not valid YAML: {error.problem}", where=f"{name}:{line}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}", where=name) from None
    except RecursionError:
        raise ConfigError("the file is nested too deeply", where=name) from None
    document = Document(name, None)
    if node is not None:
        document.value = _Builder(document).build(node, (), 0)
    return document


class _Builder:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.nodes = 0

    def build(self, node: yaml.Node, path: Where, depth: int) -> Any:
        line = node.start_mark.line + 1
        self.document.lines.setdefault(path, line)
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise self._error("the file is nested or repeated too much", line)
        if node.tag not in _ALLOWED_TAGS:
            raise self._error(f"the tag {node.tag!r} is not allowed here", line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, i), depth + 1) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, line)
        raise self._error("this kind of value is not supported", line)

    def _mapping(self, node: yaml.MappingNode, path: Where, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                raise self._error("keys are plain strings; merge keys are not supported", line)
            key: Hashable = key_node.value
            if key in result:
                raise self._error(f"the key {key!r} stands here twice", line)
            result[str(key)] = self.build(value_node, (*path, str(key)), depth + 1)
            self.document.lines[(*path, str(key))] = line
        return result

    def _scalar(self, node: yaml.ScalarNode, line: int) -> Any:
        kind = node.tag.rsplit(":", 1)[1]
        text: str = node.value
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() in ("true", "yes", "on")
        if kind == "int":
            try:
                return int(text.replace("_", ""), 10)
            except ValueError:
                raise self._error(f"{text!r}: write whole numbers in decimal", line) from None
        if kind == "float":
            try:
                value = Decimal(text.replace("_", ""))
            except ArithmeticError:
                raise self._error(f"{text!r} is no number", line) from None
            if not value.is_finite():
                raise self._error(f"{text!r} is no finite number", line)
            return value
        return text

    def _error(self, what: str, line: int) -> ConfigError:
        return ConfigError(what, where=f"{self.document.name}:{line}")
