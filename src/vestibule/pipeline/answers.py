"""What answers mean for a run that ended its round with questions, and how one is recorded.

Rules it keeps:
1. Nothing moves while a question that the run waits for is open. Then: a grant that the evidence bears out begins the
   next round, with every answer as feedback; without one, time that ran out ends the run as `expired`, and a refusal
   as `failed`: the agent has nothing to go on with.
2. The move is one change of the run's row, made under its lease and only while it still waits: doing it again does
   nothing. Grants join the scope when the round begins (`questions.apply_grants`).
3. An answer waits for no lease while the agent works: the process that drives the run looks out for it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Literal

from vestibule.core.errors import AGENT_FAILED, REFUSED
from vestibule.core.model import AnswerChoice, Person, Question, State
from vestibule.pipeline.engine import forget
from vestibule.pipeline.lease import Lease, holder
from vestibule.pipeline.questions import (
    WAITS,
    ceiling_of,
    doubtful,
    granted,
    pending,
    problem_of,
    unheard,
    words_of,
)
from vestibule.pipeline.record import Cause, Feedback, RunRecord
from vestibule.pipeline.services import Services

TURN_SECONDS = 10.0
"""How long whoever answers waits for another one's turn, or for the run's process to end."""


@dataclass(frozen=True, slots=True)
class Given:
    """A person's answer as a channel hands it in. `seen` is the digest of the question as it was shown."""

    choice: AnswerChoice
    reason: str
    person: Person
    channel: Literal["cli", "console"]
    seen: str


def give(services: Services, record: RunRecord, question: Question, given: Given) -> Question:
    """A person's answer through the one path that every channel uses.

    Raises:
        Refused: policy says no, the question is another one or closed. DependencyDown: nothing was answered.
    """
    with contextlib.ExitStack() as turn:
        folder = services.folder(record.id)
        if record.state in (State.AWAITING_ANSWER, State.AWAITING_REVIEW) or holder(folder) is None:
            # Nobody's reconciler closes what is being answered here; while a run is driven, its driver's lease keeps
            # the others away.
            turn.enter_context(Lease(folder, record.id, patience=TURN_SECONDS))
        answered = services.questions.answer(
            services.crossing(record),
            question=question.id,
            person=given.person,
            choice=given.choice,
            reason=given.reason,
            seen=given.seen,
            ceiling=ceiling_of(services, record),
            channel=given.channel,
            agent_ids=(services.agent_id(record),),
        )
        services.remember_head()
    return answered.question


def follow(services: Services, record: RunRecord) -> RunRecord:
    """The run moved on by the answers that are there; as it is while one is open. Takes the run's lease.

    Raises:
        Refused: `scope.evidence`, a grant that the log does not bear out.
    """
    if record.state is not State.AWAITING_ANSWER:
        return record
    folder = services.folder(record.id)
    with Lease(folder, record.id, patience=TURN_SECONDS):
        record = services.runs.get(record.id)
        services.questions.expire()
        asked = services.questions.of_run(record.id)
        if record.state is not State.AWAITING_ANSWER or pending(asked):
            return record
        answers = unheard(record, asked)
        for question in granted(answers):
            if problem := problem_of(services, record, question):
                raise doubtful(question.id, problem)
        if granted(answers):
            # What the ended round left in the engine's file must not be taken up again beside the new one.
            forget(folder)
        return services.runs.change(record.id, lambda old: _move(old, answers, asked))


def run_out(services: Services, record: RunRecord) -> RunRecord:
    """The run ended `expired` when nobody answered in time; needs no lease."""
    services.questions.expire()
    if record.state is not State.AWAITING_ANSWER:
        return record
    asked = services.questions.of_run(record.id)
    answers = unheard(record, asked)
    if pending(asked) or granted(answers) or not any(item.state == "expired" for item in asked):
        return record
    return services.runs.change(record.id, lambda old: _move(old, answers, asked))


def feedback_of(services: Services, record: RunRecord) -> tuple[Feedback, ...]:
    """Answers that the agent has not heard, as the next round's feedback."""
    answers = unheard(record, services.questions.of_run(record.id))
    return tuple(_feedback(item) for item in answers)


def _move(old: RunRecord, answers: tuple[Question, ...], asked: tuple[Question, ...]) -> dict[str, Any]:
    if old.state is not State.AWAITING_ANSWER:
        return {}
    if granted(answers):
        last = answers[-1]
        return {
            "state": State.SPECIFIED,
            "round": old.round + 1,
            "attempt": 0,
            "verdict": None,
            "cause": Cause(trigger="answer", by=last.person.id if last.person else "", id=last.id),
            "feedback": (*old.feedback, *(_feedback(item) for item in answers)),
        }
    if any(item.state == "expired" and item.kind in WAITS for item in asked):
        note = "Nobody answered the agent's question in time, and it had changed nothing."
        return {"state": State.EXPIRED, "exit_code": REFUSED, "note": note}
    said = f" {answers[-1].reason}" if answers else ""
    note = f"The agent asked for more, was refused, and had changed nothing.{said}"
    return {"state": State.FAILED, "exit_code": AGENT_FAILED, "note": note}


def _feedback(question: Question) -> Feedback:
    return Feedback(words=words_of(question), by=question.person.id if question.person else "")
