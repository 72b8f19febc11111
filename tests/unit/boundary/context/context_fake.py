"""A run's context endpoint with fakes behind it: a policy in Python, a log in memory, no sandbox."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vestibule.boundary.context.gateway import build_context_app
from vestibule.boundary.context.limits import ContextLimits
from vestibule.boundary.context.workspace import Workspace
from vestibule.core.crossing import Actor, Crossing
from vestibule.core.labels import Integrity
from vestibule.core.model import AgentRef, Budget, Event, Receipt, Scope, Spec, Task, WallsReport
from vestibule.core.ports import PolicyInput, SandboxResult
from vestibule.core.verdict import Ruling, Verdict
from vestibule.core.view import View, ViewFile

READ = ("src/**", "tests/**", "docs/*.md", "pyproject.toml")
WRITE = ("src/**", "tests/**", "unseen/**")
TOOLS = ("read_file", "list_files", "search_files", "write_file", "apply_patch", "run_command")

EXPECTED: dict[str, dict[str, tuple[Any, str]]] = {
    "context.read": {
        "path_ok": (True, ""),
        "tool_allowed": (True, "context.tool"),
        "in_read": (True, "context.read.scope"),
        "control_file": (False, "context.read.control_file"),
    },
    "context.write": {
        "path_ok": (True, ""),
        "tool_allowed": (True, "context.tool"),
        "in_write": (True, "context.write.scope"),
        "in_read_or_new": (True, "context.write.unseen"),
        "partial": (False, "context.write.partial"),
        "protected": (False, "context.write.protected"),
        "control_file": (False, "context.write.control_file"),
    },
    "context.exec": {"tool_allowed": (True, "context.tool"), "command_allowed": (True, "context.exec.command")},
    "context.call": {"tool_known": (True, "context.tool_unknown"), "tool_allowed": (True, "context.tool")},
}
EXPECTED["context.list"] = EXPECTED["context.search"] = EXPECTED["context.read"]


class FakePolicy:
    """The shipped policy's shape in Python: every fact must be there, and as it must be."""

    digest = "sha256:fake"
    broken: BaseException | None = None

    def __init__(self) -> None:
        self.asked: list[PolicyInput] = []

    def decide(self, request: PolicyInput) -> Verdict:
        self.asked.append(request)
        if self.broken is not None:
            raise self.broken
        reasons = [
            reason or request.facts["path_rule"]
            for name, (wanted, reason) in EXPECTED[request.action].items()
            if request.facts[name] is not wanted
        ]
        ruling = Ruling.DENY if reasons else Ruling.ALLOW
        return Verdict(ruling=ruling, reasons=tuple(reasons), policy_digest=self.digest)


class FakeLog:
    """Keeps events; can fail at once, later, or on outcomes only."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.raises: BaseException | None = None
        self.fails: BaseException | None = None
        self.lock = threading.Lock()

    def submit(self, event: Event) -> concurrent.futures.Future[Receipt]:
        if self.raises is not None:
            raise self.raises
        future: concurrent.futures.Future[Receipt] = concurrent.futures.Future()
        if self.fails is not None:
            future.set_exception(self.fails)
            return future
        with self.lock:
            self.events.append(event)
            future.set_result(Receipt(seq=len(self.events), time="2026-01-01T00:00:00.000Z"))
        return future

    def intents(self) -> list[Event]:
        return [event for event in self.events if event.phase == "intent"]

    def outcomes(self) -> list[Event]:
        return [event for event in self.events if event.phase == "outcome"]


class FakeRunner:
    """Answers as a sandbox would, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[str, ...], float]] = []
        self.broken: BaseException | None = None
        self.stdout = b"3 passed\n"
        self.exit_code = 0
        self.reason = "exited"

    def run(self, argv: Sequence[str], *, timeout_seconds: float) -> SandboxResult:
        self.asked.append((tuple(argv), timeout_seconds))
        if self.broken is not None:
            raise self.broken
        walls = WallsReport(tier="user", walls={})
        return SandboxResult(exit_code=self.exit_code, reason=self.reason, stdout=self.stdout, walls=walls)


@dataclass
class Answered:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return "\n".join(part["text"] for part in self.json["result"]["content"])

    @property
    def failed(self) -> bool:
        return bool(self.json["result"].get("isError"))

    @property
    def refusal(self) -> dict[str, Any]:
        assert self.status == 403, (self.status, self.body[:300])
        assert self.json["error"]["code"] == -32010
        found: dict[str, Any] = self.json["error"]["data"]
        return found


@dataclass
class Endpoint:
    """The application under test and everything behind it."""

    folder: Path
    policy: FakePolicy
    log: FakeLog
    runner: FakeRunner
    workspace: Workspace
    token: bytes
    probe: bytes
    app: Any
    loop: asyncio.AbstractEventLoop
    task: Task
    view: View
    version: str = "2025-11-25"
    ids: list[int] = field(default_factory=lambda: [0])

    def http(
        self,
        body: bytes = b"",
        *,
        method: str = "POST",
        path: str = "/mcp",
        headers: dict[str, str] | None = None,
        drop: Sequence[str] = (),
        extra: Sequence[tuple[str, str]] = (),
    ) -> Answered:
        given = {
            "host": "context.vestibule.internal",
            "authorization": f"Bearer {self.token.decode()}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "content-length": str(len(body)),
            **(headers or {}),
        }
        pairs = [(k.encode(), v.encode("latin-1")) for k, v in given.items() if k not in drop]
        pairs += [(k.encode(), v.encode("latin-1")) for k, v in extra]
        scope = {"type": "http", "method": method, "path": path, "headers": pairs, "query_string": b""}
        return self.loop.run_until_complete(asgi(self.app, scope, body))

    def rpc(self, method: str, params: dict[str, Any] | None = None, **more: Any) -> Answered:
        self.ids[0] += 1
        params = dict(params or {})
        headers = {"mcp-protocol-version": self.version, **more.pop("headers", {})}
        if self.version == "2026-07-28":
            params["_meta"] = {
                "io.modelcontextprotocol/protocolVersion": self.version,
                "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            }
            headers["mcp-method"] = method
            if "name" in params:
                headers["mcp-name"] = params["name"]
        message = {"jsonrpc": "2.0", "id": self.ids[0], "method": method, "params": params}
        return self.http(json.dumps(message).encode(), headers=headers, **more)

    def call(self, tool: str, **arguments: Any) -> Answered:
        return self.rpc("tools/call", {"name": tool, "arguments": arguments})


async def asgi(app: Any, scope: dict[str, Any], body: bytes) -> Answered:
    """One request to an application, without a server."""
    sent: list[dict[str, Any]] = []
    inbox = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return inbox.pop() if inbox else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    headers = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    return Answered(sent[0]["status"], headers, b"".join(item.get("body", b"") for item in sent[1:]))


def make_task(**scope: Any) -> Task:
    rights = {"read": READ, "write": WRITE, "tools": TOOLS, "commands": ("pytest", "ruff"), **scope}
    return Task(
        run="r00000000000000",
        spec=Spec(
            title="Greet politely",
            body="The greeting lacks a name.",
            acceptance=("greet('Ada') says Ada",),
            ticket_digest="sha256:0",
            integrity=Integrity.OUTSIDER,
        ),
        role="backend",
        scope=Scope(**rights),
        budget=Budget(),
        agent=AgentRef(name="a", adapter="command"),
        requester="local:ada",
        base_commit="0" * 40,
    )


def make_view(folder: Path) -> View:
    files = [
        ViewFile(path=str(item.relative_to(folder)), mode="100644", blob="0" * 40, size=item.stat().st_size)
        for item in sorted(folder.rglob("*"))
        if item.is_file() and ".git" not in item.parts and "secret" not in item.parts
    ]
    return View(base_commit="0" * 40, files=tuple(files), omitted=1, writable=WRITE)


def fill(folder: Path) -> None:
    """A small project; `secret/` is outside of the scope, and is there."""
    files = {
        "src/greet.py": "def greet(name):\n    return 'Hello'\n",
        "src/deep/er/mod.py": "VALUE = 1\n",
        "src/CLAUDE.md": "control file\n",
        "tests/test_greet.py": "from greet import greet\n",
        "docs/guide.md": "# Guide\nHello\n",
        "pyproject.toml": "[project]\nname = 'x'\n",
        "secret/key.txt": "classified Hello\n",
        ".git/HEAD": "ref: refs/heads/main\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def make_endpoint(folder: Path, loop: asyncio.AbstractEventLoop, **options: Any) -> Endpoint:
    task = options.pop("task", None) or make_task()
    limits = options.pop("limits", ContextLimits())
    policy, log, runner = FakePolicy(), FakeLog(), FakeRunner()
    token, probe = secrets.token_hex(16).encode(), secrets.token_hex(16).encode()
    actors = {
        token: Actor(task.run, "spiffe://example.com/run/x/agent/a", "agent"),
        probe: Actor(task.run, "spiffe://example.com/run/x/agent/a", "probe"),
    }
    workspace = Workspace(folder)
    view = make_view(folder)
    app = build_context_app(
        crossing=Crossing(policy, log),
        authenticate=options.pop("authenticate", actors.get),
        workspace=workspace,
        task=task,
        view=view,
        runner=runner,
        limits=limits,
        **options,
    )
    return Endpoint(folder, policy, log, runner, workspace, token, probe, app, loop, task, view)
