"""Small checks that the field lists are made of. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")


class FieldRefused(Exception):
    """`rule` is `model.field.<place>`, `what` a sentence's end."""

    def __init__(self, place: str, what: str) -> None:
        self.rule = f"model.field.{place}"
        self.what = what
        super().__init__(what)


@dataclass(slots=True)
class Seen:
    """What a walk through a request notes for its price ceiling."""

    images: int = 0
    documents: int = 0
    hour_cache: bool = False
    depth: int = 0
    provider_tools: frozenset[str] = frozenset()
    """Tools of the provider's own that policy names."""


def safe_name(value: Any) -> str:
    """A name of the request as part of a rule's name; anything unusual is `unknown`."""
    return value if isinstance(value, str) and _NAME.match(value) else "unknown"


Check = Callable[[Any, Seen], None]


def failed(place: str, what: str = "its value is not of an allowed kind") -> FieldRefused:
    return FieldRefused(place, what)


def text(place: str) -> Check:
    def check(value: Any, _seen: Seen) -> None:
        if not isinstance(value, str):
            raise failed(place)

    return check


def flag(place: str) -> Check:
    def check(value: Any, _seen: Seen) -> None:
        if value is not None and not isinstance(value, bool):
            raise failed(place)

    return check


def number(place: str) -> Check:
    def check(value: Any, _seen: Seen) -> None:
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise failed(place)

    return check


def one_of(place: str, *allowed: str | None) -> Check:
    def check(value: Any, _seen: Seen) -> None:
        if not (value is None or isinstance(value, str)) or value not in allowed:
            raise failed(place, "this value is not among those that may pass")

    return check


def texts(place: str) -> Check:
    def check(value: Any, _seen: Seen) -> None:
        if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise failed(place)

    return check


def data(place: str, kind: type | tuple[type, ...] = dict) -> Check:
    """Free data of the agent's own (a schema, a tool's input): never interpreted by the provider as a request."""

    def check(value: Any, _seen: Seen) -> None:
        if value is not None and not isinstance(value, kind):
            raise failed(place)

    return check


def anything(_value: Any, _seen: Seen) -> None:
    return


def fields_of(place: str, fields: Mapping[str, Check], required: tuple[str, ...] = ()) -> Check:
    def check(value: Any, seen: Seen) -> None:
        if value is None and not required:
            return
        if not isinstance(value, dict):
            raise failed(place)
        for key, item in value.items():
            inner = fields.get(key)
            if inner is None:
                raise FieldRefused(f"{place}.{safe_name(key)}", "this field is not among those that may pass")
            inner(item, seen)
        for key in required:
            if key not in value:
                raise FieldRefused(f"{place}.{key}", "this field is missing")

    return check


def blocks_of(place: str, kinds: Mapping[str, Check]) -> Check:
    """Text, or a list of blocks of the given kinds."""

    def check(value: Any, seen: Seen) -> None:
        if isinstance(value, str):
            return
        if not isinstance(value, list):
            raise failed(place)
        seen.depth += 1
        if seen.depth > 5:
            raise failed(place, "blocks are nested too deeply")
        for item in value:
            kind = item.get("type") if isinstance(item, dict) else None
            inner = kinds.get(kind) if isinstance(kind, str) else None
            if inner is None:
                raise FieldRefused(f"content.{safe_name(kind)}", f"this kind of block may not stand in {place}")
            inner(item, seen)
        seen.depth -= 1

    return check


def source_of(place: str, kinds: Mapping[str, Check]) -> Check:
    def check(value: Any, seen: Seen) -> None:
        kind = value.get("type") if isinstance(value, dict) else None
        inner = kinds.get(kind) if isinstance(kind, str) else None
        if inner is None:
            raise FieldRefused(
                f"source.{safe_name(kind)}", f"a {place} may come as data only, never from a URL or a stored file"
            )
        inner(value, seen)

    return check
