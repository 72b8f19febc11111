"""Anthropic Messages on the wire: usage, errors. Pure.

Rule it keeps: usage in a stream is cumulative; of two reports the larger counts, never their sum. An explicit 0 is 0.

Source: Messages API reference, "Errors", "Usage".
"""

from __future__ import annotations

import json
from typing import Any

from vestibule.boundary.models.wire.sse import WireError, count, is_count, loads
from vestibule.cost.prices import Tokens


class TextOf:
    """A text that comes in pieces."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[str] = []

    def add(self, part: str) -> None:
        if part:
            self._parts.append(part)

    def get(self) -> str:
        return "".join(self._parts)


def read_usage(usage: dict[str, Any]) -> Tokens:
    """Tokens by billed kind. Anthropic's `input_tokens` leaves the caches out."""
    write = count(usage.get("cache_creation_input_tokens"))
    split = usage.get("cache_creation")
    hour = count(split.get("ephemeral_1h_input_tokens")) if isinstance(split, dict) else 0
    short = count(split.get("ephemeral_5m_input_tokens")) if isinstance(split, dict) else 0
    return Tokens(
        input=count(usage.get("input_tokens")),
        cache_read=count(usage.get("cache_read_input_tokens")),
        cache_write_5m=max(write - hour, short),
        cache_write_1h=hour,
        output=count(usage.get("output_tokens")),
    )


def merged(before: Tokens, usage: dict[str, Any], reported: bool) -> tuple[Tokens, bool]:
    """Counts after one more cumulative report; whether the final count of output is among them.

    Later reports restate earlier ones, and may leave kinds out. The count of output before the first final one is a
    placeholder.
    """
    found = read_usage(usage)
    tokens = Tokens(*(max(a, b) for a, b in zip(before, found, strict=True)))
    if not is_count(usage.get("output_tokens")) or not (tokens.all_input or is_count(usage.get("input_tokens"))):
        return tokens, reported
    return tokens._replace(output=max(before.output if reported else 0, found.output)), True


def is_error(body: bytes) -> bool:
    """Whether it is the API's own error object: then the provider says that it did not answer, or bill."""
    try:
        value = loads(body)
    except WireError:
        return False
    return value.get("type") == "error" and isinstance(value.get("error"), dict)


def error_body(kind: str, message: str, refusal: dict[str, Any] | None = None) -> bytes:
    """An error in the API's shape; `vestibule` carries the typed refusal."""
    value: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": message}}
    if refusal is not None:
        value["vestibule"] = refusal
    return json.dumps(value, ensure_ascii=False).encode("utf-8")


def error_event(kind: str, message: str, refusal: dict[str, Any] | None = None) -> bytes:
    """The same as the last event of a stream."""
    return b"event: error\ndata: " + error_body(kind, message, refusal) + b"\n\n"
