"""Whether arguments fit the schema that the agent's program offered: the part of JSON Schema that says shape.

The schema comes from inside the sandbox, so nothing of it may cost more than a walk: `pattern`, `$ref` to elsewhere,
conditionals and combinators other than `anyOf`/`oneOf` of plain kinds are passed over. This is a check that a call is
well formed, not the guard of what it may do.

Source: JSON Schema 2020-12, validation vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 12
MAX_STEPS = 20_000


def misfit(value: Any, schema: Mapping[str, Any]) -> str | None:
    """The place (`a.b[2]`) and what is wrong with it, of the first misfit; None when it fits."""
    return _Walk().look(value, schema, "", 0)


class _Walk:
    def __init__(self) -> None:
        self._steps = 0

    def look(self, value: Any, schema: Any, place: str, depth: int) -> str | None:
        if depth > MAX_DEPTH or not isinstance(schema, Mapping) or self._over(1):
            return None
        for key in ("anyOf", "oneOf"):
            options = schema.get(key)
            if isinstance(options, list) and options:
                found = [self.look(value, option, place, depth + 1) for option in options[:64]]
                if all(item is not None for item in found):
                    return found[0]
        kind = schema.get("type")
        if kind is not None and not _is(value, kind, schema.get("nullable") is True):
            return f"{place or 'the arguments'}: not of type {_word(kind)}"
        if isinstance(options := schema.get("enum"), list):
            if self._over(len(options)):
                return None
            if not any(_same(value, item) for item in options):
                return f"{place or 'the arguments'}: not one of the allowed values"
        if "const" in schema and not _same(value, schema["const"]):
            return f"{place or 'the arguments'}: not the allowed value"
        if isinstance(value, dict):
            return self._object(value, schema, place, depth)
        if isinstance(value, list) and isinstance(items := schema.get("items"), Mapping):
            for number, item in enumerate(value):
                if self._over(0):
                    return None
                if (wrong := self.look(item, items, f"{place}[{number}]", depth + 1)) is not None:
                    return wrong
        return None

    def _over(self, steps: int) -> bool:
        """Whether there are more steps to make than may be made: each entry of a list of the schema's is one."""
        self._steps += steps
        return self._steps > MAX_STEPS

    def _object(self, value: dict[str, Any], schema: Mapping[str, Any], place: str, depth: int) -> str | None:
        required = schema.get("required")
        if self._over(len(required) if isinstance(required, list) else 0):
            return None
        for key in required if isinstance(required, list) else ():
            if isinstance(key, str) and key not in value:
                return f"{_join(place, key)}: missing"
        properties = schema.get("properties")
        known = properties if isinstance(properties, Mapping) else {}
        extra = schema.get("additionalProperties")
        for key, item in value.items():
            if self._over(1):
                return None
            if key in known:
                wrong = self.look(item, known[key], _join(place, key), depth + 1)
            elif extra is False:
                wrong = f"{_join(place, key)}: not known"
            else:
                wrong = self.look(item, extra, _join(place, key), depth + 1) if isinstance(extra, Mapping) else None
            if wrong is not None:
                return wrong
        return None


def _join(place: str, key: str) -> str:
    shown = key if len(key) <= 40 and key.isprintable() else "…"
    return f"{place}.{shown}" if place else shown


def _word(kind: Any) -> str:
    if isinstance(kind, list):
        return " or ".join(_word(item) for item in kind[:8] if isinstance(item, str))
    return kind.lower() if isinstance(kind, str) and kind.isalpha() and len(kind) <= 20 else "the schema's"


def _is(value: Any, kind: Any, nullable: bool) -> bool:
    if value is None and nullable:
        return True
    if isinstance(kind, list):
        # There are seven kinds; what stands deeper or behind them is none.
        return any(not isinstance(item, str) or _is(value, item, False) for item in kind[:8])
    if not isinstance(kind, str):
        return True
    # Gemini writes type names in capitals.
    check = _KINDS.get(kind.lower())
    return check is None or check(value)


_KINDS = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())
    ),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
}


def _same(a: Any, b: Any) -> bool:
    return (type(a) is type(b) and a == b) or (_KINDS["number"](a) and _KINDS["number"](b) and a == b)
