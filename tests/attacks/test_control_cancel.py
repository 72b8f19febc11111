"""Cancelling races a merge: the run ends as what really happened, and the person's repository is theirs again."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.attacks.control_world import BOB, World
from vestibule.core.errors import UsageError
from vestibule.core.model import Decision, State
from vestibule.forges.checkout import Checkout
from vestibule.git import Git
from vestibule.pipeline import drive
from vestibule.pipeline.lease import Lease


class Killed(BaseException):
    """Stands for SIGKILL: no handler of ours may take it for an error and tidy up."""


def _killed_in_merge(world: World, monkeypatch: pytest.MonkeyPatch, *, moved: bool) -> None:
    """The process dies when the files are written: before the branch moved, or right after."""
    with monkeypatch.context() as patch:
        if moved:
            original: Callable[..., Any] = Checkout._move

            def after(self: Checkout, *args: Any) -> None:
                original(self, *args)
                raise Killed

            patch.setattr(Checkout, "_move", after)
        else:

            def before(self: Git, ref: str, new: str, old: str | None) -> None:
                raise Killed

            patch.setattr(Git, "update_ref", before)
        world.services.runs.set(world.run, verified_tree=world.record.tree)
        with pytest.raises(Killed):
            world.segments._merge(world.run)
    assert (world.repo / ".git" / "index.lock").exists(), "the half-made state was protected"


def test_cancel_of_a_half_made_merge_gives_the_repository_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.approve()
    _killed_in_merge(world, monkeypatch, moved=False)
    record, undone = world.driver.cancel(world.run)
    assert record.state is State.CANCELLED
    assert any("merge" in line for line in undone)
    assert not (world.repo / ".git" / "index.lock").exists()
    assert world.git("status", "--porcelain") == ""
    assert (world.repo / "src" / "app.py").read_text() == "one\n"
    assert world.git("rev-parse", "main") == record.base_commit


def test_cancel_never_calls_a_merged_run_cancelled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.approve()
    _killed_in_merge(world, monkeypatch, moved=True)
    with pytest.raises(UsageError, match="merged"):
        world.driver.cancel(world.run)
    assert world.record.state is State.MERGED
    assert world.record.merge_commit == world.git("rev-parse", "main")
    assert not (world.repo / ".git" / "index.lock").exists()
    assert world.git("status", "--porcelain") == ""


def test_resume_after_a_kill_behind_the_merge_gives_the_index_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.approve()
    _killed_in_merge(world, monkeypatch, moved=True)
    world.segments._merge(world.run)
    assert world.record.state is State.MERGED
    assert not (world.repo / ".git" / "index.lock").exists()


def test_a_run_that_ends_while_cancel_waits_for_it_keeps_its_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(*_: object) -> str:
        world.services.runs.set(world.run, state=State.MERGED, merge_commit="0" * 40)
        return "stopped"

    monkeypatch.setattr(drive, "holder", lambda _: 1)
    monkeypatch.setattr(drive, "_stop_process", stops)
    with pytest.raises(UsageError, match="ended already"):
        world.driver.cancel(world.run)
    assert world.record.state is State.MERGED


def test_cancel_is_recorded_before_the_gate_closes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    original = world.services.gates.supersede

    def supersede(run: str) -> Any:
        seen.extend(event.phase for event in world.events("run.cancel"))
        return original(run)

    monkeypatch.setattr(world.services.gates, "supersede", supersede)
    world.driver.cancel(world.run)
    assert seen == ["intent"]
    assert [event.result for event in world.events("run.cancel")] == ["", "ok"]


def test_an_approval_that_races_a_cancel_does_not_revive_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = world.record
    gate = world.services.gates.current(world.run)
    assert gate is not None
    world.driver.cancel(world.run)
    decided = world.services.gates.decisions(gate.id)
    assert decided == ()
    decision = Decision(
        id="d-1",
        gate=gate.id,
        run=world.run,
        person=BOB,
        choice="approve",
        reason="late",
        binding=gate.binding,
        time=gate.opened,
    )
    world.driver._follow(stale, "approved", decision)
    assert world.record.state is State.CANCELLED


def test_a_lease_that_names_a_stranger_kills_nobody(world: World) -> None:
    """The file's text is not proof: a process killed before it wrote its own id leaves another's there."""
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        folder = world.services.folder(world.run)
        with Lease(folder, world.run):
            (folder / "lease").write_text(f"pid {stranger.pid}\n")
            with pytest.raises(UsageError):
                world.driver.cancel(world.run)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
