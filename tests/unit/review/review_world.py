"""A database with one run, people, and crossings for review tests."""

from __future__ import annotations

import concurrent.futures
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from vestibule.core import clock
from vestibule.core.crossing import Crossing
from vestibule.core.errors import DependencyDown
from vestibule.core.model import Event, Gate, GateBinding, Person, Receipt
from vestibule.core.ports import PolicyInput
from vestibule.core.verdict import Ruling, Verdict
from vestibule.review.gates import Decided, Gates
from vestibule.review.signing import ReviewKey
from vestibule.store.database import Database
from vestibule.store.tables import runs

RUN = "r0123456789abcd"
REQUESTER = Person(id="local:alice", how="uid")
BOB = Person(id="local:bob", how="uid")
CAROL = Person(id="local:carol", how="uid")
AGENT = Person(id=f"spiffe://vestibule.local/run/{RUN}/agent/claude", how="token")


def binding(number: int = 1) -> GateBinding:
    """What a change looks like; another number is another commit."""
    digit = f"{number:x}"[-1]
    return GateBinding(
        head_commit=digit * 40,
        tree=digit * 40,
        base_commit="b" * 40,
        policy_digest="sha256:p",
        findings_digest="sha256:f",
        target="refs/heads/main",
    )


class Time:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> str:
        return clock.rfc3339(self.moment)

    def pass_(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


class Policy:
    """Allows everything, unless told otherwise: what is refused then is refused by the review's own rules."""

    digest = "sha256:policy"

    def __init__(self) -> None:
        self.verdict = Verdict(ruling=Ruling.ALLOW, reasons=("test",))
        self.asked: list[PolicyInput] = []

    def decide(self, request: PolicyInput) -> Verdict:
        self.asked.append(request)
        return self.verdict


class Log:
    """Keeps events; `broken` makes it unable to."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.broken = False
        self.before: Any = None

    def submit(self, event: Event) -> concurrent.futures.Future[Receipt]:
        future: concurrent.futures.Future[Receipt] = concurrent.futures.Future()
        if self.broken:
            future.set_exception(DependencyDown("audit", "The disk is full."))
            return future
        if self.before is not None:
            self.before(event)
        self.events.append(event)
        future.set_result(Receipt(seq=len(self.events), time="2026-01-02T03:04:05.000Z"))
        return future


class World:
    """Everything around the gates of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = Database(f"sqlite:///{folder / 'vestibule.db'}")
        self.time = Time()
        self.policy = Policy()
        self.log = Log()
        self.key = ReviewKey.new()
        self.gates = Gates(self.database, self.key, now=self.time)
        self.crossing = Crossing(self.policy, self.log)
        self.add_run(RUN)

    def add_run(self, run: str) -> None:
        row = {"id": run, "state": "x", "created": "x", "updated": "x", "version": 1, "document": "{}"}
        with self.database.write() as connection:
            connection.execute(insert(runs).values(**row))

    def open(self, round: int = 1, number: int = 1, **terms: Any) -> Gate:  # noqa: A002
        values: dict[str, Any] = {"run": RUN, "binding": binding(number), "requester": REQUESTER.id, **terms}
        return self.gates.open(round=round, **values)

    def decide(
        self,
        gate: Gate,
        person: Person = BOB,
        choice: Any = "approve",
        reason: str = "looked at it",
        current: Any = None,
        **more: Any,
    ) -> Decided:
        return self.gates.decide(
            self.crossing,
            gate=gate.id,
            person=person,
            choice=choice,
            reason=reason,
            current_binding=gate.binding if current is None else current,
            **more,
        )
