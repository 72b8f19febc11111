"""`kill -9` around every step of a question's life: nothing is asked or granted twice, and nothing is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.asking import agent
from tests.e2e.conftest import Done, House
from tests.e2e.test_kill import ROOT, crash, effects, only_run
from tests.e2e.test_questions import CONFIG, FILES, answer, question, verified

WORK = """
status, text = call("read_file", path="lib/util.py")
if status == 200:
    call("write_file", path="src/number.py", content="N = 1\\n")
else:
    call("request_scope", paths=["lib/util.py"], why="I need the number.")
"""
BOTH = ["before", "after"]


@pytest.fixture
def house(make_house: Callable[[str], House]) -> House:
    made = make_house(CONFIG)
    made.commit(FILES, "More")
    return made


def start(house: House, steps: str = WORK) -> tuple[str, ...]:
    return ("run", house.ticket(), "--repo", str(house.repo), "--json", *agent(steps))


def waiting(house: House) -> str:
    done = house.run(*agent(WORK))
    assert done.json["state"] == "awaiting_answer", done.err
    return str(done.json["run"])


def finished(house: House, done: Done) -> None:
    """At its gate with the granted work, everything once, and the log whole."""
    assert done.code == 3, done.err
    assert done.json["state"] == "awaiting_review"
    assert done.json["changed_files"] == ["src/number.py"]
    assert [item["state"] for item in done.json["questions"]] == ["granted"]
    happened = effects(done.json)
    assert happened["question.ask"] + unknown(done, "question.ask") == 1
    granting = [e for e in done.json["events"] if e["action"] == "scope.grant" and e["phase"] == "intent"]
    assert 1 <= len(granting) <= 2
    assert verified(house)


def unknown(done: Done, action: str) -> int:
    return sum(event["action"] == action and event["result"] == "unknown" for event in done.json["events"])


@pytest.mark.parametrize("when", BOTH)
def test_killed_around_the_ask(house: House, when: str) -> None:
    killed = crash(house, "QuestionBook._kept", when, *start(house))
    assert killed.code == -9, killed.err
    run = only_run(house)
    again = house.vestibule("resume", run, "--json")
    assert again.json["state"] == "awaiting_answer", again.err
    assert len(again.json["questions"]) == 1, "the same content asked again is the same question"
    finished(house, answer(house, run))


@pytest.mark.parametrize("when", BOTH)
def test_killed_around_the_state_that_waits(house: House, when: str) -> None:
    killed = crash(house, "Segments._asks", when, *start(house))
    assert killed.code == -9, killed.err
    run = only_run(house)
    assert house.vestibule("resume", run, "--json").json["state"] == "awaiting_answer"
    finished(house, answer(house, run))


def test_killed_as_soon_as_it_waits_and_answered_before_anything_looked(house: House) -> None:
    assert crash(house, "Segments._asks", "after", *start(house)).code == -9
    finished(house, answer(house, only_run(house)))


@pytest.mark.parametrize("when", BOTH)
def test_killed_around_the_answer(house: House, when: str) -> None:
    run = waiting(house)
    argv = ("answer", run, "--grant", "--reason", "It may.", "--json")
    assert crash(house, "QuestionBook._record", when, *argv).code == -9
    if when == "before":
        assert house.vestibule("resume", run, "--json").json["state"] == "awaiting_answer"
        finished(house, answer(house, run))
    else:
        finished(house, house.vestibule("resume", run, "--json"))


@pytest.mark.parametrize("when", BOTH)
@pytest.mark.parametrize("point", ["drive.follow", "segments.apply_grants"])
def test_killed_between_the_answer_and_the_work(house: House, point: str, when: str) -> None:
    run = waiting(house)
    argv = ("answer", run, "--grant", "--reason", "It may.", "--json")
    assert crash(house, point, when, *argv).code == -9
    finished(house, house.vestibule("resume", run, "--json"))


@pytest.mark.parametrize("when", BOTH)
def test_killed_around_a_grant_that_takes_effect_live(house: House, when: str) -> None:
    steps = """
for _ in range(6):
    status, text = call("request_scope", paths=["lib/util.py"], why="I need the number.", wait_seconds=20)
    if status != 403:
        break
if call("read_file", path="lib/util.py")[0] == 200:
    call("write_file", path="src/number.py", content="N = 1\\n")
"""
    mark = house.folder / "crashed"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.crashing", "LiveScope._apply", when, *start(house, steps)],
        env={**house.env, "CRASH_MARK": str(mark), "CRASH_TIMES": "1", "PYTHONPATH": str(ROOT)},
        cwd=Path(ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        asked = question(house)
        assert answer(house, asked["id"]).code in (0, 3)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert mark.exists()
    finished(house, house.vestibule("resume", asked["run"], "--json"))
