"""From an alarm over spend to new work that does not start, and how people undo it: real state, real log, real git."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import insert, text
from tests.attacks.control_world import BOB, World, make_world

from vestibule.audit.verify import verify
from vestibule.config.spending import SpendWatch
from vestibule.core.clock import rfc3339
from vestibule.core.errors import HELD, DependencyDown, Refused, UsageError
from vestibule.core.model import AgentRef, State, Usage, Wall, WallsReport
from vestibule.core.verdict import Ruling
from vestibule.cost.spend_slots import SLOT_CHARS
from vestibule.pipeline.admission import ADMIT, admit
from vestibule.pipeline.drive import exit_code
from vestibule.pipeline.last_good import of_role, of_version, started_as
from vestibule.pipeline.pause import PauseBook
from vestibule.pipeline.pause_effects import good_for, holder_of, note_held, returned
from vestibule.pipeline.pause_rules import ALERT, FREE, HOLD, PAUSE, RELEASE, RETURN, GoodVersion
from vestibule.pipeline.record import Cause, RunRecord
from vestibule.pipeline.spend_guard import SpendGuard
from vestibule.store import tables

NANO = 1_000_000_000
STANDING = WallsReport(
    tier="root",
    walls={name: Wall(state="up", proved_by="test") for name in ("mounts", "network", "seccomp", "no_new_privs")},
)
_NUMBERS = itertools.count()
OLD = "command@1+none+000000000000"


@pytest.fixture
def paying(world: World) -> World:
    return _settle(world)


def _settle(world: World) -> World:
    vars(world.services).update(sandbox=SimpleNamespace(report=lambda: STANDING), person=BOB)
    return world


def version(world: World) -> str:
    return world.record.agent.version


def spend(world: World, name: str, *, hours: range, nano: int, runs: int = 4) -> None:
    """Sums as the ledger writes them: so many runs an hour, `hours` counted back from now."""
    now = datetime.now(UTC)
    with world.services.db.write() as connection:
        for hour, _ in itertools.product(hours, range(runs)):
            slot = rfc3339(now - timedelta(hours=hour))[:SLOT_CHARS]
            row = {"agent": "command", "slot": slot, "version": name, "run": f"r{next(_NUMBERS)}"}
            connection.execute(insert(tables.spend_slots).values(**row, nano_usd=nano, requests=1))


def spike(world: World, times: int = 3) -> None:
    """A day of an earlier version, and an hour of this one that is dearer."""
    spend(world, OLD, hours=range(1, 25), nano=3 * NANO)
    spend(world, version(world), hours=range(1), nano=3 * NANO * times)


def book(world: World) -> PauseBook:
    return PauseBook(world.services)


def look(world: World) -> Any:
    return book(world).look("command", version(world))


def told(world: World, action: str, run: str = "") -> list[Any]:
    """Intents of an action, of no run or of one."""
    found = [entry.event for entry in world.services.audit.entries(run=run)]
    return [event for event in found if event.action == action and event.phase == "intent"]


def execute(world: World, statement: str, **values: Any) -> None:
    with world.services.db.write() as connection:
        connection.execute(text(statement), values)


def round_of(world: World, **more: Any) -> RunRecord:
    cause = Cause(trigger="cli", by=world.services.person.id, id=f"cause-{next(_NUMBERS)}")
    return world.record.model_copy(update={"round": 2, "cause": cause, **more})


def refused(world: World) -> Any:
    """The refusal of a round; the log must hold it."""
    before = len(world.events(ADMIT))
    with pytest.raises(Refused) as caught:
        admit(world.services, round_of(world), {})
    assert [event.verdict for event in world.events(ADMIT)[before:]] == [Ruling.DENY]
    return caught.value.refusal


# --- the chain ------------------------------------------------------------------------------------------------


def test_a_spike_alerts_pauses_holds_and_returns_each_in_the_log_with_version_and_evidence(paying: World) -> None:
    spike(paying)
    found = look(paying)
    assert found.paused
    assert not found.problem
    name = version(paying)
    (alert,) = told(paying, ALERT)
    (pause,) = told(paying, PAUSE)
    (hold,) = told(paying, HOLD, paying.run)
    assert (alert.resource, pause.resource, hold.details["version"]) == (name, name, name)
    assert alert.details["evidence"] == pause.details["pause"]["evidence"]
    assert alert.details["evidence"]["percent"] == 300
    assert alert.details["evidence"]["versions"] == [OLD]
    assert pause.subject == "system"
    assert hold.details["pause"] == pause.details["pause"]["id"]
    order = [entry.event.action for entry in paying.services.audit.entries() if entry.event.phase == "intent"]
    assert order.index(ALERT) < order.index(PAUSE) < order.index(HOLD)
    assert book(paying).standing(OLD).paused is False


def test_a_small_rise_alerts_once_and_pauses_nothing(paying: World) -> None:
    spend(paying, OLD, hours=range(1, 25), nano=3 * NANO)
    spend(paying, version(paying), hours=range(1), nano=4 * NANO)
    for _ in range(3):
        assert not look(paying).paused
    assert len(told(paying, ALERT)) == 1
    assert not told(paying, PAUSE)
    admit(paying.services, round_of(paying), {})


@pytest.mark.parametrize("act", ["alert", "pause", "rollback"])
def test_the_operator_says_how_far_the_chain_goes(paying: World, act: Any) -> None:
    _watch(paying, act=act)
    spike(paying)
    assert look(paying).paused is (act != "alert")
    assert len(told(paying, ALERT)) == 1
    pauses = told(paying, PAUSE)
    assert [event.details["pause"]["act"] for event in pauses] == ([act] if act != "alert" else [])


def _watch(world: World, **values: Any) -> None:
    operator = world.services.operator
    world.services.operator = operator.model_copy(update={"spend": SpendWatch(**values)})


def test_looking_again_does_nothing_twice(paying: World) -> None:
    spike(paying)
    for _ in range(3):
        look(paying)
    assert [len(told(paying, action)) for action in (ALERT, PAUSE)] == [1, 1]
    assert len(told(paying, HOLD, paying.run)) == 1


def test_the_log_stays_whole(paying: World) -> None:
    spike(paying)
    look(paying)
    book(paying).release(version(paying), "Known.")
    paying.services.audit.checkpoint()
    report = verify(paying.home / "audit", trust=paying.folder / "operator" / "trust")
    assert report.ok, report.problems


# --- what it means --------------------------------------------------------------------------------------------


def test_no_round_of_a_paused_version_is_admitted_and_the_refusal_says_why(paying: World) -> None:
    spike(paying)
    found = refused(paying)
    assert found.rule == "task.agent_paused"
    assert version(paying) in found.fact
    assert "300 %" in found.fact
    assert "release" in found.next.person


@pytest.mark.parametrize("choice", ["approve", "request-changes"])
def test_a_held_change_is_neither_approved_nor_sent_back(paying: World, choice: Any) -> None:
    spike(paying)
    look(paying)
    with pytest.raises(Refused) as caught:
        paying.driver.record(paying.run, choice, "Fine.", person=BOB, channel="cli")
    assert caught.value.refusal.rule == "change.held"
    assert version(paying) in caught.value.refusal.fact
    assert paying.record.state is State.AWAITING_REVIEW
    assert [event.reasons for event in paying.events("review.refused")][-1] == ("change.held",)


def test_a_held_change_can_be_rejected(paying: World) -> None:
    spike(paying)
    look(paying)
    paying.driver.record(paying.run, "reject", "Too dear.", person=BOB, channel="cli")
    assert paying.record.state is State.REJECTED


def test_what_was_approved_before_is_not_merged_while_it_is_held(paying: World) -> None:
    paying.approve()
    spike(paying)
    look(paying)
    record = paying.driver.resume(paying.run)
    assert record.state is State.APPROVED
    assert exit_code(record) == HELD
    assert "held" in record.note
    assert not paying.events("merge")


def test_the_versions_that_worked_on_a_change_are_what_the_log_says(paying: World) -> None:
    """A row that names another version by now does not free the change."""
    with paying.services.recorded(paying.record, "agent.start", version(paying), {"agent": "command"}):
        pass
    spike(paying)
    look(paying)
    other = AgentRef(name="command", adapter="command", model="", version=OLD)
    paying.services.runs.set(paying.run, agent=other)
    held = holder_of(paying.services, paying.record)
    assert held is not None
    with pytest.raises(Refused):
        paying.approve()


def test_a_change_that_is_proposed_during_the_pause_is_held_too(paying: World) -> None:
    spend(paying, version(paying), hours=range(1), nano=NANO)
    with paying.services.recorded(paying.record, "agent.start", version(paying), {"agent": "command"}):
        pass
    paying.services.runs.set(paying.run, state=State.CHECKING)
    book(paying).pause(version(paying), "Let me look.")
    assert not told(paying, HOLD, paying.run)
    note_held(paying.services, paying.services.runs.set(paying.run, state=State.AWAITING_REVIEW))
    note_held(paying.services, paying.record)
    assert len(told(paying, HOLD, paying.run)) == 1


# --- people ---------------------------------------------------------------------------------------------------


def worked(world: World) -> None:
    with world.services.recorded(world.record, "agent.start", version(world), {"agent": "command"}):
        pass


def test_one_release_undoes_all_of_it(paying: World) -> None:
    spike(paying)
    refused(paying)
    released, changes = book(paying).release(version(paying), "A dear week, and worth it.")
    assert changes == [paying.run]
    assert released.by == BOB.id
    (event,) = told(paying, RELEASE)
    assert event.subject == "person"
    assert event.details["release"]["reason"] == "A dear week, and worth it."
    assert len(told(paying, FREE, paying.run)) == 1
    admit(paying.services, round_of(paying), {})
    assert not look(paying).paused, "what a person accepted is not held against it again"
    paying.approve()
    assert paying.record.state is State.APPROVED


def test_a_person_pauses_what_worked_and_says_why(paying: World) -> None:
    with pytest.raises(UsageError):
        book(paying).pause("nobody@1+none+0", "Never seen.")
    worked(paying)
    with pytest.raises(UsageError):
        book(paying).pause(version(paying), "  ")
    found = book(paying).pause(version(paying), "It writes nonsense.")
    assert found.paused
    assert found.pause is not None
    assert (found.pause.cause, found.pause.by) == ("person", BOB.id)
    assert refused(paying).rule == "task.agent_paused"
    with pytest.raises(UsageError):
        book(paying).pause(version(paying), "Again.")
    book(paying).release(version(paying), "It was the ticket.")
    with pytest.raises(UsageError):
        book(paying).release(version(paying), "Again.")


def test_who_may_not_write_the_state_folder_neither_pauses_nor_releases(
    paying: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked(paying)
    spike(paying)
    look(paying)
    monkeypatch.setattr("vestibule.pipeline.admission.may_write_state", lambda _: False)
    with pytest.raises(Refused) as caught:
        book(paying).release(version(paying), "Please.")
    assert caught.value.refusal.rule == "agent.permission"
    assert look(paying).paused


def organisation(world: World, rule_text: str) -> World:
    """The world as another process sees it, with an organisation's policy."""
    folder = world.folder / "policy"
    folder.mkdir()
    (folder / "pause.rego").write_text(rule_text)
    (world.folder / "operator" / "config.yaml").write_text(f"version: 1\npolicy: ['{folder}']\n")
    return _settle(world.reopened())


@pytest.mark.parametrize("verdict", ["hold", "deny"])
def test_an_organisation_that_does_not_allow_pauses_keeps_the_alert(paying: World, verdict: str) -> None:
    spike(paying)
    world = organisation(
        paying,
        "package vestibule\n\n"
        'default decision := {"verdict": "allow", "reasons": []}\n\n'
        f'decision := {{"verdict": "{verdict}", "reasons": ["org.no_pause"]}} if input.action == "agent.pause"\n',
    )
    for _ in range(2):
        assert not look(world).paused
    assert len(told(world, ALERT)) == 1
    assert [event.verdict.value for event in told(world, PAUSE)] == [verdict], "asked once in the quiet hours"
    admit(world.services, round_of(world), {})
    world.services.close()


def test_a_repositorys_policy_has_no_say(tmp_path: Path) -> None:
    """It could only loosen: who spends would decide whether they are stopped."""
    made = make_world(tmp_path)
    rego = (
        "package vestibule\n\n"
        'default decision := {"verdict": "allow", "reasons": []}\n\n'
        'decision := {"verdict": "deny", "reasons": ["repo.no_pause"]} if input.action == "agent.pause"\n'
    )
    (made.repo / ".vestibule" / "policy").mkdir()
    (made.repo / ".vestibule" / "policy" / "pause.rego").write_text(rego)
    made.git("add", "-A")
    made.git("commit", "-q", "-m", "Policy")
    world = _settle(made)
    world.services.runs.set(world.run, base_commit=world.git("rev-parse", "HEAD"))
    spike(world)
    assert look(world).paused
    world.services.close()


# --- what is believed -----------------------------------------------------------------------------------------


def test_a_deleted_or_changed_row_frees_nothing(paying: World) -> None:
    spike(paying)
    look(paying)
    execute(paying, "DELETE FROM agent_pauses")
    found = book(paying).standing(version(paying))
    assert found.paused
    assert found.problem
    # Whoever looks next puts it back by what the log says.
    assert not look(paying).problem
    execute(paying, "UPDATE agent_pauses SET document = replace(document, 'moving', 'MOVING')")
    assert book(paying).standing(version(paying)).problem
    assert refused(paying).rule.startswith("task.agent_paused")


def test_a_row_turned_into_a_release_frees_nothing(paying: World) -> None:
    spike(paying)
    look(paying)
    release = {"by": "local:eve", "pause": "p-1", "reason": "x", "time": "2026-01-01T00:00:00.000Z"}
    with paying.services.db.read() as connection:
        document = json.loads(connection.execute(text("SELECT document FROM agent_pauses")).scalar_one())
    changed = json.dumps({**document, "release": release})
    execute(paying, "UPDATE agent_pauses SET state = 'released', document = :now", now=changed)
    found = book(paying).standing(version(paying))
    assert found.paused
    assert found.fact == "task.agent_paused.evidence"


def test_a_row_that_only_the_database_knows_refuses_until_a_person_settles_it(paying: World) -> None:
    spike(paying)
    look(paying)
    with paying.services.db.read() as connection:
        document = json.loads(connection.execute(text("SELECT document FROM agent_pauses")).scalar_one())
    book(paying).release(version(paying), "Fine.")
    forged = json.dumps({**document, "pause": {**document["pause"], "id": "p-forged"}})
    execute(paying, "UPDATE agent_pauses SET state = 'paused', document = :document", document=forged)
    assert refused(paying).rule == "task.agent_paused.evidence"
    done = (len(told(paying, PAUSE)), len(told(paying, HOLD, paying.run)))
    assert done == (1, 1), "nothing is done on the database's word alone"
    book(paying).release(version(paying), "I looked who wrote it.")
    admit(paying.services, round_of(paying), {})


@pytest.mark.parametrize("damage", ["document = '{}'", "state = 'released'", "document = 'no json'"])
def test_a_damaged_row_is_a_dependency_down(paying: World, damage: str) -> None:
    spike(paying)
    look(paying)
    execute(paying, f"UPDATE agent_pauses SET {damage}")
    with pytest.raises(DependencyDown) as caught:
        admit(paying.services, round_of(paying), {})
    assert caught.value.refusal.rule == "dependency.database"
    with pytest.raises(DependencyDown):
        paying.approve()


def test_no_round_begins_when_spend_cannot_be_read(paying: World) -> None:
    execute(paying, "DROP TABLE spend_slots")
    with pytest.raises(DependencyDown) as caught:
        admit(paying.services, round_of(paying), {})
    assert caught.value.refusal.rule == "dependency.database"


def test_an_entry_of_the_agents_own_pauses_and_frees_nothing(paying: World) -> None:
    """Whoever acts in the agent's name cannot speak for system or people."""
    spike(paying)
    look(paying)
    event = told(paying, PAUSE)[0]
    release = {"pause": event.details["pause"]["id"], "by": "local:bob", "reason": "x", "time": "2026-01-01T00:00:00Z"}
    forged = event.model_copy(
        update={"action": RELEASE, "subject": "agent", "actor": "spiffe://x", "details": {"release": release}}
    )
    paying.services.audit.append(forged)
    assert book(paying).standing(version(paying)).paused


# --- killed in the middle -------------------------------------------------------------------------------------

STEPS = ("_step", "_decided", "_write", "_finish", "hold_change")


def _die(env: dict[str, str], name: str, method: str, when: str, nth: int) -> None:
    """In a process of its own: the nth call of a step kills it."""
    from vestibule.pipeline.services import Services

    original = getattr(PauseBook, method)
    calls = itertools.count(1)

    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        mine = next(calls) == nth
        if mine and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(self, *args, **kwargs)
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(PauseBook, method, wrapped)
    PauseBook(Services(env)).look("command", name)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", STEPS)
def test_killed_at_any_step_the_chain_is_finished_by_whoever_looks_next(paying: World, method: str, when: str) -> None:
    spike(paying)
    paying.services.audit.checkpoint()
    name = version(paying)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_die, args=(paying.env, name, method, when, 1))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    world = _settle(paying.reopened())
    world.services.audit.reconcile()
    assert look(world).paused
    found = book(world).standing(name)
    assert found.complete
    assert not found.problem
    assert len(told(world, HOLD, world.run)) == 1
    allowed = [event for event in told(world, PAUSE) if event.verdict is Ruling.ALLOW]
    assert len(allowed) == 1, "paused once, whatever was cut off"
    assert refused(world).rule == "task.agent_paused"
    world.services.close()


# --- the way back ---------------------------------------------------------------------------------------------


def merged(world: World, name: str, number: int) -> None:
    """A run of another version that the log shows as merged, and its row."""
    record = world.record
    run = f"r{number:014d}"
    agent = record.agent.model_copy(update={"version": name})
    other = record.model_copy(update={"id": run, "agent": agent, "state": State.MERGED})
    world.services.runs.create(other)
    details = {"repo": str(record.repo), "agent": "command", "role": record.role, "scripted": False}
    with world.services.recorded(other, "agent.start", name, details):
        pass
    with world.services.recorded(other, "merge", "x") as found:
        found["state"] = "merged"


def started(world: World) -> None:
    details = {"repo": str(world.record.repo), "agent": "command", "role": world.record.role, "scripted": False}
    with world.services.recorded(world.record, "agent.start", version(world), details):
        pass


def test_the_last_good_version_is_the_newest_merged_one_that_is_not_paused(paying: World) -> None:
    started(paying)
    for number, name in enumerate(("v1", "v2", "v3")):
        merged(paying, name, number)
    entries = list(paying.services.audit.entries())
    place = {"repo": str(paying.repo), "role": "fixer", "agent": "command"}
    assert of_role(entries, paying.record, {version(paying)}).version == "v3"
    assert of_role(entries, paying.record, {"v3", version(paying)}).version == "v2"
    assert of_role(entries, paying.record, {"v1", "v2", "v3"}) == GoodVersion(**place)
    assert [item.version for item in of_version(entries, version(paying), {version(paying)})] == ["v3"]


def test_a_pause_names_where_its_roles_go_back_to(paying: World) -> None:
    started(paying)
    merged(paying, "v1", 1)
    spike(paying)
    found = look(paying)
    assert found.pause is not None
    assert [item.version for item in found.pause.returns] == ["v1"]
    (event,) = told(paying, RETURN)
    assert event.details["from"] == version(paying)
    assert event.details["good"]["version"] == "v1"


def fresh(world: World, *command: str) -> RunRecord:
    """A new run that is about to start."""
    from vestibule.pipeline.prepare import RunRequest, prepare

    request = RunRequest(ticket=str(world.folder / "ticket.md"), repo=world.repo, agent="command", command=command)
    return prepare(request, world.services.operator, BOB.id, world.services.environ)


def test_a_new_run_of_a_paused_version_is_given_to_the_last_good_one(paying: World) -> None:
    good = fresh(paying, "echo", "good")
    paying.services.runs.create(good.model_copy(update={"id": "r00000000000001", "state": State.MERGED}))
    shown = paying.services.runs.get("r00000000000001")
    details = {"repo": str(shown.repo), "agent": "command", "role": shown.role, "scripted": False}
    with paying.services.recorded(shown, "agent.start", shown.agent.version, details):
        pass
    with paying.services.recorded(shown, "merge", "x") as found:
        found["state"] = "merged"
    spike(paying)
    look(paying)
    new = fresh(paying, "true")
    assert new.agent.version == version(paying)
    other = returned(paying.services, new)
    assert other.agent.version == good.agent.version
    assert other.command == ("echo", "good")
    (event,) = told(paying, RETURN, new.id)
    assert (event.resource, event.details["from"]) == (good.agent.version, version(paying))
    assert returned(paying.services, good) == good, "a version that is not paused starts as it is"
    # A row that says another command does not make that version.
    paying.services.runs.set(shown.id, command=("sh", "-c", "evil"))
    assert returned(paying.services, new) == new
    book(paying).release(version(paying), "Fine.")
    assert returned(paying.services, new) == new


def test_without_a_version_that_can_be_started_the_run_stays_and_is_refused(paying: World) -> None:
    started(paying)
    merged(paying, "v1", 1)  # its row makes another version: it cannot be started as v1
    spike(paying)
    look(paying)
    new = fresh(paying, "true")
    assert returned(paying.services, new) == new
    found = refused(paying)
    assert "last good version v1 cannot be started here any more" in found.fact
    assert started_as(paying.services, new, good_for(paying.services, new, look(paying))) is None  # type: ignore[arg-type]


def test_act_pause_returns_nothing(paying: World) -> None:
    _watch(paying, act="pause")
    started(paying)
    merged(paying, "v1", 1)
    spike(paying)
    assert look(paying).paused
    assert not told(paying, RETURN)
    assert good_for(paying.services, fresh(paying, "true"), look(paying)) is None


# --- while the agent works ------------------------------------------------------------------------------------


def pay(world: World, guard: SpendGuard, nano: int) -> None:
    details = {"agent": "command", "agent_version": version(world)}
    hold = guard.submit_hold(world.run, "m", nano_usd=nano, tokens=1, details=details).result()
    guard.submit_settle(hold, Usage(requests=1, cost_nano_usd=nano)).result()


@pytest.mark.parametrize("running", [False, True])
def test_settlements_are_judged_while_the_agent_works(paying: World, running: bool) -> None:
    _watch(paying, pause_running=running)
    spend(paying, OLD, hours=range(1, 25), nano=3 * NANO)
    spend(paying, version(paying), hours=range(1), nano=9 * NANO, runs=3)
    execute(paying, "DELETE FROM spend_slots WHERE version = :v AND run <> (SELECT max(run) FROM spend_slots WHERE "
            "version = :v)", v=version(paying))  # fmt: skip
    failures: list[Refused] = []
    guard = SpendGuard(paying.services, paying.record, failures.append)
    guard.start()
    pay(paying, guard, 9 * NANO)
    guard.stop()
    assert not failures
    assert book(paying).standing(version(paying)).paused
    next_hold = guard.submit_hold(paying.run, "m", nano_usd=1, tokens=1)
    if not running:
        next_hold.result()
        return
    with pytest.raises(Refused) as caught:
        next_hold.result()
    assert caught.value.refusal.rule == "model.agent_paused"


def test_a_watch_that_fails_ends_the_attempt(paying: World) -> None:
    failures: list[Refused] = []
    guard = SpendGuard(paying.services, paying.record, failures.append)
    guard.start()
    execute(paying, "DROP TABLE spend_slots")
    guard.stop()
    assert [error.refusal.rule for error in failures] == ["dependency.database"]


def test_a_bug_of_the_watch_ends_the_attempt_too(paying: World, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[Refused] = []
    guard = SpendGuard(paying.services, paying.record, failures.append)
    monkeypatch.setattr(PauseBook, "look", lambda *_: 1 / 0)
    guard.start()
    guard.stop()
    assert [error.refusal.rule for error in failures] == ["dependency.spend_watch"]


# --- any order ------------------------------------------------------------------------------------------------


class Pauses(RuleBasedStateMachine):
    """Pausing, releasing, tampering and looking in any order: only a person's release frees, and it always does."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.held = False
        if book(self.world).standing(version(self.world)).paused:
            book(self.world).release(version(self.world), "A new beginning.")

    @rule()
    def pause(self) -> None:
        if not self.held:
            book(self.world).pause(version(self.world), "So.")
            self.held = True

    @precondition(lambda self: self.held)
    @rule()
    def release(self) -> None:
        book(self.world).release(version(self.world), "So.")
        self.held = False

    @rule(what=st.sampled_from(["DELETE FROM agent_pauses", "UPDATE agent_pauses SET version = version"]))
    def tamper(self, what: str) -> None:
        execute(self.world, what)

    @rule()
    def look(self) -> None:
        look(self.world)

    @invariant()
    def stands_as_people_said(self) -> None:
        assert book(self.world).standing(version(self.world)).paused is self.held


def test_pauses_in_any_order(paying: World) -> None:
    worked(paying)
    kind = type("Bound", (Pauses,), {"world": paying})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        kind,
        settings=settings(
            max_examples=8, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
