"""The model gateway: an ASGI application mounted at `http://models.vestibule.internal/`.

Rules it keeps:
1. No store, policy or provider is touched before the task token matched. The token never goes on.
2. Read, check, reserve, decide, record: in this order, and only then send. Each step that fails refuses.
3. What is sent is what was checked; of the agent's headers only an allow-list goes on.
4. Upstreams are the operator's, in the operator's order, fixed when the gateway was made. Another one is asked only
   when one has not answered; each is a request of its own, with its own hold, decision and record.
5. Refusals have the API's error shape, so that agent programs show them, and carry the typed refusal.
6. At most `parallel` requests are read or under way at once, of large ones `LARGE_PARALLEL`; more wait, so that memory
   stays bounded.
7. An answer whose calls were all denied is continued, so that the model sees why: at most `MAX_CONTINUED` times, each
   a request of its own like any other.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from vestibule.boundary.models import asgi, rules
from vestibule.boundary.models.call_rules import House
from vestibule.boundary.models.decisions import Decisions
from vestibule.boundary.models.exchanged_keys import ExchangedKeys
from vestibule.boundary.models.formats import FORMATS, by_path
from vestibule.boundary.models.formats.base import Format
from vestibule.boundary.models.guards.desk import Guards, GuardSettings
from vestibule.boundary.models.providers import Upstream
from vestibule.boundary.models.reach import Reach
from vestibule.boundary.models.routing import Breaker
from vestibule.boundary.models.rules import Facts
from vestibule.boundary.models.serving import NO_RETRY, Request, Serving
from vestibule.boundary.models.steer import Steering
from vestibule.boundary.models.upstream import UpstreamClient, UpstreamLimits
from vestibule.core.crossing import Actor, Crossing
from vestibule.core.model import Task
from vestibule.core.ports import ModelLedger
from vestibule.core.refusal import Refusal, refusal
from vestibule.cost.prices import Prices


def build_models_app(
    *,
    crossing: Crossing,
    authenticate: Callable[[bytes], Actor | None],
    upstreams: Sequence[Upstream],
    ledger: ModelLedger,
    prices: Prices,
    task: Task,
    house: House | None = None,
    limits: UpstreamLimits | None = None,
    parallel: int = 64,
    repository: str = "",
    guards: Guards | None = None,
) -> ModelGateway:
    """The gateway of one run, an ASGI application.

    `authenticate` maps a presented token to who acts, or None; it compares in constant time. `upstreams` in the order
    in which they are asked; none is a task without a model: every request is refused. `house` is what tool calls are
    judged against; without one, built-in tools are off and no program's names are known. `repository` names whose
    spend it is.
    """
    return ModelGateway(
        crossing=crossing,
        authenticate=authenticate,
        upstreams=tuple(upstreams),
        ledger=ledger,
        prices=prices,
        task=task,
        house=house or House(None, lambda: task.scope),
        http=UpstreamClient(limits, reach=Reach(upstreams)),
        parallel=parallel,
        repository=repository,
        guards=guards or Guards(GuardSettings(mark_results=False), lambda: crossing.labels.current),
    )


class ModelGateway:
    """One run's model gateway. `refusals` are its last ones, newest last; `drain` waits for what is under way."""

    def __init__(
        self,
        *,
        crossing: Crossing,
        authenticate: Callable[[bytes], Actor | None],
        upstreams: tuple[Upstream, ...],
        ledger: ModelLedger,
        prices: Prices,
        task: Task,
        house: House,
        http: UpstreamClient,
        parallel: int,
        repository: str,
        guards: Guards,
    ) -> None:
        self._authenticate = authenticate
        self._task = task
        self._http = http
        self._slots = asyncio.Semaphore(parallel)
        self._busy: set[asyncio.Task[Any]] = set()
        self.refusals: deque[Refusal] = deque(maxlen=200)
        # The task's model as configured, and as its providers know it (`provider/model` and `model`).
        configured = task.agent.model
        self._names = tuple(dict.fromkeys((configured, *(item.model for item in upstreams)))) if upstreams else ()
        decisions = Decisions(crossing, self._names, house, self.refusals.append)
        system = Actor(task.run, "vestibule", "system")
        self._shared = Serving(
            task=task,
            names=self._names,
            upstreams=upstreams,
            http=http,
            keys=ExchangedKeys(http.exchange_key, lambda provider: decisions.key_exchange(system, provider)),
            breaker=Breaker(time.monotonic),
            ledger=ledger,
            prices=prices,
            decisions=decisions,
            guards=guards,
            steering=Steering(task.budget, ledger.usage(task.run)),
            spender={
                "agent": task.agent.name,
                "agent_version": task.agent.version,
                "role": task.role,
                "repository": repository,
            },
            refusals=self.refusals,
        )

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        path: str = scope.get("path", "")
        method: str = scope["method"]
        form = by_path(path)
        if method in ("GET", "HEAD") and (path == "/" or (form and path in (form.prefix, form.prefix + "/"))):
            # Agent programs ask this to see whether anyone is there.
            await asgi.answer(send, 200, b'{"service": "vestibule models"}', head=method == "HEAD")
            return
        shape = form or FORMATS[0]
        actor = self._actor(shape, scope)
        if actor is None:
            await asgi.answer(send, 401, shape.error(401, _UNKNOWN_TOKEN), NO_RETRY)
            return
        current = asyncio.current_task()
        if current is not None:
            self._busy.add(current)
            current.add_done_callback(self._busy.discard)
        query = scope.get("query_string", b"")
        route = None
        for item in FORMATS:
            # Two formats may share a prefix; the one that serves the path is meant.
            if path.startswith(item.prefix + "/") and (route := item.route(method, path[len(item.prefix) :], query)):
                form = shape = item
                break
        if route is None or form is None:
            found = rules.endpoint_refusal()
            await self._shared.refuse(actor, send, shape, Facts(field_rule=found.rule, refusal=found), None, status=404)
        elif route.operation == "models" and route.model and route.model not in self._names:
            found = rules.model_refusal(route.model, self._task.agent.model)
            await self._shared.refuse(actor, send, form, Facts(model_allowed=False, refusal=found), None, status=404)
        elif route.operation == "models":
            names = (self._task.agent.model,) if self._names else ()
            await asgi.answer(send, 200, form.models(names, route.model))
        else:
            async with self._slots:
                await Request(self._shared, form, route, actor, asgi.Call(scope, receive, send)).serve()

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

    def _actor(self, form: Format, scope: asgi.Scope) -> Actor | None:
        tokens = form.key(scope)
        if not tokens or len(set(tokens)) != 1 or not tokens[0]:
            # A second, different credential would be somebody else's.
            return None
        return self._authenticate(tokens[0])


_UNKNOWN_TOKEN = refusal(
    "identity.token",
    "This is no valid task token for this run.",
    agent="Use the token in VESTIBULE_TASK_TOKEN.",
    person="Nothing to do: the gateway answers only the agent of its run.",
)
__all__ = ["ModelGateway", "build_models_app"]
