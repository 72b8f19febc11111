"""Small readers that the field lists of Gemini requests are made of. Pure.

They give a value as it goes on: the API reads each field under two names, and one of them does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vestibule.boundary.models.fields.kit import (
    Check,
    FieldRefused,
    Seen,
    failed,
    flag,
    number,
    safe_name,
    text,
    texts,
)


@dataclass(slots=True)
class GeminiSeen(Seen):
    """What a walk notes beside the price. `changed`: a field goes on under its other name."""

    changed: bool = False


Read = Callable[[Any, GeminiSeen], Any]
"""Checks a value and gives it as it goes on."""


def snake(name: Any) -> str:
    """The other name of a field: `inline_data` of `inlineData`."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda m: "_" + m[1].lower(), name) if isinstance(name, str) else ""


def leaf(check: Check) -> Read:
    def read(value: Any, seen: GeminiSeen) -> Any:
        check(value, seen)
        return value

    return read


class Fields:
    """The fields of one kind of object, by both of their names."""

    def __init__(self, fields: Mapping[str, Read]) -> None:
        self.read = dict(fields)
        self.names = {**{snake(name): name for name in fields}, **{name: name for name in fields}}


def read_object(place: str, fields: Fields, value: Any, seen: GeminiSeen) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise failed(place or "body")
    found: dict[str, Any] = {}
    for key, item in value.items():
        name = fields.names.get(key)
        where = f"{place}.{safe_name(snake(key))}".lstrip(".")
        if name is None:
            raise FieldRefused(where, "this field is not among those that may pass")
        if name in found:
            raise FieldRefused(where, "this field stands twice, under both of its names")
        seen.changed = seen.changed or name != key
        found[name] = fields.read[name](item, seen)
    return found


def an_object(place: str, fields: Mapping[str, Read], required: tuple[str, ...] = ()) -> Read:
    known = Fields(fields)

    def read(value: Any, seen: GeminiSeen) -> Any:
        if value is None and not required:
            return None
        found = read_object(place, known, value, seen)
        for name in required:
            if found.get(name) is None:
                raise FieldRefused(f"{place}.{snake(name)}", "this field is missing")
        return found

    return read


def a_list(place: str, inner: Read) -> Read:
    def read(value: Any, seen: GeminiSeen) -> Any:
        # A lone object where a list belongs is read as a list by some parsers of this API: not by this one.
        if value is not None and not isinstance(value, list):
            raise failed(place)
        if value is not None and None in value:
            raise failed(place)
        return None if value is None else [inner(item, seen) for item in value]

    return read


def count_of(place: str, least: int, most: int) -> Read:
    def read(value: Any, _seen: GeminiSeen) -> Any:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most):
            raise failed(place)
        return value

    return read


def a_text(place: str) -> Read:
    return leaf(text(place))


def a_flag(place: str) -> Read:
    return leaf(flag(place))


def a_number(place: str) -> Read:
    return leaf(number(place))


def some_texts(place: str) -> Read:
    return leaf(texts(place))
