"""An agent asks for more, a person answers, the agent goes on: through the real command line and the real sandbox."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking import agent
from tests.e2e.conftest import Done, House

CONFIG = """\
version: 1
roles:
  fixer:
    read: ["src/**"]
    write: ["src/**"]
    askable: {read: ["lib/**", "docs/**"], write: ["lib/**"]}
    budget: {minutes: 5}
gates:
  review: {self_approval: recorded, expires: 1d}
changes: {protected: ["deploy/**", "lib/locked/**"]}
"""
FILES = {
    "lib/util.py": "SECRET_NUMBER = 41\n",
    "lib/other.py": "OTHER = 1\n",
    "lib/locked/a.py": "x = 1\n",
    "docs/guide.md": "Be kind.\n",
    "hidden/plan.md": "Nobody may ask for this.\n",
}
ASK_AND_WAIT = """
for _ in range(6):
    status, text = call("request_scope", paths=["lib/util.py"], why="I need the number.", wait_seconds=20)
    if status == 200:
        break
say(status, text)
_, number = call("read_file", path="lib/util.py")
say("number", number)
call("write_file", path="src/number.py", content="NUMBER = " + number.split("=")[1].strip() + " + 1\\n")
"""


@pytest.fixture
def house(make_house: Callable[[str], House]) -> House:
    made = make_house(CONFIG)
    made.commit(FILES, "More")
    return made


@contextmanager
def running(house: House, steps: str) -> Iterator[subprocess.Popen[str]]:
    """`vestibule run --json` in the background."""
    argv = ["run", house.ticket(), "--repo", str(house.repo), "--json", *agent(steps)]
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("vestibule")), *argv],
        env=house.env,
        cwd=house.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=120)
    return Done(process.returncode, out, err)


def question(house: House, *, seconds: float = 60) -> dict[str, Any]:
    """The first open question, as soon as there is one."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done = house.vestibule("questions", "--json")
        assert done.code == 0, done.err
        if done.json["questions"]:
            found: dict[str, Any] = done.json["questions"][0]
            return found
    raise AssertionError("nothing was asked")


def answer(house: House, name: str, word: str = "--grant", reason: str = "It may.") -> Done:
    return house.vestibule("answer", name, word, "--reason", reason, "--json")


def transcript(house: House, run: str) -> str:
    return "".join(path.read_text("utf-8") for path in sorted((house.home / "runs" / run).glob("transcript-*")))


def approve(house: House, run: str) -> Done:
    return house.vestibule("review", run, "--approve", "--reason", "Looked at it.", "--json")


def verified(house: House) -> bool:
    return house.vestibule("audit", "verify", "--repo", str(house.repo), "--json").code == 0


def test_a_person_grants_a_file_while_the_agent_works_and_it_finishes_its_change(house: House) -> None:
    with running(house, ASK_AND_WAIT) as process:
        asked = question(house)
        assert (asked["kind"], asked["asked"]) == ("scope", {"paths": ["lib/util.py"], "access": "read"})
        assert asked["grantable"] is True
        began = time.monotonic()
        answered = answer(house, asked["id"])
        assert answered.code == 0, answered.err
        done = ended(process)
        assert time.monotonic() - began < 30
    assert done.code == 3, done.err
    run = done.json
    assert run["state"] == "awaiting_review"
    assert run["round"] == 1
    assert run["changed_files"] == ["src/number.py"]
    assert "number SECRET_NUMBER = 41" in transcript(house, run["run"])
    assert [item["state"] for item in run["questions"]] == ["granted"]
    order = [e["action"] for e in run["events"] if e["phase"] == "intent" and e["verdict"] == "allow"]
    for before, after in (("question.ask", "question.answer"), ("question.answer", "scope.grant")):
        assert order.index(before) < order.index(after)
    reads = [e for e in run["events"] if e["action"] == "context.read" and e["resource"] == "lib/util.py"]
    grant = next(e for e in run["events"] if e["action"] == "scope.grant")
    assert min(e["seq"] for e in reads if e["verdict"] == "allow") > grant["seq"]
    merged = approve(house, run["run"])
    assert merged.code == 0, merged.err
    assert house.git("show", "main:src/number.py") == "NUMBER = 41 + 1"
    assert verified(house)


def test_a_run_whose_agent_ended_with_a_question_waits_and_goes_on_with_the_answer(house: House) -> None:
    steps = """
status, text = call("read_file", path="lib/util.py")
if status == 200:
    call("write_file", path="src/number.py", content="N = 1\\n")
    say(call("get_task")[1])
else:
    say(call("request_scope", paths=["lib/util.py"], why="I need the number."))
"""
    waiting = house.run(*agent(steps))
    assert waiting.code == 3, waiting.err
    assert waiting.json["state"] == "awaiting_answer"
    assert waiting.json["verdict"] == "hold"
    run = waiting.json["run"]
    assert house.vestibule("resume", run, "--json").json["state"] == "awaiting_answer"
    assert "answer" in house.vestibule("show", run).out
    done = answer(house, run, reason="Read it, it is fine.")
    assert done.code == 3, done.err
    assert done.json["state"] == "awaiting_review"
    assert (done.json["round"], done.json["changed_files"]) == (2, ["src/number.py"])
    assert "Read it, it is fine." in transcript(house, run)
    admitted = [e for e in done.json["events"] if e["action"] == "task.admit" and e["phase"] == "intent"]
    assert len(admitted) == 2, "a round that an answer sets off is admitted for its own cause"
    assert approve(house, run).code == 0
    assert verified(house)


ASK_AND_END = """call("request_scope", paths=["lib/util.py"], why="I need it.")"""


def test_a_refusal_ends_a_run_that_changed_nothing_and_says_why(house: House) -> None:
    run = house.run(*agent(ASK_AND_END)).json["run"]
    done = answer(house, run, "--refuse", "Do without it.")
    assert done.code == 5, done.err
    assert done.json["state"] == "failed"
    assert "Do without it." in done.json["note"]
    again = answer(house, done.json["questions"][0]["id"])
    assert again.code == 4
    assert again.json["refusals"][0]["rule"] == "review.closed"


def test_a_grant_at_the_review_gate_is_there_in_the_round_that_the_reviewer_sends_back(house: House) -> None:
    steps = (
        ASK_AND_END
        + """
status, text = call("read_file", path="lib/util.py")
call("write_file", path="src/number.py", content="N = %d\\n" % status)
"""
    )
    first = house.run(*agent(steps))
    assert first.json["state"] == "awaiting_review"
    run = first.json["run"]
    assert [item["state"] for item in first.json["questions"]] == ["open"]
    granted = house.vestibule("answer", run, "--grant", "--reason", "It may.")
    assert granted.code == 0, granted.err
    assert "request changes" in granted.out
    assert house.vestibule("show", run, "--json").json["state"] == "awaiting_review"
    back = house.vestibule("review", run, "--request-changes", "--reason", "Use it now.", "--json")
    assert back.json["state"] == "awaiting_review", back.err
    assert house.git("show", f"{back.json['branch']}:src/number.py") == "N = 200"


def test_a_block_is_shown_and_acknowledged_and_nothing_waits_for_it(house: House) -> None:
    steps = """
call("report_block", what="read_file hidden/plan.md", why="The ticket names it.")
call("write_file", path="src/a.py", content="a = 1\\n")
"""
    done = house.run(*agent(steps))
    assert done.json["state"] == "awaiting_review"
    [asked] = done.json["questions"]
    assert (asked["kind"], asked["state"], asked["grantable"]) == ("block", "open", False)
    assert answer(house, asked["id"], "--grant").code == 4
    assert answer(house, asked["id"], "--refuse", "Seen.").json["questions"][0]["state"] == "closed"


def test_a_run_that_only_reported_a_block_does_not_wait_for_an_answer(house: House) -> None:
    done = house.run(*agent("""call("report_block", what="x", why="It makes no sense.")"""))
    assert done.code == 5
    assert done.json["state"] == "failed"


def test_a_granted_file_may_be_changed_when_that_was_granted(house: House) -> None:
    steps = """
for _ in range(6):
    status, text = call("request_scope", paths=["lib/util.py"], access="write", why="Fix it.", wait_seconds=20)
    if status == 200:
        break
say(call("write_file", path="lib/util.py", content="SECRET_NUMBER = 42\\n"))
say(call("write_file", path="lib/other.py", content="no\\n"))
"""
    with running(house, steps) as process:
        assert answer(house, question(house)["id"]).code == 0
        done = ended(process)
    assert done.json["state"] == "awaiting_review", done.err
    assert done.json["changed_files"] == ["lib/util.py"]
    assert json.dumps(done.json["events"]).count("lib/other.py")
