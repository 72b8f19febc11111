"""A run's context endpoint over a hostile repository: the real view, gateway, shipped policy and audit log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vestibule.audit.log import AuditLog, read_entries
from vestibule.boundary.context.gateway import ContextApp, build_context_app
from vestibule.boundary.context.workspace import Workspace
from vestibule.core.crossing import Actor, Crossing
from vestibule.core.labels import Integrity, Label, RunLabel
from vestibule.core.model import AgentRef, Budget, Scope, Spec, Task
from vestibule.git import Git
from vestibule.policy import PolicySet
from vestibule.sandbox.view import materialise, project

TOOLS = ("read_file", "list_files", "search_files", "write_file", "apply_patch", "run_command")
SCOPE = Scope(
    read=("src/**", "docs/**", "tests/**", "prompts/**", "README.md", "*.md"),
    write=("src/**", "tests/**"),
    tools=TOOLS,
    commands=("pytest",),
)


def git(folder: Path, *argv: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.com", *argv],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def repository(folder: Path, files: Mapping[str, str], links: Mapping[str, str] | None = None) -> Path:
    """A repository with one commit."""
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for name, target in (links or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)
    git(folder, "add", "-Af")
    git(folder, "commit", "-q", "-m", "first")
    return folder


@dataclass
class Endpoint:
    """What an agent can reach, and what the log says of it."""

    home: Path
    workspace: Path
    run: str
    app: ContextApp
    token: bytes
    started: list[tuple[str, ...]]
    loop: asyncio.AbstractEventLoop

    def raw(self, body: bytes) -> tuple[int, dict[str, Any]]:
        headers = {
            "host": "context.vestibule.internal",
            "authorization": f"Bearer {self.token.decode()}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "content-length": str(len(body)),
            "mcp-protocol-version": "2025-11-25",
        }
        pairs = [(key.encode(), value.encode()) for key, value in headers.items()]
        scope = {"type": "http", "method": "POST", "path": "/mcp", "query_string": b"", "headers": pairs}
        sent: list[dict[str, Any]] = []
        inbox = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            return inbox.pop() if inbox else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        self.loop.run_until_complete(self.app(scope, receive, send))
        return sent[0]["status"], json.loads(b"".join(item.get("body", b"") for item in sent[1:]))

    def rpc(self, method: str, params: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        return self.raw(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode())

    def call(self, tool: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
        return self.rpc("tools/call", {"name": tool, "arguments": arguments})

    def text(self, tool: str, **arguments: Any) -> str:
        """The text of a call that was allowed."""
        status, answer = self.call(tool, **arguments)
        assert status == 200, answer
        return "\n".join(part["text"] for part in answer["result"]["content"])

    def refused(self, tool: str, **arguments: Any) -> str:
        """The rule of a call that was refused; it must be in the log."""
        status, answer = self.call(tool, **arguments)
        assert status == 403, answer
        rule = str(answer["error"]["data"]["rule"])
        assert self.events()[-1].verdict in ("deny", "hold")
        return rule

    def events(self) -> list[Any]:
        found = [entry.event for entry in read_entries(self.home / "audit", self.run, 0)]
        return [event for event in found if event.phase == "intent"]


class _Runner:
    def __init__(self, started: list[tuple[str, ...]]) -> None:
        self.started = started

    def run(self, argv: Any, *, timeout_seconds: float) -> Any:
        self.started.append(tuple(argv))
        raise AssertionError("no command of an attack is started")


@contextlib.contextmanager
def endpoint(
    home: Path, source: Path, *, scope: Scope = SCOPE, spec: Spec | None = None, run: str = "r00000000000000"
) -> Iterator[Endpoint]:
    """The endpoint of one run over `source`; `home` holds its log and its workspace."""
    repo = Git.open(source)
    base = repo.commit_of("main")
    assert base is not None
    view = project(repo, base, scope)
    folder = home / f"workspace-{run}"
    materialise(repo, view, folder, uid=None)
    task = Task(
        run=run,
        spec=spec or Spec(title="t", body="b", ticket_digest="sha256:0", integrity=Integrity.MEMBER),
        role="backend",
        scope=scope,
        budget=Budget(),
        agent=AgentRef(name="a", adapter="command"),
        requester="local:ada",
        base_commit=base,
    )
    token, started = secrets.token_hex(16).encode(), list[tuple[str, ...]]()
    workspace, audit, policy = Workspace(folder), AuditLog.open(home / "audit", home / "trust"), PolicySet.load()
    actor = Actor(run, "spiffe://example.com/run/x/agent/a", "agent")
    crossing = Crossing(policy, audit, labels=RunLabel(Label(integrity=Integrity.MEMBER)))
    app = build_context_app(
        crossing=crossing,
        authenticate={token: actor}.get,
        workspace=workspace,
        task=task,
        view=view,
        runner=_Runner(started),
    )
    loop = asyncio.new_event_loop()
    try:
        yield Endpoint(home, folder, run, app, token, started, loop)
    finally:
        app.close()
        loop.close()
        workspace.close()
        audit.close()
        policy.close()
