"""Whether a run's approval stands: by the decisions, by the configuration of the base, and by the log.

Rules it keeps:
1. The database alone approves nothing. The log holds each decision's intent (it is durable before the row), and what
   the two say must agree: an approval that the log does not know, or a rejection that the database has lost (a backup
   put back, a row deleted or changed), stops the merge.
2. A gate's terms are those of the base commit's configuration, its time is the one the log saw it opened with, and its
   requester is the one who was admitted: a row that says otherwise stops the merge.
3. What was cancelled never merges.
4. A log that cannot be read stops the merge.

What it does not see: someone who puts back the database, the log and the remembered heads together, with no merge made
since; the trailers of later merges name the log's head.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from vestibule.core.base import Noun
from vestibule.core.errors import Refused
from vestibule.core.model import Decision, Event, Gate, GateBinding
from vestibule.core.refusal import refusal
from vestibule.core.verdict import Ruling
from vestibule.pipeline.record import RunRecord
from vestibule.pipeline.services import Services

if TYPE_CHECKING:
    from vestibule.audit.entry import Entry

TERMS = ("approvals", "eligible", "self_approval", "requester", "expires")


class Approval(Noun):
    """Where a run's approval stands. `problem` is empty when the evidence agrees."""

    gate: Gate | None
    decisions: tuple[Decision, ...]
    approved: bool
    problem: str = ""

    def require(self) -> None:
        """Raises Refused: `merge.evidence` or `merge.unapproved`."""
        if self.approved:
            return
        where = self.gate.id if self.gate else "no gate"
        if self.problem:
            raise Refused(
                refusal(
                    "merge.evidence",
                    "What the database says of this approval is not what the log and the base's configuration say.",
                    fact=f"{where}: {self.problem}",
                    agent="Stop here; only a person can go on from this point.",
                    person="Find out who wrote to the state folder, then run the ticket again.",
                )
            )
        raise Refused(
            refusal(
                "merge.unapproved",
                "The review gate's approval does not stand for what is there now.",
                fact=where,
                agent="Stop here; only a person can go on from this point.",
                person=f"Look at the run with `vestibule show {self.gate.run if self.gate else 'RUN'}`, "
                "and run the ticket again for a review of its own.",
            )
        )


def approval_of(services: Services, record: RunRecord, current: GateBinding | None) -> Approval:
    """The approval of the run's latest gate against `current`, what is there now; None means as it was approved.

    Raises:
        DependencyDown: database or log. `VerificationFailed`: a decision's signature does not hold.
    """
    gate = services.gates.current(record.id)
    if gate is None:
        return Approval(gate=None, decisions=(), approved=False)
    decisions = tuple(item.decision for item in services.gates.decisions(gate.id))
    outcome = services.gates.outcome(gate.id, current or gate.binding, agent_ids=(services.agent_id(record),))
    problem = (
        _unlike_record(record, gate)
        or _unlike_config(services, record, gate)
        or contradiction(list(services.audit.entries(run=record.id)), gate, decisions)
    )
    approved = outcome.approved and not problem
    return Approval(gate=gate, decisions=decisions, approved=approved, problem=problem)


def _unlike_record(record: RunRecord, gate: Gate) -> str:
    bound = (gate.binding.head_commit, gate.binding.tree, gate.binding.base_commit, gate.binding.target)
    if bound != (record.head_commit, record.tree, record.base_commit, record.target):
        return "the gate is bound to another change than the run holds"
    if (gate.run, gate.requester) != (record.id, record.requester):
        return "the gate names another requester than the run"
    return ""


def _unlike_config(services: Services, record: RunRecord, gate: Gate) -> str:
    config = services.config_of(record)
    review = config.gates.review
    wanted = (review.approvals, tuple(config.eligible(review.from_)), review.self_approval)
    if (gate.approvals, gate.eligible, gate.self_approval) != wanted:
        return "the gate's terms are not those of the base commit's configuration"
    return ""


def contradiction(entries: Sequence[Entry], gate: Gate, decisions: Iterable[Decision]) -> str:
    """What the log of the run says against this gate and these decisions; empty when it agrees. Pure."""
    results = {entry.event.intent: entry.event for entry in entries if entry.event.phase == "outcome"}
    intents = [
        (entry.seq, entry.event)
        for entry in entries
        if entry.event.phase == "intent" and entry.event.verdict is Ruling.ALLOW
    ]
    done = [(event, results.get(seq)) for seq, event in intents if _happened(results.get(seq))]
    if any(event.action == "run.cancel" for event, _ in done):
        return "the log says that the run was cancelled"
    admitted = {event.details.get("requester", event.actor) for event, _ in done if event.action == "task.admit"}
    if admitted != {gate.requester}:
        return "the log admitted the run for another requester"
    opened = [outcome for event, outcome in done if event.action == "gate.open" and outcome is not None]
    mine = [outcome for outcome in opened if outcome.details.get("gate") == gate.id]
    if not mine or any(outcome.details.get("expires") != gate.expires for outcome in mine):
        return "the log does not know this gate, or knows it with another end"
    said = {
        event.actor: event
        for event, _ in done
        if event.action == "review.decide" and event.details.get("gate") == gate.id and event.subject == "person"
    }
    known = {decision.person.id: decision for decision in decisions}
    for person, decision in known.items():
        if person not in said or not _same(said[person], decision, gate):
            return f"the log does not hold the decision of {person}"
    for person, event in said.items():
        if person not in known and event.details.get("choice") != "approve":
            return f"the log holds a decision of {person} that the database lacks"
    return ""


def _happened(outcome: Event | None) -> bool:
    """Not known to have failed: an effect that was cut off counts as having happened."""
    return outcome is None or outcome.result != "failed"


def _same(event: Event, decision: Decision, gate: Gate) -> bool:
    terms: dict[str, Any] = event.details.get("terms", {})
    now = gate.model_dump(mode="json")
    return (
        event.details.get("choice") == decision.choice
        and event.details.get("reason") == decision.reason
        and event.details.get("binding") == decision.binding.model_dump(mode="json")
        and all(terms.get(name) == now[name] for name in TERMS)
    )
