"""Bytes go through as they are, counted before they go on, and nothing is held for ever."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest
import uvloop

from vestibule.boundary.network.relay import Counted, Meter, Spent, relay


def _pair() -> tuple[socket.socket, socket.socket]:
    """A connected pair of TCP sockets; the first is non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def _carry(
    meter: Meter, *, up: bytes, down: bytes, first: bytes = b"", idle: float = 5
) -> tuple[Counted, bytes, bytes]:
    """What arrived outside and inside when `up` and `down` were sent and both ends closed their half."""

    async def work() -> tuple[Counted, bytes, bytes]:
        loop = asyncio.get_running_loop()
        inside, client = _pair()
        outside, server = _pair()

        async def end(sock: socket.socket, data: bytes) -> bytes:
            async def send() -> None:
                await loop.sock_sendall(sock, data)
                sock.shutdown(socket.SHUT_WR)

            sending = asyncio.ensure_future(send())
            got = b""
            try:
                while part := await loop.sock_recv(sock, 1 << 20):
                    got += part
            except ConnectionError:
                pass
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            return got

        ends = asyncio.gather(end(client, up), end(server, down))
        counted = await relay(inside, outside, meter, idle=5, first=first)
        for sock in (inside, outside):
            sock.close()
        came_in, came_out = await ends
        for sock in (client, server):
            sock.close()
        return counted, came_out, came_in

    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(asyncio.wait_for(work(), 20))
    finally:
        loop.close()


def test_both_directions_carry_every_byte() -> None:
    up, down = os.urandom(3_000_001), os.urandom(2_000_003)
    counted, came_out, came_in = _carry(Meter(1 << 30, 1 << 30), up=up, down=down, first=b"first")
    assert came_out == b"first" + up
    assert came_in == down
    assert (counted.ended, counted.sent, counted.received) == ("closed", len(up) + 5, len(down))


@pytest.mark.parametrize(("first", "up"), [(b"", 400_000), (b"x" * 200_000, 0), (b"x" * 90_000, 90_000)])
def test_nothing_is_sent_beyond_the_budget(first: bytes, up: int) -> None:
    meter = Meter(100_000, 1 << 30)
    counted, came_out, _ = _carry(meter, up=b"u" * up, down=b"", first=first)
    assert counted.ended == "network.bytes"
    assert len(came_out) <= 100_000
    assert meter.spent
    with pytest.raises(Spent):
        meter.take(1, outward=True)


def test_what_comes_in_is_bounded_too() -> None:
    counted, _, came_in = _carry(Meter(1 << 30, 100_000), up=b"", down=b"d" * 400_000)
    assert counted.ended == "network.bytes"
    assert len(came_in) <= 100_000


def test_who_says_nothing_is_left() -> None:
    async def work() -> Counted:
        inside, client = _pair()
        outside, server = _pair()
        counted = await relay(inside, outside, Meter(1, 1), idle=0.1)
        for sock in (inside, outside, client, server):
            sock.close()
        return counted

    assert asyncio.run(work()).ended == "idle"


def test_the_rate_is_an_allowance_of_a_second() -> None:
    meter = Meter(1 << 30, 1 << 30, rate=1000)
    meter._since -= 5
    assert meter.pause(1000) == 0, "what was saved is one second's worth"
    assert 0.4 < meter.pause(500) <= 0.5
    assert Meter(1, 1).pause(10**9) == 0
