"""The log counts its own decisions, from where the last count ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from vestibule.audit.counts import decisions_after
from vestibule.audit.log import AuditLog
from vestibule.core.errors import DependencyDown
from vestibule.core.model import Event, Subject
from vestibule.core.verdict import Ruling


def event(action: str, verdict: Ruling | None, *reasons: str, subject: Subject = "agent") -> Event:
    return Event(
        run="r1",
        phase="intent",
        action=action,
        resource="x",
        subject=subject,
        actor="spiffe://vestibule.local/run/r1/agent/a",
        verdict=verdict,
        reasons=reasons,
    )


def test_decisions_are_counted_once_and_only_the_agents_own(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    assert decisions_after(folder, 0) == (0, []), "no log yet is no decision yet"
    with AuditLog.open(folder, tmp_path / "trust") as log:
        for _ in range(2):
            log.append(event("model.tool_call", Ruling.DENY, "scope.write", "second.reason"))
        receipt = log.append(event("model.request", Ruling.ALLOW))
        outcome = event("model.request", Ruling.ALLOW)
        log.append(outcome.model_copy(update={"phase": "outcome", "intent": receipt.seq, "result": "ok"}))
        log.append(event("model.request", Ruling.DENY, "probe", subject="probe"))
        log.append(event("run.note", None))
        last, found = decisions_after(folder, 0)
        assert found == [("model.tool_call", "deny", "scope.write", 2), ("model.request", "allow", "", 1)]
        assert decisions_after(folder, last) == (last, [])
        log.append(event("network.connect", Ruling.HOLD, "egress.unlisted"))
        assert decisions_after(folder, last) == (last + 1, [("network.connect", "hold", "egress.unlisted", 1)])


def test_a_log_that_cannot_be_read_is_down(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(DependencyDown) as caught:
        decisions_after(tmp_path, 0)
    assert caught.value.name == "audit"
