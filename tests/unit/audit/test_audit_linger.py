"""Outcomes wait a little for the next intent and share its commit; none is lost, and none waits for ever."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vestibule.audit.log import AuditLog
from vestibule.core.errors import DependencyDown
from vestibule.core.model import Event, Receipt
from vestibule.core.verdict import Ruling


def intent(name: str) -> Event:
    return Event(
        run="r",
        phase="intent",
        action="context.read",
        resource=name,
        subject="agent",
        actor="spiffe://example.com/run/r/agent/a",
        verdict=Ruling.ALLOW,
    )


def outcome(event: Event, receipt: Receipt) -> Event:
    return event.model_copy(update={"phase": "outcome", "intent": receipt.seq, "result": "ok"})


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AuditLog]:
    with contextlib.closing(AuditLog.open(tmp_path / "audit", tmp_path / "trust")) as found:
        yield found


def batches(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The phases of each commit from now on."""
    found: list[list[str]] = []
    real = log._sequencer.append

    def append(batch: Any) -> Any:
        found.append([item.event.phase for item in batch])
        return real(batch)

    monkeypatch.setattr(log._sequencer, "append", append)
    return found


def test_an_outcome_nobody_follows_is_durable_by_itself(log: AuditLog) -> None:
    for _ in range(20):
        event = intent("a")
        receipt = log.append(event)
        assert log.submit(outcome(event, receipt)).result(10).seq == receipt.seq + 1


def test_an_outcome_shares_the_commit_of_the_intent_that_follows(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vestibule.audit.log.LINGER_SECONDS", 30.0)
    event = intent("0")
    receipt = log.append(event)
    commits = batches(log, monkeypatch)
    for number in range(1, 50):
        closed = log.submit(outcome(event, receipt))
        event = intent(str(number))
        receipt = log.append(event)
        assert closed.result(0).seq == receipt.seq - 1
    assert commits == [["outcome", "intent"]] * 49


@pytest.mark.parametrize("how", ["checkpoint", "close"])
def test_what_waits_is_in_the_checkpoint_and_in_the_closed_log(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("vestibule.audit.log.LINGER_SECONDS", 30.0)
    event = intent("a")
    closed = log.submit(outcome(event, log.append(event)))
    if how == "checkpoint":
        assert log.head().size == 2
    else:
        log.close()
    assert closed.result(0).seq == 2
    assert [entry.event.phase for entry in log.entries()] == ["intent", "outcome"]


def test_an_outcome_that_waits_when_the_log_breaks_fails_with_it(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vestibule.audit.log.LINGER_SECONDS", 30.0)
    event = intent("a")
    receipt = log.append(event)

    def full(_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log._sequencer, "append", full)
    waiting = log.submit(outcome(event, receipt))
    failed = log.submit(intent("b"))
    for future in (failed, waiting, log.submit(outcome(event, receipt))):
        with pytest.raises(DependencyDown):
            future.result(10)


def test_every_outcome_of_many_at_once_arrives(log: AuditLog) -> None:
    events = [intent(str(number)) for number in range(300)]
    receipts = [future.result(10) for future in [log.submit(event) for event in events]]
    closed = [log.submit(outcome(event, receipt)) for event, receipt in zip(events, receipts, strict=True)]
    assert sorted(future.result(10).seq for future in closed) == list(range(301, 601))
