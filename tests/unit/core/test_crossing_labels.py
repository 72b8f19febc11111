"""An outward effect and what the run reads meanwhile: the effect is judged by the label of now, or not at all."""

from __future__ import annotations

import asyncio
import concurrent.futures

import pytest

from vestibule.core.crossing import MAX_JUDGEMENTS, Actor, Crossing, Step
from vestibule.core.errors import DependencyDown
from vestibule.core.labels import Integrity, Label, RunLabel
from vestibule.core.model import Event, Receipt
from vestibule.core.ports import PolicyInput
from vestibule.core.verdict import Ruling, Verdict

AGENT = Actor("r0123456789abcd", "spiffe://x/agent", "agent")
OUT = Step("context.call", {"id": "post", "outward": True}, {})


class Allow:
    digest = "sha256:p"

    def decide(self, request: PolicyInput) -> Verdict:
        return Verdict(ruling=Ruling.ALLOW, reasons=())


class Log:
    """Keeps events; after each intent `then` runs, as another call of the run would meanwhile."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.then = lambda: None

    def submit(self, event: Event) -> concurrent.futures.Future[Receipt]:
        self.events.append(event)
        if event.phase == "intent":
            self.then()
        future: concurrent.futures.Future[Receipt] = concurrent.futures.Future()
        future.set_result(Receipt(seq=len(self.events), time="2026-01-01T00:00:00.000Z"))
        return future


class Restless(RunLabel):
    """A label that never comes to rest: what a broken one could be."""

    count = 0

    @property
    def current(self) -> Label:
        self.count += 1
        return Label(integrity=list(Integrity)[self.count % 4])


def test_a_label_that_never_comes_to_rest_lets_nothing_out() -> None:
    log = Log()
    crossing = Crossing(Allow(), log, labels=Restless())
    sent: list[int] = []

    async def effect() -> tuple[None, bool, dict[str, object]]:
        sent.append(1)
        return None, True, {}

    with pytest.raises(DependencyDown) as down:
        asyncio.run(crossing.cross_all(AGENT, (OUT,), effect))
    assert down.value.name == "labels"
    assert sent == []
    intents = [event for event in log.events if event.phase == "intent"]
    closed = [event for event in log.events if event.phase == "outcome"]
    assert len(intents) == len(closed) == MAX_JUDGEMENTS
    assert {event.result for event in closed} == {"failed"}


def test_what_was_read_meanwhile_is_judged_before_anything_leaves() -> None:
    log = Log()
    crossing = Crossing(Allow(), log)
    web = Label(integrity=Integrity.WEB)
    log.then = lambda: crossing.labels.join(web)

    async def effect() -> tuple[Label, bool, dict[str, object]]:
        return crossing.labels.current, True, {}

    assert asyncio.run(crossing.cross_all(AGENT, (OUT,), effect)) == web
    intents = [event for event in log.events if event.phase == "intent"]
    assert [event.labels for event in intents] == [Label(), web]
