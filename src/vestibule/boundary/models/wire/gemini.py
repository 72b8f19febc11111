"""Gemini generateContent on the wire: events, usage, errors. Pure.

Rules it keeps:
1. An event is one line `data: {…}`. Official SDKs read other lines as data of their own, so none is passed on: comments
   are left out, and anything else is no answer.
2. Counts in a stream are cumulative: of two reports the larger counts, never their sum.
3. `promptTokenCount` includes what was read from a cache; thoughts are output that `candidatesTokenCount` leaves out.

Source: Gemini API reference ("GenerateContentResponse", "UsageMetadata"); stream readers of google-genai 3.4.0 and
@google/genai 1.30 and 2.18.
"""

from __future__ import annotations

import json
import re
from typing import Any

from vestibule.boundary.models.wire.sse import Frame, WireError, count, dumped, is_count, loads, loads_marked
from vestibule.cost.prices import Tokens

MAX_CANDIDATES = 8
"""Answers to one request at once; each is billed and held."""
_PLAIN = re.compile(rb"data: ?([^\r\n]*)(?:\r\n\r\n|\n\n)\Z")
_LINES = re.compile(rb"\r\n|\n|\r")
_COUNTS = (
    "promptTokenCount",
    "cachedContentTokenCount",
    "toolUsePromptTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
)
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
}


def event_of(frame: Frame) -> tuple[dict[str, Any] | None, bool]:
    """The object of an event (None: it has none), and whether its bytes are just that and may be passed on.

    Raises:
        WireError: it holds anything else.
    """
    if match := _PLAIN.match(frame.raw):
        return loads_marked(match[1]), True
    lines = [line for line in _LINES.split(frame.raw) if line]
    said = [line for line in lines if not line.startswith(b":")]
    if not said:
        return None, False
    if len(said) == 1 and said[0].startswith(b"data:"):
        return loads_marked(said[0][5:].lstrip(b" ")), len(lines) == 1
    return error_of(b"\n".join(said)), False


def error_of(data: bytes) -> dict[str, Any]:
    """An error as the provider says it in the middle of a stream: bare JSON, over several lines.

    Raises:
        WireError: it is none.
    """
    value = loads(data)
    if not isinstance(value.get("error"), dict):
        raise WireError("its answer holds something that is no event")
    return value


def event(value: dict[str, Any]) -> bytes:
    """An event of our own, with the line ends of this API."""
    return b"data: " + dumped(value) + b"\r\n\r\n"


def bare(value: dict[str, Any]) -> bytes:
    """An error of the provider's at the end of a stream; see `error_event`."""
    return dumped({"error": value["error"], **value}) + b"\n"


class Counts:
    """What the provider counted in one answer so far."""

    __slots__ = ("_most", "told")

    def __init__(self) -> None:
        self._most = dict.fromkeys(_COUNTS, 0)
        self.told = False
        """There was a report."""

    def add(self, usage: dict[str, Any]) -> None:
        for name in _COUNTS:
            self._most[name] = max(self._most[name], count(usage.get(name)))
        self.told = (self.told or is_count(usage.get("promptTokenCount"))) and all(
            is_count(usage[name]) for name in _COUNTS if usage.get(name) is not None
        )

    @property
    def candidates(self) -> int:
        return self._most["candidatesTokenCount"]

    @property
    def thoughts(self) -> int:
        return self._most["thoughtsTokenCount"]

    def tokens(self) -> Tokens:
        prompt, tool = self._most["promptTokenCount"], self._most["toolUsePromptTokenCount"]
        cached = min(self._most["cachedContentTokenCount"], prompt)
        return Tokens(input=prompt - cached + tool, cache_read=cached, output=self.candidates + self.thoughts)


def with_earlier(usage: dict[str, Any], candidates: int, thoughts: int) -> dict[str, Any]:
    """Usage of the last of several answers that are one for the agent: with the output of those before it."""
    found = {**usage, "candidatesTokenCount": count(usage.get("candidatesTokenCount")) + candidates}
    if thoughts:
        found["thoughtsTokenCount"] = count(usage.get("thoughtsTokenCount")) + thoughts
    found["totalTokenCount"] = count(usage.get("totalTokenCount")) + candidates + thoughts
    return found


def is_error(body: bytes) -> bool:
    """Whether it is the API's own error object: then the provider says that it did not answer, or bill."""
    try:
        error_of(body)
    except WireError:
        return False
    return True


def error_body(status: int, message: str, refusal: dict[str, Any] | None = None) -> bytes:
    """An error in the API's shape; `vestibule` carries the typed refusal. `error` comes first: the official SDK for
    Python looks at how the text begins."""
    value: dict[str, Any] = {
        "error": {"code": status, "message": message, "status": _STATUS.get(status, "PERMISSION_DENIED")}
    }
    if refusal is not None:
        value["vestibule"] = refusal
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def error_event(status: int, message: str, refusal: dict[str, Any] | None = None) -> bytes:
    """The same at the end of a stream: bare, as this API does it.

    As `data: …` the official SDK for JavaScript would take it for an answer without candidates, and some programs that
    for the end of their turn. Bare, both SDKs raise it with its status and message.
    """
    return error_body(status, message, refusal) + b"\n"
