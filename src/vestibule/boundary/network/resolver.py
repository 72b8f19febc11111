"""The resolver inside a sandbox: two sockets of its namespace, answered from a table. Nothing is forwarded.

Rules this module keeps:
1. A query is answered at once, from the names inside or with NXDOMAIN; recording a name that is not there comes after
   the answer, for the answer is the refusal.
2. A flood costs its sender: one query at a time by datagram, bounded connections, and a ceiling on queries in all.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

from vestibule.boundary.network.relay import ready
from vestibule.boundary.network.wire import dns

Find = Callable[[str], Awaitable[str | None]]
"""The address of a name as asked, None where there is none."""


class Resolver:
    """Answers DNS for one sandbox. `unknown` is told each name that is not there."""

    def __init__(self, find: Find, unknown: Callable[[str], None], *, queries: int, seconds: float) -> None:
        self._find = find
        self._unknown = unknown
        self._left = queries
        self._seconds = seconds

    async def datagrams(self, sock: socket.socket) -> None:
        """Answer on a non-blocking datagram socket until cancelled."""
        while True:
            await ready(sock.fileno())  # uvloop has no `sock_recvfrom`
            try:
                data, peer = sock.recvfrom(dns.MAX_QUERY + 1)
            except (BlockingIOError, ConnectionError):
                continue
            reply = await self.answer(data)
            if reply is not None:
                with contextlib.suppress(OSError):
                    sock.sendto(reply, peer)  # one datagram to a loopback peer; a full buffer loses it, as UDP may

    async def stream(self, client: socket.socket) -> None:
        """DNS over TCP (RFC 7766) on one connection, one query after the other."""
        loop = asyncio.get_running_loop()
        with contextlib.closing(client), contextlib.suppress(OSError):
            while True:
                async with asyncio.timeout(self._seconds):
                    size = int.from_bytes(await _exactly(loop, client, 2), "big")
                    if not 0 < size <= dns.MAX_QUERY:
                        return
                    reply = await self.answer(await _exactly(loop, client, size))
                    if reply is None:
                        return
                    await loop.sock_sendall(client, len(reply).to_bytes(2, "big") + reply)

    async def answer(self, data: bytes) -> bytes | None:
        """The reply; None: none is given."""
        self._left -= 1
        if self._left < 0:
            return None
        try:
            question = dns.parse_query(data)
        except dns.BadQuery as bad:
            return dns.refused(bad)
        address = await self._find(question.name)
        reply, known = dns.answer(question, lambda _: address)
        if not known:
            self._unknown(question.name)
        return reply


async def _exactly(loop: asyncio.AbstractEventLoop, sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = await loop.sock_recv(sock, count - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return data
