"""What an upstream tool may be called with: the operator's rules, then the schema that a person pinned.

Rules this module keeps:
1. An argument that the pinned schema does not name is refused, whatever the schema says of further ones, unless a rule
   of the operator's allows extra arguments.
2. A path goes through the one path normaliser, below the folder that the rule names, and the normal form is what is
   sent: what was decided is what is done.
3. A rule for an argument covers each item of a list, and refuses what is neither a scalar nor a list of scalars.
4. No pattern is tried that could take long (CWE-1333), the operator's or the schema's; no reference leaves the schema.
5. What cannot be checked is refused.
6. A whole number has one form, however it was written: `1e3` and `1000.0` are judged, and sent, as `1000`. Policy sees
   other fractions as texts.

Source: JSON Schema 2020-12; MCP 2026-07-28, "Tools" (inputSchema).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vestibule.config.schema import ArgumentRule, ToolRule
from vestibule.core.text.globs import first_match
from vestibule.core.text.paths import PathRefused, normalise_path
from vestibule.core.text.patterns import SlowPattern, check_pattern, matches_whole
from vestibule.core.text.sanitize import one_line

MAX_ARGUMENT_BYTES = 64 << 10
"""Of all arguments of one call, as JSON."""
MAX_PATTERNED = 1024
"""Characters of a text that a schema's pattern is tried on."""

_EXACT = 1 << 53
"""Up to here a float is one whole number (RFC 8259 section 6)."""


@dataclass(frozen=True, slots=True)
class Checked:
    """`rule` is "" when the arguments may be sent, and then `arguments` are in their normal form.

    `argument` names the one that a rule is about.
    """

    arguments: dict[str, Any]
    rule: str = ""
    argument: str = ""


class _Misfit(Exception):
    def __init__(self, rule: str) -> None:
        self.rule = f"upstream.argument.{rule}"


def check(given: Mapping[str, Any], schema: Mapping[str, Any], rule: ToolRule | None) -> Checked:
    """Whether a tool with the pinned `schema` may be called with `given`."""
    rules = rule.arguments if rule else {}
    arguments = dict(given)
    name = ""
    try:
        if len(_json(arguments)) > MAX_ARGUMENT_BYTES:
            raise _Misfit("size")
        arguments = _whole(arguments)
        named = schema.get("properties", {})
        for name in arguments:
            if (not isinstance(named, dict) or name not in named) and not (rule and rule.extra_arguments):
                raise _Misfit("unknown")
        for name, one in rules.items():
            if name in arguments:
                arguments[name] = _fitted(arguments[name], one)
        name = ""
        _by_schema(arguments, schema)
    except _Misfit as misfit:
        return Checked({}, misfit.rule, one_line(name, 64))
    return Checked(arguments)


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise _Misfit("type") from None


def _whole(value: Any) -> Any:
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= _EXACT else value
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def _fitted(value: Any, rule: ArgumentRule) -> Any:
    if isinstance(value, list):
        return [_fitted_one(item, rule) for item in value]
    return _fitted_one(value, rule)


def _fitted_one(value: Any, rule: ArgumentRule) -> Any:
    if not isinstance(value, (str, int, float)):
        raise _Misfit("type")
    if rule.values and not any(type(value) is type(item) and value == item for item in rule.values):
        raise _Misfit("value")
    if rule.min is not None or rule.max is not None:
        if isinstance(value, (bool, str)):
            raise _Misfit("type")
        if (rule.min is not None and value < rule.min) or (rule.max is not None and value > rule.max):
            raise _Misfit("range")
    if rule.max_length is not None and (not isinstance(value, str) or len(value) > rule.max_length):
        raise _Misfit("length")
    if rule.pattern and (not isinstance(value, str) or not matches_whole(rule.pattern, value)):
        raise _Misfit("pattern")
    return _path(value, rule) if rule.paths else value


def _path(value: Any, rule: ArgumentRule) -> str:
    if not isinstance(value, str):
        raise _Misfit("type")
    root = rule.root.rstrip("/")
    below = value
    if root:
        if value != root and not value.startswith(f"{root}/"):
            raise _Misfit("path.outside")
        below = value[len(root) + 1 :]
    try:
        normal = normalise_path(below, allow_root=bool(root))
    except PathRefused as error:
        raise _Misfit(error.rule) from None
    # The folder itself is what its whole content is: allowed where everything in it is.
    if first_match(normal, rule.paths) is None and not (not normal and "**" in rule.paths):
        raise _Misfit("path.outside")
    return f"{root}/{normal}".rstrip("/") if root else normal


def _by_schema(arguments: dict[str, Any], schema: Mapping[str, Any]) -> None:
    import jsonschema
    from referencing import Registry

    _patterns(schema, arguments)
    kind = jsonschema.Draft7Validator if "draft-07" in str(schema.get("$schema", "")) else None
    try:
        # A registry of its own: a reference that leads out of the schema is not fetched (CWE-918).
        checker = (kind or jsonschema.Draft202012Validator)(dict(schema), registry=Registry())
        fits = checker.is_valid(arguments)
    except Exception:  # noqa: BLE001 - a schema that cannot be evaluated has allowed nothing
        raise _Misfit("schema_unusable") from None
    if not fits:
        raise _Misfit("schema")


def _patterns(schema: Any, arguments: dict[str, Any]) -> None:
    """Refuses a schema with a pattern that could take long, and with any pattern a text that is long."""
    found = list(_found(schema))
    if not found:
        return
    try:
        for pattern in found:
            check_pattern(pattern)
    except SlowPattern:
        raise _Misfit("schema_unusable") from None
    if any(len(text) > MAX_PATTERNED for text in _texts(arguments)):
        raise _Misfit("length")


def _found(schema: Any) -> list[str]:
    out: list[str] = []
    level = [schema]
    while level:
        item = level.pop()
        if isinstance(item, Mapping):
            if isinstance(item.get("pattern"), str):
                out.append(item["pattern"])
            inner = item.get("patternProperties")
            if isinstance(inner, Mapping):
                out.extend(str(key) for key in inner)
            level.extend(item.values())
        elif isinstance(item, list):
            level.extend(item)
    return out


def _texts(value: Any) -> list[str]:
    out: list[str] = []
    level = [value]
    while level:
        item = level.pop()
        if isinstance(item, str):
            out.append(item)
        elif isinstance(item, Mapping):
            level.extend(item.keys())
            level.extend(item.values())
        elif isinstance(item, list):
            level.extend(item)
    return out
