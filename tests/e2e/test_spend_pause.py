"""A dear agent version through the real command line: alert, pause, refused runs, held change, and one release."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from tests.e2e.conftest import House
from tests.e2e.test_kill import crash
from vestibule.core.clock import rfc3339
from vestibule.cost.spend_slots import SLOT_CHARS
from vestibule.store import tables
from vestibule.store.database import Database

NANO = 1_000_000_000
OLD = "reference@0+claude-sonnet-5+000000000000"
WATCH = "spend: {pause_runs: 1, pause_floor_usd: 0.10, pause_usd_per_minute: 0.001, minimum_usd: 0.05%s}\n"
TURNS = """\
  - text: I change it.
    tools: [{name: write_file, input: {path: src/app.py, content: "print('please')\\n"}}]
    usage: {input_tokens: 40000, output_tokens: 100}
  - text: Done.
    usage: {input_tokens: 40000, output_tokens: 100}
"""
"""Two requests for more than ten cents together, as the provider reports them."""


def operate(house: House, more: str = "") -> None:
    house.script(TURNS)
    with house.operator.open("a") as file:
        file.write(WATCH % more)


def a_day_of(house: House, version: str, nano: int) -> None:
    """Sums of an earlier version of the same agent, as the ledger would have written them."""
    db = Database(f"sqlite:///{house.home / 'vestibule.db'}")
    now = datetime.now(UTC)
    with db.write() as connection:
        for hour, number in itertools.product(range(1, 25), range(2)):
            slot = rfc3339(now - timedelta(hours=hour))[:SLOT_CHARS]
            row = {"agent": "demo", "slot": slot, "version": version, "run": f"r{hour}-{number}"}
            connection.execute(insert(tables.spend_slots).values(**row, nano_usd=nano, requests=2))
    db.close()


def log_of(house: House, action: str) -> list[dict[str, Any]]:
    from vestibule.audit.log import read_entries

    found = (entry.event for entry in read_entries(house.home / "audit"))
    return [event.model_dump(mode="json") for event in found if event.action == action and event.phase == "intent"]


def spend_first(house: House, more: str = "") -> dict[str, Any]:
    """A state folder with a day of a cheap version behind it, and the first run of a dear one."""
    operate(house, more)
    house.home.mkdir(mode=0o700, exist_ok=True)
    a_day_of(house, OLD, NANO // 100)
    done = house.run("--agent", "demo")
    assert done.code == 3, done.err
    return done.json


def test_alert_pause_refusal_hold_release(house: House) -> None:
    first = spend_first(house)
    run = first["run"]
    assert first["usage"]["cost_nano_usd"] > NANO // 10
    (alert,) = log_of(house, "agent.alert")
    (pause,) = log_of(house, "agent.pause")
    version = pause["resource"]
    assert alert["resource"] == version != OLD
    assert alert["details"]["evidence"]["versions"] == [OLD]
    assert [event["run"] for event in log_of(house, "change.hold")] == [run], "held as soon as it was proposed"

    listed = house.vestibule("agents", "paused", "--json")
    assert listed.code == 0
    (told,) = listed.json["paused"]
    assert (told["version"], told["changes"], told["problem"]) == (version, [run], "")
    assert version in house.vestibule("agents", "paused").out

    again = house.run("--agent", "demo")
    assert again.code == 4, again.err
    assert again.json["reasons"] == ["task.agent_paused"]
    assert version in again.json["refusals"][0]["fact"]
    assert "vestibule agents release" in again.json["refusals"][0]["next"]["person"]

    held = house.vestibule("review", run, "--approve", "--reason", "Fine.", "--json")
    assert held.code == 4
    assert held.json["state"] == "awaiting_review"
    assert "change.held" in {item["rule"] for item in held.json["refusals"]}

    assert house.vestibule("agents", "release", version).code == 2, "a release says why"
    assert house.vestibule("agents", "release", "nobody@1", "--reason", "x").code == 2
    released = house.vestibule("agents", "release", version, "--reason", "Worth it.", "--json")
    assert released.code == 0, released.err
    assert released.json["changes"] == [run]
    assert house.vestibule("review", run, "--approve", "--reason", "Fine.", "--json").code == 0
    assert house.run("--agent", "demo").code in (3, 5), "the change is there already"
    assert house.vestibule("agents", "paused", "--json").json == {"paused": []}
    assert house.vestibule("audit", "verify", "--json").code == 0


def test_a_new_run_goes_to_the_last_good_version(house: House) -> None:
    operate(house)
    good = house.run("--agent", "demo")
    assert good.code == 3, good.err
    assert house.vestibule("review", good.json["run"], "--approve", "--reason", "Fine.", "--json").code == 0
    house.commit({"src/app.py": "print('old')\n"}, "Back to before")
    (start,) = log_of(house, "agent.start")
    before = start["resource"]
    # Another version of the same agent: another model in its place.
    config = house.repo / ".vestibule" / "config.yaml"
    house.commit({".vestibule/config.yaml": config.read_text().replace("claude-sonnet-5", "claude-opus-4-5")}, "Dearer")
    dear = house.run("--agent", "demo")
    assert dear.code == 3, dear.err
    version = log_of(house, "agent.start")[-1]["resource"]
    assert version != before
    paused = house.vestibule("agents", "pause", version, "--reason", "It writes nonsense.", "--json")
    assert paused.code == 0, paused.err
    assert [item["version"] for item in paused.json["pause"]["returns"]] == [before]

    third = house.run("--agent", "demo")
    assert third.code == 3, third.err
    assert log_of(house, "agent.start")[-1]["resource"] == before
    assert "last good version" in third.err
    assert house.vestibule("agents", "release", version, "--reason", "It was the ticket.").code == 0
    assert house.run("--agent", "demo").code == 3
    assert log_of(house, "agent.start")[-1]["resource"] == version


def test_a_running_run_is_asked_no_more_where_the_operator_says_so(house: House) -> None:
    first = spend_first(house, ", pause_running: true")
    # The first request alone is over: the second may have been on its way, and no other follows.
    assert first["usage"]["requests"] <= 2
    assert log_of(house, "agent.pause")


def test_a_round_that_was_cut_off_does_not_begin_again_while_its_version_is_paused(house: House) -> None:
    operate(house)
    argv = ("run", house.ticket(), "--repo", str(house.repo), "--json", "--agent", "demo")
    assert crash(house, "Attempt._run_agent", "after", *argv).code == -9
    run = str(house.vestibule("runs", "--json").json["runs"][0]["run"])
    (start,) = log_of(house, "agent.start")
    version = start["resource"]
    assert house.vestibule("agents", "pause", version, "--reason", "It loops.").code == 0

    held = house.vestibule("resume", run, "--json")
    assert (held.code, held.json["state"]) == (3, "working"), held.err
    assert version in held.json["note"]
    assert len(log_of(house, "agent.start")) == 1
    assert held.json["usage"]["requests"] == 2

    assert house.vestibule("agents", "release", version, "--reason", "It was the ticket.").code == 0
    assert house.vestibule("resume", run, "--json").json["state"] == "awaiting_review"
    assert len(log_of(house, "agent.start")) == 2


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", ["_alarm", "_decided", "_finish"])
def test_killed_in_the_chain_the_next_command_finishes_it(house: House, method: str, when: str) -> None:
    operate(house)
    house.home.mkdir(mode=0o700, exist_ok=True)
    a_day_of(house, OLD, NANO // 100)
    ticket = house.ticket()
    killed = crash(
        house, f"PauseBook.{method}", when, "run", ticket, "--repo", str(house.repo), "--json", "--agent", "demo"
    )
    assert killed.code == -9, killed.err
    run = str(house.vestibule("runs", "--json").json["runs"][0]["run"])
    resumed = house.vestibule("resume", run, "--json")
    assert resumed.code in (3, 4), resumed.err
    assert house.run("--agent", "demo").code == 4
    allowed = [event for event in log_of(house, "agent.pause") if event["verdict"] == "allow"]
    assert len(allowed) == 1
    assert house.vestibule("audit", "verify", "--json").code == 0


def test_a_pause_that_cannot_be_read_starts_nothing(house: House) -> None:
    spend_first(house)
    db = Database(f"sqlite:///{house.home / 'vestibule.db'}")
    with db.write() as connection:
        connection.exec_driver_sql("UPDATE agent_pauses SET document = '{}'")
    db.close()
    done = house.run("--agent", "demo")
    assert done.code == 4
    assert done.json["reasons"] == ["dependency.database"]
    assert house.vestibule("agents", "paused").code == 4
