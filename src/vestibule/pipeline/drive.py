"""Drives a run: one process holds its lease, launches its engine, and performs the segment that is due."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vestibule.core.errors import AGENT_FAILED, HELD, OK, REFUSED, DependencyDown, Refused, UsageError, VestibuleError
from vestibule.core.ids import RUN_ID
from vestibule.core.model import AnswerChoice, Choice, Decision, Person, Question, State
from vestibule.core.refusal import refusal
from vestibule.core.runs import Outcome, binding_digest
from vestibule.pipeline.admission import is_admitted, require_rounds_left
from vestibule.pipeline.answers import Given, feedback_of, follow, give, run_out
from vestibule.pipeline.engine import Engine
from vestibule.pipeline.lease import Lease, holder
from vestibule.pipeline.pause_effects import held_refusal, holder_of, kept_waiting, require_free, returned
from vestibule.pipeline.record import Cause, Feedback, RunRecord
from vestibule.pipeline.segments import APPROVED, Segments
from vestibule.pipeline.services import Services

Progress = Callable[[str], None]
TURN_SECONDS = 10.0
"""How long a reviewer waits for another one's turn, or for the run's process to end."""


class Driver:
    """Starts, resumes, decides and cancels runs."""

    def __init__(self, services: Services, progress: Progress = lambda _: None) -> None:
        self.services = services
        self.progress = services.say = progress

    def start(self, record: RunRecord) -> RunRecord:
        """Take a prepared run up to its first gate or end. A policy that is not fit stops it before there is a run."""
        self.services.policy(record.repo, record.base_commit)
        record = returned(self.services, record)
        self.services.runs.create(record)
        self.progress(f"run {record.id}")
        return self._settled(self._perform(record.id, "work", f"work-{record.round}"))

    def resume(self, run: str) -> RunRecord:
        """Go on after a crash; a run that waits or has ended is returned as it is."""
        record = self._caught_up(self.services.runs.get(run))
        segment = _due(record)
        if segment is None:
            return self.expire(record)
        record = self._taken_up(record)
        name, key = segment
        if name == "conclude":
            standing = holder_of(self.services, record)
            if standing is not None:
                note = held_refusal(record, standing)
                return self.services.runs.set(record.id, note=f"{note.reason} {note.next.person}")
            gate = self.services.gates.current(record.id)
            key = gate.id if gate else key
        elif waits := kept_waiting(self.services, record):
            return self.services.runs.set(record.id, note=waits)
        self.progress(f"run {record.id}")
        return self._settled(self._perform(record.id, name, key))

    def _taken_up(self, record: RunRecord) -> RunRecord:
        """A round that never got as far as being admitted: who goes on with it is who asks for it now."""
        if record.state not in (State.RECEIVED, State.SPECIFIED, State.CHANGES_REQUESTED):
            return record
        mine = record.cause.by == self.services.person.id and record.state is not State.RECEIVED
        if mine or is_admitted(self.services.audit.entries(run=record.id), record):
            return record
        cause = Cause(trigger="resume", by=self.services.person.id)
        return self.services.runs.change(
            record.id, lambda old: {"cause": cause} if (old.state, old.round) == (record.state, record.round) else {}
        )

    def answer(
        self, question: str, choice: AnswerChoice, reason: str, *, person: Person, channel: str, seen: str = ""
    ) -> tuple[RunRecord, Question]:
        """A person's answer; the run as it stands then, and the question. `on` performs what is due.

        `seen` is the digest of the question as it was shown; without one the id, which names one content, does.

        Raises what `answers.give` raises.
        """
        asked = self.services.questions.must(question)
        record = self.expire(self.services.runs.get(asked.run))
        given = Given(choice, reason, person, "console" if channel == "console" else "cli", seen or asked.digest)
        after = give(self.services, record, asked, given)
        return self.services.runs.get(asked.run), after

    def on(self, run: str) -> RunRecord:
        """After an answer: the run driven on, unless a process does that already or it waits for something else."""
        record = self.services.runs.get(run)
        return self.resume(run) if self.is_left(record) else record

    def is_left(self, record: RunRecord) -> bool:
        """Whether something is due that no process does. What waits for an answer is looked at by whoever gives one."""
        if record.state is State.AWAITING_ANSWER:
            return True
        return _due(record) is not None and holder(self.services.folder(record.id)) is None

    def _settled(self, record: RunRecord) -> RunRecord:
        """Driven on as far as the answers take it that came while the agent was ending."""
        while (record := follow(self.services, record)).state is not State.AWAITING_ANSWER:
            segment = _due(record)
            if segment is None or segment[0] != "work":
                break
            record = self._perform(record.id, *segment)
        return self._ended(record)

    def decide(
        self, run: str, choice: Choice, reason: str, *, person: Person, channel: str, seen: str = ""
    ) -> RunRecord:
        """A person's decision, then on to the next gate or end. Raises what `record` and the segments raise."""
        record = self.record(run, choice, reason, person=person, channel=channel, seen=seen)
        return self.resume(record.id) if _due(record) else record

    def record(
        self, run: str, choice: Choice, reason: str, *, person: Person, channel: str, seen: str = ""
    ) -> RunRecord:
        """A person's decision and the state it leads to; `resume` performs what is due then.

        Raises:
            Refused: policy says no, or what the person saw is no longer what is there.
        """
        record = self.services.runs.get(run)
        if record.state is not State.AWAITING_REVIEW:
            return self._record(record, choice, reason, person=person, channel=channel, seen=seen)
        # Under the lease: two reviewers take turns, and nobody's reconciler closes what is being decided here.
        with Lease(self.services.folder(record.id), record.id, patience=TURN_SECONDS):
            record = self.services.runs.get(run)
            return self._record(record, choice, reason, person=person, channel=channel, seen=seen)

    def _record(
        self, record: RunRecord, choice: Choice, reason: str, *, person: Person, channel: str, seen: str
    ) -> RunRecord:
        record = self.expire(record)
        gate = self.services.gates.current(record.id)
        if gate is None or record.state in (State.RECEIVED, State.SPECIFIED, State.WORKING, State.CHECKING):
            raise UsageError(
                f"Run {record.id} has no gate to decide yet (state {record.state.value}).",
                next_step=f"Look at it with `vestibule show {record.id}`.",
            )
        if seen and seen != binding_digest(gate):
            raise Refused(
                refusal(
                    "review.stale",
                    "The change is not the one that was shown any more.",
                    fact=f"gate {gate.id}",
                    agent="Nothing to do.",
                    person="Reload the page, look at what changed, and decide again.",
                )
            )
        require_free(self.services, record, choice)
        if choice == "request-changes":
            require_rounds_left(self.services, record)
        segments = Segments(self.services)
        decided = self.services.gates.decide(
            self.services.crossing(record),
            gate=gate.id,
            person=person,
            choice=choice,
            reason=reason,
            current_binding=lambda: segments.current_binding(record),
            channel="console" if channel == "console" else "cli",
            agent_ids=(self.services.agent_id(record),),
        )
        self.services.remember_head()
        return self._follow(record, decided.outcome.state, decided.decision)

    def _caught_up(self, record: RunRecord) -> RunRecord:
        """The state that decisions and answers lead to, when a crash came between one and the run's row."""
        if record.state is State.AWAITING_ANSWER:
            return self._ended(follow(self.services, record))
        gate = self.services.gates.current(record.id)
        if gate is None or gate.state == "open" or record.state is not State.AWAITING_REVIEW:
            return record
        decisions = self.services.gates.decisions(gate.id)
        return self._follow(record, gate.state, decisions[-1].decision) if decisions else record

    def _follow(self, record: RunRecord, state: str, decision: Decision) -> RunRecord:
        """What a gate's outcome means for the run. Idempotent: only a run that waits is moved."""
        if state == "approved":
            return self._move_on(record.id, state=State.APPROVED)
        if state == "rejected":
            note = f"Rejected: {decision.reason}"
            return self._move_on(record.id, state=State.REJECTED, exit_code=REFUSED, note=note)
        if state == "changes_requested":
            return self._rework(record, decision.reason, decision.person)
        return record

    def _move_on(self, run: str, **fields: Any) -> RunRecord:
        """Change a run that waits, and only such a one, by what its row says at that moment."""
        return self._ended(
            self.services.runs.change(run, lambda old: fields if old.state is State.AWAITING_REVIEW else {})
        )

    def _ended(self, record: RunRecord) -> RunRecord:
        """Nobody is asked any more by a run that has ended. Answers are refused then, even when this did not work."""
        if record.state.final:
            with contextlib.suppress(Refused):
                self.services.questions.close_of(record.id)
        return record

    def cancel(self, run: str) -> tuple[RunRecord, list[str]]:
        """Stop a run; what was undone, in sentences. Ending its processes needs nothing, not even a log that works.

        Raises:
            UsageError: it has ended; a merge that is in already ends it as merged.
        """
        record = self.services.runs.get(run)
        _refuse_ended(record)
        undone: list[str] = []
        folder = self.services.folder(record.id)
        pid = holder(folder)
        if pid:
            undone.append(_stop_process(pid, folder))
        with Lease(folder, record.id):
            record = self.services.runs.get(run)
            _refuse_ended(record)
            if self.services.sandbox.reap(record.id):
                undone.append("The sandbox and every process in it were ended.")
            record, settled = _undo_merge(Segments(self.services), record)
            _refuse_ended(record)
            undone.extend(settled)
            with self.services.recorded(record, "run.cancel", record.id, {"by": self.services.person.id}):
                released = self.services.ledger.recover(record.id)
                closed = self.services.gates.supersede(record.id)
                asked = self.services.questions.close_of(record.id)
                record = self.services.runs.set(record.id, state=State.CANCELLED, note="Cancelled.")
            if released:
                undone.append(f"{released} open model request(s) were charged as held.")
            undone.extend(f"Gate {gate.id} was closed." for gate in closed)
            undone.extend(f"Question {item.id} was closed." for item in asked)
            self.services.audit.reconcile(live_runs=self._live(record.id))
            self.services.remember_head()
            if record.branch:
                undone.append(f"The branch {record.branch} was left; delete it with `git branch -D {record.branch}`.")
        return record, undone or ["Nothing was running."]

    def expire(self, record: RunRecord) -> RunRecord:
        """Note that a gate's time has run out: the run ends `expired`, never approved."""
        self.services.gates.expire()
        record = self._ended(run_out(self.services, record))
        gate = self.services.gates.current(record.id)
        if gate is not None and gate.state == "expired" and record.state is State.AWAITING_REVIEW:
            note = "Nobody decided in time; the change was not merged."
            return self._move_on(record.id, state=State.EXPIRED, exit_code=REFUSED, note=note)
        return record

    def _rework(self, record: RunRecord, words: str, person: Person) -> RunRecord:
        feedback = Feedback(words=words, by=person.id, findings=record.findings)
        answers = feedback_of(self.services, record)

        def change(old: RunRecord) -> dict[str, object]:
            if old.state is not State.AWAITING_REVIEW:
                return {}
            return {
                "state": State.CHANGES_REQUESTED,
                "round": old.round + 1,
                "attempt": 0,
                "cause": Cause(trigger="rework", by=person.id),
                "feedback": (*old.feedback, *answers, feedback),
            }

        return self.services.runs.change(record.id, change)

    def _perform(self, run: str, segment: str, key: str) -> RunRecord:
        folder = self.services.folder(run)
        with Lease(folder, run):
            self.services.audit.reconcile(live_runs=self._live(run))
            engine = Engine(folder, run, Segments(self.services).table())
            try:
                engine.perform(segment, key)
            except VestibuleError:
                if not self.services.runs.get(run).state.final:
                    raise
            # Its gateways are gone: what they, or a killed process, left held would be held for ever if it ended now.
            self.services.ledger.recover(run)
            engine.close()
            self.services.remember_head()
        return self.services.runs.get(run)

    def _live(self, run: str) -> frozenset[str]:
        """Runs that another process is working on now: their open intents are not ours to close."""
        base: Path = self.services.home / "runs"
        return frozenset(
            item.name
            for item in base.iterdir()
            if item.name != run and RUN_ID.match(item.name) and holder(item) is not None
        )


class ConsoleDecisions:
    """The console's `DecideGate`: records the decision here, and a process of its own drives the run on."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def __call__(self, run: str, choice: Choice, reason: str, seen_binding_digest: str, person: Person) -> Outcome:
        record = self.driver.record(run, choice, reason, person=person, channel="console", seen=seen_binding_digest)
        message = message_of(record)
        if _due(record) is not None:
            spawn_resume(self.driver.services, record.id)
            message = "Recorded. The run goes on; reload in a moment to see where it stands."
        return Outcome(run=record.id, state=record.state, message=message)


def spawn_resume(services: Services, run: str) -> None:
    """A process of its own that drives the run on."""
    import subprocess
    import sys

    with (services.folder(run) / "resume.log").open("ab") as log:
        # -P: the folder that the console was started in may hold anything, and is no place for our imports.
        subprocess.Popen(
            [sys.executable, "-P", "-m", "vestibule", "resume", run],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(services.environ),
            start_new_session=True,
        )


def exit_code(record: RunRecord) -> int:
    """The contract's exit code for a run in this state."""
    if record.exit_code is not None:
        return record.exit_code
    if record.state is State.MERGED:
        return OK
    if record.state in (State.REFUSED, State.REJECTED, State.EXPIRED):
        return REFUSED
    if record.state in (State.FAILED, State.CANCELLED):
        return AGENT_FAILED
    return HELD


def message_of(record: RunRecord) -> str:
    """Where the run stands, in one sentence."""
    if record.note:
        return record.note
    words = {
        State.MERGED: f"Merged into {record.target.removeprefix('refs/heads/')} as {record.merge_commit[:12]}.",
        State.AWAITING_ANSWER: f"Waits for an answer to the agent: `vestibule answer {record.id} --grant --reason …`.",
        State.AWAITING_REVIEW: f"Waits for a person: `vestibule review {record.id} --approve --reason …`.",
        State.REJECTED: "Rejected; nothing was merged.",
        State.APPROVED: "Approved.",
    }
    return words.get(record.state, f"The run is {record.state.value.replace('_', ' ')}.")


def _due(record: RunRecord) -> tuple[str, str] | None:
    if record.state in (State.RECEIVED, State.SPECIFIED, State.WORKING, State.CHECKING, State.CHANGES_REQUESTED):
        return "work", f"work-{record.round}"
    if record.state in APPROVED:
        return "conclude", "conclude"
    return None


def _refuse_ended(record: RunRecord) -> None:
    if record.state is State.MERGED and record.merge_commit:
        raise UsageError(
            f"Run {record.id} has ended already: it was merged as {record.merge_commit[:12]}.",
            next_step=f"Undo it with `git revert -m 1 {record.merge_commit[:12]}`.",
        )
    if record.state.final:
        raise UsageError(f"Run {record.id} has ended already (state {record.state.value}).")


def _undo_merge(segments: Segments, record: RunRecord) -> tuple[RunRecord, list[str]]:
    """A merge that was cut off is undone; one that is in, by an approval that stands, is recorded instead."""
    if record.state not in APPROVED or not record.head_commit:
        return record, []
    forge = segments.forge(record)
    look = forge.look(record.id, segments.binding(record))
    if look.merged_as and segments.approval(record, look).approved:
        return segments.found(record, forge, look.merged_as), []
    told = forge.settle(record.id)
    return record, [told] if told else []


def _stop_process(pid: int, folder: Path) -> str:
    import os
    import signal
    import time

    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return "Its process had ended."
    if holder(folder) != pid:  # looked at again now that the id cannot be used again unseen
        os.close(handle)
        return "Its process had ended."
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError as error:
        raise DependencyDown(
            "process", f"The process {pid} that works on the run cannot be stopped.", fact=error.strerror or ""
        ) from None
    finally:
        os.close(handle)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.02)
    return f"The process {pid} that worked on it was stopped."
