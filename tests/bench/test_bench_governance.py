"""What governance costs: the same scripted task of the same agent program, bare and governed; and a run's fixed cost.

The governance tax is governed ÷ bare wall time of one Claude Code task. Bare is the program alone with its own
tools, no sandbox, straight at the scripted provider. Both wait as long for the model, so what differs is ours.
In the suite the task is short and only correctness is asserted; `make bench` (or BENCH=1) takes the full one.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn
import yaml
from tests.e2e.conftest import PERSON
from tests.e2e.projects import claude_code_modules, python_prefix

from vestibule.boundary.models.scripted.provider import build_scripted_app

CONFIG = """\
version: 1
roles:
  fixer:
    read: ["src/**"]
    write: ["src/**"]
    commands: [wc]
    budget: {usd: 5.00, tokens: 5000000, minutes: 5}
agents:
  native: {adapter: claude-code, model: claude-sonnet-5, mode: native}
  mcp: {adapter: claude-code, model: claude-sonnet-5}
gates:
  review: {self_approval: recorded, expires: 1d}
"""
TICKET = "# Count on\n\nEach module counts one further.\n"
FILES = 6
ONE_LINE = ("--agent", "command", "--", "sh", "-c", "echo 'value = 7' >> src/m0.py")
VESTIBULE = str(Path(sys.executable).with_name("vestibule"))


class Size(NamedTuple):
    """How long the task is, and how often things are measured."""

    turns: int
    latency_ms: int
    rounds: int


def _size(config: pytest.Config) -> Size:
    full = os.environ.get("BENCH", "") not in ("", "0") or config.getoption("markexpr") == "bench"
    return Size(24, 1400, 9) if full else Size(6, 30, 2)


def _calls(turns: int, root: str, *, native: bool) -> Iterator[dict[str, Any]]:
    """One call a turn, in rotation: read, edit, run a program."""
    for number in range(turns - 1):
        index, step = number // 3 % FILES, number % 3
        path, line = f"src/m{index}.py", f"value = {index}"
        if step == 0:
            call = {"name": "Read", "input": {"file_path": f"{root}/{path}"}}
            ours = {"name": "read_file", "input": {"path": path}}
        elif step == 1:
            text = f"{line}  # turn {number}"
            old = line if number < 3 * FILES else f"{line}  # turn {number - 3 * FILES}"
            call = {"name": "Edit", "input": {"file_path": f"{root}/{path}", "old_string": old, "new_string": text}}
            ours = {"name": "write_file", "input": {"path": path, "content": f"{text}\n" + "# more\n" * 200}}
        else:
            call = {"name": "Bash", "input": {"command": f"wc -l {path}", "description": "Count"}}
            ours = {"name": "run_command", "input": {"argv": ["wc", "-l", path]}}
        yield call if native else ours


def _script(size: Size, root: str, *, native: bool) -> dict[str, Any]:
    turns: list[dict[str, Any]] = [{"tools": [call]} for call in _calls(size.turns, root, native=native)]
    return {"version": 1, "latency_ms": size.latency_ms, "turns": [*turns, {"text": "Counted."}]}


class Place(NamedTuple):
    """A repository with a state folder and an operator's configuration beside it."""

    folder: Path
    env: dict[str, str]

    @property
    def repo(self) -> Path:
        return self.folder / "repo"

    def operate(self, tools: list[str], script: dict[str, Any] | None = None) -> None:
        operator: dict[str, Any] = {"version": 1, "sandbox": {"tools": tools}}
        if script is not None:
            path = self.folder / "script.json"
            path.write_text(json.dumps(script), "utf-8")
            operator["models"] = {"scripted": {"api": "scripted", "script": str(path), "models": ["*"]}}
        (self.folder / "operator.yaml").write_text(yaml.safe_dump(operator), "utf-8")

    def run(self, *argv: str) -> tuple[dict[str, Any], float]:
        """`vestibule run --json` and its wall time in seconds."""
        began = time.perf_counter()
        done = subprocess.run(
            [VESTIBULE, "run", str(self.folder / "ticket.md"), "--repo", str(self.repo), "--json", *argv],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        wall = time.perf_counter() - began
        assert done.returncode == 3, (done.stderr, done.stdout[-2000:])
        found: dict[str, Any] = json.loads(done.stdout)
        return found, wall


@pytest.fixture
def place(tmp_path: Path) -> Place:
    # Compiled modules are kept, as any installation keeps them, wherever the sources lie.
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "person"),
        "VESTIBULE_HOME": str(tmp_path / "home"),
        "VESTIBULE_CONFIG": str(tmp_path / "operator.yaml"),
        "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled"),
        "LANG": "C.UTF-8",
    }
    found = Place(tmp_path, env)
    (tmp_path / "person").mkdir()
    (tmp_path / "ticket.md").write_text(TICKET)
    (found.repo / ".vestibule").mkdir(parents=True)
    (found.repo / "src").mkdir()
    (found.repo / ".vestibule/config.yaml").write_text(CONFIG)
    for index in range(FILES):
        (found.repo / f"src/m{index}.py").write_text(f"value = {index}\n" + "# more\n" * 200)
    for argv in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "First"]):
        subprocess.run(["git", "-C", str(found.repo), *argv], env={**os.environ, **PERSON}, check=True)
    return found


@contextlib.contextmanager
def _provider(script: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The scripted provider on loopback: its address and key."""
    key = secrets.token_urlsafe(16)
    app = build_scripted_app(json.dumps(script).encode(), "script.json", key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, http="httptools", ws="none", lifespan="off", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", key
        finally:
            server.should_exit = True
            thread.join()


def _bare(place: Place, size: Size) -> float:
    """Wall seconds of the program alone in a copy of the repository."""
    folder = place.folder / f"bare-{secrets.token_hex(4)}"
    shutil.copytree(place.repo / "src", folder / "src")
    home = folder / "home"
    home.mkdir()
    with _provider(_script(size, str(folder), native=True)) as (address, key):
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "IS_SANDBOX": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "ANTHROPIC_BASE_URL": address,
            "ANTHROPIC_API_KEY": key,
            "ANTHROPIC_SMALL_FAST_MODEL": "claude-sonnet-5",
        }
        program = claude_code_modules() / ".bin" / "claude"
        argv = [str(program), "-p", "Count on.", "--output-format", "stream-json", "--verbose"]
        argv += ["--model", "claude-sonnet-5", "--setting-sources", "user", "--dangerously-skip-permissions"]
        began = time.perf_counter()
        done = subprocess.run(
            argv,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        wall = time.perf_counter() - began
    assert done.returncode == 0, (done.stderr[-1000:], done.stdout[-1000:])
    _changed(lambda path: (folder / path).read_text(), size)
    return wall


def _changed(read: Callable[[str], str], size: Size) -> None:
    """The last edit of each file is there."""
    last = {number // 3 % FILES: number for number in range(size.turns - 1) if number % 3 == 1}
    for index, number in last.items():
        assert read(f"src/m{index}.py").startswith(f"value = {index}  # turn {number}\n")


def _governed(place: Place, size: Size, mode: str) -> tuple[float, dict[str, Any]]:
    script = _script(size, "/workspace", native=mode == "native")
    place.operate([str(claude_code_modules()), *python_prefix()], script)
    run, wall = place.run("--agent", mode)
    tree = run["head_commit"]

    def read(path: str) -> str:
        argv = ["git", "-C", str(place.repo), "show", f"{tree}:{path}"]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    _changed(read, size)
    assert run["usage"]["requests"] >= size.turns
    assert run["decisions"]["deny"] == 0
    return wall, run


@pytest.mark.bench
@pytest.mark.timeout(900)
def test_governance_tax_of_a_claude_code_task(place: Place, pytestconfig: pytest.Config) -> None:
    size = _size(pytestconfig)
    modes = ("native", "mcp")
    bare: list[float] = []
    governed: dict[str, list[tuple[float, dict[str, Any]]]] = {mode: [] for mode in modes}
    place.operate(python_prefix())
    place.run(*ONE_LINE)  # compiles modules and makes the state folder, as whatever ran before would have
    for _ in range(max(1, size.rounds // 4)):
        bare.append(_bare(place, size))
        for mode in modes:
            governed[mode].append(_governed(place, size, mode))
    print(f"\ngovernance tax, Claude Code, {size.turns} turns of {size.latency_ms} ms: bare {min(bare):.2f} s")
    for mode in modes:
        wall, run = min(governed[mode], key=lambda item: item[0])
        agent = run["timings_ms"]["agent"] / 1000
        print(
            f"  {mode:6}: {wall:.2f} s, governed / bare = {wall / min(bare):.3f} (bar 1.10); "
            f"{wall - min(bare):.2f} s more, {wall - agent:.2f} s before and after the agent; "
            f"{run['decisions']['allow']} decisions, {run['audit']['size']} entries in the log"
        )


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.bench
def test_fixed_cost_of_a_run_that_changes_one_line(place: Place, pytestconfig: pytest.Config) -> None:
    size = _size(pytestconfig)
    place.operate(python_prefix())
    place.run(*ONE_LINE)
    walls, processor, parts = [], [], []
    for _ in range(size.rounds):
        before = _processor()
        run, wall = place.run(*ONE_LINE)
        walls.append(wall)
        processor.append(_processor() - before)
        parts.append(run["timings_ms"])
        assert run["changed_files"] == ["src/m0.py"]
    helps = [_help(place) for _ in range(size.rounds)]
    median = {name: statistics.median(item[name] for item in parts) for name in parts[0]}
    known = sum(median.values())
    wall = statistics.median(walls)
    print(
        f"\none-shot `command` run that changes one line: {wall:.2f} s (median of {size.rounds}; "
        f"best {min(walls):.2f}; bar 1.5), {statistics.median(processor):.2f} s of processor time\n  of it "
        + ", ".join(f"{name} {value:.0f}" for name, value in median.items())
        + f", start, imports, log and the rest {wall * 1000 - known:.0f} (ms)\n"
        f"`vestibule --help`: {statistics.median(helps):.3f} s (best {min(helps):.3f}; bar 0.25)"
    )


def _help(place: Place) -> float:
    began = time.perf_counter()
    done = subprocess.run([VESTIBULE, "--help"], env=place.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Exit codes" in done.stdout
    return time.perf_counter() - began
