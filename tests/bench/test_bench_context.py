"""What governing a tool call costs, beside the bare SDK server that does the same without asking anybody."""

from __future__ import annotations

import asyncio
import json
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import CallToolRequestParams, CallToolResult, TextContent

from vestibule.boundary.context.gateway import build_context_app
from vestibule.boundary.context.workspace import Workspace
from vestibule.core.crossing import Actor, Crossing
from vestibule.core.labels import Integrity
from vestibule.core.model import AgentRef, Budget, Event, Receipt, Scope, Spec, Task
from vestibule.core.view import View
from vestibule.policy import PolicySet

pytestmark = pytest.mark.bench

CALLS = 300
FILES = 40
HOST = "context.vestibule.internal"
TEXT = "def f():\n    return 1\n" * 40


class Log:
    """Takes entries and gives receipts at once: the log's own cost is measured with the log."""

    count = 0

    def submit(self, event: Event) -> Future[Receipt]:
        self.count += 1
        done: Future[Receipt] = Future()
        done.set_result(Receipt(seq=self.count, time="2026-01-01T00:00:00.000Z"))
        return done


App = Callable[[Any, Any, Any], Awaitable[None]]


async def request(app: App, token: str, number: int, path: str, version: str) -> tuple[int, bytes]:
    """One `read_file` over ASGI, without sockets."""
    params: dict[str, Any] = {"name": "read_file", "arguments": {"path": path}}
    headers = [
        (b"host", HOST.encode()),
        (b"authorization", f"Bearer {token}".encode()),
        (b"content-type", b"application/json"),
        (b"accept", b"application/json, text/event-stream"),
        (b"mcp-protocol-version", version.encode()),
    ]
    if version == "2026-07-28":
        headers += [(b"mcp-method", b"tools/call"), (b"mcp-name", b"read_file")]
        params["_meta"] = {
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
    body = json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}).encode()
    inbox = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return inbox.pop() if inbox else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": headers, "query_string": b""}
    await app(scope, receive, send)
    return int(sent[0]["status"]), b"".join(item.get("body", b"") for item in sent[1:])


async def rounds(app: App, token: str, version: str) -> tuple[float, float]:
    """CPU milliseconds a call (best of three rounds) and the median wall milliseconds."""
    best, walls = float("inf"), []
    for _ in range(3):
        cpu = time.process_time()
        for number in range(CALLS):
            started = time.perf_counter()
            status, body = await request(app, token, number, f"src/m{number % FILES}.py", version)
            walls.append(time.perf_counter() - started)
            assert status == 200
            assert b"return 1" in body
        best = min(best, (time.process_time() - cpu) / CALLS)
    return best * 1000, statistics.median(walls) * 1000


@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
def test_a_governed_call_beside_the_bare_sdk(tmp_path: Path, version: str) -> None:
    (tmp_path / "src").mkdir()
    for number in range(FILES):
        (tmp_path / f"src/m{number}.py").write_text(TEXT)
    scope = Scope(read=("src/**",), write=("src/**",), tools=("read_file",))
    task = Task(
        run="r00000000000000",
        spec=Spec(title="t", body="b", ticket_digest="sha256:0", integrity=Integrity.MEMBER),
        role="backend",
        scope=scope,
        budget=Budget(),
        agent=AgentRef(name="a", adapter="command"),
        requester="local:ada",
        base_commit="0" * 40,
    )
    token, policy, workspace = secrets.token_hex(20), PolicySet.load(), Workspace(tmp_path)
    actor = Actor(task.run, "spiffe://example.com/run/r/agent/a", "agent")
    rights = {"read": list(scope.read), "write": list(scope.write), "tools": list(scope.tools), "commands": []}

    async def bare_read(_: Any, params: CallToolRequestParams) -> CallToolResult:
        text = await asyncio.to_thread((tmp_path / (params.arguments or {})["path"]).read_text)
        return CallToolResult(content=[TextContent(type="text", text=text)])

    async def work() -> tuple[tuple[float, float], tuple[float, float], float]:
        governed = build_context_app(
            crossing=Crossing(policy, Log(), {"run": task.run, "role": task.role, **rights}),
            authenticate=lambda found: actor if secrets.compare_digest(found, token.encode()) else None,
            workspace=workspace,
            task=task,
            view=View(base_commit="0" * 40, files=(), omitted=0, writable=scope.write),
            runner=None,  # type: ignore[arg-type] # no command is run here
        )
        manager = StreamableHTTPSessionManager(
            Server("bare", on_call_tool=bare_read), json_response=True, stateless=True
        )
        async with manager.run():
            await request(governed, token, 0, "src/m0.py", version)
            await request(manager.handle_request, token, 0, "src/m0.py", version)
            theirs = await rounds(manager.handle_request, token, version)
            ours = await rounds(governed, token, version)
        cpu = time.process_time()
        for number in range(CALLS):
            status, _ = await request(governed, token, number, "../x", version)
            assert status == 403
        return ours, theirs, (time.process_time() - cpu) / CALLS * 1000

    ours, theirs, refused = asyncio.run(work())
    workspace.close()
    policy.close()
    print(
        f"\ncontext read_file ({version}): governed {ours[0]:.2f} ms CPU, {ours[1]:.2f} ms median; "
        f"bare SDK {theirs[0]:.2f} ms CPU, {theirs[1]:.2f} ms median; "
        f"ratio {ours[0] / theirs[0]:.2f} CPU, {ours[1] / theirs[1]:.2f} wall; refusal {refused:.2f} ms CPU"
    )
