"""One process that hosts only the model gateway, as a run does: `python -m tests.bench.gateway_server KIND SOCKET …`.

Kinds: `governed` (all of it), and the same with one layer taken out, which says what each layer costs: `no-audit`,
`no-ledger`, `no-policy`; `bare` has none of the three. `pass-through` is the HTTP server and client alone.
"""

from __future__ import annotations

import os
import socket
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

MODEL = "claude-sonnet-5"
RUN = "r00000000000000"
TOKEN = "bench-task-token"


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


class _NoLedger:
    """A ledger that promises everything."""

    def submit_hold(self, run: str, model: str, **_: Any) -> Future[str]:
        return _done("h")

    def submit_settle(self, hold: str, usage: Any, details: Any = None) -> Future[None]:
        return _done(None)

    submit_charge = submit_release = submit_settle

    def usage(self, run: str) -> Any:
        from vestibule.core.model import Usage

        return Usage()


class _NoAudit:
    def submit(self, event: Any) -> Future[Any]:
        from vestibule.core.model import Receipt

        return _done(Receipt(seq=1, time="2026-01-01T00:00:00.000Z"))


class _NoPolicy:
    digest = "none"

    def decide(self, request: Any) -> Any:
        from vestibule.core.verdict import Ruling, Verdict

        return Verdict(ruling=Ruling.ALLOW, reasons=())


def governed(upstream: str, folder: Path, without: frozenset[str]) -> Any:
    """The gateway of one run, wired as the pipeline wires it."""
    from vestibule.boundary.models.call_rules import House
    from vestibule.boundary.models.gateway import build_models_app
    from vestibule.boundary.models.providers import Upstream
    from vestibule.core.crossing import Actor, Crossing
    from vestibule.core.model import AgentRef, Budget, Scope, Spec, Task
    from vestibule.core.tool_names import ToolNames
    from vestibule.cost.prices import PriceBook

    task = Task(
        run=RUN,
        spec=Spec(title="t", body="", ticket_digest="", integrity="member"),
        role="backend",
        scope=Scope(read=("**",), write=()),
        budget=Budget(),
        agent=AgentRef(name="claude", adapter="claude-code", model=MODEL, version="claude-code@1+claude-sonnet-5+0"),
        requester="local:bench",
        base_commit="0" * 40,
    )
    actor = Actor(run=RUN, id=f"spiffe://vestibule.local/run/{RUN}/agent/claude", kind="agent")
    names = ToolNames("claude-code", {"vestibule": ("read_file", "write_file")})
    ledger: Any = _NoLedger()
    if "ledger" not in without:
        from vestibule.cost.ledger import Ledger
        from vestibule.store.database import Database

        ledger = Ledger(Database(f"sqlite:///{folder / 'state.db'}"))
        ledger.open(RUN, task.budget)
    audit: Any = _NoAudit()
    if "audit" not in without:
        from vestibule.audit.log import AuditLog

        audit = AuditLog.open(folder / "audit", folder / "trust")
    decider: Any = _NoPolicy()
    if "policy" not in without:
        from vestibule.pipeline.inputs import KeepingDecider
        from vestibule.policy import PolicySet

        decider = KeepingDecider(PolicySet.load(), folder)
    return build_models_app(
        crossing=Crossing(decider=decider, audit=audit),
        authenticate=lambda token: actor if token == TOKEN.encode() else None,
        upstreams=(Upstream("mock", "anthropic", upstream, MODEL, lambda: "key"),),
        ledger=ledger,
        prices=PriceBook(folder),
        task=task,
        house=House(names.normal, lambda: task.scope),
        repository="example/app",
    )


def pass_through(upstream: str) -> Any:
    """The limit of this server and client: bytes in, bytes out, nothing looked at."""
    import aiohttp

    sessions: list[aiohttp.ClientSession] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not sessions:
            sessions.append(aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(limit=128)))
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {"content-type": "application/json"}
        async with sessions[0].post(upstream + "/v1/messages", data=body, headers=headers) as response:
            kind = [(b"content-type", response.headers["content-type"].encode())]
            await send({"type": "http.response.start", "status": response.status, "headers": kind})
            async for chunk in response.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    return app


LAYERS = {
    "governed": frozenset[str](),
    "no-audit": frozenset({"audit"}),
    "no-ledger": frozenset({"ledger"}),
    "no-policy": frozenset({"policy"}),
    "bare": frozenset({"audit", "ledger", "policy"}),
}


def main() -> None:
    kind, descriptor, upstream, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    sock = socket.socket(fileno=descriptor)
    import uvicorn
    import uvloop

    from vestibule.pipeline.bounded_http import BoundedProtocol

    app = pass_through(upstream) if kind == "pass-through" else governed(upstream, folder, LAYERS[kind])
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=120,
    )
    if os.environ.get("VESTIBULE_BENCH_PROFILE"):
        import cProfile

        profile = cProfile.Profile()
        profile.enable()
        import signal

        signal.signal(signal.SIGUSR1, lambda *_: (profile.disable(), profile.dump_stats(folder / "profile")))
    uvloop.run(uvicorn.Server(config).serve([sock]))


if __name__ == "__main__":
    main()
