"""Runs as people and programs see them: the contract's JSON, the console's view, the terminal's timeline.

Read afresh each time; a broken store or log is an error, never an empty page.
"""

from __future__ import annotations

from typing import Any

from vestibule.core.errors import UsageError
from vestibule.core.model import Event, Finding, Gate, State, Usage
from vestibule.core.refusal import Refusal
from vestibule.core.runs import Check, Counts, LogHead, RunSummary, RunView, Standing, TimelineEvent
from vestibule.core.verdict import Ruling
from vestibule.git import Git, GitError
from vestibule.pipeline.record import RunRecord, task_of
from vestibule.pipeline.results import result_repository
from vestibule.pipeline.services import Services

MAX_PATCH = 32 << 20


class Reader:
    """Implements `core.runs.RunReader`."""

    def __init__(self, services: Services) -> None:
        self.services = services

    def list_runs(self) -> list[RunSummary]:
        counts = self._counts_by_run()
        found = [self._summary(record, counts.get(record.id, Counts())) for record in self.services.runs.all()]
        return sorted(found, key=lambda item: item.updated, reverse=True)

    def get_run(self, run: str) -> RunView | None:
        record = self.services.runs.find(run)
        return self._view(record) if record else None

    # --- the contract's JSON --------------------------------------------------------------------------------

    def as_json(self, run: str) -> dict[str, Any]:
        """`run --json` and `show --json`."""
        record = self.services.runs.get(run)
        entries = list(self.services.audit.entries(run=record.id))
        counts = _counts(entries)
        head = self.services.audit.head()
        return {
            "run": record.id,
            "state": record.state.value,
            "verdict": record.verdict.value if record.verdict else None,
            "reasons": list(record.reasons),
            "refusals": [item.as_json() for item in self._refusals(record, entries)],
            "branch": record.branch,
            "base_commit": record.base_commit,
            "head_commit": record.head_commit,
            "tree": record.tree,
            "changed_files": list(record.changed_files),
            "findings": [item.as_json() for item in record.findings],
            "decisions": {"allow": counts.allow, "hold": counts.hold, "deny": counts.deny},
            "events": [entry.as_json() for entry in entries],
            "usage": self.services.ledger.usage(record.id).model_dump(),
            "sandbox": _sandbox(record),
            "audit": {"origin": head.origin, "size": head.size, "root": head.root_base64},
            "timings_ms": record.timings.model_dump(),
            "target": record.target,
            "merge_commit": record.merge_commit,
            "note": record.note,
            "requester": record.requester,
            "role": record.role,
            "agent": record.agent.model_dump(),
            "scripted_model": record.scripted,
            "round": record.round,
            "attempt": record.attempt,
            "title": record.spec.title if record.spec else "",
            "reviews": [
                {
                    "id": item.id,
                    "person": item.person.id,
                    "choice": item.choice,
                    "reason": item.reason,
                    "self_review": item.self_review,
                    "time": item.time,
                    "channel": item.channel,
                }
                for item in self._decisions(record)
            ],
            "dropped": [{"path": path, "reason": reason} for path, reason in record.dropped],
        }

    # --- parts ----------------------------------------------------------------------------------------------

    def _summary(self, record: RunRecord, counts: Counts) -> RunSummary:
        gate = self.services.gates.current(record.id) if record.state is State.AWAITING_REVIEW else None
        return RunSummary(
            run=record.id,
            state=record.state,
            verdict=record.verdict,
            title=_title(record),
            requester=record.requester,
            role=record.role,
            agent=record.agent,
            scripted_model=record.scripted,
            created=record.created,
            updated=record.updated,
            expires=gate.expires if gate else "",
            decisions=counts,
            findings=_finding_counts(record.findings),
            changed_files=len(record.changed_files),
            cost_nano_usd=self.services.ledger.usage(record.id).cost_nano_usd,
        )

    def _view(self, record: RunRecord) -> RunView:
        entries = list(self.services.audit.entries(run=record.id))
        head = self.services.audit.head()
        gate = self.services.gates.current(record.id)
        commands, minimum = self._configured(record)
        return RunView(
            run=record.id,
            state=record.state,
            verdict=record.verdict,
            reasons=record.reasons,
            refusals=self._refusals(record, entries),
            created=record.created,
            updated=record.updated,
            requester=record.requester,
            title=_title(record),
            ticket=record.ticket,
            task=task_of(record),
            scripted_model=record.scripted,
            workload=self.services.agent_id(record),
            attempt=record.attempt,
            branch=record.branch,
            target=record.target,
            base_commit=record.base_commit,
            head_commit=record.head_commit,
            tree=record.tree,
            changed_files=record.changed_files,
            patch=self.patch(record),
            message=record.agent_message,
            findings=record.findings,
            checks=_checks(record, commands),
            counts=_counts(entries),
            events=_timeline(entries),
            usage=self._usage(record),
            walls=record.walls,
            walls_minimum=minimum,
            audit=LogHead(origin=head.origin, size=head.size, root=head.root_base64),
            timings=record.timings,
            gate=gate,
            decisions=self._decisions(record),
            standing=self._standing(record, gate),
        )

    def _configured(self, record: RunRecord) -> tuple[list[list[str]], tuple[str, ...]]:
        """Verify commands and minimum of walls; a repository that is gone hides no run."""
        try:
            config = self.services.config_of(record)
        except UsageError:
            return [], tuple(self.services.operator.sandbox.minimum)
        return [list(item) for item in config.verify.commands], self.services.minimum(config)

    def patch(self, record: RunRecord) -> bytes:
        """The unified diff from base to head, as git prints it; empty without a result."""
        if not record.head_commit:
            return b""
        result = result_repository(self.services, record)
        argv = ["diff", "--no-color", "--no-ext-diff", "--no-textconv", "--full-index", "-M"]
        try:
            return result.run([*argv, record.base_commit, record.head_commit])[:MAX_PATCH]
        except GitError:
            return Git.open(record.repo).run([*argv, record.base_commit, record.head_commit])[:MAX_PATCH]

    def _usage(self, record: RunRecord) -> Usage:
        return self.services.ledger.usage(record.id)

    def _decisions(self, record: RunRecord) -> tuple[Any, ...]:
        return tuple(
            item.decision
            for gate in self.services.gates.of_run(record.id)
            for item in self.services.gates.decisions(gate.id)
        )

    def _standing(self, record: RunRecord, gate: Gate | None) -> Standing | None:
        if gate is None or gate.state != "open" or record.state is not State.AWAITING_REVIEW:
            return None
        person = self.services.person
        if gate.eligible and person.id not in gate.eligible:
            return Standing(may=False, reason=f"{person.id} is not among the reviewers of this gate.")
        if person.id == record.requester:
            if gate.self_approval == "never":
                return Standing(may=False, reason="You asked for this change; somebody else has to approve it.")
            return Standing(
                may=True, reason="You asked for this change: your decision is marked self-reviewed.", self_review=True
            )
        return Standing(may=True, reason=f"{person.id} may decide.")

    def _refusals(self, record: RunRecord, entries: list[Any]) -> tuple[Refusal, ...]:
        """The run's own refusals, then those the agent met; each once, probes left out."""
        found = list(record.refusals)
        for entry in entries:
            event = entry.event
            if event.subject == "agent" and event.phase == "intent" and event.verdict is Ruling.DENY:
                item = _refusal_of(event)
                if item is not None:
                    found.append(item)
        return tuple(dict.fromkeys(found))

    def _counts_by_run(self) -> dict[str, Counts]:
        return {
            record.id: _counts(self.services.audit.entries(run=record.id)) for record in self.services.runs.all(200)
        }


def _refusal_of(event: Event) -> Refusal | None:
    """The refusal that the intent carries in its typed form."""
    try:
        return Refusal.model_validate(event.details.get("refusal"))
    except ValueError:
        return None


def _title(record: RunRecord) -> str:
    if record.spec:
        return record.spec.title
    first = next((line for line in record.ticket.text.splitlines() if line.strip(" #-")), record.id)
    return first.strip(" #")[:120]


def _counts(entries: Any) -> Counts:
    tally = {Ruling.ALLOW: 0, Ruling.HOLD: 0, Ruling.DENY: 0}
    for entry in entries:
        event = entry.event
        if event.subject == "agent" and event.phase == "intent" and event.verdict is not None:
            tally[event.verdict] += 1
    return Counts(allow=tally[Ruling.ALLOW], hold=tally[Ruling.HOLD], deny=tally[Ruling.DENY])


def _finding_counts(findings: tuple[Finding, ...]) -> Counts:
    def count(ruling: Ruling) -> int:
        return sum(1 for item in findings if item.verdict is ruling)

    return Counts(allow=count(Ruling.ALLOW), hold=count(Ruling.HOLD), deny=count(Ruling.DENY))


def _timeline(entries: list[Any]) -> tuple[TimelineEvent, ...]:
    found = []
    for entry in entries:
        event = entry.event
        refused = event.phase == "intent" and event.verdict is Ruling.DENY
        found.append(
            TimelineEvent(
                seq=entry.seq,
                time=entry.time,
                phase=event.phase,
                attempt=event.attempt,
                actor=event.actor,
                subject=event.subject,
                action=event.action,
                resource=event.resource,
                verdict=event.verdict,
                reasons=event.reasons,
                intent=event.intent,
                result=event.result,
                refusal=_refusal_of(event) if refused else None,
                why=str(event.details.get("reason", "")) if event.subject == "person" else "",
            )
        )
    return tuple(found)


def _checks(record: RunRecord, commands: list[list[str]]) -> tuple[Check, ...]:
    failed = {item.message: item for item in record.findings if item.rule == "verify.failed"}
    found = []
    for argv in commands:
        name = " ".join(argv)
        failure = next((item for message, item in failed.items() if name in message), None)
        if failure is not None:
            found.append(Check(name=name, result="failed", detail=failure.excerpt, commit=record.head_commit))
        elif record.state in (State.MERGED, State.MERGING, State.WATCHING) or (
            record.state is State.APPROVED and record.note
        ):
            found.append(Check(name=name, result="passed", commit=record.head_commit))
        else:
            found.append(Check(name=name, result="not run", detail="Runs after approval, and only then."))
    return tuple(found)


def _sandbox(record: RunRecord) -> dict[str, Any]:
    if record.walls is None:
        return {"backend": "local", "tier": "none", "walls": {}, "start_ms": 0.0}
    return {
        "backend": record.walls.backend,
        "tier": record.walls.tier,
        "walls": {name: wall.state for name, wall in record.walls.walls.items()},
        "start_ms": record.walls.start_ms,
    }
