"""People and processes at the same moment: one answer, one merge, and evidence without contradictions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.attacks.control_world import ALICE, BOB, World, start_run
from tests.attacks.test_control_merge import conclude, rule_of
from vestibule.core.errors import VestibuleError
from vestibule.core.model import State
from vestibule.pipeline.drive import Driver
from vestibule.pipeline.segments import Segments
from vestibule.pipeline.services import Services


def _together(*calls: Callable[[], Any]) -> list[Any]:
    """What each call gave or raised; all begin at once."""
    barrier = threading.Barrier(len(calls))
    found: list[Any] = [None] * len(calls)

    def work(number: int, call: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            found[number] = call()
        except VestibuleError as error:
            found[number] = error

    threads = [threading.Thread(target=work, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_two_reviewers_at_once_get_one_gate_outcome(world: World) -> None:
    other = Services(world.env)

    def approve() -> Any:
        return world.approve(BOB)

    def reject() -> Any:
        return Driver(other).record(world.run, "reject", "No.", person=ALICE, channel="cli")

    _together(approve, reject)
    state = world.record.state
    gate = world.services.gates.current(world.run)
    assert gate is not None
    assert (state, gate.state) in ((State.APPROVED, "approved"), (State.REJECTED, "rejected"))
    other.close()


def test_a_decision_in_flight_is_not_closed_by_another_runs_reconciler(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What looks like a dead process's open intent may be a person's decision being written."""
    original = world.services.gates._record
    another = start_run(world.services, world.folder, world.repo)

    def record(*args: Any) -> Any:
        live = world.driver._live(another)
        assert world.run in live
        world.services.audit.reconcile(live_runs=live)
        return original(*args)

    monkeypatch.setattr(world.services.gates, "_record", record)
    assert world.approve().state is State.APPROVED
    results = [event.result for event in world.events("review.decide") if event.phase == "outcome"]
    assert results == ["ok"]


def test_a_merge_that_is_in_is_found_and_not_made_again(world: World) -> None:
    world.approve()
    assert conclude(world) == "merged"
    merged = world.git("rev-parse", "main")
    world.services.runs.set(world.run, state=State.APPROVED)
    assert conclude(world) == "merged"
    assert world.git("rev-parse", "main") == merged


def test_a_decision_while_the_agent_reworks_is_refused(world: World) -> None:
    world.driver.record(world.run, "request-changes", "Say three.", person=BOB, channel="cli")
    assert world.record.state is State.CHANGES_REQUESTED
    with pytest.raises(VestibuleError) as found:
        world.approve(BOB)
    assert rule_of(found.value) == "review.closed"
    world.services.runs.set(world.run, state=State.WORKING)
    with pytest.raises(VestibuleError, match="no gate to decide"):
        world.approve(BOB)
    assert Segments(world.services).runs.get(world.run).state is State.WORKING
