"""`gate` answers no more than what stands: an expired gate waits for nobody, and what cannot be read is no approval."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from tests.attacks.control_world import World
from vestibule.core.errors import DependencyDown
from vestibule.pipeline import gate_answer
from vestibule.pipeline.gate_answer import answer_for


def test_an_expired_gate_waits_for_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    head = world.record.head_commit
    assert answer_for(world.services, head).answer == "waiting"
    monkeypatch.setattr(gate_answer.clock, "now", lambda: "2100-01-01T00:00:00.000Z")
    found = answer_for(world.services, head)
    assert (found.answer, found.exit_code) == ("not approved", 6)
    assert "expired" in found.reason


def test_a_log_that_cannot_be_read_is_a_dependency_that_is_down(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> Future[None]:
        raise DependencyDown("audit", "The log cannot be read.")

    world.approve()
    monkeypatch.setattr(world.services.audit, "entries", broken)
    with pytest.raises(DependencyDown, match="cannot be read"):
        answer_for(world.services, world.record.head_commit)


def test_a_commit_that_is_gone_has_no_valid_approval(world: World) -> None:
    world.approve()
    head = world.record.head_commit
    world.git("update-ref", "-d", f"refs/heads/{world.record.branch}")
    world.git("reflog", "expire", "--expire=now", "--all")
    world.git("prune", "--expire=now")
    assert answer_for(world.services, head).answer == "not approved"
