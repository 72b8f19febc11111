"""JSON read and written again with keys that stand twice: a translation must not make a call look sound. Pure."""

from __future__ import annotations

import json
from typing import Any

from vestibule.boundary.models.wire.sse import WireError


class Pairs(dict[str, Any]):
    """An object of which a key stands twice; `pairs` is all of it, in its order."""

    pairs: list[tuple[str, Any]]


def loads_pairs(data: bytes) -> dict[str, Any]:
    """A JSON object of a provider's; within calls' inputs, objects with a key that stands twice are `Pairs`.

    Raises:
        WireError: it is none, or a key stands twice elsewhere.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_object)
    except (ValueError, RecursionError):
        raise WireError("an event of the provider's answer is no JSON") from None
    if not isinstance(value, dict):
        raise WireError("an event of the provider's answer is no JSON object")
    if _outside(value):
        raise WireError("a key stands twice in an event of its answer")
    return value


def _outside(value: Any) -> bool:
    """Whether a key stands twice elsewhere than within the input of a call, which is judged as it is."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Pairs):
            return True
        if isinstance(item, dict):
            waiting.extend(inner for key, inner in item.items() if key != "input")
        elif isinstance(item, list):
            waiting.extend(item)
    return False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    twice = Pairs(found)
    twice.pairs = pairs
    return twice


def dumps_pairs(value: Any) -> str:
    """The value as JSON text, with everything that `loads_pairs` read of it."""
    if isinstance(value, dict):
        pairs = value.pairs if isinstance(value, Pairs) else list(value.items())
        inner = (f"{json.dumps(key, ensure_ascii=False)}: {dumps_pairs(item)}" for key, item in pairs)
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(dumps_pairs(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
