"""`kill -9` at every step: nothing is repeated and nothing is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.conftest import Done, House
from vestibule.config.spending import OperatorBudget, RequestLimit
from vestibule.cost.ledger import Ledger
from vestibule.store.database import Database

ROOT = Path(__file__).resolve().parents[2]
LONG = f"sleep {1_000_000 + os.getpid()}"
"""A command line that no other process of this machine has."""

AGENT = ("--agent", "command", "--", "sh", "-c", "echo 'print(1)' >> src/app.py")


def crash(house: House, point: str, when: str, *argv: str, times: int = 1) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.crashing", point, when, *argv],
        env={
            **house.env,
            "CRASH_MARK": str(house.folder / "crashed"),
            "CRASH_TIMES": str(times),
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def start(house: House) -> tuple[str, ...]:
    return ("run", house.ticket(), "--repo", str(house.repo), "--json", *AGENT)


def only_run(house: House) -> str:
    return str(house.vestibule("runs", "--json").json["runs"][0]["run"])


def effects(run: dict[str, object]) -> Counter[str]:
    events = run["events"]
    assert isinstance(events, list)
    return Counter(event["action"] for event in events if event["phase"] == "outcome" and event["result"] == "ok")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", ["_admit", "_work", "_check", "_propose"])
def test_killed_on_the_way_to_the_gate(house: House, point: str, when: str) -> None:
    killed = crash(house, f"Segments.{point}", when, *start(house))
    assert killed.code == -9, killed.err
    run = only_run(house)
    done = house.vestibule("resume", run, "--json")
    assert done.code == 3, done.err
    assert done.json["state"] == "awaiting_review"
    assert house.git("show", f"{done.json['branch']}:src/app.py").count("print(1)") == 1
    assert house.git("rev-list", "--count", f"main..{done.json['branch']}") == "1"
    approved = house.vestibule("review", run, "--approve", "--reason", "Survived.", "--json")
    assert approved.code == 0, approved.err
    assert house.vestibule("audit", "verify", "--repo", str(house.repo), "--json").code == 0
    repeated = effects(approved.json)
    assert repeated["merge"] == 1
    if point in ("_check", "_propose"):
        assert repeated["agent.start"] == 1, "work that was done is not done again"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", ["_verify", "_merge"])
def test_killed_between_approval_and_merge(house: House, point: str, when: str) -> None:
    run = house.change().json
    argv = ("review", run["run"], "--approve", "--reason", "Go.", "--json")
    assert crash(house, f"Segments.{point}", when, *argv).code == -9
    done = house.vestibule("resume", run["run"], "--json")
    assert done.code == 0, done.err
    assert done.json["state"] == "merged"
    assert house.git("rev-list", "--merges", "--count", "main") == "1"
    assert house.git("status", "--porcelain") == ""
    assert len(done.json["reviews"]) == 1
    assert house.vestibule("audit", "verify", "--repo", str(house.repo), "--json").code == 0


def test_killed_while_the_agent_works_reaps_the_sandbox_and_starts_a_fresh_view(house: House) -> None:
    argv = (*start(house)[:-1], f"echo 'print(1)' >> src/app.py; {LONG} & sleep 1")
    killed = crash(house, "Attempt._run_agent", "after", *argv)
    assert killed.code == -9, killed.err
    _gone(LONG)
    run = only_run(house)
    done = house.vestibule("resume", run, "--json")
    assert done.code == 3, done.err
    assert done.json["attempt"] == 2
    assert house.git("show", f"{done.json['branch']}:src/app.py").count("print(1)") == 1
    unknown = [event for event in done.json["events"] if event["result"] == "unknown"]
    assert len({event["intent"] for event in unknown}) == len(unknown)


def test_a_second_death_at_work_ends_the_run(house: House) -> None:
    assert crash(house, "Attempt._run_agent", "before", *start(house), times=2).code == -9
    run = only_run(house)
    assert crash(house, "Attempt._run_agent", "before", "resume", run, "--json", times=2).code == -9
    done = house.vestibule("resume", run, "--json")
    assert done.code == 5
    assert done.json["state"] == "failed"
    assert "cut off" in done.json["note"]


def test_what_a_run_left_held_is_charged_when_it_ends_without_working_again(house: House) -> None:
    assert crash(house, "Attempt._run_agent", "before", *start(house), times=2).code == -9
    run = only_run(house)
    assert crash(house, "Attempt._run_agent", "before", "resume", run, "--json", times=2).code == -9
    db = Database(f"sqlite:///{house.home / 'vestibule.db'}")
    try:
        ledger = Ledger(db, OperatorBudget(concurrent=RequestLimit(agent_version=1)))
        details = {"agent": "a", "agent_version": "v"}
        ledger.hold(run, "m", nano_usd=7, tokens=7, details=details)
        assert house.vestibule("resume", run, "--json").json["state"] == "failed"
        assert {row.held_requests for row in ledger.standings().values()} == {0}
        assert ledger.usage(run).cost_nano_usd == 7
        ledger.hold(run, "m", nano_usd=7, tokens=7, details=details)  # room for one at a time
        ledger.close()
    finally:
        db.close()


def test_spend_survives_the_kill(house: House) -> None:
    house.script(
        """\
  - {text: One., tools: [{name: write_file, input: {path: src/app.py, content: "x = 1\\n"}}]}
  - {text: Done.}
"""
    )
    argv = ("run", house.ticket(), "--repo", str(house.repo), "--json", "--agent", "demo")
    assert crash(house, "Attempt._run_agent", "after", *argv).code == -9
    run = only_run(house)
    before = house.vestibule("show", run, "--json").json["usage"]
    assert before["requests"] == 2
    after = house.vestibule("resume", run, "--json").json["usage"]
    assert after["requests"] == 4
    assert after["cost_nano_usd"] == 2 * before["cost_nano_usd"]


def test_two_processes_never_work_on_one_run(house: House) -> None:
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("vestibule")), *start(house)[:-1], LONG],
        env=house.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        run = process.stderr.readline().split()[-1]
        deadline = time.monotonic() + 20
        while "pid" not in _lease(house, run) and time.monotonic() < deadline:
            time.sleep(0.05)
        done = house.vestibule("resume", run, "--json")
        assert done.code == 2, done.err
        assert "another process" in done.err
        cancelled = house.vestibule("cancel", run, "--json")
        assert cancelled.code == 0, cancelled.err
        assert cancelled.json["state"] == "cancelled"
        assert cancelled.json["undone"]
    finally:
        process.kill()
        process.wait()
    _gone(LONG)


def _lease(house: House, run: str) -> str:
    path = house.home / "runs" / run / "lease"
    return path.read_text() if path.exists() else ""


def _gone(command: str) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = subprocess.run(["pgrep", "-f", "-x", command], capture_output=True, check=False)
        if found.returncode == 1:
            return
        time.sleep(0.05)
    raise AssertionError(f"{command!r} outlived its sandbox")
