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

from vestibule.boundary.models.dispatch import Outgoing
from vestibule.boundary.models.http1 import Answer, BrokenAnswer, NoConnection, Pool
from vestibule.boundary.models.reach import Reach
from vestibule.boundary.models.translated import Translated
from vestibule.core.errors import DependencyDown

MAX_TOKEN_BYTES = 1 << 20


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
        self._pool: Pool | None = None

    def _open(self) -> Pool:
        if self._pool is None:
            self._pool = Pool(
                self._reach.look_up,
                connect=self.limits.connect,
                idle=self.limits.idle,
                connections=self._connections,
            )
        return self._pool

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()

    @asynccontextmanager
    async def post(self, outgoing: Outgoing) -> AsyncIterator[Answer]:
        """The provider's answer, its body unread.

        Raises:
            NotReached: nothing was sent.
            Broken: it was reached, and there is no answer to use.
        """
        provider = outgoing.provider
        exchange = None
        try:
            exchange = self._open().post(outgoing.url, outgoing.headers, outgoing.body)
            answer = await exchange.__aenter__()
        except NoConnection as error:
            raise not_reached(provider, str(error)) from None
        except (OSError, ValueError) as error:
            raise broken(provider, str(error) or type(error).__name__) from None
        try:
            if answer.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
                raise broken(provider, "it answered compressed, though asked not to")
            if 300 <= answer.status < 400:
                raise broken(provider, f"it answered with a redirect ({answer.status})")
            yield answer if outgoing.way is None else Translated(answer, outgoing.way)
        finally:
            await exchange.__aexit__()

    async def exchange_key(self, provider: str, url: str, form: bytes) -> bytes:
        """The answer to a form that exchanges a key for a token.

        Raises:
            DependencyDown: `provider_key`.
        """
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        body = bytearray()
        try:
            async with (
                asyncio.timeout(self.limits.connect + 20),
                self._open().post(url, headers, form) as answer,
            ):
                async for chunk in answer.chunks():
                    body += chunk
                    if len(body) > MAX_TOKEN_BYTES:
                        raise BrokenAnswer("its answer is too large")
        except OSError as error:  # TimeoutError is one
            fact = str(error) or type(error).__name__
        else:
            if answer.status == 200:
                return bytes(body)
            fact = f"it answered {answer.status}"
        raise DependencyDown(
            "provider_key",
            f"The key of the model provider {provider!r} cannot be exchanged for a token.",
            fact=fact,
            agent="Wait a little and try again; if it stays so, stop here.",
            person="Check the provider's key and token_url, and this machine's network.",
        )

    async def read(self, provider: str, answer: Answer) -> bytes:
        """The whole body, bounded.

        Raises:
            Broken: cut short, silent too long, or too large.
        """
        declared = answer.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self.limits.body_bytes:
            raise broken(provider, "its answer is too large")
        found = bytearray()
        async for chunk in self.chunks(provider, answer):
            found += chunk
            if len(found) > self.limits.body_bytes:
                raise broken(provider, "its answer is too large")
        return bytes(found)

    async def chunks(self, provider: str, answer: Answer) -> AsyncIterator[bytes]:
        """The body as it comes.

        Raises:
            Broken: cut short, silent too long, or more than a stream may be.
        """
        total = 0
        try:
            async for chunk in answer.chunks():
                total += len(chunk)
                if total > self.limits.stream_bytes:
                    raise broken(provider, "its answer is too large")
                yield chunk
        except (BrokenAnswer, ValueError) as error:
            raise broken(provider, str(error)) from None
