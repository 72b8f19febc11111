"""Is there a valid decision for exactly this commit and tree? What `vestibule gate` asks.

Rules it keeps:
1. A commit is answered for only by the run whose approved head it is, or whose merge it is; its tree is read from the
   repository and must be the approved one.
2. The approval is judged as a merge would judge it: decisions and their signatures, base configuration, log. What
   cannot be read is no approval.
"""

from __future__ import annotations

from typing import Any, Literal

from vestibule.core import clock
from vestibule.core.base import Noun
from vestibule.core.errors import HELD, OK, VERIFICATION_FAILED, DependencyDown, Refused, UsageError, VestibuleError
from vestibule.core.ids import Sha
from vestibule.core.model import Decision
from vestibule.git import Git, GitError
from vestibule.pipeline.record import RunRecord
from vestibule.pipeline.segments import Segments
from vestibule.pipeline.services import Services
from vestibule.review.rules import is_expired

Answer = Literal["approved", "waiting", "none", "not approved"]


class GateAnswer(Noun):
    """What stands for a commit. `reason` is one sentence."""

    answer: Answer
    commit: Sha
    tree: Sha = ""
    run: str = ""
    gate: str = ""
    decisions: tuple[Decision, ...] = ()
    reason: str

    @property
    def exit_code(self) -> int:
        return {"approved": OK, "waiting": HELD}.get(self.answer, VERIFICATION_FAILED)

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.answer == "approved",
            "answer": self.answer,
            "commit": self.commit,
            "tree": self.tree,
            "run": self.run,
            "gate": self.gate,
            "decisions": [
                {
                    "id": item.id,
                    "person": item.person.id,
                    "choice": item.choice,
                    "reason": item.reason,
                    "self_review": item.self_review,
                    "time": item.time,
                }
                for item in self.decisions
            ],
            "reason": self.reason,
        }


def answer_for(services: Services, commit: Sha) -> GateAnswer:
    """The answer for a full commit id, as things stand now.

    Raises:
        DependencyDown: database or log. `VerificationFailed`: a decision's signature does not hold.
    """
    runs = services.runs.with_commit(commit)
    if not runs:
        return GateAnswer(
            answer="none", commit=commit, reason="No run of this installation proposed or merged this commit."
        )
    return _judge(services, runs[0], commit)


def _judge(services: Services, record: RunRecord, commit: Sha) -> GateAnswer:
    found = GateAnswer(answer="not approved", commit=commit, run=record.id, reason="")
    try:
        segments = Segments(services)
        tree = Git.open(record.repo).tree_of(commit)
        approval = segments.approval(record, segments.forge(record).look(record.id, segments.binding(record)))
    except DependencyDown:
        raise
    except (UsageError, Refused, GitError) as error:
        why = error.what if isinstance(error, VestibuleError) else "git does not find the commit."
        return found.model_copy(update={"reason": f"What stands in {record.repo} cannot be read: {why}"})
    gate = approval.gate
    found = found.model_copy(update={"tree": tree, "gate": gate.id if gate else "", "decisions": approval.decisions})
    if approval.problem:
        return found.model_copy(update={"reason": f"The evidence does not agree: {approval.problem}."})
    if tree != record.tree:
        return found.model_copy(update={"reason": "The commit's tree is not the one that was approved."})
    if approval.approved:
        people = ", ".join(item.person.id for item in approval.decisions if item.choice == "approve")
        return found.model_copy(update={"answer": "approved", "reason": f"Approved by {people}."})
    if gate is not None and is_expired(gate, clock.now()):
        return found.model_copy(update={"reason": "The gate is expired."})
    if gate is not None and gate.state == "open" and record.state.value == "awaiting_review":
        return found.model_copy(update={"answer": "waiting", "reason": "The gate waits for a person."})
    state = gate.state if gate else "absent"
    return found.model_copy(update={"reason": f"The gate is {state.replace('_', ' ')}."})
