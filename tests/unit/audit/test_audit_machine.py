"""The log as a state machine: whatever is done in whatever order, acknowledged entries stay and the log verifies."""

from __future__ import annotations

import tempfile
from pathlib import Path

from audit_helpers import FakeClock, Place, event, outcome
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vestibule.audit.checkpoint import Checkpoint, peek
from vestibule.audit.entry import prepare
from vestibule.audit.log import AuditLog
from vestibule.audit.sequencer import Sequencer
from vestibule.audit.trust import Trust
from vestibule.core.errors import DependencyDown


class LogMachine(RuleBasedStateMachine):
    """Two openings of one log, closed and opened at will; a process that dies unsealed; clocks; reconciling."""

    def __init__(self) -> None:
        super().__init__()
        self.scratch = tempfile.TemporaryDirectory()
        self.place = Place(Path(self.scratch.name))
        self.clock = FakeClock()
        self.logs: list[AuditLog | None] = [self.place.open(clock=self.clock), None]
        self.acknowledged: dict[int, tuple[str, str]] = {}
        self.open_intents: dict[int, str] = {}
        self.heads: list[Checkpoint] = []

    def log(self, which: int) -> AuditLog:
        log = self.logs[which]
        if log is None:
            log = self.logs[which] = self.place.open(clock=self.clock)
        return log

    @rule(which=st.integers(0, 1), run=st.sampled_from(["a", "b"]), verdict=st.sampled_from(["allow", "hold", "deny"]))
    def append(self, which: int, run: str, verdict: str) -> None:
        receipt = self.log(which).append(event(run=run, verdict=verdict, resource=f"{len(self.acknowledged)}"))
        assert receipt.seq > max(self.acknowledged, default=0)
        self.acknowledged[receipt.seq] = (run, f"{len(self.acknowledged)}")
        if verdict == "allow":
            self.open_intents[receipt.seq] = run

    @precondition(lambda self: self.open_intents)
    @rule(which=st.integers(0, 1), data=st.data())
    def close_intent(self, which: int, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(sorted(self.open_intents)))
        run = self.open_intents.pop(seq)
        self.log(which).append(outcome(seq, run=run))
        try:
            self.log(which).append(outcome(seq, run=run))
        except DependencyDown:
            return
        raise AssertionError("a second outcome got in")

    @rule(which=st.integers(0, 1), live=st.sampled_from([(), ("a",), ("a", "b")]))
    def reconcile(self, which: int, live: tuple[str, ...]) -> None:
        dead = [seq for seq, run in self.open_intents.items() if run not in live]
        assert len(self.log(which).reconcile(live)) == len(dead)
        for seq in dead:
            del self.open_intents[seq]

    @rule(which=st.integers(0, 1))
    def close(self, which: int) -> None:
        log = self.logs[which]
        if log is not None:
            log.close()
        self.logs[which] = None

    @rule(which=st.integers(0, 1))
    def checkpoint(self, which: int) -> None:
        self.heads.append(peek(self.log(which).checkpoint()))

    @rule()
    def die_unsealed(self) -> None:
        dying = Sequencer(self.place.folder, Trust(self.place.trust), trust_domain="x", clock=self.clock)
        (receipt,) = dying.append([prepare(event(verdict="deny", run="c", resource="dying"))])
        dying.close()
        self.acknowledged[receipt.seq] = ("c", "dying")  # type: ignore[union-attr]

    @rule(ms=st.sampled_from([1, 999, 5_000, -500, -10_000]), passing=st.booleans())
    def move_clock(self, ms: int, passing: bool) -> None:
        if passing and ms > 0:
            self.clock.pass_time(ms)
        else:
            self.clock.wall += ms

    @rule()
    def verify(self) -> None:
        if self.log(0).head().size == 0:
            assert not self.place.verify().ok
            return
        result = self.place.verify(remember=True, now_ms=self.clock.wall)
        assert result.ok, result.problems
        assert result.unsealed == 0
        unfinished = {item.seq for item in result.notices if item.rule == "intent.open"}
        assert unfinished == set(self.open_intents)

    @invariant()
    def what_was_acknowledged_is_there(self) -> None:
        stored = {item.seq: (item.event.run, item.event.resource) for item in self.log(0).entries()}
        assert all(stored[seq] == said for seq, said in self.acknowledged.items())
        assert list(stored) == list(range(1, len(stored) + 1))

    @invariant()
    def heads_only_grow(self) -> None:
        assert [head.size for head in self.heads] == sorted(head.size for head in self.heads)

    def teardown(self) -> None:
        for log in self.logs:
            if log is not None:
                log.close()
        result = self.place.verify(now_ms=self.clock.wall)
        if result.entries:
            assert result.ok, result.problems
        self.scratch.cleanup()


TestLogMachine = LogMachine.TestCase
TestLogMachine.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
