"""Driving a run: exit codes, decisions and what a crash leaves between them, expiry, cancelling."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.attacks.control_world import ALICE, BOB, World

from vestibule.core import clock
from vestibule.core.errors import Refused, UsageError
from vestibule.core.model import State
from vestibule.core.runs import binding_digest
from vestibule.pipeline.drive import Driver, _due, exit_code, message_of
from vestibule.pipeline.lease import Lease

CODES = {
    State.MERGED: 0,
    State.REFUSED: 4,
    State.REJECTED: 4,
    State.EXPIRED: 4,
    State.FAILED: 5,
    State.CANCELLED: 5,
}
"""Every other state waits for something: 3."""


def test_every_state_has_its_exit_code_and_a_sentence(world: World) -> None:
    for state in State:
        record = world.record.model_copy(update={"state": state, "exit_code": None, "note": ""})
        assert exit_code(record) == CODES.get(state, 3), state
        assert message_of(record).endswith((".", "`.")), state


def test_a_recorded_exit_code_wins(world: World) -> None:
    assert exit_code(world.record.model_copy(update={"state": State.FAILED, "exit_code": 6})) == 6


def test_approved_is_never_reported_as_done(world: World) -> None:
    """0 only when nothing waits: an approved change that was left to a person is not merged."""
    assert exit_code(world.record.model_copy(update={"state": State.APPROVED})) == 3


@pytest.mark.parametrize(
    ("choice", "state"),
    [("approve", State.APPROVED), ("reject", State.REJECTED), ("request-changes", State.CHANGES_REQUESTED)],
)
def test_a_crash_between_a_decision_and_the_row_is_caught_up(
    world: World, monkeypatch: pytest.MonkeyPatch, choice: str, state: State
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Driver, "_follow", killed)
        with pytest.raises(Killed):
            world.driver.record(world.run, choice, "Because.", person=BOB, channel="cli")  # type: ignore[arg-type]
    after = world.reopened()
    assert after.record.state is State.AWAITING_REVIEW
    assert len(after.services.gates.decisions(f"g-{world.run}-1")) == 1
    caught_up = after.driver._caught_up(after.record)
    assert caught_up.state is state
    assert after.driver._caught_up(caught_up) == caught_up, "catching up twice is catching up once"
    assert len(after.services.gates.decisions(f"g-{world.run}-1")) == 1
    if choice == "request-changes":
        assert caught_up.round == 2
        assert caught_up.attempt == 0
        assert [item.words for item in caught_up.feedback] == ["Because."]
    after.services.close()


def test_an_open_gate_has_nothing_to_catch_up(world: World) -> None:
    assert world.driver._caught_up(world.record) == world.record
    assert world.driver.resume(world.run).state is State.AWAITING_REVIEW


def test_a_run_merged_to_its_end_and_again(world: World) -> None:
    world.approve()
    merged = world.driver.resume(world.run)
    assert merged.state is State.MERGED
    assert world.git("rev-parse", "main") == merged.merge_commit
    again = world.driver.resume(world.run)
    assert again == merged
    assert len([event for event in world.events("merge") if event.phase == "outcome"]) == 1


def test_a_decision_on_what_is_no_longer_shown_is_refused(world: World) -> None:
    gate = world.services.gates.current(world.run)
    assert gate is not None
    with pytest.raises(Refused) as caught:
        world.driver.record(world.run, "approve", "Yes.", person=BOB, channel="console", seen="sha256:older")
    assert caught.value.refusal.rule == "review.stale"
    assert world.services.gates.decisions(gate.id) == ()
    record = world.driver.record(world.run, "approve", "Yes.", person=BOB, channel="console", seen=binding_digest(gate))
    assert record.state is State.APPROVED


def test_the_requester_is_refused_and_the_run_still_waits(world: World) -> None:
    with pytest.raises(Refused):
        world.driver.record(world.run, "approve", "Mine.", person=ALICE, channel="cli")
    assert world.record.state is State.AWAITING_REVIEW


def test_a_run_before_its_gate_takes_no_decision(world: World) -> None:
    for state in (State.RECEIVED, State.SPECIFIED, State.WORKING, State.CHECKING):
        world.services.runs.set(world.run, state=state)
        with pytest.raises(UsageError):
            world.approve()


def test_a_run_that_has_ended_takes_no_decision_and_merges_nothing(world: World) -> None:
    for state in (item for item in State if item.final):
        world.services.runs.set(world.run, state=state)
        with contextlib.suppress(Refused, UsageError):
            world.approve()
        assert world.record.state is state
        assert world.driver.resume(world.run).state is state
        assert world.git("rev-parse", "main") == world.record.base_commit


def test_time_that_ran_out_ends_the_run_and_never_approves(world: World) -> None:
    later = clock.rfc3339(datetime.now(UTC) + timedelta(days=2))
    world.services.gates._now = lambda: later
    record = world.driver.expire(world.record)
    assert record.state is State.EXPIRED
    assert exit_code(record) == 4
    with pytest.raises((Refused, UsageError)):
        world.approve()
    assert world.driver.resume(world.run).state is State.EXPIRED
    assert world.git("rev-parse", "main") == record.base_commit


def test_cancelling_closes_the_gate_says_so_and_happens_once(world: World) -> None:
    record, undone = world.driver.cancel(world.run)
    assert record.state is State.CANCELLED
    assert any(f"g-{world.run}-1" in line for line in undone)
    assert any(record.branch in line for line in undone)
    assert world.services.gates.current(world.run).state == "superseded"  # type: ignore[union-attr]
    assert [event.action for event in world.events("run.cancel")]
    with pytest.raises(UsageError):
        world.driver.cancel(world.run)
    with pytest.raises((Refused, UsageError)):
        world.approve()


def test_a_run_is_not_driven_while_another_process_holds_it(world: World) -> None:
    world.approve()
    with Lease(world.services.folder(world.run), world.run), pytest.raises(UsageError) as caught:
        world.driver.resume(world.run)
    assert "another process" in caught.value.what
    assert world.record.state is State.APPROVED


def test_only_runs_that_somebody_holds_count_as_alive(world: World, tmp_path: Path) -> None:
    other = "r0123456789abce"
    folder = world.services.folder(other)
    assert world.driver._live(world.run) == frozenset()
    with Lease(folder, other):
        assert world.driver._live(world.run) == {other}
        assert world.driver._live(other) == frozenset()


def test_what_is_due_in_each_state(world: World) -> None:
    """A run that waits for a person, or has ended, is driven nowhere by itself."""
    work = {State.RECEIVED, State.SPECIFIED, State.WORKING, State.CHECKING, State.CHANGES_REQUESTED}
    conclude = {State.APPROVED, State.VERIFYING, State.MERGING}
    for state in State:
        due = _due(world.record.model_copy(update={"state": state, "round": 3}))
        if state in work:
            assert due == ("work", "work-3")
        elif state in conclude:
            assert due is not None
            assert due[0] == "conclude"
        else:
            assert due is None, state
