"""DNS as the sandbox's resolver speaks it: one question in, one answer out, nothing forwarded. Pure.

Rules this module keeps:
1. A query is answered from a table or with NXDOMAIN; none of its bytes ever goes further than this process.
2. Only a standard query with exactly one question of class IN is read. Names are plain labels: a pointer, a NUL, a
   length out of bounds or trailing bytes make the query malformed (FORMERR).
3. Known names have an A record and nothing else; other types get an empty answer, so that no record carries data.

Sources: RFC 1035 §4, RFC 2308 (NXDOMAIN and no data), RFC 6891 (OPT in a query is read past), RFC 7766 (TCP).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable
from dataclasses import dataclass

MAX_QUERY = 512
TTL = 1
A, AAAA, IN = 1, 28, 1
_OK, _FORMERR, _NXDOMAIN, _NOTIMP = 0, 1, 3, 4

Lookup = Callable[[str], str | None]
"""The IPv4 address of a name (as asked, lower case), or None."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question. `name` is in lower case, without the final dot; it is not canonical yet."""

    id: int
    name: str
    kind: int
    recursion: bool
    raw: bytes


class BadQuery(ValueError):
    """Not a query that is answered. `id` and `code` make the reply, if the header could be read."""

    def __init__(self, reason: str, id_: int | None = None, code: int = _FORMERR) -> None:
        self.id = id_
        self.code = code
        super().__init__(reason)


def parse_query(data: bytes) -> Question:
    """Raises BadQuery."""
    if len(data) < 12:
        raise BadQuery("shorter than a header")
    id_, flags, questions, answers, authority, more = struct.unpack(">6H", data[:12])
    if flags & 0x8000:
        raise BadQuery("an answer, not a query")
    if len(data) > MAX_QUERY:
        raise BadQuery("longer than a query", id_)
    if flags & 0x7800:
        raise BadQuery("not a standard query", id_, _NOTIMP)
    if questions != 1 or answers or authority or more > 1:
        raise BadQuery("not one question", id_)
    labels = []
    at = 12
    while True:
        if at >= len(data):
            raise BadQuery("a name without end", id_)
        size = data[at]
        at += 1
        if size == 0:
            break
        if size > 63:
            raise BadQuery("a compressed or impossible label", id_)
        label = data[at : at + size]
        if len(label) != size or b"." in label or b"\0" in label:
            raise BadQuery("a label that is no name", id_)
        labels.append(label)
        at += size
    if at - 12 > 255 or len(data) < at + 4:
        raise BadQuery("a name that is too long, or no type", id_)
    kind, class_ = struct.unpack(">2H", data[at : at + 4])
    end = at + 4
    if more == 0 and len(data) != end:
        raise BadQuery("something after the question", id_)
    if class_ != IN:
        raise BadQuery("not of class IN", id_, _NOTIMP)
    name = b".".join(labels).decode("latin-1").lower()
    return Question(id_, name, kind, bool(flags & 0x0100), data[12:end])


def answer(question: Question, lookup: Lookup) -> tuple[bytes, bool]:
    """The reply, and whether the name is known."""
    address = lookup(question.name)
    if address is None:
        return _reply(question, _NXDOMAIN, b"", 0), False
    if question.kind != A:
        return _reply(question, _OK, b"", 0), True
    record = struct.pack(">3HIH", 0xC00C, A, IN, TTL, 4) + ipaddress.IPv4Address(address).packed
    return _reply(question, _OK, record, 1), True


def refused(bad: BadQuery) -> bytes | None:
    """The reply to a query that could not be read; None when it does not even have a number."""
    return None if bad.id is None else struct.pack(">6H", bad.id, 0x8080 | bad.code, 0, 0, 0, 0)


def _reply(question: Question, code: int, records: bytes, count: int) -> bytes:
    flags = 0x8080 | (0x0100 if question.recursion else 0) | code
    return struct.pack(">6H", question.id, flags, 1, count, 0, 0) + question.raw + records
