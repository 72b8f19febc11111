"""Questions as people see them: with what nobody may grant, and whether the person who looks may answer."""

from __future__ import annotations

from typing import Any

from vestibule.core.errors import UsageError
from vestibule.core.model import Person, Question
from vestibule.core.runs import AskedView, Standing
from vestibule.pipeline.questions import ceiling_of
from vestibule.pipeline.record import RunRecord
from vestibule.pipeline.services import Services
from vestibule.review.question_rules import Beyond, beyond
from vestibule.review.rules import is_named


def asked_views(services: Services, record: RunRecord) -> tuple[AskedView, ...]:
    """The run's questions in the order in which they were asked."""
    found = services.questions.of_run(record.id)
    return tuple(_view(services, record, item) for item in found)


def _view(services: Services, record: RunRecord, question: Question) -> AskedView:
    out = _beyond(services, record, question)
    waits = question.state == "open" and not record.state.final
    return AskedView(
        question=question,
        beyond=tuple((item.path, item.why) for item in out),
        grantable=not out,
        standing=_standing(services.person, question) if waits else None,
        refusable=waits and is_named(services.person, question.eligible),
    )


def _beyond(services: Services, record: RunRecord, question: Question) -> tuple[Beyond, ...]:
    try:
        return beyond(question, ceiling_of(services, record))
    except UsageError as error:  # a repository that is gone hides no question, and lets nothing be granted
        return (Beyond(path="", why=error.what),)


def _standing(person: Person, question: Question) -> Standing:
    if not is_named(person, question.eligible):
        return Standing(may=False, reason=f"{person.id} is not among those who may answer here.")
    if person.id != question.requester:
        return Standing(may=True, reason=f"{person.id} may answer.")
    if question.self_approval == "never":
        return Standing(may=False, reason="You asked for this run; you may refuse, and somebody else may grant.")
    return Standing(may=True, reason="You asked for this run: a grant is marked as your own.", self_review=True)


def question_json(item: AskedView) -> dict[str, Any]:
    """The shape of `questions[]` in `show --json`. `asked` and `why` are the agent's words."""
    question = item.question
    return {
        "id": question.id,
        "run": question.run,
        "round": question.round,
        "attempt": question.attempt,
        "kind": question.kind,
        "state": question.state,
        "asked": question.asked,
        "why": question.why,
        "labels": question.labels.model_dump(mode="json"),
        "grantable": item.grantable,
        "beyond": [{"path": path, "why": why} for path, why in item.beyond],
        "digest": question.digest,
        "opened": question.opened,
        "expires": question.expires,
        "person": question.person.id if question.person else "",
        "reason": question.reason,
        "self_review": question.self_review,
        "answered": question.answered,
    }
