"""An agent program, unmodified, started as its adapter plans it in the namespace of `quiet_namespace`."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.projects import NODE_MODULES, ROOT, missing
from vestibule.agents.base import Plan, Situation
from vestibule.agents.registry import adapter
from vestibule.core.labels import Integrity
from vestibule.core.model import AgentRef, Budget, Scope, Spec, Task

NAMESPACE = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
NOTHING = "Nothing to do."


@dataclass(frozen=True)
class Found:
    """What came of it. `names` that were asked for; `heard`: which of the words stood in a request to the model."""

    code: int
    names: frozenset[str]
    paths: tuple[str, ...]
    heard: frozenset[str]
    out: str
    err: str


def needed(program: str) -> None:
    """End the test where `program` is not installed or no namespace can be made."""
    if not (NODE_MODULES / ".bin" / program).exists():
        missing(f"{program} is not installed: make build/tools/.installed")
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode != 0:
        missing("Network namespaces cannot be made here")


def start(
    tmp_path: Path,
    name: str,
    model: str,
    *,
    native: bool,
    files: Mapping[str, str] | None = None,
    words: tuple[str, ...] = (),
    says: str = NOTHING,
    change: Callable[[Plan], Plan] = lambda plan: plan,
) -> Found:
    """Runs the program in `tmp_path/work`, a git repository that holds `files`. `change` alters the adapter's plan."""
    task = Task(
        run="r00000000000000",
        spec=Spec(title="t", body="b", ticket_digest="sha256:0", integrity=Integrity.MEMBER),
        role="fixer",
        scope=Scope(read=("src/**",), write=("src/**",), tools=("read_file", "write_file")),
        budget=Budget(),
        agent=AgentRef(name="it", adapter=name, model=model),
        requester="local:ada",
        base_commit="0" * 40,
    )
    token = secrets.token_urlsafe(24)
    api = adapter(name).about.apis[0]
    plan = change(adapter(name).plan(Situation(task=task, token=token, tools=(NODE_MODULES,), native=native, api=api)))
    home, work = tmp_path / "agent", tmp_path / "work"
    for path, data in plan.home_files.items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_bytes(_moved(data.decode(), home, work).encode())
    work.mkdir()
    subprocess.run(["git", "init", "-q", str(work)], check=True)
    for path, text in (files or {}).items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(text)
    setup = {
        "argv": [_moved(item, home, work) for item in plan.argv],
        "env": {
            **{key: _moved(value, home, work) for key, value in plan.env.items()},
            "HOME": str(home),
            "PATH": "/usr/bin:/bin",
        },
        "cwd": str(work),
        "key": token,
        "words": words,
        "script": {"version": 1, "turns": [{"text": says}] * 2},
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
    assert done.returncode == 0, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    found = json.loads(done.stdout)
    return Found(
        code=found["code"],
        names=frozenset(found["names"]),
        paths=tuple(found["paths"]),
        heard=frozenset(found["heard"]),
        out=found["out"],
        err=found["err"],
    )


def _moved(text: str, home: Path, work: Path) -> str:
    return text.replace("/home/agent", str(home)).replace("/workspace", str(work))
