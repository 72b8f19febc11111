"""The context endpoint: one ASGI application for one run.

Rules this module keeps:
1. Every tool call is decided, and its decision durable, before the SDK or a tool sees it. Protocol
   methods that are not served are decided (and so recorded and refused) the same way.
2. Hold and deny are HTTP 403 with a JSON-RPC error that carries the typed refusal (docs/adr/0003).
3. What is carried out is the call that was decided: arguments normalised, the message written anew.
4. Whatever breaks (policy, log, SDK, workspace, sandbox, or this module) is a 403 with a refusal
   `dependency.*`; there is no 500 and no way around a decision.
5. Once a tool has begun, the client's hanging up does not stop it half-way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from vestibule.boundary.context import catalogue, http, rules
from vestibule.boundary.context.briefing import Briefing, Said
from vestibule.boundary.context.cleared import Cleared
from vestibule.boundary.context.extension import ToolSource
from vestibule.boundary.context.limits import ContextLimits
from vestibule.boundary.context.protocol import Protocol, Reply
from vestibule.boundary.context.tools import Answer, Toolbox
from vestibule.boundary.context.wire import jsonrpc
from vestibule.boundary.context.workspace import Workspace
from vestibule.core.crossing import Actor, Crossing, Held
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.model import Task
from vestibule.core.ports import CommandRunner, Questions
from vestibule.core.view import View

HOST = "context.vestibule.internal"

Authenticate = Callable[[bytes], Actor | None]
"""Who a token belongs to, or None. Constant-time, and aware of the lease; given by the pipeline."""

_SERVED = frozenset({"initialize", "ping", "tools/list", "server/discover"})
_ABSENT = frozenset({"resources/list", "resources/templates/list", "prompts/list"})
"""Lists that some clients ask for without being told that there are any; the SDK says that there are none."""

_log = logging.getLogger(__name__)


def build_context_app(
    *,
    crossing: Crossing,
    authenticate: Authenticate,
    workspace: Workspace,
    task: Task,
    view: View,
    runner: CommandRunner,
    feedback: Sequence[Said] = (),
    sources: Sequence[ToolSource] = (),
    questions: Questions | None = None,
    limits: ContextLimits | None = None,
    hosts: frozenset[str] = frozenset({HOST}),
    preload: bool = True,
) -> ContextApp:
    """The endpoint of a run, served at `/mcp`.

    `feedback` is what reviewers sent back in earlier rounds. `sources` add tools; `questions` takes what policy holds
    to a person, and without it a hold is a plain refusal. `hosts` are the accepted Host values.
    `preload` starts to load the SDK at once; without it the first request that needs the SDK does.
    """
    bounds = limits or ContextLimits()
    rights = rules.Rights.of(task.scope, view)
    toolbox = Toolbox(
        workspace=workspace,
        rights=rights,
        briefing=Briefing(task, view, tuple(feedback)),
        runner=runner,
        limits=bounds,
    )
    tools = (*catalogue.offered(task.scope.tools), *(tool for source in sources for tool in source.tools()))
    names = [tool.name for tool in tools]
    built_in = len(catalogue.offered(task.scope.tools))
    taken = {name for name in names if names.count(name) > 1} | {*names[built_in:]} & {*catalogue.TOOLS}
    if taken:
        raise DependencyDown("context", "Two tools have one name.", fact=", ".join(sorted(taken)))
    protocol = Protocol(tools, body_bytes=bounds.body_bytes, preload=preload)
    return ContextApp(crossing, authenticate, rights, toolbox, protocol, hosts, tuple(sources), questions)


class ContextApp:
    """The ASGI application. `close` ends it for good."""

    def __init__(  # noqa: PLR0917 - one caller
        self,
        crossing: Crossing,
        authenticate: Authenticate,
        rights: rules.Rights,
        toolbox: Toolbox,
        protocol: Protocol,
        hosts: frozenset[str],
        sources: tuple[ToolSource, ...] = (),
        questions: Questions | None = None,
    ) -> None:
        self._crossing = crossing
        self._authenticate = authenticate
        self._rights = rights
        self._toolbox = toolbox
        self._protocol = protocol
        self._hosts = hosts
        self._sources = sources
        self._questions = questions
        self._limits = toolbox.limits
        self._held = http.Held(self._limits.bodies_bytes)
        self._threads = ThreadPoolExecutor(self._limits.concurrent_calls, "context-tool")
        self._running = asyncio.Semaphore(self._limits.concurrent_calls)
        self._calls = 0
        self._closed = False

    def close(self) -> None:
        """When this returns no tool runs and none will: new calls are refused, running ones were waited for.

        Thread-safe, idempotent. What a command's sandbox still does is its runner's to end, before this.
        """
        self._closed = True
        self._threads.shutdown(wait=True)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await _send(await self._answer(scope, receive), send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})

    async def _answer(self, scope: Any, receive: Any) -> Reply:
        try:
            return await self._handle(scope, receive)
        except http.Rejected as rejected:
            return rejected.reply
        except Refused as refused:
            return refusal_reply(None, refused)
        except Exception:  # noqa: BLE001 - fails closed, whatever it was
            _log.exception("the context endpoint failed")
            return refusal_reply(None, _broken())

    async def _handle(self, scope: Any, receive: Any) -> Reply:
        headers = http.Headers(scope, self._limits)
        actor = self._actor(headers.bearer())
        if actor is None:
            return http.unauthorized()
        http.check(scope, headers, self._hosts, self._limits)
        with self._held.request() as take:
            return await self._received(actor, headers, await http.body(receive, self._limits, take))

    async def _received(self, actor: Actor, headers: http.Headers, data: bytes) -> Reply:
        try:
            message = jsonrpc.parse(data)
        except jsonrpc.BadMessage as bad:
            return Reply(400, jsonrpc.error(bad.request_id, bad.code, str(bad)), http.JSON)
        if message.request_id is None:
            return Reply(202)
        try:
            return await self._request(actor, message, headers)
        except jsonrpc.BadMessage as bad:
            return Reply(400, jsonrpc.error(message.request_id, bad.code, str(bad)), http.JSON)
        except Refused as refused:
            return refusal_reply(message.request_id, refused)
        except Exception:  # noqa: BLE001 - fails closed, whatever it was
            _log.exception("the context endpoint failed")
            return refusal_reply(message.request_id, _broken())

    def _actor(self, token: bytes) -> Actor | None:
        if not token:
            return None
        try:
            return self._authenticate(token)
        except Refused:
            raise
        except Exception as error:
            raise DependencyDown("identity", "Tokens cannot be checked.", fact=type(error).__name__) from error

    async def _request(self, actor: Actor, message: jsonrpc.Message, headers: http.Headers) -> Reply:
        if message.method in _SERVED or message.method in _ABSENT:
            return await self._protocol.serve(message.encoded(), headers.raw)
        if message.method != "tools/call":
            return await self._call(actor, message, rules.unknown_method(message.method), headers)
        name, arguments = message.params.get("name"), message.params.get("arguments")
        if not isinstance(name, str) or not isinstance(arguments, dict | None):
            raise jsonrpc.BadMessage(jsonrpc.INVALID_PARAMS, "A call has a name, and arguments that are an object.")
        return await self._call(actor, message, self._plan(name, arguments or {}), headers)

    def _plan(self, name: str, arguments: dict[str, Any]) -> rules.Call:
        if name not in catalogue.TOOLS:
            for source in self._sources:
                call = source.plan(name, arguments)
                if call is not None:
                    return call
        return rules.plan(name, arguments, self._rights)

    async def _call(self, actor: Actor, message: jsonrpc.Message, call: rules.Call, headers: http.Headers) -> Reply:
        """Decides the call, records it, and carries it out through the SDK."""
        if self._calls >= self._limits.concurrent_calls + self._limits.waiting_calls:
            return http.plain(429, "busy", "Too many calls at once; wait for the answers.")
        self._calls += 1
        try:
            body = message.encoded(_params(message, call))
            effect = partial(self._effect, call, body, headers)
            crossed = asyncio.ensure_future(self._crossing.cross_all(actor, call.steps, effect))
            return await asyncio.shield(crossed)
        except Held as held:
            raise await self._asked(call, held) from None
        finally:
            self._calls -= 1

    async def _asked(self, call: rules.Call, held: Held) -> Refused:
        """What the agent is told of a hold: the question that a person now has, if the call asks one."""
        if self._questions is None or call.ask is None:
            return held
        ask, found = call.ask, held.refusal
        try:
            question = await asyncio.get_running_loop().run_in_executor(
                self._threads,
                partial(self._questions.ask, ask.kind, ask.asked, ask.why, labels=self._crossing.labels.current),
            )
        except Refused as refused:
            return refused
        except Exception as error:  # noqa: BLE001 - a question that cannot be kept is no way in
            return DependencyDown("questions", "The question could not be kept.", fact=type(error).__name__)
        agent = f"A person was asked (question {question.id}). Go on with other work, then make the same call again."
        return Refused(found.model_copy(update={"next": found.next.model_copy(update={"agent": agent})}))

    async def _effect(self, call: rules.Call, body: bytes, headers: http.Headers) -> tuple[Reply, bool, dict[str, Any]]:
        async with self._running:
            cleared = Cleared(call, self._carry_out)
            reply = await self._protocol.serve(body, headers.raw, cleared)
        if cleared.refused is not None:
            raise cleared.refused
        if cleared.answer is None:
            # The protocol layer turned the request away; no tool ran.
            return reply, False, {"error": "protocol", "status": reply.status}
        return reply, cleared.answer.ok, cleared.answer.details

    async def _carry_out(self, call: rules.Call) -> Answer:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, self._in_thread, call)
        except RuntimeError as error:  # the threads were shut down between the check and here
            raise _broken() from error

    def _in_thread(self, call: rules.Call) -> Answer:
        if self._closed:
            raise DependencyDown("context", "The context endpoint of this run is closed.")
        return self._toolbox.carry_out(call)


def _params(message: jsonrpc.Message, call: rules.Call) -> dict[str, Any]:
    """What the SDK is given: the decided call, and of the rest only the protocol's own metadata."""
    if message.method != "tools/call":
        return message.params
    meta = {"_meta": message.params["_meta"]} if "_meta" in message.params else {}
    return {"name": call.tool, "arguments": call.arguments, **meta}


def refusal_reply(request_id: jsonrpc.RequestId | None, refused: Refused) -> Reply:
    """HTTP 403 with the typed refusal as a JSON-RPC error."""
    found = refused.refusal
    return Reply(403, jsonrpc.error(request_id, jsonrpc.REFUSED, found.sentence(), found.as_json()), http.JSON)


def _broken() -> DependencyDown:
    return DependencyDown("context", "The context endpoint failed, so nothing was done.")


async def _send(reply: Reply, send: Any) -> None:
    if reply.status == 0:
        return
    headers = [*reply.headers, (b"content-length", str(len(reply.body)).encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
