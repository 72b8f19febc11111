"""The model gateway: an ASGI application mounted at `http://models.vestibule.internal/anthropic`.

Rules it keeps:
1. No store, policy or provider is touched before the task token matched. The token never goes on.
2. Read, check, reserve, decide, record: in this order, and only then send. Each step that fails refuses.
3. What is sent is written anew from what was checked; of the agent's headers only an allow-list goes on.
4. One provider, one model, one address per run, fixed when the gateway was made.
5. Refusals have the API's error shape, so that agent programs show them, and carry the typed refusal.
6. At most `parallel` requests are read or under way at once; more wait, so that memory stays bounded.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from vestibule.boundary.models import asgi, rules
from vestibule.boundary.models.decisions import Decisions
from vestibule.boundary.models.exchange import Admitted, Exchange, Result
from vestibule.boundary.models.fieldkit import FieldRefused
from vestibule.boundary.models.providers import Upstream
from vestibule.boundary.models.rules import Facts, ModelRequest
from vestibule.boundary.models.upstream import UpstreamClient, UpstreamLimits
from vestibule.boundary.models.wire import anthropic as wire
from vestibule.boundary.models.wire import strict_json
from vestibule.core.crossing import Actor, Crossing, first_refusal
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.model import Task, Usage
from vestibule.core.ports import ModelLedger
from vestibule.core.refusal import Refusal, refusal
from vestibule.cost.prices import ModelPrice, Prices

PREFIX = "/anthropic"
_BODY_SECONDS = 60.0
_PATIENCE = 3
"""Failures of the provider in a row after which agent programs are asked not to repeat: some would for minutes."""
_NO_RETRY = ((b"x-should-retry", b"false"),)


def build_models_app(
    *,
    crossing: Crossing,
    authenticate: Callable[[bytes], Actor | None],
    upstream: Upstream | None,
    ledger: ModelLedger,
    prices: Prices,
    task: Task,
    limits: UpstreamLimits | None = None,
    parallel: int = 8,
) -> ModelGateway:
    """The gateway of one run, an ASGI application.

    `authenticate` maps a presented token to who acts, or None; it compares in constant time. `upstream` None is a task
    without a model: every request is refused. `parallel` bounds requests read or under way at once.
    """
    return ModelGateway(
        crossing=crossing,
        authenticate=authenticate,
        upstream=upstream,
        ledger=ledger,
        prices=prices,
        task=task,
        http=UpstreamClient(limits),
        parallel=parallel,
    )


class ModelGateway:
    """One run's model gateway. `refusals` are its last ones, newest last; `drain` waits for what is under way."""

    def __init__(
        self,
        *,
        crossing: Crossing,
        authenticate: Callable[[bytes], Actor | None],
        upstream: Upstream | None,
        ledger: ModelLedger,
        prices: Prices,
        task: Task,
        http: UpstreamClient,
        parallel: int,
    ) -> None:
        self._authenticate = authenticate
        self._upstream = upstream
        self._ledger = ledger
        self._prices = prices
        self._task = task
        self._http = http
        self._slots = asyncio.Semaphore(parallel)
        self._largest_ratio = 0
        self._failures = 0
        self._busy: set[asyncio.Task[Any]] = set()
        self.refusals: deque[Refusal] = deque(maxlen=200)
        self._decisions = Decisions(crossing, upstream, task.agent.model, self.refusals.append)

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        path = scope.get("path", "")
        method = scope["method"]
        if method in ("GET", "HEAD") and path in (PREFIX, PREFIX + "/", "/"):
            # Agent programs ask this to see whether anyone is there.
            await asgi.answer(send, 200, b'{"service": "vestibule models"}', head=method == "HEAD")
            return
        actor = self._actor(scope)
        if actor is None:
            body = wire.error_body("authentication_error", "This is no valid task token for this run.")
            await asgi.answer(send, 401, body, _NO_RETRY)
            return
        current = asyncio.current_task()
        if current is not None:
            self._busy.add(current)
            current.add_done_callback(self._busy.discard)
        query = scope.get("query_string", b"")
        if method == "GET" and path == PREFIX + "/v1/models":
            await asgi.answer(send, 200, self._models())
        elif method == "POST" and path == PREFIX + "/v1/messages" and query in (b"", b"beta=true"):
            async with self._slots:
                await self._messages(actor, scope, receive, send)
        else:
            await self._unknown(actor, send)

    async def drain(self) -> None:
        """Wait until every request under way is settled and recorded; call when the agent is gone."""
        current = asyncio.current_task()
        while busy := [item for item in self._busy if item is not current]:
            await asyncio.wait(busy)

    async def close(self) -> None:
        await self._http.close()

    async def _lifespan(self, receive: asgi.Receive, send: asgi.Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.drain()
                await self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _actor(self, scope: asgi.Scope) -> Actor | None:
        tokens = []
        key = asgi.header(scope, b"x-api-key")
        if key:
            tokens.append(key)
        bearer = asgi.header(scope, b"authorization")
        if bearer:
            scheme, _, value = bearer.partition(b" ")
            tokens.append(value.strip() if scheme.lower() == b"bearer" else b"")
        if not tokens or len(set(tokens)) != 1 or not tokens[0]:
            # A second, different credential would be somebody else's.
            return None
        return self._authenticate(tokens[0])

    def _models(self) -> bytes:
        names = [self._task.agent.model] if self._task.agent.model and self._upstream else []
        data = [
            {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"} for name in names
        ]
        first = names[0] if names else None
        return json.dumps({"data": data, "has_more": False, "first_id": first, "last_id": first}).encode()

    async def _unknown(self, actor: Actor, send: asgi.Send) -> None:
        found = refusal(
            "model.field.endpoint",
            "The model gateway serves messages only; files, batches and other endpoints of the provider stay closed.",
            agent="Use POST /v1/messages.",
            person="Nothing to do: what a provider stores or does itself is outside the walls.",
        )
        await self._refuse(actor, send, Facts(field_rule=found.rule, refusal=found), None, status=404)

    async def _messages(self, actor: Actor, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        request: ModelRequest | None = None
        status = 403
        try:
            body = await self._parsed(scope, receive)
            request = rules.read_request(
                body,
                model=self._task.agent.model,
                upstream_model=self._upstream.model if self._upstream else "",
                run=self._task.run,
            )
            headers = _forwarded(scope, stream=request.stream)
            admitted = await self._admit(request, headers)
            facts = admitted if isinstance(admitted, Facts) else Facts()
        except asgi.ClientGone:
            return
        except asgi.TooLarge:
            status = 413
            facts = _field_facts(FieldRefused("size", "the body is larger than 32 MiB"))
        except strict_json.BadJson as error:
            status = 400
            facts = _field_facts(FieldRefused("json", str(error)))
        except FieldRefused as error:
            facts = _field_facts(error)
        except Refused as error:
            found = error.refusal
            budget = found.rule if found.rule.startswith("budget.") else "budget.unknown"
            facts = Facts(budget_rule=budget, refusal=found)
        else:
            if not isinstance(admitted, Facts):
                await self._decided(actor, scope, receive, send, admitted=admitted)
                return
        await self._refuse(actor, send, facts, request, status=status)

    async def _admit(self, request: ModelRequest, headers: dict[str, str]) -> Admitted | Facts:
        """Model, key, price, hold; or the facts that say which of them refuses.

        Raises:
            Refused: `budget.*`, or a dependency that is down.
        """
        upstream = self._upstream
        if upstream is None or request.model not in self._decisions.names():
            return Facts(model_allowed=False, refusal=rules.model_refusal(request.model, self._task.agent.model))
        key = upstream.key()
        price = await asyncio.to_thread(self._prices.find, upstream.model, datetime.now(UTC))
        if price is None:
            return Facts(price_known=False, refusal=rules.price_refusal(request.model))
        hold, ceiling = await self._hold(request, price)
        return Admitted(request, upstream, headers, price, hold, ceiling, key)

    async def _decided(
        self, actor: Actor, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send, *, admitted: Admitted
    ) -> None:
        """Ask policy about a request that we would allow; record; send."""
        ceiling = admitted.ceiling
        details = {"reserved_nano_usd": ceiling.cost_nano_usd, "reserved_tokens": ceiling.budgeted_tokens}
        try:
            verdict, intent, receipt = await self._decisions.record(actor, Facts(), admitted.request, details)
        except BaseException as error:
            await self._unhold(admitted.hold)
            if isinstance(error, DependencyDown):
                await self._answer_refusal(send, error.refusal)
                return
            raise
        if not verdict.allowed:
            await self._unhold(admitted.hold)
            await self._answer_refusal(send, first_refusal(verdict, "model.request", intent.resource))
            return
        client = asgi.Client(receive, send)
        exchange = Exchange(client, self._http, self._ledger, admitted)
        try:
            try:
                result = await exchange.run("/v1/messages" + ("?beta=true" if scope.get("query_string") else ""))
            except BaseException as error:
                # Ours, or the process is ending: the hold stays held until it is reconciled.
                ended = {"error": type(error).__name__}
                self._decisions.outcome(intent, receipt, ok=False, details=ended)
                raise
            self._learn(admitted.request, result)
            outcome = result.details(admitted.price.table_digest)
            self._decisions.outcome(intent, receipt, ok=result.ok, details=outcome)
            if result.error is not None:
                await self._show_error(client, result)
        finally:
            client.close()

    async def _parsed(self, scope: asgi.Scope, receive: asgi.Receive) -> dict[str, Any]:
        if asgi.header(scope, b"content-type").partition(b";")[0].strip().lower() != b"application/json":
            raise strict_json.BadJson("the content type is not application/json")
        if asgi.header(scope, b"content-encoding") not in (b"", b"identity"):
            raise strict_json.BadJson("the body is compressed")
        declared = asgi.header(scope, b"content-length")
        if declared.isdigit() and int(declared) > strict_json.MAX_BYTES:
            raise asgi.TooLarge
        data = await asgi.read_body(receive, strict_json.MAX_BYTES, _BODY_SECONDS)
        value = await asyncio.to_thread(strict_json.parse, data) if len(data) > 1 << 20 else strict_json.parse(data)
        if not isinstance(value, dict):
            raise strict_json.BadJson("the body is no JSON object")
        return value

    async def _hold(self, request: ModelRequest, price: ModelPrice) -> tuple[str, Usage]:
        tokens = request.input_tokens(rules.next_ratio(self._largest_ratio))
        ceiling = Usage(
            requests=1,
            input_tokens=tokens,
            output_tokens=request.max_tokens,
            cost_nano_usd=price.ceiling(tokens, request.max_tokens, hour_cache=request.hour_cache),
        )
        hold = await asyncio.to_thread(
            self._ledger.hold,
            self._task.run,
            self._task.agent.model,
            nano_usd=ceiling.cost_nano_usd,
            tokens=ceiling.budgeted_tokens,
            details={
                "agent": self._task.agent.name,
                "agent_version": self._task.agent.version,
                "role": self._task.role,
                "prices": price.table_digest,
            },
        )
        return hold, ceiling

    async def _unhold(self, hold: str) -> None:
        try:
            await asyncio.shield(asyncio.to_thread(self._ledger.release, hold))
        except DependencyDown:
            return  # it stays held: that refuses more, never less

    def _learn(self, request: ModelRequest, result: Result) -> None:
        self._failures = self._failures + 1 if result.error is not None else 0
        if result.tokens is not None and result.status == 200:
            self._largest_ratio = max(self._largest_ratio, rules.seen_ratio(result.tokens.all_input, request))

    async def _refuse(
        self, actor: Actor, send: asgi.Send, facts: Facts, request: ModelRequest | None, *, status: int
    ) -> None:
        try:
            verdict, _, _ = await self._decisions.record(actor, facts, request, {})
        except DependencyDown as error:
            await self._answer_refusal(send, error.refusal)
            return
        found = facts.refusal or first_refusal(verdict, "model.request", "")
        await self._answer_refusal(send, found, status)

    async def _answer_refusal(self, send: asgi.Send, found: Refusal, status: int = 403) -> None:
        self.refusals.append(found)
        kind = "invalid_request_error" if status in (400, 413) else "permission_error"
        if status == 404:
            kind = "not_found_error"
        if found.rule.startswith("dependency."):
            kind, status = "api_error", 503
        await asgi.answer(send, status, wire.error_body(kind, found.sentence(), found.as_json()), _NO_RETRY)

    async def _show_error(self, client: asgi.Client, result: Result) -> None:
        """The provider failed: an error of the API's shape, as an answer or as the stream's last event."""
        assert result.error is not None  # noqa: S101 asked for by the caller
        found = result.error.refusal
        self.refusals.append(found)
        if result.error_shown:
            await client.body(b"", more=False)
            return
        if client.started:
            await client.body(wire.error_event("api_error", found.sentence(), found.as_json()), more=False)
            return
        body = wire.error_body("api_error", found.sentence(), found.as_json())
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await client.start(502, [*headers, *(_NO_RETRY if self._failures >= _PATIENCE else ())])
        await client.body(body, more=False)


def _field_facts(error: FieldRefused) -> Facts:
    return Facts(field_rule=error.rule, refusal=rules.field_refusal(error))


def _forwarded(scope: asgi.Scope, *, stream: bool) -> dict[str, str]:
    """The headers that go on: version and betas as checked, accept as we need it; nothing else of the agent's."""
    version = asgi.header(scope, b"anthropic-version").decode("latin-1") or "2023-06-01"
    if not rules.VERSION.match(version):
        raise FieldRefused("version", "the anthropic-version header is no version")
    found = {"anthropic-version": version, "accept": "text/event-stream" if stream else "application/json"}
    betas = ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == b"anthropic-beta")
    betas = rules.check_betas(betas)
    if betas:
        found["anthropic-beta"] = betas
    return found


__all__ = ["PREFIX", "ModelGateway", "build_models_app"]
