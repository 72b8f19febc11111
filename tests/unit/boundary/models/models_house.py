"""A gateway over real sockets: uvicorn in a thread, the scripted provider or a lying one behind it."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import uvicorn

from vestibule.boundary.models.formats import by_name
from vestibule.boundary.models.formats.base import FormatName
from vestibule.boundary.models.gateway import ModelGateway, build_models_app
from vestibule.boundary.models.providers import Upstream
from vestibule.boundary.models.scripted.provider import ScriptedProvider
from vestibule.boundary.models.scripted.script import load_script
from vestibule.boundary.models.upstream import UpstreamLimits
from vestibule.core.crossing import Actor, Crossing
from vestibule.core.model import AgentRef, Budget, Event, Receipt, Scope, Spec, Task
from vestibule.core.money import NANO
from vestibule.core.ports import PolicyInput
from vestibule.core.verdict import Ruling, Verdict
from vestibule.cost.ledger import Ledger
from vestibule.cost.prices import ModelPrice, PriceTable, compile_table
from vestibule.store.database import Database

MODEL = "claude-sonnet-5"
RUN = "r00000000000000"
_APIS = {"anthropic": "anthropic", "responses": "openai", "chat": "openai", "gemini": "gemini"}


class MemoryAudit:
    """Keeps events. `broken` makes it fail like a full disk."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.broken: BaseException | None = None
        self._lock = threading.Lock()

    def submit(self, event: Event) -> Future[Receipt]:
        future: Future[Receipt] = Future()
        with self._lock:
            if self.broken is not None:
                future.set_exception(self.broken)
            else:
                self.events.append(event)
                future.set_result(Receipt(seq=len(self.events), time="2026-01-01T00:00:00.000Z"))
        return future

    def of(self, phase: str) -> list[Event]:
        return [event for event in self.events if event.phase == phase]


class FactsDecider:
    """Allows when every fact is good: what the shipped policy does, without Rego."""

    digest = "sha256:test"

    def __init__(self) -> None:
        self.asked: list[PolicyInput] = []
        self.broken: BaseException | None = None
        self.deny = ""
        self.denied_tools: set[str] = set()
        """Spellings of tools whose calls are denied."""

    def decide(self, request: PolicyInput) -> Verdict:
        self.asked.append(request)
        if self.broken is not None:
            raise self.broken
        facts = request.facts
        if request.action == "model.tool_call":
            good = facts["call_ok"] and request.resource["spelling"] not in self.denied_tools
        else:
            good = facts["fields_ok"] and facts["model_allowed"] and facts["price_known"] and facts["budget_ok"]
        if good and not self.deny:
            return Verdict(ruling=Ruling.ALLOW, reasons=(), policy_digest=self.digest)
        return Verdict(ruling=Ruling.DENY, reasons=(self.deny or "facts",), policy_digest=self.digest)


_HTTP: list[Any] = []


def sdk(token: str, url: str, **more: Any) -> Any:
    """The official client, without retries. One pool for all tests: making one costs a tenth of a second."""
    import anthropic

    if not _HTTP:
        _HTTP.append(anthropic.DefaultHttpxClient())
    return anthropic.Anthropic(base_url=url, api_key=token, max_retries=0, timeout=20, http_client=_HTTP[0], **more)


def serve(app: Any) -> tuple[uvicorn.Server, threading.Thread, int, asyncio.AbstractEventLoop]:
    # Named as TCP, so that asyncio turns Nagle's algorithm off: else every answer waits 40 ms for an acknowledgement.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="auto", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve([sock])

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        threading.Event().wait(0.005)
    return server, thread, port, loops[0]


@dataclass
class House:
    """Everything around one gateway."""

    folder: Path
    audit: MemoryAudit = field(default_factory=MemoryAudit)
    decider: FactsDecider = field(default_factory=FactsDecider)
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    provider_key: str = field(default_factory=lambda: secrets.token_hex(16))
    servers: list[tuple[uvicorn.Server, threading.Thread]] = field(default_factory=list)
    loops: list[asyncio.AbstractEventLoop] = field(default_factory=list)
    budget: Budget = field(default_factory=lambda: Budget(nano_usd=100 * NANO))
    model: str = MODEL
    limits: UpstreamLimits | None = None
    prices: Any = None
    key: Callable[[], str] | None = None
    gateway: ModelGateway | None = None
    parallel: int = 8
    house: Any = None
    guards: Any = None

    def __post_init__(self) -> None:
        self.db = Database(f"sqlite:///{self.folder / 'state.db'}")
        self.ledger = Ledger(self.db)

    def task(self) -> Task:
        return Task(
            run=RUN,
            spec=Spec(title="t", body="", ticket_digest="", integrity="member"),
            role="backend",
            scope=Scope(read=("**",), write=()),
            budget=self.budget,
            agent=AgentRef(name="claude", adapter="claude-code", model=self.model, version="v"),
            requester="local:alice",
            base_commit="0" * 40,
        )

    def authenticate(self, token: bytes) -> Actor | None:
        if token != self.token.encode():
            return None
        return Actor(run=RUN, id=f"spiffe://vestibule.local/run/{RUN}/agent/claude", kind="agent")

    def scripted(self, script: str) -> ScriptedProvider:
        return ScriptedProvider(load_script(script.encode(), "script.yaml"), self.provider_key)

    def start(self, app: Any) -> int:
        server, thread, port, loop = serve(app)
        self.servers.append((server, thread))
        self.loops.append(loop)
        return port

    def open(self, upstream: Any, *, model: str | None = None, form: FormatName = "anthropic") -> str:
        """Serve `upstream` (an ASGI app or an address) and the gateway before it; the gateway's address.

        `form` is the wire format that the upstream speaks, and the one whose address is given.
        """
        address = upstream if isinstance(upstream, str) else f"http://127.0.0.1:{self.start(upstream)}"
        self.ledger.open(RUN, self.budget)
        self.gateway = build_models_app(
            crossing=Crossing(decider=self.decider, audit=self.audit),
            authenticate=self.authenticate,
            upstreams=(
                Upstream(
                    "test",
                    _APIS[form],
                    address,
                    model or self.model,
                    self.key or (lambda: self.provider_key),
                    speaks=(form,),
                ),
            ),
            house=self.house,
            guards=self.guards,
            ledger=self.ledger,
            prices=self.prices or table(),
            task=self.task(),
            limits=self.limits,
            parallel=self.parallel,
        )
        return f"http://127.0.0.1:{self.start(self.gateway)}{by_name(form).prefix}"

    def drain(self) -> None:
        """Wait until every exchange is settled and recorded."""
        assert self.gateway is not None
        asyncio.run_coroutine_threadsafe(self.gateway.drain(), self.loops[-1]).result(10)

    def close(self) -> None:
        for server, _ in reversed(self.servers):
            server.should_exit = True
        for _, thread in self.servers:
            thread.join(10)
        self.db.close()


_TABLE: list[PriceTable] = []


class MakersPrices(PriceTable):
    """What a model costs at its maker's, whatever the provider of a test is called."""

    def find(self, model: str, at: datetime, *_: Any, **__: Any) -> ModelPrice | None:
        return super().find(model, at)


def table() -> PriceTable:
    if not _TABLE:
        _TABLE.append(MakersPrices(compile_table()))
    return _TABLE[0]
