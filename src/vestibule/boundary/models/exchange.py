"""One request that may leave: dispatch, pass on, count, settle.

Rules it keeps:
1. The hold is settled before the answer's end reaches the client, so that its next request meets settled books.
2. What was sent is settled from the provider's own numbers; if there are none, the whole hold is charged. Only a
   request that never reached the provider, or that the provider itself answered with an API error, costs nothing.
3. A client that leaves ends nothing: the answer is read on (bounded) because its usage comes last.
4. A stream that breaks ends with the API's `error` event at a frame's border, never in the middle of one.
5. The outcome event follows every dispatched request, whatever happened.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vestibule.boundary.models.asgi import Client
from vestibule.boundary.models.providers import Upstream
from vestibule.boundary.models.rules import ModelRequest
from vestibule.boundary.models.upstream import NotReached, UpstreamClient, broken
from vestibule.boundary.models.wire import anthropic as wire
from vestibule.core.errors import DependencyDown
from vestibule.core.model import Usage
from vestibule.core.ports import ModelLedger
from vestibule.cost.prices import ModelPrice, Tokens

if TYPE_CHECKING:
    import aiohttp

_PASSED_HEADERS = ("request-id", "retry-after", "retry-after-ms", "x-should-retry", "x-vestibule-scripted")


@dataclass(slots=True)
class Result:
    """What became of an exchange. Integers only, for the outcome event."""

    status: int = 0
    tokens: Tokens | None = None
    usage: Usage = field(default_factory=Usage)
    charged_hold: bool = False
    bytes_out: int = 0
    stop_reason: str = ""
    error: DependencyDown | None = None
    error_shown: bool = False
    """The provider's own error event went through."""
    settle_error: DependencyDown | None = None
    client_left: bool = False
    milliseconds: int = 0

    @property
    def ok(self) -> bool:
        return self.error is None and self.settle_error is None and self.status == 200

    def details(self, prices_digest: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            "status": self.status,
            "bytes": self.bytes_out,
            "usage": self.usage.model_dump(mode="json"),
            "prices": prices_digest,
            "milliseconds": self.milliseconds,
        }
        if self.charged_hold:
            found["charged_hold"] = True
        if self.stop_reason:
            found["stop_reason"] = self.stop_reason
        if self.client_left:
            found["client_left"] = True
        if self.error is not None:
            found["error"] = self.error.refusal.rule
            found["fact"] = self.error.refusal.fact[:200]
        if self.settle_error is not None:
            found["settle_error"] = self.settle_error.refusal.rule
        return found


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that was checked and reserved: everything that its sending needs. `key` is never shown."""

    request: ModelRequest
    upstream: Upstream
    headers: Mapping[str, str]
    price: ModelPrice
    hold: str
    ceiling: Usage
    key: str = field(repr=False)


class Exchange:
    """Sends one admitted request and passes its answer on."""

    def __init__(self, client: Client, http: UpstreamClient, ledger: ModelLedger, admitted: Admitted) -> None:
        self._client = client
        self._http = http
        self._ledger = ledger
        self._admitted = admitted
        self._provider = admitted.upstream.provider
        self._settled = False
        self._left_at = 0.0
        self.result = Result()

    async def run(self, path: str) -> Result:
        """Never raises for what a provider does; `result.error` says it. Cancelled: the hold stays held."""
        begun = time.monotonic()
        result = self.result
        a = self._admitted
        try:
            async with self._http.post(a.upstream, path, a.request.body, a.headers, a.key) as response:
                result.status = response.status
                kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
                if response.status == 200 and a.request.stream and kind == "text/event-stream":
                    await self._stream(response)
                elif kind == "application/json" or response.status != 200:
                    await self._whole(response)
                else:
                    raise broken(self._provider, "its answer is of another content type than asked for")
        except NotReached as error:
            result.error = error
            await self._book(None, reached=False)
        except DependencyDown as error:
            result.error = error
            await self._book(None)
        result.client_left = self._client.gone
        result.milliseconds = int((time.monotonic() - begun) * 1000)
        return result

    async def _whole(self, response: aiohttp.ClientResponse) -> None:
        body = await self._http.read(self._provider, response)
        self.result.bytes_out = len(body)
        if response.status != 200:
            # A 4xx was not worked on; behind another answer without the API's error there may be billed work.
            if not wire.is_error(body) and not 400 <= response.status < 500:
                raise broken(self._provider, f"status {response.status} without an error of this API")
            await self._book(Tokens())
        else:
            try:
                tokens, self.result.stop_reason = wire.read_message(body)
            except wire.WireError as error:
                raise broken(self._provider, str(error)) from None
            await self._book(tokens)
        await self._client.start(
            response.status,
            [
                (
                    b"content-type",
                    response.headers.get("content-type", "application/json").encode("latin-1", "replace"),
                ),
                (b"content-length", str(len(body)).encode()),
                *_passed(response),
            ],
        )
        await self._client.body(body, more=False)

    async def _stream(self, response: aiohttp.ClientResponse) -> None:
        frames = wire.Frames()
        seen = wire.StreamUsage()
        try:
            await self._client.start(
                200,
                [
                    (b"content-type", b"text/event-stream; charset=utf-8"),
                    (b"cache-control", b"no-cache"),
                    *_passed(response),
                ],
            )
            async for chunk in self._http.chunks(self._provider, response):
                out = []
                for frame in frames.feed(chunk):
                    seen.see(frame)
                    out.append(frame.raw)
                if seen.stopped and not self._settled:
                    await self._book(seen.tokens if seen.reported else None)
                if out:
                    data = b"".join(out)
                    self.result.bytes_out += len(data)
                    await self._client.body(data, more=True)
                if self._client.gone and self._waited_enough():
                    raise broken(self._provider, "the client left, and the answer did not end in time")
                if seen.failed:
                    self.result.error_shown = True
                    raise broken(self._provider, "it reported an error within its answer")
                if seen.stopped:
                    break
            if not seen.stopped:
                raise broken(self._provider, "its answer ended before its last event")
        except wire.WireError as error:
            raise broken(self._provider, str(error)) from None
        finally:
            self._note(seen)
        await self._client.body(b"", more=False)

    def _note(self, seen: wire.StreamUsage) -> None:
        self.result.stop_reason = seen.stop_reason
        # Cut before its end: input is known from the first event, output only if the final count had come.
        if seen.reported:
            self.result.tokens = seen.tokens
        elif seen.started:
            self.result.tokens = seen.tokens._replace(output=self._admitted.request.max_tokens)

    def _waited_enough(self) -> bool:
        now = time.monotonic()
        self._left_at = self._left_at or now
        return now - self._left_at > self._http.limits.drain

    async def _book(self, tokens: Tokens | None, *, reached: bool = True) -> None:
        """Settle the hold, once. None: by what a cut stream had told, else the whole hold."""
        if self._settled:
            return
        self._settled = True
        result = self.result
        if tokens is None:
            tokens = result.tokens
        try:
            if not reached:
                await asyncio.to_thread(self._ledger.release, self._admitted.hold)
            elif tokens is None:
                result.charged_hold = True
                result.usage = self._admitted.ceiling
                await asyncio.to_thread(self._ledger.charge, self._admitted.hold)
            else:
                result.tokens = tokens
                result.usage = usage_of(tokens, self._admitted.price)
                await asyncio.to_thread(self._ledger.settle, self._admitted.hold, result.usage)
        except DependencyDown as error:
            # Paid already: the answer is passed on, the hold stays held (which refuses more, never less).
            result.settle_error = error
            result.usage = self._admitted.ceiling


def usage_of(tokens: Tokens, price: ModelPrice) -> Usage:
    """Tokens and their price as the contract's usage."""
    return Usage(
        requests=1,
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        cache_read_tokens=tokens.cache_read,
        cache_write_tokens=tokens.cache_write,
        cost_nano_usd=price.cost(tokens),
    )


def _passed(response: aiohttp.ClientResponse) -> list[tuple[bytes, bytes]]:
    return [
        (name.encode(), response.headers[name].encode("latin-1", "replace"))
        for name in _PASSED_HEADERS
        if name in response.headers
    ]


__all__ = ["Admitted", "Exchange", "Result", "usage_of"]
