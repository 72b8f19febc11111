"""A run is merged by a decision that stands, for exactly this change, and by nothing else."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.control_world import ALICE, BOB, CAROL, World
from vestibule.core.errors import DependencyDown, Refused, VerificationFailed, VestibuleError
from vestibule.core.model import State
from vestibule.pipeline.segments import Segments


class Plain:
    """Steps without an engine."""

    def run(self, _name: str, step: Callable[[], Any]) -> Any:
        return step()


def conclude(world: World) -> str:
    return Segments(world.services).conclude(Plain(), world.run)  # type: ignore[arg-type]


def refused(world: World) -> VestibuleError:
    """The merge is refused, and neither branch nor log says otherwise."""
    before = world.git("rev-parse", "main")
    with pytest.raises(VestibuleError) as found:
        conclude(world)
    assert world.git("rev-parse", "main") == before
    assert world.record.state is not State.MERGED
    assert not [event for event in world.events("merge") if event.result == "ok"]
    return found.value


def rule_of(error: VestibuleError) -> str:
    assert isinstance(error, Refused), error
    return error.refusal.rule


def edit(world: World, table: str, change: Callable[[dict[str, Any]], None]) -> None:
    """What somebody who can write vestibule.db does: the document, and the columns that repeat it."""
    with sqlite3.connect(world.home / "vestibule.db") as connection:
        for name, document in connection.execute(f"SELECT id, document FROM {table}").fetchall():
            found = json.loads(document)
            change(found)
            text = json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            connection.execute(f"UPDATE {table} SET document = ? WHERE id = ?", (text, name))
            if "state" in found:
                connection.execute(f"UPDATE {table} SET state = ? WHERE id = ?", (found["state"], name))


def test_an_approved_change_merges(world: World) -> None:
    world.approve()
    assert conclude(world) == "merged"


def test_a_row_that_says_approved_merges_nothing(world: World) -> None:
    edit(world, "runs", lambda row: row.update(state="approved"))
    edit(world, "gates", lambda row: row.update(state="approved"))
    assert rule_of(refused(world)).startswith("merge.")


def test_a_row_that_says_approved_runs_no_verify_command(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from vestibule.pipeline import verification

    ran: list[str] = []
    monkeypatch.setattr(verification, "verify", lambda *_: ran.append("ran"))
    edit(world, "runs", lambda row: row.update(state="approved"))
    refused(world)
    assert ran == []


@pytest.mark.parametrize(
    "change",
    [
        {"approvals": 0},
        {"eligible": []},
        {"eligible": ["local:carol"]},
        {"self_approval": "recorded"},
        {"requester": "local:carol"},
        {"expires": "2999-01-01T00:00:00.000Z"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_terms_of_a_gate_that_were_changed_in_its_row_merge_nothing(world: World, change: dict[str, Any]) -> None:
    edit(world, "gates", lambda row: row.update(change))
    person = {"eligible": CAROL}.get(next(iter(change)), BOB) if change.get("eligible") else BOB
    world.approve(ALICE if "requester" in change or "self_approval" in change else person)
    assert rule_of(refused(world)) == "merge.evidence"


def test_a_requester_that_was_changed_everywhere_is_still_the_one_who_asked(world: World) -> None:
    edit(world, "gates", lambda row: row.update(requester="local:carol"))
    edit(world, "runs", lambda row: row.update(requester="local:carol"))
    world.approve(ALICE)
    assert rule_of(refused(world)) == "merge.evidence"


def test_a_signed_decision_that_the_log_does_not_know_merges_nothing(world: World, tmp_path: Path) -> None:
    """Whoever has the review key but not the log's: signed rows alone approve nothing."""
    gate = world.services.gates.current(world.run)
    assert gate is not None
    from vestibule.core.model import Decision
    from vestibule.review.signing import SignedDecision

    decision = Decision(
        id="d-1",
        gate=gate.id,
        run=world.run,
        person=BOB,
        choice="approve",
        reason="Forged.",
        binding=gate.binding,
        time=gate.opened,
    )
    signed = SignedDecision(decision=decision, signature=world.services.gates._key.sign(decision))
    with sqlite3.connect(world.home / "vestibule.db") as connection:
        connection.execute(
            "INSERT INTO decisions (id, gate, person, document) VALUES (?, ?, ?, ?)",
            (decision.id, gate.id, BOB.id, signed.model_dump_json()),
        )
    edit(world, "gates", lambda row: row.update(state="approved"))
    edit(world, "runs", lambda row: row.update(state="approved"))
    assert rule_of(refused(world)) == "merge.evidence"


def test_a_decision_whose_row_was_changed_is_no_decision(world: World) -> None:
    world.approve()
    edit(world, "decisions", lambda row: row["decision"]["person"].update(id="local:alice"))
    assert isinstance(refused(world), (VerificationFailed, DependencyDown))


def test_a_gate_whose_row_was_deleted_approves_nothing(world: World) -> None:
    world.approve()
    with sqlite3.connect(world.home / "vestibule.db") as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute("DELETE FROM gates")
    assert rule_of(refused(world)) == "merge.unapproved"


def _copy(world: World, name: str) -> Path:
    with sqlite3.connect(world.home / "vestibule.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Path(shutil.copy(world.home / "vestibule.db", world.folder / name))


def _restore(world: World, copy: Path) -> World:
    world.services.db.close()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{world.home / 'vestibule.db'}{suffix}").unlink(missing_ok=True)
    shutil.copy(copy, world.home / "vestibule.db")
    return world.reopened()


def test_a_backup_put_back_does_not_forget_a_cancel(world: World) -> None:
    world.approve()
    copy = _copy(world, "backup.db")
    world.driver.cancel(world.run)
    world = _restore(world, copy)
    assert world.record.state is State.APPROVED
    assert rule_of(refused(world)) == "merge.evidence"
    world.services.close()


def test_a_backup_put_back_does_not_forget_a_rejection(world: World) -> None:
    copy = _copy(world, "backup.db")
    world.driver.record(world.run, "reject", "No.", person=ALICE, channel="cli")
    world = _restore(world, copy)
    world.approve(BOB)
    assert rule_of(refused(world)) == "merge.evidence"
    world.services.close()


def test_a_log_that_was_rolled_back_merges_nothing(world: World) -> None:
    shutil.copytree(world.home / "audit", world.folder / "older")
    world.approve()
    world.services.close()
    shutil.rmtree(world.home / "audit")
    shutil.copytree(world.folder / "older", world.home / "audit")
    world = world.reopened()
    assert rule_of(_error(world)) == "dependency.audit"


def test_a_whole_state_folder_put_back_does_not_forget_a_cancel(world: World) -> None:
    """Database and log agree with each other then; the head remembered outside the folder tells."""
    world.approve()
    world.services.close()
    shutil.copytree(world.home, world.folder / "older")
    world = world.reopened()
    world.driver.cancel(world.run)
    world.services.close()
    shutil.rmtree(world.home)
    shutil.copytree(world.folder / "older", world.home)
    world = world.reopened()
    assert world.record.state is State.APPROVED
    assert rule_of(_error(world)) == "dependency.audit"
    assert world.git("rev-parse", "main") == world.record.base_commit


def _error(world: World) -> VestibuleError:
    with pytest.raises(VestibuleError) as found:
        conclude(world)
    return found.value


def test_a_merge_commit_made_by_hand_with_our_trailers_is_no_merge_of_ours(world: World) -> None:
    """The repository's owner can write any commit; that it looks like ours is no decision."""
    record = world.record
    commit = world.git(
        "commit-tree",
        record.tree,
        "-p",
        record.base_commit,
        "-p",
        record.head_commit,
        "-m",
        f"Merge vestibule/{world.run}\n\nVestibule-Run: {world.run}",
    )
    world.git("update-ref", "refs/heads/main", commit)
    world.services.runs.set(world.run, state=State.APPROVED)
    refused(world)


def test_the_branch_moved_after_the_approval_is_not_merged(world: World) -> None:
    world.approve()
    branch = f"refs/heads/vestibule/{world.run}"
    world.git("update-ref", branch, world.record.base_commit)
    assert rule_of(refused(world)).startswith("merge.")


def test_a_base_that_moved_after_the_approval_keeps_the_approval_and_merges_nothing(world: World) -> None:
    world.approve()
    (world.repo / "other.txt").write_text("x\n")
    world.git("add", "-A")
    world.git("commit", "-q", "-m", "Meanwhile")
    before = world.git("rev-parse", "main")
    assert conclude(world) == "approved"
    assert world.git("rev-parse", "main") == before


def test_an_organisation_policy_that_came_after_the_approval_voids_it(world: World) -> None:
    world.approve()
    folder = world.folder / "policy"
    folder.mkdir()
    (folder / "org.rego").write_text('package vestibule\n\ndefault decision := {"verdict": "allow", "reasons": []}\n')
    (world.folder / "operator" / "config.yaml").write_text(f"version: 1\npolicy: [{json.dumps(str(folder))}]\n")
    world = world.reopened()
    assert rule_of(refused(world)).startswith("merge.")
    world.services.close()


@pytest.mark.parametrize("state", [State.REFUSED, State.CANCELLED, State.EXPIRED, State.REJECTED, State.FAILED])
def test_a_run_that_ended_does_not_go_on(world: World, state: State) -> None:
    world.approve()
    world.services.runs.set(world.run, state=state)
    assert world.driver.resume(world.run).state is state
    assert conclude(world) == state.value
    assert world.git("rev-parse", "main") == world.record.base_commit


def test_a_step_that_is_run_again_never_takes_a_decision_back(world: World) -> None:
    """Killed between the run's row and the step's record: the step comes again after the person has decided."""
    world.approve()
    world.segments._propose(world.run)
    assert world.record.state.value == "approved"
    assert conclude(world) == "merged"
    world.segments._propose(world.run)
    assert world.record.state.value == "merged"
