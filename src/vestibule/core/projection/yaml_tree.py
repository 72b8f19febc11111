"""YAML documents of a repository, read strictly: one document, no tags, no keys twice, text keys, bounded. Pure.

Events are read, not nodes: neither the depth nor the aliases of a document can cost more than the bounds.
Values that YAML 1.1 and 1.2 read differently (octal, sexagesimal, dates) stay text.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from vestibule.core.projection.base import MAX_DEPTH, MAX_NODES, CannotProject, Tree

_PLAIN = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,300})\Z")
_FLOAT = re.compile(r"[-+]?[0-9]{1,300}\.[0-9]{0,300}(?:[eE][-+]?[0-9]{1,3})?\Z")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def parse(text: str) -> Tree:
    """The document's value.

    Raises:
        CannotProject: it is no such document.
    """
    try:
        return _Builder(text).document()
    except (yaml.YAMLError, ValueError, RecursionError):
        raise CannotProject("The file is no YAML document that can be read strictly.") from None


class _Builder:
    def __init__(self, text: str) -> None:
        self.loader = _Loader(text)
        self.anchors: dict[str, tuple[Tree, int]] = {}
        self.nodes = 0

    def document(self) -> Tree:
        try:
            self._expect(yaml.StreamStartEvent)
            if self.loader.check_event(yaml.StreamEndEvent):
                return None
            self._expect(yaml.DocumentStartEvent)
            value = self._value(0)
            self._expect(yaml.DocumentEndEvent)
            self._expect(yaml.StreamEndEvent)
            return value
        finally:
            self.loader.dispose()

    def _expect(self, kind: type) -> None:
        if not isinstance(self.loader.get_event(), kind):
            raise CannotProject("The file holds more than one YAML document.")

    def _value(self, depth: int) -> Tree:
        event = self.loader.get_event()
        before = self.nodes
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise CannotProject("The file is nested or repeated too much.")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise CannotProject("The file holds an alias of nothing.")
            value, size = self.anchors[event.anchor]
            self.nodes += size
            return value
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
        elif event.tag is not None:
            raise CannotProject("The file holds YAML tags.")
        elif isinstance(event, yaml.SequenceStartEvent):
            value = []
            while not self.loader.check_event(yaml.SequenceEndEvent):
                value.append(self._value(depth + 1))
            self.loader.get_event()
        elif isinstance(event, yaml.MappingStartEvent):
            value = self._mapping(depth)
        else:
            raise CannotProject("The file is no YAML document that can be read strictly.")
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, self.nodes - before)
        return value

    def _mapping(self, depth: int) -> dict[str, Tree]:
        found: dict[str, Tree] = {}
        while not self.loader.check_event(yaml.MappingEndEvent):
            key = self.loader.get_event()
            if not isinstance(key, yaml.ScalarEvent) or key.tag is not None or key.value in found or key.value == "<<":
                raise CannotProject("The file holds keys that are no plain text, merged, or there twice.")
            found[key.value] = self._value(depth + 1)
        self.loader.get_event()
        return found

    def _scalar(self, event: yaml.ScalarEvent) -> Tree:
        text: str = event.value
        if event.tag is not None:
            raise CannotProject("The file holds YAML tags.")
        if not event.implicit[0]:
            return text
        kind = self.loader.resolve(yaml.ScalarNode, text, event.implicit).removeprefix(_PLAIN)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() in ("true", "yes", "on")
        if kind == "int" and _INT.match(text):
            return int(text)
        if kind == "float" and _FLOAT.match(text) and math.isfinite(value := float(text)):
            return value
        return text


class _Plain(_Dumper):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - a view repeats what it shows
        return True


def write(tree: Tree) -> str:
    """The document. Its depth is bounded by `check_size`."""
    return str(yaml.dump(tree, Dumper=_Plain, sort_keys=False, allow_unicode=True, default_flow_style=False))
