"""Questions as a run uses them: who may answer, how far a grant can go, and whether one may be believed.

Rules it keeps:
1. The database alone grants nothing. The log holds the ask and the answer (each durable before its row), both name the
   digest of the same question, and the last word in the log is this grant; the row's signature holds.
2. Terms and ceiling are those of the base commit's configuration and the operator's as they are now: a row that says
   otherwise, or a grant that lies beyond, is not believed.
3. A grant is recorded (`scope.grant`) before the run's scope says so; a scope that says more than was granted stops
   the run. All else of the scope is made from the base commit's configuration, never taken from the row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from vestibule.config.roles import scope_of
from vestibule.core.crossing import Crossing
from vestibule.core.errors import Refused
from vestibule.core.model import Event, Question, Scope
from vestibule.core.refusal import refusal
from vestibule.core.verdict import Ruling, Verdict
from vestibule.pipeline.record import RunRecord
from vestibule.pipeline.services import Services
from vestibule.review.question_rules import Ceiling, Terms, beyond, paths_of

if TYPE_CHECKING:
    from vestibule.audit.entry import Entry

WAITS = ("scope", "call")
"""Kinds of questions that a run waits for; a block is only shown."""


def terms_of(services: Services, record: RunRecord) -> Terms:
    """Questions are answered by who may review, and wait as long as a review."""
    config = services.config_of(record)
    review = config.gates.review
    return Terms(
        requester=record.requester,
        eligible=config.eligible(review.from_),
        self_approval=review.self_approval,
        seconds=review.expires,
    )


def ceiling_of(services: Services, record: RunRecord) -> Ceiling:
    """The most that anybody may grant in this run; nothing when its role is gone."""
    config = services.config_of(record)
    role = config.roles.get(record.role)
    if role is None:
        return Ceiling()
    return Ceiling(
        read=(*role.read, *role.askable.read),
        write=(*role.write, *role.askable.write),
        bounds=services.operator.scope.bounds(),
        protected=config.changes.protected,
    )


def problem_of(services: Services, record: RunRecord, question: Question) -> str:
    """Why this grant is not to be believed; empty when log, configuration and database agree on it.

    Raises:
        DependencyDown: the log cannot be read.
    """
    terms = terms_of(services, record)
    if question.run != record.id or question.state != "granted" or question.person is None:
        return "it is no grant of this run"
    if (question.requester, question.eligible, question.self_approval) != (
        terms.requester,
        terms.eligible,
        terms.self_approval,
    ):
        return "its terms are not those of the base commit's configuration"
    if beyond(question, ceiling_of(services, record)):
        return "it lies beyond what anybody may grant"
    return contradiction(services.audit.entries(run=record.id), question)


def contradiction(entries: Iterable[Entry], question: Question) -> str:
    """What the log of the run says against this grant; empty when it agrees. Pure."""
    asked: dict[int, Event] = {}
    answers: dict[int, Event] = {}
    failed: set[int | None] = set()
    for entry in entries:
        event = entry.event
        if event.phase == "outcome":
            failed |= {event.intent} if event.result == "failed" else set()
        elif event.verdict is not Ruling.ALLOW:
            continue
        elif event.action == "question.ask" and event.resource == question.id and event.subject == "system":
            asked[entry.seq] = event
        elif event.action == "question.answer" and event.details.get("question") == question.id:
            answers[entry.seq] = event
    if not any(event.details.get("digest") == question.digest for seq, event in asked.items() if seq not in failed):
        return "the log does not know that it was asked"
    given = [event for seq, event in sorted(answers.items()) if seq not in failed]
    if not given or not _same(given[-1], question):
        return "the log does not hold this answer"
    return ""


def _same(event: Event, question: Question) -> bool:
    person = question.person.id if question.person else ""
    wanted: dict[str, Any] = {"digest": question.digest, "choice": "grant", "reason": question.reason}
    found = {name: event.details.get(name) for name in wanted}
    return event.subject == "person" and event.actor == person and found == wanted


def granted_by(question: Question) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a grant lets be read and written. What may be written may be read."""
    found = paths_of(question)
    if found is None:
        return (), ()
    paths, access = found
    return paths, paths if access == "write" else ()


def in_scope(scope: Scope, question: Question) -> bool:
    """Whether the scope holds all that the question grants."""
    read, write = granted_by(question)
    return set(read) <= set(scope.granted_read) and set(write) <= set(scope.granted_write)


def grant(services: Services, crossing: Crossing, record: RunRecord, question: Question) -> RunRecord:
    """The run with a believed grant in its scope: in the log first. Idempotent.

    Raises:
        DependencyDown: log or database.
    """
    read, write = granted_by(question)
    actor = services.actor(record)
    details = {
        "question": question.id,
        "digest": question.digest,
        "read": list(read),
        "write": list(write),
        "by": question.person.id if question.person else "",
    }
    verdict = Verdict(ruling=Ruling.ALLOW, reasons=())
    intent = crossing.intent(actor, "scope.grant", question.id, verdict, details=details)
    receipt = crossing.record(intent)

    def widen(old: RunRecord) -> dict[str, Any]:
        if in_scope(old.scope, question):
            return {}
        more = {
            "granted_read": tuple(dict.fromkeys((*old.scope.granted_read, *read))),
            "granted_write": tuple(dict.fromkeys((*old.scope.granted_write, *write))),
        }
        return {"scope": old.scope.model_copy(update=more)}

    after = services.runs.change(record.id, widen)
    crossing.record(crossing.outcome(intent, receipt, ok=True))
    return after


def apply_grants(services: Services, record: RunRecord) -> RunRecord:
    """The run with every grant in its scope, and nothing in it that was not granted. Before an agent starts, and
    before its change is judged: what the row says of spec and scope, besides its grants, is made anew.

    Raises:
        Refused: `scope.evidence`.
        DependencyDown: log or database. `VerificationFailed`: an answer's signature does not hold.
    """
    granted = [item for item in services.questions.of_run(record.id) if item.state == "granted"]
    for question in granted:
        if problem := problem_of(services, record, question):
            raise doubtful(question.id, problem)
    scopes = [item for item in granted if item.kind == "scope"]
    for question in scopes:
        if not in_scope(record.scope, question):
            record = grant(services, services.crossing(record), record, question)
    backed = [granted_by(item) for item in scopes]
    extra = set(record.scope.granted_read) - {path for read, _ in backed for path in read}
    extra |= set(record.scope.granted_write) - {path for _, write in backed for path in write}
    if extra:
        raise doubtful(min(extra), "nobody granted it")
    from vestibule.intake import specify

    spec = specify(record.ticket)
    plain = plain_scope(services, record, spec.files)

    def settled(old: RunRecord) -> dict[str, Any]:
        both = {"granted_read": old.scope.granted_read, "granted_write": old.scope.granted_write}
        true = {"scope": plain.model_copy(update=both), "spec": old.spec and spec}
        return {name: value for name, value in true.items() if value != getattr(old, name)}

    return services.runs.change(record.id, settled)


def plain_scope(services: Services, record: RunRecord, files: tuple[str, ...]) -> Scope:
    """The scope without grants: the base commit's role, the operator's bounds as they are now, the ticket's files.

    Raises:
        Refused: `scope.evidence`, the base commit knows no such role.
    """
    config = services.config_of(record)
    role = config.roles.get(record.role)
    if role is None:
        raise doubtful(record.role, "the base commit's configuration has no such role")
    return scope_of(role, config, services.operator).within(files)


def doubtful(what: str, problem: str) -> Refused:
    """A grant that the evidence does not bear out."""
    return Refused(
        refusal(
            "scope.evidence",
            "What the database says of this grant is not what the log and the base's configuration say.",
            fact=f"{what}: {problem}",
            agent="Stop here; only a person can go on from this point.",
            person="Find out who wrote to the state folder, then run the ticket again.",
        )
    )


def pending(questions: Sequence[Question]) -> tuple[Question, ...]:
    """Those that a run waits for."""
    return tuple(item for item in questions if item.state == "open" and item.kind in WAITS)


def unheard(record: RunRecord, questions: Sequence[Question]) -> tuple[Question, ...]:
    """Answers that came when the round's agent had ended, or did not reach it; the last one at the end."""
    found = [
        item
        for item in questions
        if item.kind in WAITS
        and item.state in ("granted", "refused")
        and (item.answered >= record.worked or (item.state == "granted" and not _reached(record, item)))
    ]
    return tuple(sorted(found, key=lambda item: (item.answered, item.id)))


def _reached(record: RunRecord, question: Question) -> bool:
    return question.kind != "scope" or in_scope(record.scope, question)


def granted(questions: Sequence[Question]) -> tuple[Question, ...]:
    return tuple(item for item in questions if item.state == "granted")


def words_of(question: Question) -> str:
    """An answer as the agent reads it in its next round."""
    found = paths_of(question)
    what = f"{', '.join(found[0])} (to {found[1]})" if found else str(question.asked.get("tool", question.kind))
    return f"You asked for {what}. A person answered: {question.state}. {question.reason}".strip()
