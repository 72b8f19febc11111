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
