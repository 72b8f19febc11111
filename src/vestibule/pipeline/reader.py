"""Runs as people and programs see them: the contract's JSON, the console's view, the terminal's timeline.

Read afresh each time; a broken store or log is an error, never an empty page.
"""

from __future__ import annotations

import shlex
from collections import Counter as Tally
from typing import Any

from vestibule.core.errors import UsageError
from vestibule.core.model import Event, Finding, Gate, State, Usage
from vestibule.core.refusal import Refusal
from vestibule.core.runs import AskedView, Check, Counts, LogHead, RunSummary, RunView, Standing, TimelineEvent
from vestibule.core.verdict import Ruling
from vestibule.git import Git, GitError
from vestibule.pipeline.asked import asked_views, question_json
from vestibule.pipeline.pause import OPEN, PauseBook
from vestibule.pipeline.pause_effects import holder_of
from vestibule.pipeline.record import RunRecord, task_of
from vestibule.pipeline.run_label import label_so_far
from vestibule.pipeline.services import Services
from vestibule.pipeline.transcripts import transcripts
from vestibule.pipeline.verification import VERIFY_ACTION

MAX_PATCH = 32 << 20


class Reader:
    """Implements `core.runs.RunReader`."""

    def __init__(self, services: Services) -> None:
        self.services = services

    def list_runs(self) -> list[RunSummary]:
        records = self.services.runs.all()
        counts = self._counts_by_run() if records else {}
        spent = self._spent_by_run()
        asked = Tally(item.run for item in self.services.questions.waiting())
        paused = {item.version: item.words() for item in PauseBook(self.services).paused()}
        found = [
            self._summary(record, counts.get(record.id, Counts()), spent.get(record.id, 0)).model_copy(
                update={
                    "questions": 0 if record.state.final else asked[record.id],
                    "held": paused.get(record.agent.version, "") if record.state in OPEN else "",
                }
            )
            for record in records
        ]
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
            "labels": label_so_far(record, entries).model_dump(mode="json"),
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
            "agent_exit": record.agent_exit,
            "agent_denials": list(record.agent_denials),
            "transcripts": [item.model_dump() for item in transcripts(self.services.folder(record.id), entries)],
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
            "monitor": record.host.as_json() if record.host is not None else {"rung": "none"},
            "egress": record.network.as_json() if record.network is not None else {"mode": record.egress},
            "dropped": [{"path": path, "reason": reason} for path, reason in record.dropped],
            "questions": [question_json(item) for item in asked_views(self.services, record)],
        }

    def questions(self, run: str = "") -> list[AskedView]:
        """What a run asked; without one, what is open in all of them, the one that runs out first at the front."""
        if run:
            return list(asked_views(self.services, self.services.runs.get(run)))
        waiting = self.services.questions.waiting()
        asking = {item.run for item in waiting}
        views = {
            item.question.id: item
            for record in self.services.runs.all()
            if record.id in asking and not record.state.final
            for item in asked_views(self.services, record)
        }
        return [views[item.id] for item in waiting if item.id in views]

    # --- parts ----------------------------------------------------------------------------------------------

    def _summary(self, record: RunRecord, counts: Counts, cost_nano_usd: int) -> RunSummary:
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
            cost_nano_usd=cost_nano_usd,
        )

    def _view(self, record: RunRecord) -> RunView:
        entries = list(self.services.audit.entries(run=record.id))
        head = self.services.audit.head()
        gate = self.services.gates.current(record.id)
        commands, minimum = self._configured(record)
        held = holder_of(self.services, record) if record.state in OPEN else None
        return RunView(
            held=held.words() if held is not None else "",
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
            label=label_so_far(record, entries),
            findings=record.findings,
            checks=_checks(record, commands, entries),
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
            questions=asked_views(self.services, record),
        )

    def _configured(self, record: RunRecord) -> tuple[list[list[str]], tuple[str, ...]]:
        """Verify commands and minimum of walls; a repository that is gone hides no run."""
        try:
            config = self.services.config_of(record)
        except UsageError:
            return [], tuple(self.services.operator.sandbox.minimum)
        return [list(item) for item in config.verify.commands], self.services.minimum(config)

    def patch(self, record: RunRecord) -> bytes:
        """The unified diff from base to head, as git prints it, at most `MAX_PATCH` bytes; empty without a result.

        Also empty when neither the run's folder nor the repository has the commits any more: what is in
        `changed_files` and not in here counts as not reviewed.
        """
        if not record.head_commit:
            return b""
        argv = ["diff", "--no-color", "--no-ext-diff", "--no-textconv", "--full-index", "-M"]
        own = self.services.home / "runs" / record.id / "result.git"
        for place in (own, record.repo):
            try:
                return Git.open(place).run_bounded([*argv, record.base_commit, record.head_commit], MAX_PATCH)
            except (GitError, UsageError):
                continue
        return b""

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
        from vestibule.audit.log import count_decisions

        found = count_decisions(self.services.audit.folder)
        return {
            run: Counts(**{ruling.value: tally.get(ruling.value, 0) for ruling in Ruling})
            for run, tally in found.items()
        }

    def _spent_by_run(self) -> dict[str, int]:
        from vestibule.cost.report import cost_lines

        return {line.name: line.usage.cost_nano_usd for line in cost_lines(self.services.db, "run")}


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


def _checks(record: RunRecord, commands: list[list[str]], entries: list[Any]) -> tuple[Check, ...]:
    """How each verify command ended on the tree as it stands, by the log's outcomes and nothing else."""
    ended: dict[tuple[str, ...], Any] = {}
    outcomes = {entry.event.intent: entry for entry in entries if entry.event.phase == "outcome"}
    for entry in entries:
        event = entry.event
        if event.action != VERIFY_ACTION or event.phase != "intent" or event.subject != "system":
            continue
        if event.details.get("tree") == record.tree:
            ended[tuple(event.details.get("argv", ()))] = outcomes.get(entry.seq)
    return tuple(_check(record, tuple(argv), ended) for argv in commands)


def _check(record: RunRecord, argv: tuple[str, ...], ended: dict[tuple[str, ...], Any]) -> Check:
    name = shlex.join(argv)
    if argv not in ended:
        return Check(name=name, result="not run", detail="Runs after approval, and only then.")
    outcome = ended[argv]
    result = outcome.event.result if outcome is not None else ""
    if result not in ("ok", "failed"):
        return Check(name=name, result="not run", detail="It was begun, and cut off before it ended.")
    failure = next(
        (
            item
            for item in record.findings
            if item.rule == "verify.failed" and item.message.startswith(f"The verify command `{name}` ")
        ),
        None,
    )
    return Check(
        name=name,
        result="passed" if result == "ok" else "failed",
        detail=failure.excerpt if failure and result == "failed" else "",
        commit=record.head_commit,
        time=outcome.time,
    )


def _sandbox(record: RunRecord) -> dict[str, Any]:
    if record.walls is None:
        return {"backend": "local", "tier": "none", "walls": {}, "start_ms": 0.0}
    return {
        "backend": record.walls.backend,
        "tier": record.walls.tier,
        "walls": {name: wall.state for name, wall in record.walls.walls.items()},
        "start_ms": record.walls.start_ms,
    }
