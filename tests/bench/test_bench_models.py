"""What governing a model request costs: processor time beside a bare pass-through of the same run.

Both sides run under uvicorn in a process of their own and talk to the same mock provider with the same client
library. The governed side does everything it does in a run: token, strict JSON, field rules, price, durable hold,
Rego decision, durable intent, settle, outcome.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.bench

REQUESTS = int(os.environ.get("VESTIBULE_BENCH_MODEL_REQUESTS", "150"))
PARALLEL = 8
MODEL = "claude-sonnet-5"
RUN = "r00000000000000"
TOKEN = "bench-task-token"

MESSAGE = json.dumps(
    {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": "word " * 160}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 5000, "output_tokens": 162},
    }
).encode()


def _event(value: dict[str, Any]) -> bytes:
    return f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode()


EVENTS = [
    _event({"type": "message_start", "message": {"usage": {"input_tokens": 5000, "output_tokens": 1}}}),
    _event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    *(
        _event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word " * 8}})
        for _ in range(20)
    ),
    _event({"type": "content_block_stop", "index": 0}),
    _event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 162}}),
    _event({"type": "message_stop"}),
]


async def _mock(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if b'"stream":true' in body or b'"stream": true' in body:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for item in EVENTS:
            await send({"type": "http.response.body", "body": item, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(MESSAGE)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": MESSAGE})


def _pass_through(upstream: str) -> Any:
    """The physical limit of this server and client: bytes in, bytes out, nothing looked at."""
    import aiohttp

    sessions: list[aiohttp.ClientSession] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not sessions:
            sessions.append(aiohttp.ClientSession(auto_decompress=False))
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


def _governed(upstream: str, folder: Path) -> Any:
    from vestibule.audit.log import AuditLog
    from vestibule.boundary.models.gateway import build_models_app
    from vestibule.boundary.models.providers import Upstream
    from vestibule.core.crossing import Actor, Crossing
    from vestibule.core.model import AgentRef, Budget, Scope, Spec, Task
    from vestibule.cost.ledger import Ledger
    from vestibule.cost.prices import PriceBook
    from vestibule.policy.layers import shipped_layer
    from vestibule.policy.policy_set import PolicySet
    from vestibule.store.database import Database

    task = Task(
        run=RUN,
        spec=Spec(title="t", body="", ticket_digest="", integrity="member"),
        role="backend",
        scope=Scope(read=("**",), write=()),
        budget=Budget(),
        agent=AgentRef(name="claude", adapter="claude-code", model=MODEL),
        requester="local:bench",
        base_commit="0" * 40,
    )
    ledger = Ledger(Database(f"sqlite:///{folder / 'state.db'}"))
    ledger.open(RUN, task.budget)
    actor = Actor(run=RUN, id=f"spiffe://vestibule.local/run/{RUN}/agent/claude", kind="agent")
    gateway = build_models_app(
        crossing=Crossing(
            decider=PolicySet([shipped_layer()]), audit=AuditLog.open(folder / "audit", folder / "trust")
        ),
        authenticate=lambda token: actor if token == TOKEN.encode() else None,
        upstream=Upstream("mock", "anthropic", upstream, MODEL, lambda: "key"),
        ledger=ledger,
        prices=PriceBook(folder),
        task=task,
    )

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        scope["path"] = "/anthropic" + scope["path"] if scope["type"] == "http" else ""
        await gateway(scope, receive, send)

    return mounted


def _serve(kind: str, sock: socket.socket, upstream: str, folder: str) -> None:
    import uvicorn
    import uvloop

    app: Any = _mock
    if kind == "pass-through":
        app = _pass_through(upstream)
    elif kind == "governed":
        app = _governed(upstream, Path(folder))
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", http="httptools")
    uvloop.run(uvicorn.Server(config).serve([sock]))


class _Side:
    """A served process and the processor time it used."""

    def __init__(self, kind: str, folder: Path, upstream: str = "") -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_serve, args=(kind, sock, upstream, str(folder)), daemon=True)
        self._process.start()
        sock.close()

    def cpu(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self._process.kill()
        self._process.join(10)


def _body(size: int, *, stream: bool) -> bytes:
    text = "def add(left, right):\n    return left + right\n" * (size // 46)
    return json.dumps(
        {
            "model": MODEL,
            "max_tokens": 1000,
            "stream": stream,
            "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}],
        }
    ).encode()


async def _drive(url: str, body: bytes, requests: int) -> list[float]:
    import aiohttp

    taken: list[float] = []
    left = iter(range(requests))
    headers = {"content-type": "application/json", "x-api-key": TOKEN}

    async with aiohttp.ClientSession() as session:

        async def worker() -> None:
            for _ in left:
                begun = time.perf_counter()
                async with session.post(url + "/v1/messages", data=body, headers=headers) as response:
                    data = await response.read()
                    assert response.status == 200, data[:300]
                taken.append(time.perf_counter() - begun)

        await asyncio.gather(*(worker() for _ in range(PARALLEL)))
    return sorted(taken)


def test_processor_time_per_request_beside_a_bare_pass_through(tmp_path: Path) -> None:
    mock = _Side("mock", tmp_path)
    sides = {name: _Side(name, tmp_path, mock.url) for name in ("pass-through", "governed")}
    rows = []
    try:
        for name, size, stream in (("1 KB", 1000, False), ("1 KB stream", 1000, True), ("100 KB", 100_000, False)):
            found = {}
            for kind, side in sides.items():
                asyncio.run(_warm(side.url, _body(size, stream=stream)))
                before = side.cpu()
                taken = asyncio.run(_drive(side.url, _body(size, stream=stream), REQUESTS))
                assert len(taken) == REQUESTS
                found[kind] = ((side.cpu() - before) * 1000 / REQUESTS, taken[len(taken) // 2] * 1000)
            rows.append((name, found))
    finally:
        for side in (*sides.values(), mock):
            side.close()
    print(f"\nmodel gateway, {REQUESTS} requests each, {PARALLEL} at once, processor milliseconds per request (p50 ms)")
    for name, found in rows:
        bare, governed = found["pass-through"], found["governed"]
        ratio = governed[0] / max(bare[0], 0.001)
        print(
            f"  {name:12} pass-through {bare[0]:6.3f} ({bare[1]:6.2f})   "
            f"governed {governed[0]:6.3f} ({governed[1]:6.2f})   ratio {ratio:5.1f}"
        )


async def _warm(url: str, body: bytes) -> None:
    import aiohttp

    for _ in range(400):
        try:
            await _drive(url, body, PARALLEL)
        except aiohttp.ClientConnectionError:
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError("the server did not start")
