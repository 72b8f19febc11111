"""One request that may leave: dispatch, hold its tool calls, pass on, count, settle.

Rules it keeps:
1. The hold is settled before the answer's end reaches the client, so that its next request meets settled books.
2. What was sent is settled from the provider's own numbers; if there are none, the whole hold is charged. Only a
   request that never reached the provider, or that the provider itself answered with an API error, costs nothing.
3. A client that leaves ends nothing: the answer is read on (bounded) because its usage comes last.
4. A stream that breaks ends with the API's error event at a frame's border, never in the middle of one.
5. The outcome event follows every dispatched request, whatever happened, and says what of the answer was scanned. An
   answer whose calls were not all judged is an error before its end is sent: "not scanned" is never "good".
6. No byte of a tool call leaves before its decision is durable.
7. What a guard stopped goes no further; it is read on for its usage, and ends with the API's error.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from vestibule.boundary.models.asgi import Client
from vestibule.boundary.models.formats.base import Format
from vestibule.boundary.models.hold.base import Answer, Decided, Held, Step, Told
from vestibule.boundary.models.result import Admitted, Result, kinds_of, usage_of
from vestibule.boundary.models.upstream import NotReached, UpstreamClient, broken
from vestibule.boundary.models.wire.sse import WireError
from vestibule.core.crossing import durable
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.ports import ModelLedger
from vestibule.cost.prices import Tokens

if TYPE_CHECKING:
    from vestibule.boundary.models.http1 import Answer as HttpAnswer

_PASSED_HEADERS = (
    "request-id",
    "x-request-id",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-vestibule-scripted",
)
BEAT_SECONDS = 8.0
"""A stream is never silent for longer: programs take a silent one for dead after 10 to 20 seconds."""
MAX_ERROR = 1024 * 1024
"""Bytes of a provider's error answer."""
_LAST_SECONDS = 0.05
"""How long the end of the provider's body is waited for after its last event: then its connection can be kept."""
_FREE = frozenset((401, 403, 404, 413, 429))
"""Answers that say by themselves that nothing was done."""
RETRYABLE = frozenset((408, 409, 429, 500, 502, 503, 504, 529))
Judge = Callable[[Sequence[Held]], Awaitable[list[Decided]]]
_MUCH = 32 * 1024
"""Characters of text that are not looked at on the event loop."""


class Watch(Protocol):
    """Looks at an answer on its way: what may be sent now of what came. Raises `Refused`: nothing more may be.

    `last`: it ends here. `failed`: and with an error of the provider's.
    """

    def see(self, out: bytes, text: str, *, last: bool = False, failed: bool = False) -> bytes: ...


class Exchange:
    """Sends one admitted request and passes its answer on, through `answer`, which may have begun with another."""

    def __init__(
        self,
        client: Client,
        http: UpstreamClient,
        ledger: ModelLedger,
        admitted: Admitted,
        *,
        form: Format,
        answer: Answer,
        judge: Judge,
        watch: Watch | None = None,
    ) -> None:
        self._client = client
        self._http = http
        self._ledger = ledger
        self._admitted = admitted
        self._format = form
        self._answer = answer
        self._judge = judge
        self._watch = watch
        self._cut: Refused | None = None
        self._provider = admitted.upstream.provider
        self._settled = False
        self._left_at = 0.0
        self._sent_at = 0.0
        self._begun = time.monotonic()
        self._beating: asyncio.TimerHandle | None = None
        self._beats: asyncio.Task[None] | None = None
        # An answer may go on from an earlier exchange's: what was looked at is counted for each.
        self._before = answer.scanned.counts()
        answer.told = Told()  # and what an earlier provider told pays for nothing of this one's
        self._judged = 0
        self.result = Result()

    async def run(self) -> Result:
        """Never raises for what a provider does; `result.error` says it. Cancelled: the hold stays held.

        The answer's end is not sent when it is `blocked`; everything else of a good answer is, but the closing of the
        connection's body.
        """
        result = self.result
        a = self._admitted
        if a.asked.stream:
            self._beat(asyncio.get_running_loop())
        try:
            async with self._http.post(a.outgoing) as response:
                result.status = response.status
                kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
                if response.status != 200:
                    await self._refused(response, kind)
                elif a.asked.stream and kind == "text/event-stream":
                    await self._stream(response)
                elif not a.asked.stream and kind == "application/json":
                    await self._whole(response)
                else:
                    raise broken(self._provider, "its answer is of another content type than asked for")
        except NotReached as error:
            result.error = error
            await self._book(None, reached=False)
        except DependencyDown as error:
            result.error = error
            await self._book(None)
        finally:
            if self._beating is not None:
                self._beating.cancel()
        if self._cut is not None:
            # A guard's word stands before the provider's: nothing of its answer, or of its error, is passed on.
            result.error, result.cut, result.error_shown = self._cut, True, False
        result.client_left = self._client.left()
        result.milliseconds = int((time.monotonic() - self._begun) * 1000)
        result.scanned = self._scanned()
        return result

    def _scanned(self) -> dict[str, int]:
        """What of this provider's answer was looked at."""
        return {name: count - self._before[name] for name, count in self._answer.scanned.counts().items()}

    def _all_judged(self) -> None:
        """Raises `Broken`: the answer ends, and the machine saw calls that nobody was asked about."""
        if self._scanned()["calls"] != self._judged:
            raise broken(self._provider, "a part of its answer was not looked at")

    async def _refused(self, response: HttpAnswer, kind: str) -> None:
        """The provider answered with an error: it says that it did nothing. Anything else may have been billed."""
        body = bytearray()
        try:
            async for chunk in self._http.chunks(self._provider, response):
                body += chunk
                if len(body) > MAX_ERROR:
                    raise broken(self._provider, f"it answered {response.status} with too large an error")
        except DependencyDown:
            await self._book(Tokens() if response.status in _FREE else None)
            raise
        says_so = kind == "application/json" and self._format.is_error(bytes(body))
        await self._book(Tokens() if says_so or response.status in _FREE else None)
        if not says_so:
            raise broken(self._provider, f"it answered {response.status} without an error of its API")
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        self.result.unsent = (response.status, [*headers, *_passed(response)], bytes(body))

    async def _whole(self, response: HttpAnswer) -> None:
        body = await self._http.read(self._provider, response)
        try:
            out = bytearray()
            step = self._answer.feed(body)
            self._note()
            # What it says of its usage is true whether or not its calls may be released.
            await self._book(self.result.tokens)
            await self._pass(step, out)
            await self._pass(self._answer.end(), out)
        except WireError as error:
            self._note()  # it is no answer that could be used, and paid as it says
            raise broken(self._provider, str(error)) from None
        if self._answer.blocked or self._cut is not None:
            return
        self.result.bytes_out += len(out)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(out)).encode())]
        if not self._client.started:
            await self._client.start(200, [*headers, *_passed(response)])
        await self._client.body(bytes(out), more=False)

    async def _stream(self, response: HttpAnswer) -> None:
        try:
            if not self._client.started:
                await self._client.start(
                    200,
                    [
                        (b"content-type", b"text/event-stream; charset=utf-8"),
                        (b"cache-control", b"no-cache"),
                        *_passed(response),
                    ],
                )
            async for chunk in self._http.chunks(self._provider, response):
                await self._pass(self._answer.feed(chunk), None)
                told = self._answer.told
                if told.failed:
                    self.result.error_shown = True
                    raise broken(self._provider, "it reported an error within its answer")
                if told.stopped:
                    break
                if self._waited_enough():
                    raise broken(self._provider, "the client left, and the answer did not end in time")
            await self._pass(self._answer.end(), None)
            await self._last(response)
        except WireError as error:
            raise broken(self._provider, str(error)) from None
        finally:
            self._note()

    async def _last(self, response: HttpAnswer) -> None:
        """Read the end of the provider's body, if it comes at once; more than its end closes the connection."""
        if response.whole:
            return
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                async for _ in self._http.chunks(self._provider, response):
                    return
        except (TimeoutError, DependencyDown):
            return

    async def _pass(self, step: Step, whole: bytearray | None) -> None:
        """Send what may flow; ask about what is held; go on until the machine has nothing more."""
        while True:
            told = self._answer.told
            if told.stopped and not self._settled:
                self._note()
                await self._book(self.result.tokens)
            if told.stopped and not step.held:
                self._all_judged()
            out = await self._seen(step, last=(told.stopped or told.failed) and not step.held)
            if out:
                if whole is not None:
                    whole += out
                else:
                    await self._send(out)
            if not step.held:
                return
            # Of an answer that was cut the rest is read for its usage only.
            self._judged += sum(item.kind == "call" for item in step.held)
            decided = await self._judge(step.held) if self._cut is None else [Decided(False)] * len(step.held)
            step = self._answer.decide(decided)

    async def _seen(self, step: Step, *, last: bool) -> bytes:
        """What the watch lets pass of a step."""
        if self._watch is None or self._cut is not None:
            return step.out if self._cut is None else b""
        failed = self._answer.told.failed
        # An error's words are no text of the answer: they are looked at as they stand.
        text = step.text + step.out.decode("utf-8", "replace") if failed else step.text
        try:
            if len(text) > _MUCH:
                return await asyncio.to_thread(self._watch.see, step.out, text, last=last, failed=failed)
            return self._watch.see(step.out, text, last=last, failed=failed)
        except Refused as error:
            self._cut = error
            return b""

    async def _send(self, data: bytes) -> None:
        if not self.result.bytes_out:
            self.result.first_byte_ms = int((time.monotonic() - self._begun) * 1000)
        self.result.bytes_out += len(data)
        self._sent_at = time.monotonic()
        await self._client.body(data, more=True)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        """Every few seconds: a frame that means nothing, if nothing was sent meanwhile and the stream has begun."""
        self._beating = loop.call_later(BEAT_SECONDS / 2, self._beat, loop)
        now = time.monotonic()
        if self._client.started and now - max(self._sent_at, self._begun) >= BEAT_SECONDS / 2:
            self._beats = loop.create_task(self._client.beat(self._format.heartbeat))

    def _note(self) -> None:
        told = self._answer.told
        self.result.stop_reason = told.stop_reason
        # Cut before its end: input is known from the first event, output only if the final count had come.
        if told.reported:
            self.result.tokens = told.tokens
        elif told.started and told.tokens.all_input:
            self.result.tokens = told.tokens._replace(output=self._admitted.asked.most_output)

    def _waited_enough(self) -> bool:
        now = time.monotonic()
        if not self._left_at:
            if now - self._begun < 1 or not self._client.left():
                return False
            self._left_at = now
        return now - self._left_at > self._http.limits.drain

    async def _book(self, tokens: Tokens | None, *, reached: bool = True) -> None:
        """Settle the hold, once. None: by what a cut stream had told, else the whole hold."""
        if self._settled:
            return
        self._settled = True
        result = self.result
        if tokens is None:
            tokens = result.tokens
        hold = self._admitted.hold
        try:
            if not reached:
                await durable(self._ledger.submit_release(hold))
            elif tokens is None:
                result.charged_hold = True
                result.usage = self._admitted.ceiling
                await durable(self._ledger.submit_charge(hold))
            else:
                result.tokens = tokens
                result.usage = usage_of(tokens, self._admitted.price)
                took = {"milliseconds": int((time.monotonic() - self._begun) * 1000)}
                if result.first_byte_ms:
                    took["first_byte_ms"] = result.first_byte_ms
                await durable(self._ledger.submit_settle(hold, result.usage, {**kinds_of(tokens), **took}))
        except DependencyDown as error:
            # Paid already: the answer is passed on, the hold stays held (which refuses more, never less).
            result.settle_error = error
            result.usage = self._admitted.ceiling


def _passed(response: HttpAnswer) -> list[tuple[bytes, bytes]]:
    headers = response.headers
    return [(name.encode(), headers[name].encode("latin-1", "replace")) for name in _PASSED_HEADERS if name in headers]


__all__ = ["Exchange", "Judge", "Watch"]
