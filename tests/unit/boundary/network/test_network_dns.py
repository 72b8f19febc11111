"""The sandbox's resolver: answers from a table, forwards nothing, reads only plain questions."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule.boundary.network.wire.dns import AAAA, A, BadQuery, answer, parse_query, refused

TABLE = {"docs.example.com": "127.64.0.3"}


def query(
    name: str = "docs.example.com", kind: int = A, *, flags: int = 0x0100, tail: bytes = b"", more: int = 0
) -> bytes:
    labels = b"".join(bytes([len(part)]) + part for part in name.encode("latin-1").split(b".")) + b"\0"
    return struct.pack(">6H", 7, flags, 1, 0, 0, more) + labels + struct.pack(">2H", kind, 1) + tail


def code(reply: bytes) -> int:
    return reply[3] & 15


def test_a_known_name_has_one_address() -> None:
    reply, known = answer(parse_query(query("DOCS.example.com")), TABLE.get)
    assert known
    assert code(reply) == 0
    assert reply[:2] == b"\0\7"
    assert reply[-4:] == bytes([127, 64, 0, 3])
    assert struct.unpack(">4H", reply[4:12]) == (1, 1, 0, 0)


@pytest.mark.parametrize("kind", [AAAA, 16, 10, 255, 15, 65])
def test_a_known_name_has_nothing_else(kind: int) -> None:
    reply, known = answer(parse_query(query(kind=kind)), TABLE.get)
    assert (known, code(reply), struct.unpack(">H", reply[6:8])[0]) == (True, 0, 0)


def test_an_unknown_name_does_not_exist() -> None:
    reply, known = answer(parse_query(query("secret-data.attacker.example")), TABLE.get)
    assert (known, code(reply)) == (False, 3)


def test_options_are_read_past() -> None:
    assert parse_query(query(more=1, tail=b"\0\0\x29\x10\0\0\0\0\0\0\0")).name == "docs.example.com"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        query()[:11],
        query()[:-1],
        query(flags=0x8180),
        query(flags=0x2800),
        query(tail=b"x"),
        query()[:12] + b"\xc0\x0c\0\1\0\1",
        query("a\0b.example.com"),
        query(".".join(["a" * 60] * 5)),
        struct.pack(">6H", 7, 0x0100, 2, 0, 0, 0) + query()[12:] * 2,
        query() + bytes(600),
    ],
)
def test_what_is_no_plain_question_is_refused(data: bytes) -> None:
    with pytest.raises(BadQuery) as found:
        parse_query(data)
    reply = refused(found.value)
    assert reply is None or (len(reply) == 12 and code(reply) in (1, 4))


@given(st.binary(max_size=300))
def test_no_bytes_do_anything_but_answer(data: bytes) -> None:
    try:
        question = parse_query(data)
    except BadQuery:
        return
    reply, known = answer(question, TABLE.get)
    assert reply[:2] == data[:2]
    assert known == (question.name == "docs.example.com")
