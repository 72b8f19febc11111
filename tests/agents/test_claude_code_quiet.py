"""The unmodified Claude Code CLI, started as the adapter plans it, asks for no name but the gateways'.

It runs in a network namespace whose name server answers everything and keeps what was asked. Without the adapter's
variables it asks for more, which proves that the listening works.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.projects import ROOT, claude_code_modules, missing
from vestibule.agents.base import CONTEXT_HOST, MODELS_HOST, Situation
from vestibule.agents.claude_code import SILENT, ClaudeCode
from vestibule.core.labels import Integrity
from vestibule.core.model import AgentRef, Budget, Scope, Spec, Task

NAMESPACE = ["unshare", "--user", "--map-root-user", "--net", "--mount"]


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode != 0:
        missing("Network namespaces cannot be made here")


def _run(tmp_path: Path, *, native: bool, silent: bool) -> dict[str, Any]:
    task = Task(
        run="r00000000000000",
        spec=Spec(title="t", body="b", ticket_digest="sha256:0", integrity=Integrity.MEMBER),
        role="fixer",
        scope=Scope(read=("src/**",), write=("src/**",), tools=("read_file", "write_file")),
        budget=Budget(),
        agent=AgentRef(name="claude", adapter="claude-code", model="claude-sonnet-5"),
        requester="local:ada",
        base_commit="0" * 40,
    )
    token = secrets.token_urlsafe(24)
    plan = ClaudeCode().plan(Situation(task=task, token=token, tools=(claude_code_modules(),), native=native))
    home, work = tmp_path / "agent", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    for name, data in plan.home_files.items():
        (home / name).write_bytes(data)
    env = {name: value for name, value in plan.env.items() if silent or name not in SILENT}
    setup = {
        "argv": [item.replace("/home/agent", str(home)) for item in plan.argv],
        # Inside the sandbox it has an ordinary user's id; here it must be told that it is in one.
        "env": {**env, "HOME": str(home), "PATH": "/usr/bin:/bin", "IS_SANDBOX": "1"},
        "cwd": str(work),
        "key": token,
        "script": {"version": 1, "turns": [{"text": "Nothing to do."}]},
    }
    path = tmp_path / "setup.json"
    path.write_text(json.dumps(setup))
    done = subprocess.run(
        [*NAMESPACE, sys.executable, "-m", "tests.agents.quiet_namespace", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["code"] == 0, found
    assert "Nothing to do." in found["out"]
    assert "/anthropic/v1/messages" in found["paths"]
    return found


@pytest.mark.parametrize("native", [False, True], ids=["mcp", "native"])
def test_claude_code_asks_for_no_name_but_the_gateways(tmp_path: Path, native: bool) -> None:
    found = _run(tmp_path, native=native, silent=True)
    assert set(found["names"]) == {MODELS_HOST, CONTEXT_HOST}


def test_without_the_adapters_variables_it_asks_for_more(tmp_path: Path) -> None:
    found = _run(tmp_path, native=True, silent=False)
    assert set(found["names"]) - {MODELS_HOST, CONTEXT_HOST}
