"""The way out: a name's addresses, judged, and a connection to one of them. The only place where anything is dialled.

Rules this module keeps:
1. A name is looked up once; every address is judged, and the address that was judged is dialled.
2. An address of this machine is no outside: it is dialled only for a host that the operator lists as an inner one.
3. Where the operator says where a name leads (`pins`), nothing is looked up.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from vestibule.core.text.addresses import choose

Lookup = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a name. Raises OSError when there are none."""

Place = tuple[str, int]
"""Address and port to dial."""

MAX_DIALLED = 4
"""Addresses of one name that are tried for one connection."""


async def system_lookup(host: str, port: int) -> list[str]:
    """The host's own resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


@dataclass(frozen=True, slots=True)
class Outside:
    """Where names lead. `private`: hosts that may lead to inner addresses. `pins`: `name:port` → where it leads."""

    lookup: Lookup = system_lookup
    private: frozenset[str] = frozenset()
    pins: Mapping[str, Place] = field(default_factory=dict)

    async def places(self, host: str, port: int, *, seconds: float) -> tuple[tuple[Place, ...], str]:
        """What may be dialled, and the rule that is broken when there is nothing."""
        pinned = self.pins.get(f"{host}:{port}")
        if pinned is not None:
            return (pinned,), ""
        try:
            async with asyncio.timeout(seconds):
                found = await self.lookup(host, port)
        except (OSError, UnicodeError):  # TimeoutError and gaierror are such
            return (), "network.unresolved"
        private = host in self.private
        allowed = choose(found, private=private)
        if not private:
            allowed = tuple(item for item in allowed if not is_own(item))
        return tuple((item, port) for item in allowed), "" if allowed else "network.private"

    async def dial(self, places: tuple[Place, ...], *, seconds: float) -> tuple[socket.socket, Place]:
        """A connection to the first that answers. Raises OSError: none did."""
        failure: OSError = ConnectionRefusedError()
        loop = asyncio.get_running_loop()
        for place in places[:MAX_DIALLED]:
            sock = socket.socket(_family(place[0]), socket.SOCK_STREAM)
            sock.setblocking(False)
            try:
                async with asyncio.timeout(seconds):
                    await loop.sock_connect(sock, place)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock, place
            except OSError as error:  # TimeoutError is one
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
        raise failure


def is_own(address: str) -> bool:
    """Whether an address is one of this machine's: only these can be bound to."""
    with socket.socket(_family(address), socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
        return True


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
