"""The context endpoint: one ASGI application for one run.

Rules this module keeps:
1. Every tool call is decided, and its decision durable, before the SDK or a tool sees it. Protocol
   methods that are not served are decided (and so recorded and refused) the same way.
2. Hold and deny are HTTP 403 with a JSON-RPC error that carries the typed refusal (docs/adr/0003).
3. What is carried out is the call that was decided: arguments normalised, the message written anew.
4. Whatever breaks (policy, log, SDK, workspace, sandbox, or this module) is a 403 with a refusal
   `dependency.*`; there is no 500 and no way around a decision.
5. Once a tool has begun, the client's hanging up does not stop it half-way.
6. A wider scope is taken up between calls: each call is planned and carried out under one and the same.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from vestibule.boundary.context import catalogue, http, rules
from vestibule.boundary.context.briefing import Briefing, Said
from vestibule.boundary.context.cleared import Cleared
from vestibule.boundary.context.extension import Surface, ToolSource
from vestibule.boundary.context.limits import ContextLimits
from vestibule.boundary.context.protocol import Protocol, Reply, Send
from vestibule.boundary.context.rights import Rights
from vestibule.boundary.context.tools import Answer, Toolbox
from vestibule.boundary.context.wire import jsonrpc
from vestibule.boundary.context.workers import Workers
from vestibule.boundary.context.workspace import Workspace
from vestibule.core.crossing import Actor, Crossing, Held
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.instructions import Instruction
from vestibule.core.model import Question, Scope, Task
from vestibule.core.ports import CommandRunner, Questions
from vestibule.core.refusal import Refusal
from vestibule.core.view import View

HOST = "context.vestibule.internal"

WAIT_SLICE_SECONDS = 1.0
"""How long one look for an answer may last: so long may the end of a run be delayed by it."""

Authenticate = Callable[[bytes], Actor | None]
"""Who a token belongs to, or None. Constant-time, and aware of the lease; given by the pipeline."""

_SERVED = frozenset({"initialize", "ping", "tools/list", "server/discover"})
_ABSENT = frozenset({"resources/list", "resources/templates/list", "prompts/list"})
"""Lists that some clients ask for without being told that there are any; the SDK says that there are none."""

_LOOKS = frozenset({"get_task", "list_files", "read_file", "search_files"})
"""Tools that change nothing anywhere."""

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
    instructions: Sequence[Instruction] = (),
    owners: str = "",
    sources: Sequence[ToolSource] = (),
    questions: Questions | None = None,
    limits: ContextLimits | None = None,
    hosts: frozenset[str] = frozenset({HOST}),
    preload: bool = True,
    surface: Surface | None = None,
) -> ContextApp:
    """The endpoint of a run, served at `/mcp`.

    `feedback` is what reviewers sent back in earlier rounds; `instructions` and `owners` (the text of CODEOWNERS)
    come from the base commit. `sources` add tools; `questions` takes what policy holds
    to a person, and without it a hold is a plain refusal. `hosts` are the accepted Host values.
    `preload` starts to load the SDK at once; without it the first request that needs the SDK does. A run has no
    `surface`.
    """
    bounds = limits or ContextLimits()
    sources = (*sources, surface) if surface is not None else sources
    rights = Rights.of(task.scope, view)

    toolbox = Toolbox(
        workspace=workspace,
        rights=rights,
        briefing=Briefing(task, view, tuple(feedback), tuple(instructions), owners),
        runner=runner,
        limits=bounds,
        report=partial(_report, crossing, questions) if questions is not None else None,
    )
    tools = (*catalogue.offered(task.scope.tools), *(tool for source in sources for tool in source.tools()))
    names = [tool.name for tool in tools]
    built_in = len(catalogue.offered(task.scope.tools))
    taken = {name for name in names if names.count(name) > 1} | {*names[built_in:]} & {*catalogue.TOOLS}
    if taken:
        raise DependencyDown("context", "Two tools have one name.", fact=", ".join(sorted(taken)))
    protocol = Protocol(tools, body_bytes=bounds.body_bytes, preload=preload, surface=surface)
    return ContextApp(crossing, authenticate, toolbox, protocol, hosts, tuple(sources), questions, surface)


class ContextApp:
    """The ASGI application. `close` ends it for good."""

    def __init__(  # noqa: PLR0917 - one caller
        self,
        crossing: Crossing,
        authenticate: Authenticate,
        toolbox: Toolbox,
        protocol: Protocol,
        hosts: frozenset[str],
        sources: tuple[ToolSource, ...] = (),
        questions: Questions | None = None,
        surface: Surface | None = None,
    ) -> None:
        self._crossing = crossing
        self._authenticate = authenticate
        self._toolbox = toolbox
        self._protocol = protocol
        self._hosts = hosts
        self._sources = sources
        self._questions = questions
        self._surface = surface
        self._limits = toolbox.limits
        self._held = http.Held(self._limits.bodies_bytes)
        self._threads = Workers(self._limits.concurrent_calls, "context-tool")
        self._here = threading.Lock()
        """Held while a quick call is carried out by the event loop itself."""
        self._waiters = ThreadPoolExecutor(self._limits.waiting_answers, "context-answer")
        self._waiting = 0
        self._running = asyncio.Semaphore(self._limits.concurrent_calls)
        self._calls = 0
        self._closed = False

    def close(self) -> None:
        """When this returns no tool runs and none will: new calls are refused, running ones were waited for.

        Thread-safe, idempotent. What a command's sandbox still does is its runner's to end, before this.
        """
        self._closed = True
        with self._here:
            pass  # what the event loop did itself has ended, and it does nothing more
        self._waiters.shutdown(wait=True, cancel_futures=True)
        self._threads.shutdown()

    @property
    def _rights(self) -> Rights:
        return self._toolbox.rights

    def widen(self, scope: Scope, view: View) -> None:
        """From the next call on, the task has this scope and view: a person granted more. Thread-safe.

        Calls that are under way end as they were decided.
        """
        self._toolbox = self._toolbox.widened(scope, view)
        wider = {"read": list(scope.readable), "write": list(scope.writable)}
        self._crossing.task = {**self._crossing.task, **wider}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await _send(await self._answer(scope, receive, send), send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})

    async def _answer(self, scope: Any, receive: Any, send: Any) -> Reply:
        try:
            return await self._handle(scope, receive, send)
        except http.Rejected as rejected:
            return rejected.reply
        except Refused as refused:
            return refusal_reply(None, refused)
        except Exception:  # noqa: BLE001 - fails closed, whatever it was
            _log.exception("the context endpoint failed")
            return refusal_reply(None, _broken())

    async def _handle(self, scope: Any, receive: Any, send: Any) -> Reply:
        headers = http.Headers(scope, self._limits)
        actor = self._actor(headers.bearer())
        if actor is None:
            return http.unauthorized()
        http.check(scope, headers, self._hosts, self._limits)
        with self._held.request() as take:
            data = await http.body(receive, self._limits, take)
            return await self._received(actor, headers, data, send if self._surface is not None else None)

    async def _received(self, actor: Actor, headers: http.Headers, data: bytes, stream: Send | None) -> Reply:
        try:
            message = jsonrpc.parse(data, answers=self._surface is not None)
        except jsonrpc.BadMessage as bad:
            return Reply(400, jsonrpc.error(bad.request_id, bad.code, str(bad)), http.JSON)
        if message.request_id is None:
            return Reply(202)
        try:
            return await self._request(actor, message, headers, stream)
        except jsonrpc.BadMessage as bad:
            return Reply(400, jsonrpc.error(message.request_id, bad.code, str(bad)), http.JSON)
        except Refused as refused:
            if message.method != "tools/call" and refused.refusal.rule == "context.tool_unknown":
                return _no_such_method(message, headers, refused)
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

    async def _request(
        self, actor: Actor, message: jsonrpc.Message, headers: http.Headers, stream: Send | None
    ) -> Reply:
        if message.method in _SERVED or message.method in _ABSENT:
            return await self._protocol.serve(message.encoded(), headers.raw, stream=stream)
        if message.method != "tools/call":
            served = self._surface.plan_method(message.method, message.params) if self._surface is not None else None
            call = served or rules.unknown_method(message.method)
            return await self._call(actor, message, call, headers, self._toolbox, stream)
        name, arguments = message.params.get("name"), message.params.get("arguments")
        if not isinstance(name, str) or not isinstance(arguments, dict | None):
            raise jsonrpc.BadMessage(jsonrpc.INVALID_PARAMS, "A call has a name, and arguments that are an object.")
        toolbox = self._toolbox
        call = await self._plan(toolbox, name, arguments or {})
        try:
            return await self._call(actor, message, call, headers, toolbox, stream)
        except _Asked as asked:
            if not await self._answer_comes(asked.question, call.wait_seconds):
                raise
        toolbox = self._toolbox
        call = await self._plan(toolbox, name, arguments or {})
        return await self._call(actor, message, call, headers, toolbox, stream)

    async def _plan(self, toolbox: Toolbox, name: str, arguments: dict[str, Any]) -> rules.Call:
        if name not in catalogue.TOOLS:
            for source in self._sources:
                # It may have to ask a server what it offers.
                call = await self._threads.run(source.plan, name, arguments)
                if call is not None:
                    return call
        if name != "request_scope" or self._questions is None:
            return rules.plan(name, arguments, toolbox.rights, read_link=toolbox.workspace.read_link)
        plan = partial(rules.plan, name, arguments, toolbox.rights, self._questions.find)
        return await self._threads.run(plan)

    async def _answer_comes(self, question: str, seconds: int) -> bool:
        """Whether the question is answered within the time. Few wait at once; the others are told at once."""
        if not seconds or self._questions is None or self._waiting >= self._limits.waiting_answers:
            return False
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        self._waiting += 1
        try:
            while not self._closed and (left := end - loop.time()) > 0:
                wait = partial(self._questions.wait, question, min(left, WAIT_SLICE_SECONDS))
                if (await loop.run_in_executor(self._waiters, wait)).state != "open":
                    return True
        except Refused:
            raise
        except Exception as error:
            raise DependencyDown(
                "questions", "The answer could not be waited for.", fact=type(error).__name__
            ) from error
        finally:
            self._waiting -= 1
        return False

    async def _call(  # noqa: PLR0917 - what one request is
        self,
        actor: Actor,
        message: jsonrpc.Message,
        call: rules.Call,
        headers: http.Headers,
        toolbox: Toolbox,
        stream: Send | None = None,
    ) -> Reply:
        """Decides the call, records it, and carries it out: plain calls directly, others through the SDK."""
        if self._calls >= self._limits.concurrent_calls + self._limits.waiting_calls:
            return http.plain(429, "busy", "Too many calls at once; wait for the answers.")
        self._calls += 1
        try:
            params = self._params(message, call)
            if not message.plain:
                message.encoded(params)  # a string that no JSON text can carry is found before anything is decided
            answer = partial(self._protocol.call, message, params, headers.raw, stream=stream)
            effect = partial(self._effect, call, toolbox, answer)
            crossing = self._crossing.cross_all(actor, call.steps, effect)
            if call.source is None and call.tool in _LOOKS:
                return await crossing  # there is nothing that could be left half done
            return await asyncio.shield(asyncio.ensure_future(crossing))
        except Held as held:
            raise rules.told(call, await self._asked(call, held)) from None
        except Refused as refused:
            raise rules.told(call, refused) from None
        finally:
            self._calls -= 1

    async def _asked(self, call: rules.Call, held: Held) -> Refused:
        """What the agent is told of a hold: the question that a person now has, if the call asks one."""
        if self._questions is None or call.ask is None:
            return held
        ask, found = call.ask, held.refusal
        try:
            keep = partial(self._questions.ask, ask.kind, ask.asked, ask.why, labels=self._crossing.labels.current)
            question = await self._threads.run(keep)
        except Refused as refused:
            return refused
        except Exception as error:  # noqa: BLE001 - a question that cannot be kept is no way in
            return DependencyDown("questions", "The question could not be kept.", fact=type(error).__name__)
        agent = f"A person was asked (question {question.id}). Go on with other work, then make the same call again."
        return _Asked(found.model_copy(update={"next": found.next.model_copy(update={"agent": agent})}), question.id)

    async def _effect(
        self, call: rules.Call, toolbox: Toolbox, answer: Callable[[Cleared], Awaitable[Reply]]
    ) -> tuple[Reply, bool, dict[str, Any]]:
        async with self._running:
            cleared = Cleared(call, partial(self._carry_out, toolbox))
            reply = await answer(cleared)
        if cleared.refused is not None:
            raise cleared.refused
        if cleared.answer is None:
            # The protocol layer turned the request away; no tool ran.
            return reply, False, {"error": "protocol", "status": reply.status}
        return reply, cleared.answer.ok, cleared.answer.details

    def _params(self, message: jsonrpc.Message, call: rules.Call) -> dict[str, Any]:
        """What the SDK is given: the decided call, and of the rest only the protocol's own metadata."""
        if message.method != "tools/call":
            return message.params
        if call.source is not None and call.source is self._surface:
            return {**message.params, "name": call.tool, "arguments": call.arguments}
        meta = {"_meta": message.params["_meta"]} if "_meta" in message.params else {}
        return {"name": call.tool, "arguments": call.arguments, **meta}

    async def _carry_out(self, toolbox: Toolbox, call: rules.Call) -> Answer:
        with self._here:
            answer = self._open(toolbox).quick(call)
        if answer is not None:
            return answer
        try:
            return await self._threads.run(self._in_thread, toolbox, call)
        except RuntimeError as error:  # the threads were shut down between the check and here
            raise _broken() from error

    def _in_thread(self, toolbox: Toolbox, call: rules.Call) -> Answer:
        return self._open(toolbox).carry_out(call)

    def _open(self, toolbox: Toolbox) -> Toolbox:
        if self._closed:
            raise DependencyDown("context", "The context endpoint of this run is closed.")
        return toolbox


class _Asked(Refused):
    """A hold that is a person's question now."""

    def __init__(self, found: Refusal, question: str) -> None:
        self.question = question
        super().__init__(found)


def refusal_reply(request_id: jsonrpc.RequestId | None, refused: Refused) -> Reply:
    """HTTP 403 with the typed refusal as a JSON-RPC error."""
    found = refused.refusal
    return Reply(403, jsonrpc.error(request_id, jsonrpc.REFUSED, found.sentence(), found.as_json()), http.JSON)


def _no_such_method(message: jsonrpc.Message, headers: http.Headers, refused: Refused) -> Reply:
    """What MCP 2026-07-28 asks for: 404 and "method not found", with the refusal besides. Older revisions: 403."""
    if headers.get(b"mcp-protocol-version") != b"2026-07-28":
        return refusal_reply(message.request_id, refused)
    found = refused.refusal
    body = jsonrpc.error(message.request_id, jsonrpc.METHOD_NOT_FOUND, found.sentence(), found.as_json())
    return Reply(404, body, http.JSON)


def _report(crossing: Crossing, questions: Questions, ask: rules.Ask) -> Question:
    try:
        return questions.ask(ask.kind, ask.asked, ask.why, labels=crossing.labels.current)
    except Refused:
        raise
    except Exception as error:
        raise DependencyDown("questions", "The report could not be kept.", fact=type(error).__name__) from error


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
