"""One run's requests on their way: what they share, and one request through upstreams and continuations.

Rules it keeps: 2 to 7 of `gateway.py`, which only knows paths and tokens.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from vestibule.boundary.models import asgi, rules
from vestibule.boundary.models.decisions import GOOD, Decisions
from vestibule.boundary.models.dispatch import outgoing, written
from vestibule.boundary.models.exchange import RETRYABLE, Exchange
from vestibule.boundary.models.exchanged_keys import ExchangedKeys
from vestibule.boundary.models.fields.kit import FieldRefused
from vestibule.boundary.models.formats.base import Asked, Format, Route
from vestibule.boundary.models.guards.desk import Guards
from vestibule.boundary.models.guards.requests import BIG
from vestibule.boundary.models.hold.base import Answer, Decided, Held
from vestibule.boundary.models.providers import Upstream
from vestibule.boundary.models.result import Admitted, Result
from vestibule.boundary.models.routing import Breaker
from vestibule.boundary.models.rules import Facts
from vestibule.boundary.models.steer import Steering
from vestibule.boundary.models.upstream import UpstreamClient
from vestibule.boundary.models.wire import strict_json
from vestibule.core.canonical import digest_bytes
from vestibule.core.crossing import Actor, durable, first_refusal
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.model import Task, Usage
from vestibule.core.ports import ModelLedger
from vestibule.core.refusal import Refusal, refusal
from vestibule.cost.prices import Prices

_T = TypeVar("_T")
_BODY_SECONDS = 60.0
_PATIENCE = 3
"""Failures of the provider in a row after which agent programs are asked not to repeat: some would for minutes."""
NO_RETRY = ((b"x-should-retry", b"false"),)
_RETRY = ((b"retry-after", b"5"),)
_PASSING = ("budget.rate", "budget.concurrent")
"""What a request meets now and not in a while."""
LARGE_BYTES = 1 << 20
LARGE_PARALLEL = 4
MAX_CONTINUED = 4


@dataclass(slots=True)
class Serving:
    """What the requests of one run share. `names` are the models that may be asked for."""

    task: Task
    names: tuple[str, ...]
    upstreams: tuple[Upstream, ...]
    http: UpstreamClient
    keys: ExchangedKeys
    breaker: Breaker
    ledger: ModelLedger
    prices: Prices
    decisions: Decisions
    guards: Guards
    steering: Steering
    spender: dict[str, str]
    refusals: deque[Refusal]
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LARGE_PARALLEL))
    largest_ratio: int = 0
    failures: int = 0

    def judge_upstream(self, upstream: Upstream | None, result: Result) -> None:
        """Remember whether it answers: one that fails again and again is asked last for a while."""
        if upstream is None:
            return
        failed = result.error is not None or (result.unsent is not None and result.unsent[0] in RETRYABLE)
        config = upstream.config
        if not failed:
            self.breaker.worked(upstream.provider)
        elif config is not None:
            self.breaker.failed(upstream.provider, allowed=config.failures, pause=config.pause_seconds)
        else:
            self.breaker.failed(upstream.provider, allowed=5, pause=30)

    async def refuse(
        self,
        actor: Actor,
        send: asgi.Send,
        form: Format,
        facts: Facts,
        asked: Asked | None,
        *,
        status: int,
        details: dict[str, Any] | None = None,
    ) -> None:
        try:
            upstream = self.upstreams[0] if self.upstreams else None
            verdict, _, _ = await self.decisions.record(actor, facts, asked, upstream, details or {})
        except DependencyDown as error:
            await self.answer_refusal(send, form, error.refusal)
            return
        found = facts.refusal or first_refusal(verdict, "model.request", "")
        await self.answer_refusal(send, form, found, status)

    async def answer_refusal(self, send: asgi.Send, form: Format, found: Refusal, status: int = 403) -> None:
        self.refusals.append(found)
        if found.rule.startswith("dependency."):
            status = 503
        headers = NO_RETRY
        if found.rule in _PASSING:
            status, headers = 429, _RETRY
        await asgi.answer(send, status, form.error(status, found), headers)


class Request:
    """One request of the agent's, through as many upstreams and continuations as it takes."""

    def __init__(
        self,
        shared: Serving,
        form: Format,
        route: Route,
        actor: Actor,
        call: asgi.Call,
    ) -> None:
        self._shared = shared
        self._form = form
        self._route = route
        self._actor = actor
        self._scope, self._receive, self._send = call
        self._asked: Asked | None = None
        self._looked: dict[str, int] = {}

    async def serve(self) -> None:
        form, status = self._form, 403
        try:
            body, raw = await self._parsed()
            asked = self._asked = form.read(body, self._route, run=self._shared.task.run)
            if asked.changed:
                raw = written(asked.body)
            headers = form.headers(self._scope, stream=asked.stream)
            reviewed = await self._shared.guards.request(asked)
            self._looked = reviewed.notes
            if reviewed.refusal is not None:
                raise Refused(reviewed.refusal)
            if reviewed.changed:
                asked = self._asked = replace(asked, body=reviewed.body, changed=True)
                raw = written(asked.body)
        except asgi.ClientGone:
            return
        except asgi.TooLarge:
            status, facts = 413, _field_facts(FieldRefused("size", "the body is larger than 32 MiB"))
        except strict_json.BadJson as error:
            status, facts = 400, _field_facts(FieldRefused("json", str(error)))
        except FieldRefused as error:
            facts = _field_facts(error)
        except Refused as error:
            facts = Facts(refusal=error.refusal)
        else:
            await self._allowed(asked, raw, headers)
            return
        looked = {"guard": self._looked} if self._looked else {}
        await self._shared.refuse(self._actor, self._send, form, facts, self._asked, status=status, details=looked)

    async def _allowed(self, asked: Asked, raw: bytes, headers: dict[str, str]) -> None:
        """Ask the upstreams in their order, then again for as long as every call of the answer was denied."""
        shared = self._shared
        client = asgi.Client(self._receive, self._send)
        make = self._form.stream if asked.stream else self._form.whole
        answer = make(asked, hold_text=shared.guards.holds_text)
        self._desk = shared.guards.answer()
        steered = shared.steering.tell(asked)
        if steered is not asked:
            asked, raw = steered, written(steered.body)
        for continued in range(MAX_CONTINUED + 1):
            result = await self._one(client, answer, asked, raw, headers)
            if result is None:
                return
            if result.error is not None:
                await self._show_error(client, result)
                return
            if result.unsent is not None:
                status, sent, body = result.unsent
                if (told := shared.guards.told(body)) is not None:
                    await self._show(client, told)
                    return
                if client.started:
                    await client.body(self._form.error_event(_PROVIDER_REFUSED), more=False)
                    return
                await client.start(status, sent)
                await client.body(body, more=False)
                return
            if not answer.blocked:
                break
            if continued == MAX_CONTINUED:
                out = answer.close()
                await self._finish(client, asked, out)
                return
            # What it adds is the provider's own words and our refusals: nothing of the agent's.
            asked = replace(asked, body=answer.again(asked.body), changed=True)
            self._desk.again()
            try:
                raw = written(asked.body)
            except FieldRefused as error:
                await self._show(client, rules.field_refusal(error))
                return
        if not client.ended:
            await client.body(b"", more=False)
        shared.failures = 0

    async def _finish(self, client: asgi.Client, asked: Asked, out: bytes) -> None:
        if not client.started:
            kind = b"text/event-stream; charset=utf-8" if asked.stream else b"application/json"
            length = [] if asked.stream else [(b"content-length", str(len(out)).encode())]
            await client.start(200, [(b"content-type", kind), *length])
        await client.body(out, more=False)

    async def _one(
        self, client: asgi.Client, answer: Answer, asked: Asked, raw: bytes, headers: dict[str, str]
    ) -> Result | None:
        """One answer, from the first upstream that gives one. None: refused, and said so."""
        shared, result = self._shared, None
        order = shared.breaker.order([item.provider for item in shared.upstreams])
        upstreams: list[Upstream | None] = [shared.upstreams[place] for place in order]
        for upstream in upstreams or [None]:
            try:
                admitted = await self._admit(asked, raw, headers, upstream)
            except Refused as error:
                found = error.refusal
                budget = found.rule if found.rule.startswith("budget.") else "budget.unknown"
                admitted = Facts(budget_rule=budget, refusal=found)
            except FieldRefused as error:
                admitted = _field_facts(error)
            if isinstance(admitted, Facts):
                await self._say_no(client, admitted, asked, upstream)
                return None
            try:
                done = await self._dispatch(client, answer, admitted)
            except Refused as error:
                await self._show(client, error.refusal)
                return None
            result = done
            shared.judge_upstream(upstream, result)
            if not result.elsewhere or client.started or (result.unsent and result.unsent[0] not in RETRYABLE):
                break
        return result

    async def _admit(
        self, asked: Asked, raw: bytes, headers: dict[str, str], upstream: Upstream | None
    ) -> Admitted | Facts:
        """Model, key, price, hold; or the facts that say which of them refuses.

        Raises:
            Refused: `budget.*`, or a dependency that is down.
            FieldRefused: it cannot be written.
        """
        shared = self._shared
        if upstream is None or asked.model not in shared.names:
            return Facts(model_allowed=False, refusal=rules.model_refusal(asked.model, shared.task.agent.model))
        sent = outgoing(asked, raw, upstream, headers, await shared.keys.secret(upstream))
        price = shared.prices.find(upstream.model, datetime.now(UTC), upstream.provider)
        if price is None:
            return Facts(price_known=False, refusal=rules.price_refusal(asked.model))
        tokens = rules.input_tokens(asked, len(raw), rules.next_ratio(shared.largest_ratio))
        if asked.operation == "count":
            tokens, price = 0, price._replace(request=0)  # counting is free
        ceiling = Usage(
            requests=1,
            input_tokens=tokens,
            output_tokens=asked.most_output,
            cache_read_tokens=0,
            cache_write_tokens=0,
            cost_nano_usd=price.ceiling(tokens, asked.most_output, hour_cache=asked.hour_cache),
        )
        hold = await durable(
            shared.ledger.submit_hold(
                shared.task.run,
                shared.task.agent.model,
                nano_usd=ceiling.cost_nano_usd,
                tokens=ceiling.budgeted_tokens,
                details={
                    **shared.spender,
                    "provider": upstream.provider,
                    "provider_model": upstream.model,
                    "prices": price.table_digest,
                },
            )
        )
        return Admitted(asked, len(raw), upstream, sent, price, hold, ceiling)

    async def _dispatch(self, client: asgi.Client, answer: Answer, admitted: Admitted) -> Result:
        """Ask policy about a request that we would allow; record; send.

        Raises:
            Refused: policy said no, or the log is down.
        """
        shared, asked, ceiling = self._shared, admitted.asked, admitted.ceiling
        decisions = shared.decisions
        details = {
            "reserved_nano_usd": ceiling.cost_nano_usd,
            "reserved_tokens": ceiling.budgeted_tokens,
            "request": digest_bytes(admitted.outgoing.body),
            "bytes": len(admitted.outgoing.body),
            "max_tokens": asked.most_output,
            "messages": asked.messages,
            "tools": len(asked.tools),
            "operation": asked.operation,
            "guard": self._looked,
        }
        try:
            verdict, intent, receipt = await decisions.record(self._actor, GOOD, asked, admitted.upstream, details)
            if not verdict.allowed:
                raise Refused(first_refusal(verdict, "model.request", intent.resource))
        except BaseException:
            await self._unhold(admitted.hold)
            raise

        async def judge(held: Sequence[Held]) -> list[Decided]:
            calls = [item for item in held if item.kind == "call"]
            against = [await _beside(self._desk.judge_call, call) for call in calls]
            decided = iter(await decisions.judge_calls(self._actor, asked, calls, against) if calls else ())
            look = self._desk.judge_text
            return [next(decided) if item.kind == "call" else await _beside(look, item) for item in held]

        exchange = Exchange(
            client,
            shared.http,
            shared.ledger,
            admitted,
            form=self._form,
            answer=answer,
            judge=judge,
            watch=self._desk,
        )
        try:
            result = await exchange.run()
        except BaseException as error:
            # Ours, or the process is ending: the hold stays held until it is reconciled.
            decisions.outcome(intent, receipt, ok=False, details={"error": type(error).__name__})
            raise
        shared.steering.note(result.usage)
        shared.failures = shared.failures + 1 if result.error is not None else 0
        if result.tokens is not None and result.status == 200:
            seen = rules.seen_ratio(result.tokens.all_input, asked, admitted.size)
            shared.largest_ratio = max(shared.largest_ratio, seen)
        told = {**result.details(admitted.price.table_digest), "guard": self._desk.notes()}
        decisions.outcome(intent, receipt, ok=result.ok, details=told)
        return result

    async def _unhold(self, hold: str) -> None:
        try:
            await asyncio.shield(durable(self._shared.ledger.submit_release(hold)))
        except DependencyDown:
            return  # it stays held: that refuses more, never less

    async def _parsed(self) -> tuple[dict[str, Any], bytes]:
        scope = self._scope
        if asgi.header(scope, b"content-type").partition(b";")[0].strip().lower() != b"application/json":
            raise strict_json.BadJson("the content type is not application/json")
        if asgi.header(scope, b"content-encoding") not in (b"", b"identity"):
            raise strict_json.BadJson("the body is compressed")
        declared = asgi.header(scope, b"content-length")
        if declared.isdigit() and int(declared) > strict_json.MAX_BYTES:
            raise asgi.TooLarge
        if declared.isdigit() and int(declared) <= LARGE_BYTES:
            data = await asgi.read_body(self._receive, LARGE_BYTES, _BODY_SECONDS)
            value = strict_json.parse(data)
        else:
            async with self._shared.large:
                data = await asgi.read_body(self._receive, strict_json.MAX_BYTES, _BODY_SECONDS)
                value = await asyncio.to_thread(strict_json.parse, data)
        if not isinstance(value, dict):
            raise strict_json.BadJson("the body is no JSON object")
        return value, data

    async def _say_no(self, client: asgi.Client, facts: Facts, asked: Asked, upstream: Upstream | None) -> None:
        try:
            verdict, _, _ = await self._shared.decisions.record(self._actor, facts, asked, upstream, {})
            found = facts.refusal or first_refusal(verdict, "model.request", "")
        except DependencyDown as error:
            found = error.refusal
        await self._show(client, found)

    async def _show(self, client: asgi.Client, found: Refusal) -> None:
        """A refusal, as an answer or as the last event of a stream that has begun."""
        if client.started:
            self._shared.refusals.append(found)
            await client.body(self._form.error_event(found), more=False)
        else:
            await self._shared.answer_refusal(self._send, self._form, found)

    async def _show_error(self, client: asgi.Client, result: Result) -> None:
        """The provider failed: an error of the API's shape, as an answer or as the stream's last event."""
        assert result.error is not None  # noqa: S101 asked for by the caller
        shared, found = self._shared, result.error.refusal
        shared.refusals.append(found)
        if result.error_shown:
            await client.body(b"", more=False)
            return
        if client.started:
            await client.body(self._form.error_event(found), more=False)
            return
        if result.cut:
            await shared.answer_refusal(self._send, self._form, found)
            return
        body = self._form.error(502, found)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await client.start(502, [*headers, *(NO_RETRY if shared.failures >= _PATIENCE else ())])
        await client.body(body, more=False)


_PROVIDER_REFUSED = refusal(
    "dependency.provider",
    "The model provider refused to go on with an answer that had begun.",
    agent="Try again; if it stays so, stop here.",
    person="Check the provider's status and limits, then resume the run.",
)


def _field_facts(error: FieldRefused) -> Facts:
    return Facts(field_rule=error.rule, refusal=rules.field_refusal(error))


async def _beside(look: Callable[[Held], _T], item: Held) -> _T:
    """What the guards say of something held; of something large, beside the event loop."""
    return await asyncio.to_thread(look, item) if len(item.arguments) > BIG else look(item)
