"""Runs as people and programs see them: from what was recorded, bounded, and never an empty page for a broken log."""

from __future__ import annotations

import shutil
import sqlite3
from typing import Any

import pytest
from tests.attacks.control_world import BOB, CAROL, World

from vestibule.config.load import load_repo_config
from vestibule.core.crossing import Actor
from vestibule.core.errors import DependencyDown
from vestibule.core.model import Event, Person, State, Usage
from vestibule.core.verdict import Ruling
from vestibule.pipeline import reader as module
from vestibule.pipeline.reader import Reader
from vestibule.pipeline.services import Services

VERIFYING = """\
version: 1
roles: {fixer: {read: ["src/**"], write: ["src/**"]}}
verify: {commands: [["pytest", "-q"], ["pytest"]]}
"""


@pytest.fixture
def verifying(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_repo_config(VERIFYING.encode(), "config.yaml")
    monkeypatch.setattr(Services, "config_of", lambda *_: config)


def record_event(world: World, **fields: Any) -> int:
    actor: Actor = world.services.actor(world.record, "agent")
    values: dict[str, Any] = {
        "run": world.run,
        "phase": "intent",
        "action": "context.read",
        "resource": "src/app.py",
        "subject": "agent",
        "actor": actor.id,
        "verdict": Ruling.ALLOW,
    }
    return world.services.audit.append(Event(**{**values, **fields})).seq


def verify_event(world: World, argv: list[str], result: str = "", **details: Any) -> None:
    about = {"action": "verify.command", "resource": " ".join(argv), "subject": "system"}
    seq = record_event(world, **about, details={"argv": argv, "tree": world.record.tree, **details})
    if result:
        record_event(world, **about, phase="outcome", intent=seq, result=result)


def checks(world: World) -> dict[str, str]:
    view = Reader(world.services).get_run(world.run)
    assert view is not None
    return {item.name: item.result for item in view.checks}


@pytest.mark.usefixtures("verifying")
def test_no_state_of_a_run_makes_a_check_passed(world: World) -> None:
    for state in State:
        world.services.runs.set(world.run, state=state, note="Merged, honestly.")
        assert checks(world) == {"pytest -q": "not run", "pytest": "not run"}, state


@pytest.mark.usefixtures("verifying")
def test_a_check_is_what_the_log_says_it_was(world: World) -> None:
    verify_event(world, ["pytest", "-q"], "ok")
    verify_event(world, ["pytest"], "failed")
    assert checks(world) == {"pytest -q": "passed", "pytest": "failed"}
    verify_event(world, ["pytest"], "ok")
    assert checks(world)["pytest"] == "passed", "the last one counts"


@pytest.mark.usefixtures("verifying")
def test_a_check_of_another_tree_of_an_agent_or_cut_off_is_no_pass(world: World) -> None:
    verify_event(world, ["pytest"], "ok", tree="0" * 40)
    assert checks(world)["pytest"] == "not run"
    verify_event(world, ["pytest", "-q"])
    assert checks(world)["pytest -q"] == "not run"
    about = {
        "action": "verify.command",
        "resource": "pytest",
        "details": {"argv": ["pytest"], "tree": world.record.tree},
    }
    seq = record_event(world, **about)
    record_event(world, **{**about, "details": {}}, phase="outcome", intent=seq, result="ok")
    assert checks(world)["pytest"] == "not run"
    verify_event(world, ["pytest"], "unknown")
    assert checks(world)["pytest"] == "not run"


def test_probes_outcomes_people_and_the_system_are_not_counted(world: World) -> None:
    before = Reader(world.services).as_json(world.run)["decisions"]
    assert before == {"allow": 0, "hold": 0, "deny": 0}
    seq = record_event(world)
    record_event(world, phase="outcome", intent=seq, result="ok")
    record_event(world, verdict=Ruling.DENY, reasons=("path.traversal",))
    record_event(world, verdict=Ruling.HOLD)
    for subject in ("probe", "person", "system"):
        record_event(world, subject=subject, verdict=Ruling.DENY)
    reader = Reader(world.services)
    assert reader.as_json(world.run)["decisions"] == {"allow": 1, "hold": 1, "deny": 1}
    (summary,) = reader.list_runs()
    view = reader.get_run(world.run)
    assert view is not None
    assert summary.decisions == view.counts
    assert (summary.decisions.allow, summary.decisions.hold, summary.decisions.deny) == (1, 1, 1)


def test_a_list_reads_the_log_once_however_many_runs_there_are(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        world.services.runs.create(world.record.model_copy(update={"id": f"r000000000000{number:02}", "created": "x"}))
    record_event(world)

    def entries(*_: object, run: str | None = None, **__: object) -> tuple[()]:
        if run == "":
            return ()  # what is paused is looked up once, among the entries of no run
        raise AssertionError("a list must not read entries run by run")

    monkeypatch.setattr(type(world.services.audit), "entries", entries)
    monkeypatch.setattr(type(world.services.ledger), "usage", entries)
    found = Reader(world.services).list_runs()
    assert len(found) == 31
    assert sum(item.decisions.allow for item in found) == 1


def test_the_list_shows_what_each_run_cost(world: World) -> None:
    hold = world.services.ledger.hold(world.run, "m", nano_usd=500, tokens=5)
    assert Reader(world.services).list_runs()[0].cost_nano_usd == 0
    world.services.ledger.settle(hold, Usage(requests=1, cost_nano_usd=123))
    assert Reader(world.services).list_runs()[0].cost_nano_usd == 123


def test_what_changed_last_is_on_top(world: World) -> None:
    twin = world.record.model_copy(update={"id": "r00000000000099", "updated": "2099-01-01T00:00:00.000Z"})
    world.services.runs.create(twin)
    assert [item.run for item in Reader(world.services).list_runs()] == [twin.id, world.run]


@pytest.mark.parametrize("damage", ["DROP TABLE entries", "garbage"])
def test_a_broken_log_is_an_error_and_never_an_empty_list(world: World, damage: str) -> None:
    world.services.close()
    path = world.home / "audit" / "log.db"
    if damage == "garbage":
        path.write_bytes(b"garbage" * 1000)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute(damage)
    services = Services(world.env)
    for read in (Reader(services).list_runs, lambda: Reader(services).get_run(world.run)):
        with pytest.raises(DependencyDown) as caught:
            read()
        assert caught.value.name == "audit"


def test_a_patch_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Reader(world.services).patch(world.record)
    assert b"-one\n+two\n" in whole
    monkeypatch.setattr(module, "MAX_PATCH", 40)
    assert Reader(world.services).patch(world.record) == whole[:40]


def test_a_patch_survives_the_loss_of_one_of_its_places_and_hides_no_run(world: World) -> None:
    whole = Reader(world.services).patch(world.record)
    shutil.rmtree(world.home / "runs" / world.run / "result.git")
    assert Reader(world.services).patch(world.record) == whole
    assert not (world.home / "runs" / world.run / "result.git").exists(), "reading makes nothing"
    shutil.rmtree(world.repo)
    assert Reader(world.services).patch(world.record) == b""


def test_an_unknown_run_is_none(world: World) -> None:
    assert Reader(world.services).get_run("r00000000000000") is None


@pytest.mark.parametrize(("person", "may"), [(BOB, True), (CAROL, False)])
def test_a_person_reads_whether_they_may_decide(world: World, person: Person, may: bool) -> None:
    world.services.__dict__["person"] = person
    view = Reader(world.services).get_run(world.run)
    assert view is not None
    assert view.standing is not None
    assert view.standing.may is may
    assert person.id in view.standing.reason
