"""Where a provider's name leads: its addresses, judged, and dialled as they were judged.

Rules it keeps:
1. A provider's name never leads back inside (loopback, private, link-local, services that give credentials), unless the
   operator says `private: true` of it, or writes an address or this machine's own name into its URL (CWE-918).
2. What was judged is what is dialled: the client looks nothing up by itself (CWE-350, DNS rebinding).
3. Where the operator says where a name leads (`address`), nothing is looked up.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from vestibule.boundary.models.providers import Upstream
from vestibule.config.parts import local_host
from vestibule.core.text.addresses import choose


class Reach:
    """What is known of the names of a run's upstreams."""

    def __init__(self, upstreams: Iterable[Upstream] = ()) -> None:
        self.private: set[str] = set()
        self.pins: dict[str, tuple[str, int]] = {}
        for item in upstreams:
            host = urlsplit(item.base_url).hostname or ""
            if local_host(host) or (item.config is not None and item.config.private):
                self.private.add(host)
            if item.config is not None and item.config.address is not None:
                address, _, port = item.config.address.rpartition(":")
                self.pins[host] = (address.strip("[]"), int(port))

    async def look_up(self, host: str, port: int) -> list[tuple[str, int]]:
        """Addresses and ports that may be dialled. Raises `OSError` when there is none."""
        if host in self.pins:
            return [self.pins[host]]
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        allowed = choose(
            dict.fromkeys(str(item[4][0]) for item in found), private=host in self.private or local_host(host)
        )
        if not allowed:
            raise OSError(f"{host} leads to no address that a provider may have")
        return [(address, port) for address in allowed]
