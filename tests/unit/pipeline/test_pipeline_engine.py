"""The engine: finished steps are never run again, errors come back as they were, a broken file is refused."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import vestibule.store.database as store
from vestibule.core.errors import AgentFailed, ConfigError, DependencyDown, Refused, UsageError, VestibuleError
from vestibule.core.refusal import refusal
from vestibule.pipeline import engine as module
from vestibule.pipeline.engine import APPLICATION_VERSION, EXECUTOR_THREADS, Engine, Steps

RUN = "r0123456789abcd"


class Table:
    """Segments whose steps are counted."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.error: VestibuleError | None = None
        self.waiting = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def count(self, name: str) -> str:
        self.ran.append(name)
        return name

    def two(self, steps: Steps, run: str) -> Any:
        first = steps.run("one", lambda: self.count("one"))
        return [run, first, steps.run("two", lambda: self.count("two"))]

    def fails(self, steps: Steps, run: str) -> Any:
        def step() -> None:
            self.count("fails")
            if self.error is not None:
                raise self.error

        return steps.run("fails", step)

    def waits(self, steps: Steps, run: str) -> Any:
        def step() -> str:
            self.count("waits")
            self.waiting.set()
            self.gate.wait(20)
            return "waited"

        return steps.run("waits", step)

    def table(self) -> dict[str, Any]:
        return {"two": self.two, "fails": self.fails, "waits": self.waits}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Table]:
    table = Table()
    return Engine(tmp_path_factory.mktemp("engine"), RUN, table.table()), table


def test_a_segment_runs_its_steps_once_however_often_its_key_is_asked_for(shared: tuple[Engine, Table]) -> None:
    engine, table = shared
    table.ran.clear()
    first = engine.perform("two", "same")
    assert first == [RUN, "one", "two"]
    assert engine.perform("two", "same") == first
    assert table.ran == ["one", "two"]
    engine.perform("two", "other")
    assert table.ran == ["one", "two"] * 2


def test_callers_of_one_key_at_once_join_one_segment(shared: tuple[Engine, Table]) -> None:
    engine, table = shared
    table.ran.clear()
    table.gate.clear()
    found: list[Any] = []
    callers = [threading.Thread(target=lambda: found.append(engine.perform("waits", "joined"))) for _ in range(4)]
    for caller in callers:
        caller.start()
    table.gate.set()
    for caller in callers:
        caller.join(20)
    assert found == ["waited"] * 4
    assert table.ran == ["waits"]


@pytest.mark.parametrize(
    "error",
    [
        AgentFailed("It changed nothing.", why="It said so.", next_step="Ask again."),
        UsageError("No such thing.", next_step="Name another."),
        ConfigError("a key is unknown", where="config.yaml:3"),
        DependencyDown("sandbox", "No sandbox.", fact="bwrap", person="Install it.", agent="Stop."),
        Refused(refusal("gate.review", "A person decides.", fact="f", agent="Wait.", person="Decide.")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_recorded_error_comes_back_as_it_was_and_its_step_is_not_run_again(
    shared: tuple[Engine, Table], error: VestibuleError
) -> None:
    engine, table = shared
    table.ran.clear()
    table.error = error
    key = f"error-{type(error).__name__}"
    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            engine.perform("fails", key)
        found = caught.value
        assert type(found) is type(error)
        assert (found.what, found.why, found.next_step) == (error.what, error.why, error.next_step)
        assert found.exit_code == error.exit_code
        if isinstance(error, Refused):
            assert isinstance(found, Refused)
            assert found.refusal == error.refusal
    assert table.ran == ["fails"]


def test_a_segment_that_is_not_in_the_table_is_a_bug(shared: tuple[Engine, Table]) -> None:
    with pytest.raises(KeyError):
        shared[0].perform("nothing", "k")


def test_version_and_threads_are_pinned(shared: tuple[Engine, Table]) -> None:
    shared[0].perform("two", "versions")
    with sqlite3.connect(shared[0].path) as connection:
        found = connection.execute("SELECT DISTINCT application_version, executor_id FROM workflow_status").fetchall()
    assert found == [(APPLICATION_VERSION, RUN)]
    from dbos._dbos import _get_dbos_instance

    assert _get_dbos_instance()._executor._max_workers == EXECUTOR_THREADS


def test_a_later_engine_in_one_process_takes_over_and_the_former_is_refused(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    former = Engine(folders[0], "r1", Table().table())
    assert former.perform("two", "k")[0] == "r1"
    table = Table()
    later = Engine(folders[1], "r2", table.table())
    assert later.perform("two", "k") == ["r2", "one", "two"]
    with pytest.raises(DependencyDown) as caught:
        former.perform("two", "k2")
    assert caught.value.name == "engine"
    table.gate.clear()
    working = threading.Thread(target=lambda: later.perform("waits", "w"))
    working.start()
    assert table.waiting.wait(20)
    try:
        with pytest.raises(DependencyDown) as caught:
            Engine(folders[0], "r1", Table().table())
        assert "r2" in caught.value.what
    finally:
        table.gate.set()
        working.join(20)
    later.close()
    assert list(folders[1].iterdir()) == []


@pytest.mark.parametrize("kind", ["garbage", "a folder", "no folder", "torn"])
def test_a_damaged_or_unwritable_engine_file_is_refused(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "engine.db"
    if kind == "garbage":
        path.write_bytes(b"garbage" * 2000)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "torn":
        path.write_bytes(b"SQLite format 3\0" + bytes(500))
    else:
        folder.rmdir()
    with pytest.raises(DependencyDown) as caught:
        Engine(folder, RUN, Table().table())
    assert caught.value.name == "engine"
    assert caught.value.refusal.fact


def test_a_locked_engine_file_is_refused_and_never_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BUSY_SECONDS", 0.2)
    table = Table()
    engine = Engine(tmp_path, RUN, table.table())
    engine.perform("two", "before")
    other = sqlite3.connect(engine.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(DependencyDown) as caught:
            engine.perform("two", "while")
        assert caught.value.name == "engine"
        assert table.ran == ["one", "two"]
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert engine.perform("two", "while") == [RUN, "one", "two"]


CHILD = """\
import os, sys, signal
from pathlib import Path
from vestibule.pipeline.engine import Engine
folder, crash = Path(sys.argv[1]), sys.argv[2]
def step(name):
    with (folder / "ran").open("a") as file:
        file.write(name + "\\n")
    if crash == name:
        os.kill(os.getpid(), signal.SIGKILL)
    return name
def segment(steps, run):
    return [steps.run(name, lambda name=name: step(name)) for name in ("one", "two", "three")]
print(Engine(folder, "r1", {"s": segment}).perform("s", "k"))
sys.stdout.flush()
os._exit(0)
"""


def test_after_a_kill_only_the_step_in_flight_runs_again(tmp_path: Path) -> None:
    def child(crash: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", CHILD, str(tmp_path), crash]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ))

    assert child("two").returncode == -9
    done = child("none")
    assert done.stdout.strip() == "['one', 'two', 'three']", done.stderr
    assert (tmp_path / "ran").read_text().split() == ["one", "two", "two", "three"]


def test_what_is_no_json_is_a_bug_and_not_recorded(shared: tuple[Engine, Table]) -> None:
    with pytest.raises(TypeError):
        module._sealed(object)
