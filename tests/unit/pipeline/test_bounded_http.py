"""The HTTP front of the gateways takes a bounded amount of anything from a sandbox, whoever sends it."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from vestibule.pipeline import bounded_http
from vestibule.pipeline.bounded_http import BoundedProtocol
from vestibule.pipeline.hosting import GatewayHost, loopback_listener

Connect = Callable[[], socket.socket]


async def _app(scope: Any, receive: Any, send: Any) -> None:
    more = scope["method"] == "POST"
    size = 0
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
    await send({"type": "http.response.body", "body": b"%8d" % size})


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Opens connections to a gateway host that serves the test application."""
    host = GatewayHost(lambda _: None)
    listener = loopback_listener()
    address = listener.getsockname()
    host.serve("test", _app, listener)
    with contextlib.ExitStack() as opened:

        def make() -> socket.socket:
            sock = opened.enter_context(socket.create_connection(address))
            sock.settimeout(10)
            return sock

        yield make
        host.stop()


def _closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(65536) == b""
    except ConnectionError:
        return True


def _send_until_closed(sock: socket.socket, piece: bytes, most: int) -> int:
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < most:
            sock.sendall(piece)
            sent += len(piece)
    return sent


FLOODS = {
    "request line": (b"POST /", b"a" * 65536),
    "header value": (b"POST / HTTP/1.1\r\nx: ", b"a" * 65536),
    "many headers": (b"POST / HTTP/1.1\r\n", b"x: y\r\n" * 8192),
    "trailers": (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n" * 8192),
    "chunk size": (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1;x=", b"a" * 65536),
}


@pytest.mark.parametrize("name", FLOODS)
def test_what_is_no_body_has_an_end(connect: Connect, name: str) -> None:
    begin, more = FLOODS[name]
    sock = connect()
    sock.sendall(begin)
    # The kernel's buffers on both sides take some megabytes before a sender notices.
    assert _send_until_closed(sock, more, 64 << 20) < 64 << 20
    assert _closed(sock)


def test_bodies_of_any_size_pass_in_both_framings(connect: Connect) -> None:
    sock = connect()
    for _ in range(2):
        sock.sendall(b"POST / HTTP/1.1\r\ncontent-length: 4000000\r\n\r\n" + b"x" * 4_000_000)
        assert sock.recv(65536).endswith(b" 4000000")
        chunk = b"%x\r\n" % 100_000 + b"y" * 100_000 + b"\r\n"
        sock.sendall(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + chunk * 40 + b"0\r\n\r\n")
        assert sock.recv(65536).endswith(b" 4000000")


def test_one_connection_too_many_is_closed_and_the_others_go_on(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "max_connections", 3)
    first = [connect() for _ in range(3)]
    for sock in first:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
    assert _closed(connect())
    first[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert first[0].recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("begin", [b"", b"POST / HTTP/1.1\r\nx: y\r\n"])
def test_a_head_that_does_not_come_ends_its_connection(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    monkeypatch.setattr(BoundedProtocol, "head_seconds", 0.2)
    sock = connect()
    sock.sendall(begin)
    began = time.monotonic()
    assert _closed(sock)
    assert time.monotonic() - began < 5


def test_a_second_head_that_does_not_come_ends_its_connection(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "head_seconds", 0.2)
    sock = connect()
    sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert sock.recv(65536).startswith(b"HTTP/1.1 200")
    sock.sendall(b"GET /")
    assert _closed(sock)


def test_applications_answer_heads_that_they_find_too_large() -> None:
    from vestibule.boundary.context.limits import ContextLimits

    assert ContextLimits().header_bytes < bounded_http.HEAD_BYTES
