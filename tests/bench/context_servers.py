"""The servers that `test_bench_context` compares, each a process of its own.

    python -m tests.bench.context_servers governed|lowlevel|mcpserver FOLDER

All serve `read_file` over the files below FOLDER/workspace, on loopback, under the same host (uvicorn on uvloop).
`governed` is what a run has: task token, shipped policy, audit log on disk with durable intents. The other two are
the SDK's low-level and its usual server, with nothing before the tool. Prints one JSON line, `{"port", "token"}`; ends
when its input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
from pathlib import Path
from typing import Any

from vestibule.pipeline.hosting import GatewayHost, loopback_listener


def governed(folder: Path, port: int, stack: contextlib.ExitStack) -> tuple[Any, str]:
    from vestibule.audit.log import AuditLog
    from vestibule.boundary.context.gateway import build_context_app
    from vestibule.boundary.context.workspace import Workspace
    from vestibule.core.crossing import Actor, Crossing
    from vestibule.core.labels import Integrity
    from vestibule.core.model import AgentRef, Budget, Scope, Spec, Task
    from vestibule.core.view import View
    from vestibule.identity.tokens import TaskTokens
    from vestibule.policy import PolicySet

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
    agent = Actor(task.run, "spiffe://example.com/run/r00000000000000/agent/a", "agent")
    tokens = TaskTokens(agent, Actor(agent.run, agent.id, "probe"))
    rights = {"read": list(scope.read), "write": list(scope.write), "tools": list(scope.tools), "commands": []}
    log = stack.enter_context(AuditLog.open(folder / "audit", folder / "trust"))
    policy = stack.enter_context(contextlib.closing(PolicySet.load()))
    app = build_context_app(
        crossing=Crossing(policy, log, {"run": task.run, "role": task.role, **rights}),
        authenticate=tokens.authenticate,
        workspace=stack.enter_context(contextlib.closing(Workspace(folder / "workspace"))),
        task=task,
        view=View(base_commit="0" * 40, files=(), omitted=0, writable=scope.write),
        runner=None,  # type: ignore[arg-type] # no command is run here
        hosts=frozenset({f"127.0.0.1:{port}"}),
    )
    stack.callback(app.close)
    return app, tokens.agent_token


SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}


def lowlevel(folder: Path) -> tuple[Any, Any]:
    import mcp_types as t
    from mcp.server.lowlevel import Server
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    async def call(_: Any, params: t.CallToolRequestParams) -> t.CallToolResult:
        path = folder / "workspace" / (params.arguments or {})["path"]
        text = await asyncio.to_thread(path.read_text)
        return t.CallToolResult(content=[t.TextContent(type="text", text=text)])

    server: Server[Any] = Server("bare", on_call_tool=call)
    manager = StreamableHTTPSessionManager(server, json_response=True, stateless=True)
    return manager.handle_request, manager.run


def mcpserver(folder: Path) -> tuple[Any, Any]:
    from mcp.server.mcpserver import MCPServer

    server = MCPServer("bare", log_level="ERROR")

    @server.tool()
    def read_file(path: str) -> str:
        """The text of a file."""
        return (folder / "workspace" / path).read_text()

    app = server.streamable_http_app(json_response=True, stateless_http=True)
    return app, server.session_manager.run


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    listener = loopback_listener()
    port = listener.getsockname()[1]
    token = ""
    with contextlib.ExitStack() as stack:
        if kind == "governed":
            app, token = governed(folder, port, stack)
        else:
            app, running = {"lowlevel": lowlevel, "mcpserver": mcpserver}[kind](folder)
        host = GatewayHost(lambda _: None)
        stack.callback(host.stop)
        if kind != "governed":
            started = threading.Event()

            async def run() -> None:
                async with running():
                    started.set()
                    await asyncio.Event().wait()

            asyncio.run_coroutine_threadsafe(run(), host.loop)
            started.wait(30)
        host.serve(kind, app, listener)
        print(json.dumps({"port": port, "token": token}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
