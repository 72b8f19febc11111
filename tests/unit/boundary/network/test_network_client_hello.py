"""The name in a ClientHello: real ones are read whole at any split, and nothing else gives a name."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule.boundary.network.wire.client_hello import MAX_HELLO, NotAHello, read_hello


def real(name: str | None) -> bytes:
    """What OpenSSL sends first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = False
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


HELLO = real("docs.example.com")


def vector(width: int, data: bytes) -> bytes:
    return len(data).to_bytes(width, "big") + data


def sni(*names: bytes, kind: int = 0) -> bytes:
    return (0).to_bytes(2, "big") + vector(2, vector(2, b"".join(bytes([kind]) + vector(2, name) for name in names)))


def made(*extensions: bytes, record: int = 16384) -> bytes:
    body = b"\3\3" + bytes(32) + vector(1, b"") + vector(2, b"\x13\x01") + vector(1, b"\0")
    body += vector(2, b"".join(extensions))
    message = b"\1" + vector(3, body)
    parts = [message[at : at + record] for at in range(0, len(message), record)]
    return b"".join(b"\x16\3\1" + vector(2, part) for part in parts)


def test_a_real_hello_is_read_whole_whatever_the_split() -> None:
    for cut in range(len(HELLO)):
        assert read_hello(HELLO[:cut]) is None
    found = read_hello(HELLO)
    assert found is not None
    assert found.name == "docs.example.com"


def test_a_hello_over_many_records_is_one_hello() -> None:
    found = read_hello(made(sni(b"Docs.Example.com"), record=7))
    assert found is not None
    assert found.name == "docs.example.com"


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (real(None), "network.sni"),
        (made(), "network.sni"),
        (made(sni(b"a.example.com"), sni(b"b.example.com")), "network.sni"),
        (made(sni(b"a.example.com", b"b.example.com")), "network.sni"),
        (made(sni(b"a.example.com", kind=1)), "network.sni"),
        (made(sni("ä.example.com".encode())), "network.sni"),
        (made(sni(b"a.example.com"), b"\xfe\x0d" + vector(2, b"\0")), "network.sni"),
        (b"GET / HTTP/1.1\r\n\r\n", "network.tls"),
        (b"SSH-2.0-x\r\n", "network.tls"),
        (b"\x16\2\1", "network.tls"),
        (b"\x16\3\1\0\0", "network.tls"),
        (b"\x16\3\1\0\4\2\0\0\0", "network.tls"),
        (b"\x16\3\1\0\4\1\xff\xff\xff", "network.tls"),
        (made(sni(b"a.example.com"), b"\0\1\0\1"), "network.tls"),
        (made(b"\0\0\0"), "network.tls"),
    ],
)
def test_what_names_no_server_is_refused(data: bytes, rule: str) -> None:
    with pytest.raises(NotAHello) as found:
        read_hello(data)
    assert found.value.rule == rule


def test_a_hello_without_end_is_given_up() -> None:
    endless = b"\x16\3\1" + vector(2, b"\1\0\x3f\0" + bytes(16000))
    assert read_hello(endless[:100]) is None
    with pytest.raises(NotAHello):
        read_hello((endless * 2)[: MAX_HELLO + 1])


@given(st.binary(max_size=600))
def test_no_bytes_do_anything_but_answer(data: bytes) -> None:
    with contextlib.suppress(NotAHello):
        found = read_hello(data)
        assert found is None or found.name


@given(st.integers(0, len(HELLO) - 1), st.integers(0, 255))
def test_a_changed_byte_never_gives_another_name_silently(at: int, value: int) -> None:
    changed = HELLO[:at] + bytes([value]) + HELLO[at + 1 :]
    try:
        found = read_hello(changed)
    except NotAHello:
        return
    if found is not None and found.name != "docs.example.com":
        assert found.name.encode() in changed.lower()
