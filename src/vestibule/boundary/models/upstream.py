"""The client towards providers.

Rules it keeps:
1. The address is the operator's; no redirect is followed, no proxy variable read, no cookie kept (CVE-2025-66405).
2. What is sent is what `dispatch.py` made: of the agent's headers an allow-list, and the key that is added there.
3. Answers are asked for and accepted uncompressed only: nothing here inflates bytes (CWE-409).
4. `NotReached` means that not a byte of the request left; anything later is an answer that may have been billed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vestibule.boundary.models.dispatch import Outgoing
from vestibule.boundary.models.reach import Reach
from vestibule.core.errors import DependencyDown

if TYPE_CHECKING:
    import aiohttp


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    """Seconds and bytes. `idle` is the longest silence within an answer, `drain` how long an answer is read on after
    the client left (its usage comes last)."""

    connect: float = 10
    idle: float = 180
    drain: float = 120
    body_bytes: int = 64 * 1024 * 1024
    stream_bytes: int = 256 * 1024 * 1024


class NotReached(DependencyDown):
    """No connection to the provider came about: nothing can have been billed."""


class Broken(DependencyDown):
    """The provider was reached and its answer is none: cut, silent too long, too large, or no answer in this API."""


def not_reached(provider: str, fact: str) -> NotReached:
    return NotReached(
        "provider",
        f"The model provider {provider!r} cannot be reached.",
        fact=fact,
        agent="Wait a little and try again; if it stays so, stop here.",
        person="Check the provider's base_url and this machine's network, then resume the run.",
    )


def broken(provider: str, fact: str) -> Broken:
    return Broken(
        "provider",
        f"The model provider {provider!r} did not give a complete answer.",
        fact=fact,
        agent="Try again; if it stays so, stop here.",
        person="Check the provider's status, then resume the run.",
    )


class UpstreamClient:
    """One pool of connections. Made in the loop that uses it."""

    def __init__(
        self, limits: UpstreamLimits | None = None, *, reach: Reach | None = None, connections: int = 128
    ) -> None:
        self.limits = limits or UpstreamLimits()
        self._reach = reach or Reach()
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._connections, keepalive_timeout=10, resolver=self._reach.resolver(), use_dns_cache=False
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=None, sock_connect=self.limits.connect, sock_read=self.limits.idle
                ),
                skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def post(self, outgoing: Outgoing) -> AsyncIterator[aiohttp.ClientResponse]:
        """The provider's answer, its body unread.

        Raises:
            NotReached: nothing was sent.
            Broken: it was reached, and there is no answer to use.
        """
        import aiohttp
        from yarl import URL

        provider = outgoing.provider
        try:
            response = await self._open().post(
                URL(outgoing.url, encoded=True), data=outgoing.body, headers=outgoing.headers, allow_redirects=False
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise not_reached(provider, type(error).__name__) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise broken(provider, type(error).__name__) from None
        whole = False
        try:
            if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
                raise broken(provider, "it answered compressed, though asked not to")
            if 300 <= response.status < 400:
                raise broken(provider, f"it answered with a redirect ({response.status})")
            yield response
            whole = response.content.at_eof()
        finally:
            # An answer that was not read to its end must not be the next request's.
            if whole:
                response.release()
            else:
                response.close()

    async def exchange_key(self, provider: str, url: str, form: bytes) -> bytes:
        """The answer to a form that exchanges a key for a token.

        Raises:
            DependencyDown: `provider_key`.
        """
        import aiohttp

        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        try:
            async with (
                asyncio.timeout(self.limits.connect + 20),
                self._open().post(url, data=form, headers=headers, allow_redirects=False) as response,
            ):
                body = await response.content.read(1 << 20)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            fact = type(error).__name__
        else:
            if response.status == 200:
                return body
            fact = f"it answered {response.status}"
        raise DependencyDown(
            "provider_key",
            f"The key of the model provider {provider!r} cannot be exchanged for a token.",
            fact=fact,
            agent="Wait a little and try again; if it stays so, stop here.",
            person="Check the provider's key and token_url, and this machine's network.",
        )

    async def read(self, provider: str, response: aiohttp.ClientResponse) -> bytes:
        """The whole body, bounded.

        Raises:
            Broken: cut short, silent too long, or too large.
        """
        found = bytearray()
        async for chunk in self.chunks(provider, response):
            found += chunk
            if len(found) > self.limits.body_bytes:
                raise broken(provider, "its answer is too large")
        return bytes(found)

    async def chunks(self, provider: str, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body as it comes.

        Raises:
            Broken: cut short, silent too long, or more than a stream may be.
        """
        import aiohttp

        total = 0
        try:
            async for chunk in response.content.iter_any():
                total += len(chunk)
                if total > self.limits.stream_bytes:
                    raise broken(provider, "its answer is too large")
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise broken(provider, type(error).__name__) from None
