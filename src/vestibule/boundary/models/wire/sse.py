"""Server-sent events, cut into frames however the bytes were split, and JSON as providers send it. Pure.

Rules it keeps:
1. A frame is bounded; more is an error, never unbounded memory.
2. A frame's bytes are kept as they came: what is not judged otherwise is passed on unchanged.
3. What two readers could read in two ways is an error: bytes that are not UTF-8, a line of no known field (before which
   may stand a byte order mark, which some take away: then it is an event), a blank line within a frame (two kinds of
   line ends mixed: an event's end for some, and what they read then are other events), with `loads_once` a key twice.
4. An event's name is what stands there, but for one space: readers compare it as it is.

Source: WHATWG HTML, "Server-sent events" (line ends, fields).
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

MAX_FRAME = 16 * 1024 * 1024
MAX_VALUES = 1_000_000
"""Values in one event or answer: each costs some 60 to 100 bytes of memory, whatever it took on the wire."""
_BLANK = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n")
_WORD = re.compile(r"[A-Za-z][A-Za-z_]{0,39}\Z")


class WireError(ValueError):
    """The provider sent something that is no answer in this format."""


class TwiceError(WireError):
    """A key stands twice in one object."""


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
        found: list[Frame] = []
        if not self._buffer and b"\r" not in chunk:
            # What providers send: whole events, ended by two line feeds.
            parts = chunk.split(b"\n\n")
            chunk = parts.pop()
            found = [_plain_frame(part) for part in parts]
            if not chunk:
                return found
        self._buffer += chunk
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

    def flush(self) -> list[Frame]:
        """The last frame, when the bytes are over: a lone line end that could have been half of a longer one."""
        raw = bytes(self._buffer)
        if not _BLANK.search(raw):
            return []
        self._buffer.clear()
        return [_frame(raw)]

    @property
    def rest(self) -> bytes:
        """Bytes of a frame that never ended."""
        return bytes(self._buffer)


def _plain_frame(part: bytes) -> Frame:
    """A frame without its two line feeds, and without carriage returns."""
    if part.startswith(b"event: "):
        end = part.find(b"\n")
        if end > 0 and part.startswith(b"data: ", end + 1) and part.find(b"\n", end + 7) < 0:
            return Frame(part + b"\n\n", part[7:end].decode("ascii", "replace"), part[end + 7 :])
    elif part.startswith(b"data: ") and b"\n" not in part:
        return Frame(part + b"\n\n", "", part[6:])
    return _frame(part + b"\n\n")


def _frame(raw: bytes) -> Frame:
    event = ""
    data: list[bytes] = []
    lines = re.split(rb"\r\n|\n|\r", raw) if b"\r" in raw else raw.split(b"\n")
    begun = ended = False
    for line in lines:
        if line and ended:
            raise WireError("an event of the provider's answer holds a blank line")
        ended = begun and not line
        begun = begun or bool(line)
        if line.startswith(b"data:"):
            data.append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line.startswith(b"event:"):
            event = line[6:].removeprefix(b" ").decode("ascii", "replace")
        elif line and not line.startswith((b":", b"id:", b"retry:")):
            raise WireError("an event of the provider's answer holds a line of no known field")
    return Frame(raw, event, data[0] if len(data) == 1 else b"\n".join(data))


def written(value: dict[str, Any], event: str = "") -> bytes:
    """A frame of our own. `event` is its name, for formats that name their events."""
    head = f"event: {event}\n".encode() if event else b""
    return head + b"data: " + dumped(value) + b"\n\n"


def dumped(value: dict[str, Any]) -> bytes:
    """JSON of our own writing. A half of a surrogate pair, which UTF-8 cannot say, stays the escape that it came as."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def loads(data: bytes) -> dict[str, Any]:
    """A JSON object of a provider's.

    Raises:
        WireError: it is none.
    """
    return _loaded(_PLAIN, data)


def loads_once(data: bytes) -> dict[str, Any]:
    """As `loads`; an object that holds a key twice is an error too.

    Raises:
        WireError: it is no JSON object, or not one that every reader reads alike.
    """
    return _loaded(_ONCE, data)


def _loaded(decoder: json.JSONDecoder, data: bytes) -> dict[str, Any]:
    if len(data) > MAX_VALUES and data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_VALUES:
        raise WireError("an event of the provider's answer holds too many values")
    try:
        text = data.decode("utf-8")
        try:
            value, end = decoder.scan_once(text, 0)  # type: ignore[attr-defined]  # as `decode`, without its white space
        except StopIteration:
            end = -1
        if end != len(text):
            value = decoder.decode(text)
    except WireError:
        raise
    except (ValueError, RecursionError):
        raise WireError("an event of the provider's answer is no JSON") from None
    if not isinstance(value, dict):
        raise WireError("an event of the provider's answer is no JSON object")
    return value


def word(value: Any) -> str:
    """A provider's enumeration value, or nothing: other text of theirs has no place in our log."""
    return value if isinstance(value, str) and _WORD.match(value) else ""


def count(value: Any) -> int:
    """A count of tokens; nonsense is 0, and the caller's bound is what holds then."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return 0
    return min(value, 1_000_000_000)


def is_count(value: Any) -> bool:
    """Whether it is one. What is none, negative ones included, reports nothing: then the whole hold is charged."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class Twice(dict[str, Any]):
    """An object of which a key stood twice: two parsers would read two things."""


def loads_marked(data: bytes) -> dict[str, Any]:
    """As `loads`, with objects that hold a key twice as `Twice`.

    Raises:
        WireError: it is no JSON object.
    """
    return _loaded(_MARKED, data)


def _marking(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Twice(found)


def _only_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise TwiceError("a key stands twice in an event of the provider's answer")
    return found


def loads_looked(data: bytes) -> tuple[dict[str, Any], bool]:
    """As `loads_marked`, and whether anything was marked: nearly always nothing is, and nothing has to be looked for.

    Raises:
        WireError: it is no JSON object.
    """
    try:
        return loads_once(data), False
    except TwiceError:
        return loads_marked(data), True


def _constant(_text: str) -> Any:
    raise WireError("an event of the provider's answer is no JSON")


_PLAIN = json.JSONDecoder(parse_constant=_constant)
_ONCE = json.JSONDecoder(object_pairs_hook=_only_once, parse_constant=_constant)
_MARKED = json.JSONDecoder(object_pairs_hook=_marking, parse_constant=_constant)


def has_twice(value: Any) -> bool:
    """Whether any object within holds a key twice. `value` comes from `loads_marked`."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Twice):
            return True
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return False
