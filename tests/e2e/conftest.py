"""Whole runs through the real command line: real git, real bubblewrap, a state folder of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CONFIG = """\
version: 1
roles:
  fixer:
    read: ["src/**", "tests/**"]
    write: ["src/**", "tests/**"]
    commands: ["python3"]
    budget: {usd: 1.00, tokens: 500000, minutes: 5}
agents:
  demo: {adapter: reference, model: claude-sonnet-5}
gates:
  review: {self_approval: recorded, expires: 1d}
changes: {protected: ["deploy/**"]}
"""

PERSON = {
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@example.com",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.com",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}


@dataclass
class Done:
    """One command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


@dataclass
class House:
    """A state folder, an operator's configuration, and a repository."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def repo(self) -> Path:
        return self.folder / "repo"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def operator(self) -> Path:
        return self.folder / "operator" / "config.yaml"

    def vestibule(
        self, *argv: str, env: Mapping[str, str] | None = None, stdin: str = "", timeout: float = 120
    ) -> Done:
        """The installed command."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name("vestibule")), *argv],
            env={**self.env, **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self.folder,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def git(self, *argv: str, repo: Path | None = None) -> str:
        done = subprocess.run(
            ["git", "-C", str(repo or self.repo), *argv],
            env={**os.environ, **PERSON},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def commit(self, files: Mapping[str, str | bytes], message: str = "Change", repo: Path | None = None) -> str:
        """Write files, commit everything, give the commit."""
        root = repo or self.repo
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "-A", repo=root)
        self.git("commit", "-q", "-m", message, repo=root)
        return self.git("rev-parse", "HEAD", repo=root)

    def ticket(self, text: str = "# Greet politely\n\nThe greeting should say please.\n") -> str:
        path = self.folder / "ticket.md"
        path.write_text(text, "utf-8")
        return str(path)

    def script(self, turns: str, *, more: str = "") -> None:
        """Make the scripted provider answer with these turns (YAML, indented below `turns:`)."""
        path = self.folder / "script.yaml"
        path.write_text(f"version: 1\n{more}turns:\n{turns}", "utf-8")
        self.operate(f"models:\n  scripted: {{api: scripted, script: {json.dumps(str(path))}, models: ['*']}}\n")

    def operate(self, more: str = "", *, sandbox: str = "") -> None:
        """Write the operator's configuration: this Python as a tool, and `more`."""
        tools = [] if Path(sys.base_prefix).resolve().is_relative_to("/usr") else [str(Path(sys.base_prefix).resolve())]
        self.operator.parent.mkdir(exist_ok=True)
        self.operator.write_text(f"version: 1\nsandbox: {{tools: {json.dumps(tools)}{sandbox}}}\n{more}", "utf-8")

    def run(self, *argv: str, ticket: str | None = None, env: Mapping[str, str] | None = None) -> Done:
        """`vestibule run --json` on the repository."""
        return self.vestibule("run", ticket or self.ticket(), "--repo", str(self.repo), "--json", *argv, env=env)

    def change(self, shell: str = "echo 'print(1)' >> src/app.py", env: Mapping[str, str] | None = None) -> Done:
        """A run whose agent is one line of shell."""
        return self.run("--agent", "command", "--", "sh", "-c", shell, env=env)


def build_house(folder: Path, config: str = CONFIG) -> House:
    """A house in `folder`, with a repository that has one commit and a configuration."""
    house = House(folder)
    house.env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "person"),
        "VESTIBULE_HOME": str(house.home),
        "VESTIBULE_CONFIG": str(house.operator),
        "PYTHONDONTWRITEBYTECODE": "1",
        "VESTIBULE_TRACEBACK": "1",
        "LANG": "C.UTF-8",
    }
    (folder / "person").mkdir()
    house.repo.mkdir()
    house.git("init", "-q", "-b", "main")
    house.commit(
        {
            "src/app.py": "def greet(name):\n    return f'Hello {name}'\n",
            "tests/test_app.py": "from src.app import greet\n\nassert greet('A') == 'Hello A'\n",
            "deploy/prod.yaml": "replicas: 3\n",
            ".vestibule/config.yaml": config,
        },
        "First",
    )
    house.operate()
    return house


@pytest.fixture
def make_house(tmp_path: Path) -> Iterator[Callable[[str], House]]:
    """Houses with a repository that has one commit and a configuration. No test of any leaves an agent unadmitted."""

    def make(config: str = CONFIG) -> House:
        return build_house(tmp_path, config)

    yield make
    check_admissions(tmp_path / "home" / "audit")


def check_admissions(log: Path) -> None:
    """In a log that can be read, every start of an agent follows an admission of its run and round that holds."""
    from vestibule.audit.log import read_entries
    from vestibule.core.errors import VestibuleError

    if not log.is_dir():
        return
    try:
        entries = list(read_entries(log, None, 0))
    except (VestibuleError, OSError):
        return  # a test broke it on purpose
    failed = {item.event.intent for item in entries if item.event.phase == "outcome" and item.event.result == "failed"}
    admitted: set[tuple[str, int]] = set()
    for item in entries:
        event = item.event
        if event.phase != "intent" or (event.action == "task.admit" and item.seq in failed):
            continue
        if event.action == "task.admit" and event.verdict == "allow":
            admitted.add((event.run, event.details["round"]))
        if event.action == "agent.start":
            assert (event.run, event.details["round"]) in admitted, f"{event.run}: an agent started unadmitted"


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    return make_house()


HOOK = """
import importlib.abc, importlib.machinery, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != {module!r}:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            {patch}
        spec.loader.exec_module = exec_module
        return spec

import importlib.util
sys.meta_path.insert(0, Finder())
"""
"""What a `sitecustomize.py` does to one module when it is imported: a broken build, for one process."""


def without_monitor(folder: Path) -> dict[str, str]:
    """The environment of a machine on which the runtime monitor cannot be started."""
    patch = folder / "no-monitor" / "sitecustomize.py"
    patch.parent.mkdir(exist_ok=True)
    patch.write_text(
        HOOK.format(module="vestibule.boundary.host.monitor", patch="module._HERE = module._HERE / 'gone'")
    )
    return {"PYTHONPATH": str(patch.parent)}
