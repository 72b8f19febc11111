"""Bytes between two sockets, counted and bounded. No byte is looked at, and none is copied through this process.

Rules this module keeps:
1. A budget is taken before the bytes go on: nothing is sent that it does not cover.
2. Each direction ends by itself (half-close), the whole when both have, when nothing moved for too long, or when the
   budget is spent. What did not end well ends with a reset on both sides, so that nobody takes half for the whole.
3. Memory is one pipe of the kernel per direction, whatever the speeds; one connection never keeps the loop to itself.

Source: splice(2), from one socket to the other by way of a pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

PIPE = 1 << 20
"""Bytes of a pipe, where the system grants that many (proc(5), pipe-max-size)."""

_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_SHARE = 4
"""So many pieces in a row, then others on the loop have their turn."""


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

    @property
    def spent(self) -> bool:
        """Whether nothing more may be sent, or nothing received."""
        return self.sent >= self.sent_limit or self.received >= self.received_limit

    def take(self, count: int, *, outward: bool) -> None:
        """Raises Spent when there is no room for them all; then nothing more goes that way in this run."""
        if outward:
            self.sent += count
            if self.sent > self.sent_limit:
                raise Spent
        else:
            self.received += count
            if self.received > self.received_limit:
                raise Spent

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
    pumps: list[asyncio.Future[None]] = []
    try:
        if first:
            meter.take(len(first), outward=True)
            async with asyncio.timeout(idle):
                await asyncio.get_running_loop().sock_sendall(outside, first)
            counted.sent += len(first)
        pumps = [
            asyncio.ensure_future(_pump(inside, outside, meter, counted, outward=True)),
            asyncio.ensure_future(_pump(outside, inside, meter, counted, outward=False)),
        ]
        counted.ended = await _both(pumps, counted, idle)
    except Spent as spent:
        counted.ended = spent.rule
    except OSError as error:  # TimeoutError is one
        counted.ended = "idle" if isinstance(error, TimeoutError) else type(error).__name__
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        if counted.ended != "closed" or any(task.cancelled() for task in pumps):
            for sock in (inside, outside):
                _reset_on_close(sock)
    return counted


async def _both(pumps: list[asyncio.Future[None]], counted: Counted, idle: float) -> str:
    waiting: set[asyncio.Future[None]] = set(pumps)
    while waiting:
        left = counted.moved + idle - time.monotonic()
        done, waiting = await asyncio.wait(waiting, timeout=max(left, 0.01), return_when=asyncio.FIRST_COMPLETED)
        failed = next((task.exception() for task in done if task.exception() is not None), None)
        if failed is not None:
            return failed.rule if isinstance(failed, Spent) else type(failed).__name__
        if not done and time.monotonic() - counted.moved >= idle:
            return "idle"
    return "closed"


async def _pump(source: socket.socket, target: socket.socket, meter: Meter, counted: Counted, *, outward: bool) -> None:
    came, goes = source.fileno(), target.fileno()
    turn = 0
    with _pipe() as (out, into):
        while True:
            try:
                size = os.splice(came, into, PIPE, flags=_FLAGS)
            except BlockingIOError:
                await ready(came)
                continue
            if size == 0:
                with contextlib.suppress(OSError):
                    target.shutdown(socket.SHUT_WR)
                return
            meter.take(size, outward=outward)
            left = size
            while left:
                try:
                    left -= os.splice(out, goes, left, flags=_FLAGS)
                except BlockingIOError:
                    await ready(goes, write=True)
            counted.moved = time.monotonic()
            if outward:
                counted.sent += size
            else:
                counted.received += size
            wait = meter.pause(size)
            turn += 1
            if wait or turn % _SHARE == 0:
                await _rest(wait, counted)


async def _rest(seconds: float, counted: Counted) -> None:
    """Wait for the rate; that nothing moves meanwhile is our doing, so it is not counted as idleness."""
    while seconds > 0:
        part = min(seconds, 1.0)
        await asyncio.sleep(part)
        counted.moved = time.monotonic()
        seconds -= part
    await asyncio.sleep(0)


async def ready(descriptor: int, *, write: bool = False) -> None:
    """Returns when something can be read from it, or written to it."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    add(descriptor, _tell, found)
    try:
        await found
    finally:
        remove(descriptor)


def _tell(found: asyncio.Future[None]) -> None:
    if not found.done():
        found.set_result(None)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """(reading end, writing end)."""
    ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # beyond what this user may have: the default size then
            fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, PIPE)
        yield ends
    finally:
        for end in ends:
            os.close(end)


def _reset_on_close(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
