"""No trace of events reaches an approval that the model does not know a quorum for."""

from __future__ import annotations

import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from review_world import AGENT, BOB, CAROL, REQUESTER, RUN, World, binding

from vestibule.core.errors import Refused
from vestibule.core.model import Gate, Person

DAN = Person(id="local:dan", how="uid")
BOT = Person(id="bot:ci", how="?")
PEOPLE = st.sampled_from([REQUESTER, BOB, CAROL, DAN, AGENT, BOT])
LIFE = 100


class Review(RuleBasedStateMachine):
    """A branch that moves, people and agents who answer, a clock. The model is a few plain sets."""

    @initialize(
        approvals=st.integers(1, 3),
        self_approval=st.sampled_from(["never", "recorded"]),
        eligible=st.sampled_from([(), ("local:bob", "local:carol", AGENT.id, BOT.id, REQUESTER.id)]),
    )
    def start(self, approvals: int, self_approval: str, eligible: tuple[str, ...]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.world = World(Path(self.folder.name))
        self.terms = {"approvals": approvals, "self_approval": self_approval, "eligible": eligible}
        self.head = 1
        self.round = 0
        self.gates: list[Gate] = []
        self.opened: dict[str, float] = {}
        self.clock = 0.0
        self.approvers: dict[str, set[str]] = {}
        self.dead: set[str] = set()
        self.next_round()

    @rule()
    def next_round(self) -> None:
        """The pipeline proposes what is there and opens its gate."""
        if self.round >= 6:
            return
        self.round += 1
        for gate in self.gates:
            self.dead.add(gate.id)
        gate = self.world.open(round=self.round, number=self.head, expires_seconds=LIFE, **self.terms)
        self.gates.append(gate)
        self.opened[gate.id] = self.clock
        self.approvers[gate.id] = set()

    @rule(noticed=st.booleans())
    def new_commit(self, noticed: bool) -> None:
        """Somebody pushes; the pipeline may or may not have noticed."""
        self.head = self.head % 9 + 1
        if noticed:
            for gate in self.world.gates.supersede(RUN, current=binding(self.head)):
                self.dead.add(gate.id)

    @rule(seconds=st.sampled_from([1, 40, LIFE]))
    def time_passes(self, seconds: int) -> None:
        self.world.time.pass_(seconds)
        self.clock += seconds

    @rule()
    def sweep(self) -> None:
        for gate in self.world.gates.expire():
            assert self.clock - self.opened[gate.id] >= LIFE
            self.dead.add(gate.id)

    @rule(
        person=PEOPLE,
        choice=st.sampled_from(["approve", "approve", "approve", "request-changes", "reject"]),
        reason=st.sampled_from(["fine", "fine", "fine", "\u200b"]),
        which=st.integers(0, 5),
        lie=st.booleans(),
    )
    def decide(self, person: Person, choice: str, reason: str, which: int, lie: bool) -> None:
        """An answer at any gate; sometimes the caller believes that nothing moved."""
        gate = self.gates[-1 - which % len(self.gates)]
        current = gate.binding if lie else binding(self.head)
        try:
            decided = self.world.decide(gate, person=person, choice=choice, reason=reason, current=lambda: current)
        except Refused:
            return
        if decided.repeated:
            return
        assert person not in (AGENT, BOT)
        assert not self.terms["eligible"] or person.id in self.terms["eligible"]  # type: ignore[operator]
        assert gate.id not in self.dead
        assert current == gate.binding
        assert self.clock - self.opened[gate.id] < LIFE
        assert reason == "fine"
        if choice == "approve":
            if person is REQUESTER:
                assert self.terms["self_approval"] == "recorded"
                assert decided.decision.self_review
            self.approvers[gate.id].add(person.id)
        else:
            self.approvers[gate.id].discard(person.id)
            self.dead.add(gate.id)

    @precondition(lambda self: getattr(self, "gates", None))
    @invariant()
    def approved_means_a_quorum_on_what_is_there(self) -> None:
        for gate in self.gates:
            outcome = self.world.gates.outcome(gate.id, binding(self.head))
            quorum = len(self.approvers[gate.id]) >= gate.approvals
            there = gate.binding == binding(self.head)
            assert outcome.approved == (quorum and there and gate.id not in self.dead)
            stored = self.world.gates.get(gate.id)
            assert stored is not None
            if gate.id in self.dead:
                assert stored.state not in ("open", "approved")

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.database.close()
            self.folder.cleanup()


Review.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestReview = Review.TestCase
