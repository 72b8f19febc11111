"""Anthropic's answers: server-sent events and message bodies, read without I/O.

Rules it keeps:
1. Bytes go through unchanged and in order; only whole frames are handed on, so that a cut never leaves half a
   frame with the client. (The hold of tool calls sits on these frames.)
2. Usage is what the provider says: `message_start` for input, the largest value of the cumulative
   `message_delta` for output, never their sum; an explicit 0 is a 0.
3. A stream without `message_stop` is incomplete, whatever its length.
4. A frame is bounded; more is an error, never unbounded memory.

Sources: Anthropic Messages API, "Streaming messages"; WHATWG HTML, "Server-sent events" (line ends, fields).
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from vestibule.cost.prices import Tokens

MAX_FRAME = 8 * 1024 * 1024
_BLANK = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n")


class WireError(ValueError):
    """The provider sent something that is no answer in this format."""


class Frame(NamedTuple):
    """One event as sent: its bytes with the blank line, its name, its data."""

    raw: bytes
    event: str
    data: bytes


class Frames:
    """Cuts a byte stream into frames, however it was split."""

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._max = max_frame

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that `chunk` completes.

        Raises:
            WireError: a frame is larger than allowed.
        """
        self._buffer += chunk
        found: list[Frame] = []
        begin = 0
        while True:
            match = _BLANK.search(self._buffer, max(begin, self._scanned - 3))
            # "\r" at the end may be half of "\r\n": wait for the next byte before cutting there.
            if match is None or (match.end() == len(self._buffer) and match.group().endswith(b"\r")):
                break
            raw = bytes(self._buffer[begin : match.end()])
            found.append(_frame(raw))
            begin = match.end()
            self._scanned = begin
        del self._buffer[:begin]
        self._scanned = len(self._buffer)
        if len(self._buffer) > self._max:
            raise WireError("an event of the provider's answer is too large")
        return found

    @property
    def rest(self) -> bytes:
        """Bytes of a frame that never ended."""
        return bytes(self._buffer)


def _frame(raw: bytes) -> Frame:
    event = ""
    data: list[bytes] = []
    for line in re.split(rb"\r\n|\n|\r", raw):
        if line.startswith(b"data:"):
            data.append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line.startswith(b"event:"):
            event = line[6:].strip().decode("ascii", "replace")
    return Frame(raw, event, b"\n".join(data))


class StreamUsage:
    """What a stream says of its usage and its end."""

    def __init__(self) -> None:
        self.tokens = Tokens()
        self.started = False
        self.reported = False
        """The final, cumulative usage came."""
        self.stopped = False
        self.failed = False
        self.stop_reason = ""
        self.events = 0

    def see(self, frame: Frame) -> None:
        """Take note of one frame. Only frames that can matter are parsed."""
        if not frame.data:
            return
        self.events += 1
        if frame.event == "content_block_delta":
            return
        if frame.event == "message_stop":
            self.stopped = True
            return
        value = _loads(frame.data)
        kind = value.get("type")
        if kind == "message_start":
            message = value.get("message")
            self.started = True
            if isinstance(message, dict):
                self._usage(message.get("usage"))
        elif kind == "message_delta":
            self._usage(value.get("usage"), final=True)
            delta = value.get("delta")
            if isinstance(delta, dict):
                self.stop_reason = word(delta.get("stop_reason"))
        elif kind == "message_stop":
            self.stopped = True
        elif kind == "error":
            self.failed = True

    def _usage(self, usage: Any, *, final: bool = False) -> None:
        if not isinstance(usage, dict):
            return
        found = read_usage(usage)
        old = self.tokens
        # Cumulative: later reports restate earlier ones, and may leave kinds out.
        self.tokens = Tokens(*(max(a, b) for a, b in zip(old, found, strict=True)))
        if final and isinstance(usage.get("output_tokens"), int):
            # The count in message_start is a placeholder; the first final one replaces it.
            before = old.output if self.reported else 0
            self.tokens = self.tokens._replace(output=max(before, found.output))
            self.reported = True


def read_usage(usage: dict[str, Any]) -> Tokens:
    """Tokens by billed kind. Anthropic's `input_tokens` leaves the caches out."""
    write = _count(usage.get("cache_creation_input_tokens"))
    split = usage.get("cache_creation")
    hour = _count(split.get("ephemeral_1h_input_tokens")) if isinstance(split, dict) else 0
    short = _count(split.get("ephemeral_5m_input_tokens")) if isinstance(split, dict) else 0
    return Tokens(
        input=_count(usage.get("input_tokens")),
        cache_read=_count(usage.get("cache_read_input_tokens")),
        cache_write_5m=max(write - hour, short),
        cache_write_1h=hour,
        output=_count(usage.get("output_tokens")),
    )


def read_message(body: bytes) -> tuple[Tokens | None, str]:
    """Usage (None: it reports none) and stop reason of a whole message.

    Raises:
        WireError: no JSON object.
    """
    value = _loads(body)
    usage = value.get("usage")
    told = isinstance(usage, dict) and isinstance(usage.get("output_tokens"), int)
    return (read_usage(usage) if told and isinstance(usage, dict) else None), word(value.get("stop_reason"))


def is_error(body: bytes) -> bool:
    """Whether it is the API's own error object: then the provider says that it did not answer, or bill."""
    try:
        value = _loads(body)
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


def word(value: Any) -> str:
    """A provider's enumeration value, or nothing: other text of theirs has no place in our log."""
    return value if isinstance(value, str) and re.fullmatch(r"[a-z_]{1,40}", value) else ""


def _count(value: Any) -> int:
    # A provider that reports nonsense is not believed to have been free: the caller sees None or a bound.
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return 0
    return min(value, 1_000_000_000)


def _loads(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise WireError("an event of the provider's answer is no JSON") from None
    if not isinstance(value, dict):
        raise WireError("an event of the provider's answer is no JSON object")
    return value
