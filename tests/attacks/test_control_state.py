"""Nobody who can write a state file, or start a process somewhere, runs code as the supervisor or decides for it."""

from __future__ import annotations

import base64
import os
import pickle  # noqa: TID251  the attack itself
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.attacks.control_world import World
from vestibule.core.errors import DependencyDown

_SERVE = """
import sys
from pathlib import Path
from vestibule.pipeline.engine import Engine
def segment(steps, run):
    steps.run("one", lambda: 1)
    steps.run("two", lambda: 2)
    return "done"
engine = Engine(Path(sys.argv[1]), "01J0000000000000000000000A", {"work": segment})
print(engine.perform("work", "work-1"))
import os; sys.stdout.flush(); os._exit(0)
"""


class _Code:
    """Unpickling it writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (os.mkdir, (str(self.mark),))


def _engine(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _SERVE, str(folder)], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_engines_file_holds_json_only(tmp_path: Path) -> None:
    assert _engine(tmp_path).stdout == "done\n"
    with sqlite3.connect(tmp_path / "engine.db") as connection:
        kinds = {row[0] for row in connection.execute("SELECT serialization FROM workflow_status")}
        kinds |= {row[0] for row in connection.execute("SELECT serialization FROM operation_outputs")}
    assert "py_pickle" not in kinds
    assert kinds


@pytest.mark.parametrize("table", ["workflow_status", "operation_outputs", "inputs"])
def test_a_pickle_in_the_engines_file_is_never_loaded(tmp_path: Path, table: str) -> None:
    assert _engine(tmp_path).stdout == "done\n"
    mark = tmp_path / "executed"
    payload = base64.b64encode(pickle.dumps(_Code(mark))).decode()
    with sqlite3.connect(tmp_path / "engine.db") as connection:
        if table == "inputs":
            connection.execute("UPDATE workflow_input SET inputs = ?", (payload,))
            connection.execute("UPDATE workflow_status SET status = 'PENDING', serialization = 'py_pickle'")
        elif table == "workflow_status":
            connection.execute("UPDATE workflow_output SET output = ?", (payload,))
            connection.execute("UPDATE workflow_status SET output = ?, serialization = 'py_pickle'", (payload,))
        else:
            connection.execute("UPDATE operation_outputs SET output = ?, serialization = 'py_pickle'", (payload,))
            connection.execute("UPDATE workflow_status SET status = 'PENDING'")
    refused = _engine(tmp_path)
    assert not mark.exists()
    assert "never writes" in refused.stderr


@pytest.mark.parametrize("column", ["name = 'x'", "application_version = 'other'", "executor_id = 'other'"])
def test_a_segment_that_nobody_would_recover_is_refused_and_not_waited_for(tmp_path: Path, column: str) -> None:
    assert _engine(tmp_path).stdout == "done\n"
    with sqlite3.connect(tmp_path / "engine.db") as connection:
        connection.execute(f"UPDATE workflow_status SET status = 'PENDING', {column}")
    assert "never writes" in _engine(tmp_path).stderr


def test_inputs_that_name_no_segment_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    assert _engine(tmp_path).stdout == "done\n"
    with sqlite3.connect(tmp_path / "engine.db") as connection:
        connection.execute("UPDATE workflow_status SET status = 'PENDING'")
        connection.execute("UPDATE workflow_input SET inputs = '[]'")
    assert "never writes" in _engine(tmp_path).stderr


@pytest.mark.parametrize(
    ("raised", "rule"),
    [
        ("OSError(28, 'No space left on device', '/home/runs/x')", "dependency.machine"),
        ("PermissionError(13, 'Permission denied')", "dependency.machine"),
        ("__import__('vestibule.git').git.GitError(['x'], 128, 'fatal: No space left on device')", "dependency.git"),
    ],
)
def test_a_full_disk_at_any_step_is_a_refusal_and_no_bug_of_ours(tmp_path: Path, raised: str, rule: str) -> None:
    script = _SERVE.replace('steps.run("two", lambda: 2)', f'steps.run("two", lambda: (_ for _ in ()).throw({raised}))')
    script = script.replace('print(engine.perform("work", "work-1"))', _PRINT_RULE)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == f"{rule}\n", done.stderr


_PRINT_RULE = """
from vestibule.core.errors import Refused
try:
    engine.perform("work", "work-1")
except Refused as error:
    print(error.refusal.rule)
"""


def test_a_row_under_another_runs_name_is_damage(world: World) -> None:
    with sqlite3.connect(world.home / "vestibule.db") as connection:
        connection.execute("UPDATE runs SET document = replace(document, ?, 'r000000009other')", (world.run,))
    with pytest.raises(DependencyDown, match="cannot be read"):
        _ = world.record
