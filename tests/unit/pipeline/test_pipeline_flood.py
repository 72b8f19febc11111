"""An agent that asks without end fills no log."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Literal

import pytest

from vestibule.core.errors import Refused
from vestibule.core.model import Event, Receipt, Subject
from vestibule.core.verdict import Ruling
from vestibule.pipeline.flood import BoundedSink


class Log:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def submit(self, event: Event) -> Future[Receipt]:
        self.events.append(event)
        future: Future[Receipt] = Future()
        future.set_result(Receipt(seq=len(self.events), time="2026-01-01T00:00:00.000Z"))
        return future


def event(subject: Subject = "agent", phase: Literal["intent", "outcome"] = "intent") -> Event:
    return Event(
        run="r",
        phase=phase,
        action="context.read",
        resource="a",
        subject=subject,
        actor="x",
        verdict=Ruling.DENY,
        intent=1 if phase == "outcome" else None,
    )


def test_beyond_the_ceiling_nothing_is_recorded_and_the_attempt_is_stopped_once() -> None:
    log, stopped = Log(), []
    sink = BoundedSink(log, lambda: stopped.append(1), most=3)
    for _ in range(3):
        sink.submit(event()).result()
    for _ in range(5):
        with pytest.raises(Refused, match="decisions"):
            sink.submit(event()).result()
    assert len(log.events) == 3
    assert stopped == [1]


def test_outcomes_and_what_others_do_are_always_recorded() -> None:
    log = Log()
    sink = BoundedSink(log, lambda: None, most=1)
    sink.submit(event()).result()
    sink.submit(event(phase="outcome")).result()
    for subject in ("system", "person", "probe"):
        sink.submit(event(subject)).result()
    assert len(log.events) == 5
