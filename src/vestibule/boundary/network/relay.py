"""Bytes between two sockets, counted and bounded. No byte is looked at.

Rules this module keeps:
1. A budget is taken before the bytes go on: nothing is sent that it does not cover.
2. Each direction ends by itself (half-close), the whole when both have, when nothing moved for too long, or when the
   budget is spent.
3. Memory is one buffer per direction, whatever the speeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from dataclasses import dataclass, field

BUFFER = 256 * 1024


class Spent(Exception):
    """A budget is spent. `rule` is `network.bytes`."""

    rule = "network.bytes"


@dataclass(slots=True)
class Meter:
    """What went to and came from one name over a run. Shared by its connections; one loop."""

    sent_limit: int
    received_limit: int
    rate: int = 0
    sent: int = 0
    received: int = 0
    _allowance: float = 0.0
    _since: float = field(default_factory=time.monotonic)

    def take(self, count: int, *, outward: bool) -> None:
        """Raises Spent when there is no room for them all."""
        if outward:
            if self.sent + count > self.sent_limit:
                raise Spent
            self.sent += count
        else:
            if self.received + count > self.received_limit:
                raise Spent
            self.received += count

    def pause(self, count: int) -> float:
        """Seconds to wait so that the rate is kept (token bucket of one second)."""
        if not self.rate:
            return 0.0
        now = time.monotonic()
        self._allowance = min(float(self.rate), self._allowance + (now - self._since) * self.rate) - count
        self._since = now
        return max(0.0, -self._allowance / self.rate)


@dataclass(slots=True)
class Counted:
    """One connection's bytes, and why it ended: `closed`, `idle`, `network.bytes` or an error's name."""

    sent: int = 0
    received: int = 0
    ended: str = "closed"
    moved: float = field(default_factory=time.monotonic)


async def relay(
    inside: socket.socket, outside: socket.socket, meter: Meter, *, idle: float, first: bytes = b""
) -> Counted:
    """Both directions to their end; `first` was read from inside already. Closes neither socket."""
    counted = Counted()
    loop = asyncio.get_running_loop()
    if first:
        meter.take(len(first), outward=True)
        await loop.sock_sendall(outside, first)
        counted.sent += len(first)
    pumps = [
        asyncio.ensure_future(_pump(inside, outside, meter, counted, outward=True)),
        asyncio.ensure_future(_pump(outside, inside, meter, counted, outward=False)),
    ]
    try:
        waiting = set(pumps)
        while waiting:
            left = counted.moved + idle - time.monotonic()
            done, waiting = await asyncio.wait(waiting, timeout=max(left, 0.01), return_when=asyncio.FIRST_COMPLETED)
            failed = next((task.exception() for task in done if task.exception() is not None), None)
            if failed is not None:
                counted.ended = failed.rule if isinstance(failed, Spent) else type(failed).__name__
                break
            if not done and time.monotonic() - counted.moved >= idle:
                counted.ended = "idle"
                break
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
    return counted


async def _pump(source: socket.socket, target: socket.socket, meter: Meter, counted: Counted, *, outward: bool) -> None:
    loop = asyncio.get_running_loop()
    buffer = bytearray(BUFFER)
    view = memoryview(buffer)
    while True:
        size = await loop.sock_recv_into(source, buffer)
        if size == 0:
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_WR)
            return
        meter.take(size, outward=outward)
        await loop.sock_sendall(target, view[:size])
        counted.moved = time.monotonic()
        if outward:
            counted.sent += size
        else:
            counted.received += size
        wait = meter.pause(size)
        if wait:
            await asyncio.sleep(wait)
