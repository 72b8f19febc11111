"""A refusal of the context endpoint reaches the model of the unmodified Claude Code CLI, and its next call works.

The CLI is the one named by VESTIBULE_CLAUDE_CODE, or installed under build/tools, or found on PATH. The model is
a script: it asks for a file outside the scope, then for one inside, and keeps what it was told in between.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from vestibule.boundary.context.gateway import build_context_app
from vestibule.boundary.context.workspace import Workspace
from vestibule.core.crossing import Actor, Crossing
from vestibule.core.labels import Integrity
from vestibule.core.model import AgentRef, Budget, Event, Receipt, Scope, Spec, Task
from vestibule.core.ports import SandboxResult
from vestibule.core.view import View
from vestibule.policy import PolicySet

ROOT = Path(__file__).resolve().parents[2]
MODEL = "claude-scripted"
ALLOWED = ("mcp__vestibule__write_file", "mcp__vestibule__read_file")

TURNS = (
    {"name": "mcp__vestibule__write_file", "input": {"path": "infra/prod.tf", "content": "x"}},
    {"name": "mcp__vestibule__write_file", "input": {"path": "src/a.py", "content": "A = 1\n"}},
)
"""The model's tool calls, one a turn; then it ends."""


def claude_code() -> str:
    """The CLI's path. Missing: skipped on a laptop, a failure in CI."""
    candidates = (
        os.environ.get("VESTIBULE_CLAUDE_CODE"),
        str(ROOT / "build/tools/node_modules/.bin/claude"),
        shutil.which("claude"),
    )
    found = next((item for item in candidates if item and Path(item).exists()), None)
    if found is None:
        reason = "Claude Code is not installed: npm install --prefix build/tools @anthropic-ai/claude-code"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@dataclass
class ScriptedModel:
    """The Anthropic Messages API, streaming, with the turns above. `seen` keeps each request's body."""

    seen: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, request: dict[str, Any]) -> bytes:
        self.seen.append(request)
        turn = sum(1 for message in request["messages"] if message["role"] == "assistant")
        if turn < len(TURNS):
            call = TURNS[turn]
            block = {"type": "tool_use", "id": f"toolu_{turn}", "name": call["name"], "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(call["input"])}
        else:
            block = {"type": "text", "text": ""}
            delta = {"type": "text_delta", "text": "finished"}
        stop = "tool_use" if turn < len(TURNS) else "end_turn"
        start = {
            "id": f"msg_{turn}",
            "type": "message",
            "role": "assistant",
            "model": request["model"],
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 5, "output_tokens": 1},
        }
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": start},
            {"type": "content_block_start", "index": 0, "content_block": block},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": stop, "stop_sequence": None},
                "usage": {"output_tokens": 3},
            },
            {"type": "message_stop"},
        ]
        return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()

    def results(self) -> list[dict[str, Any]]:
        """Every tool result that the model was shown, in order, each once."""
        blocks = [block for message in self.seen[-1]["messages"] for block in _blocks(message)]
        return [block for block in blocks if block.get("type") == "tool_result"]


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    return message["content"] if isinstance(message["content"], list) else []


@pytest.fixture
def model() -> Iterator[tuple[ScriptedModel, str]]:
    script = ScriptedModel()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

        def do_HEAD(self) -> None:
            self._send(b"", "text/plain")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if "count_tokens" in self.path:
                self._send(b'{"input_tokens":1}', "application/json")
            else:
                self._send(script.answer(body), "text/event-stream")

        def _send(self, data: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield script, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Log:
    """A log in memory."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def submit(self, event: Event) -> Future[Receipt]:
        self.events.append(event)
        done: Future[Receipt] = Future()
        done.set_result(Receipt(seq=len(self.events), time="2026-01-01T00:00:00.000Z"))
        return done


class NoCommands:
    """No command is run here."""

    def run(self, argv: Any, *, timeout_seconds: float) -> SandboxResult:
        raise AssertionError(argv)


@dataclass
class Context:
    """The real endpoint, with the shipped policy, on a loopback port."""

    url: str
    token: str
    folder: Path
    log: Log


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    folder = tmp_path / "workspace"
    (folder / "src").mkdir(parents=True)
    scope = Scope(read=("src/**",), write=("src/**",), tools=("read_file", "write_file"))
    task = Task(
        run="r00000000000000",
        spec=Spec(title="t", body="b", ticket_digest="sha256:0", integrity=Integrity.MEMBER),
        role="backend",
        scope=scope,
        budget=Budget(),
        agent=AgentRef(name="claude", adapter="claude-code", model=MODEL),
        requester="local:ada",
        base_commit="0" * 40,
    )
    token, log, policy = secrets.token_hex(20), Log(), PolicySet.load()
    actor = Actor(task.run, f"spiffe://example.com/run/{task.run}/agent/claude", "agent")
    workspace = Workspace(folder)
    rights = {"read": list(scope.read), "write": list(scope.write), "tools": list(scope.tools), "commands": []}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        app = build_context_app(
            crossing=Crossing(policy, log, {"run": task.run, "role": task.role, **rights}),
            authenticate=lambda found: actor if secrets.compare_digest(found, token.encode()) else None,
            workspace=workspace,
            task=task,
            view=View(base_commit="0" * 40, files=(), omitted=0, writable=scope.write),
            runner=NoCommands(),
            hosts=frozenset({address}),
        )
        server = uvicorn.Server(uvicorn.Config(app, http="httptools", ws="none", lifespan="off", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield Context(f"http://{address}/mcp", token, folder, log)
        server.should_exit = True
        thread.join()
    workspace.close()
    policy.close()


def test_refusal_reaches_claude_codes_model_and_the_next_call_works(
    context: Context, model: tuple[ScriptedModel, str], tmp_path: Path
) -> None:
    script, models = model
    home, project = tmp_path / "home", tmp_path / "project"
    home.mkdir()
    project.mkdir()
    server = {"type": "http", "url": context.url, "headers": {"Authorization": f"Bearer {context.token}"}}
    config = home / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"vestibule": server}}))
    command = [
        *(claude_code(), "-p", "Do the task.", "--output-format", "stream-json", "--verbose", "--model", MODEL),
        *("--setting-sources", "user", "--mcp-config", str(config), "--strict-mcp-config", "--tools", ""),
        *("--allowedTools", ",".join(ALLOWED)),
    ]
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "ANTHROPIC_BASE_URL": models,
        "ANTHROPIC_AUTH_TOKEN": context.token,
    }
    done = subprocess.run(
        command,
        cwd=project,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    assert [tool["name"] for tool in script.seen[0]["tools"] if "get_task" not in tool["name"]] == sorted(ALLOWED)

    refused, written = script.results()
    assert refused["is_error"] is True
    shown = json.dumps(refused["content"])
    assert "[context.write.scope]" in shown  # the sentence: rule, reason, what to do
    assert "infra/prod.tf" in shown
    assert "-32010" in shown  # the whole body, so the typed refusal as well
    assert not written.get("is_error")
    assert "src/a.py" in json.dumps(written["content"])

    assert not (context.folder / "infra").exists()
    assert (context.folder / "src/a.py").read_text() == "A = 1\n"
    decided = [(event.resource, str(event.verdict)) for event in context.log.events if event.phase == "intent"]
    assert decided == [("infra/prod.tf", "deny"), ("src/a.py", "allow")]
