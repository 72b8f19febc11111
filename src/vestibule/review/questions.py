"""Questions of agents', as rows: nothing waits in a process for a person.

Rules it keeps:
1. An ask is durable in the log before it is a row; the same content asked again is the question that is there.
2. A run asks a bounded number of things, of bounded size: past that it is refused (`question.limit`).
3. An answer is decided by policy and durable in the log before the row says so, under the row's lock, on the digest of
   exactly what the person saw; it is signed. `question_rules.objection` holds even where a policy would be looser.
4. A row alone grants nothing: whoever acts on a grant asks the log first (`run_questions.Stands`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import Connection, select

from vestibule.core import clock
from vestibule.core.base import Noun
from vestibule.core.crossing import Actor, Crossing
from vestibule.core.errors import DependencyDown, Refused, UsageError
from vestibule.core.ids import new_id
from vestibule.core.labels import Label
from vestibule.core.model import AnswerChoice, Event, Person, Question, QuestionKind, State
from vestibule.core.refusal import refusal
from vestibule.core.verdict import Ruling
from vestibule.review import question_rows as rows
from vestibule.review import question_rules as rules
from vestibule.review.question_rows import KeptQuestion
from vestibule.review.question_rules import Ceiling, Terms
from vestibule.review.rules import MAX_REASON
from vestibule.review.signing import ReviewKey, verify_answer
from vestibule.store.database import Database
from vestibule.store.tables import questions, runs


class Answered(Noun):
    """A recorded answer. `repeated`: it was there already, nothing was written."""

    question: Question
    repeated: bool = False


class QuestionBook:
    """The questions of a database. `now` gives RFC 3339 and is handed in by tests."""

    def __init__(self, database: Database, key: ReviewKey, *, now: Callable[[], str] = clock.now) -> None:
        self._database = database
        self._key = key
        self._now = now

    # --- reading ------------------------------------------------------------------------------------------

    def get(self, question: str) -> Question | None:
        """Raises `VerificationFailed` when the answer's signature does not hold."""
        with self._database.read() as connection:
            kept = rows.load(connection, question)
        return None if kept is None else self._checked(kept)

    def must(self, question: str) -> Question:
        """Raises UsageError: no such question."""
        with self._database.read() as connection:
            return self._checked(rows.must(connection, question))

    def find(self, run: str, kind: QuestionKind, asked: Mapping[str, Any]) -> Question | None:
        digest = _digest(kind, asked)
        with self._database.read() as connection:
            kept = rows.same(connection, run, kind, digest)
        return None if kept is None else self._checked(kept)

    def of_run(self, run: str) -> tuple[Question, ...]:
        """In the order in which they were asked."""
        with self._database.read() as connection:
            return tuple(self._checked(kept) for kept in rows.of_run(connection, run))

    def open_of(self, run: str) -> tuple[Question, ...]:
        """Those of a run that wait for a person, blocks included."""
        return tuple(item for item in self.of_run(run) if item.state == "open")

    def waiting(self) -> tuple[Question, ...]:
        """Every open question, the one that runs out first at the front."""
        with self._database.read() as connection:
            return tuple(kept.question for kept in rows.waiting(connection))

    def _checked(self, kept: KeptQuestion) -> Question:
        if kept.question.person is not None or kept.question.state == "granted":
            verify_answer(kept.question, kept.signature, self._key.public)
        return kept.question

    # --- asking -------------------------------------------------------------------------------------------

    def ask(
        self,
        crossing: Crossing,
        actor: Actor,
        kind: QuestionKind,
        asked: Mapping[str, Any],
        why: str,
        *,
        round: int,  # noqa: A002 - the noun's own word
        labels: Label,
        terms: Terms,
    ) -> Question:
        """The question, durable; the one that is there when the same was asked before. One asker a run at a time.

        Raises:
            Refused: `question.limit`, `question.asked`.
            DependencyDown: log or database.
        """
        digest = _digest(kind, asked)
        with self._database.read() as connection:
            known = rows.same(connection, actor.run, kind, digest)
            if known is not None:
                return self._checked(known)
            _bounded(rows.of_run(connection, actor.run), kind, asked, why)
        opened = self._now()
        question = Question(
            id=new_id("q"),
            run=actor.run,
            round=round,
            attempt=actor.attempt,
            kind=kind,
            asked=dict(asked),
            why=why,
            digest="",
            labels=labels,
            requester=terms.requester,
            eligible=terms.eligible,
            self_approval=terms.self_approval,
            opened=opened,
            expires=clock.rfc3339(clock.parse_rfc3339(opened) + timedelta(seconds=terms.seconds)),
        )
        question = question.model_copy(update={"digest": rules.question_digest(question)})
        return self._kept(crossing, actor, question, digest)

    def _kept(self, crossing: Crossing, actor: Actor, question: Question, asked: str) -> Question:
        """The row, between the two entries of the log that say so."""
        intent = Event(
            run=actor.run,
            phase="intent",
            action="question.ask",
            resource=question.id,
            subject="system",
            actor=actor.id,
            verdict=Ruling.ALLOW,
            attempt=actor.attempt,
            labels=question.labels,
            details={
                "kind": question.kind,
                "asked": asked,
                "digest": question.digest,
                "round": question.round,
                "why": question.why,
                "paths": list((rules.paths_of(question) or ((), ""))[0]),
                "expires": question.expires,
            },
        )
        receipt = crossing.record(intent)
        try:
            with self._database.write() as connection:
                # The run's row is the lock: who counts sees what every other asker has written.
                connection.execute(select(runs.c.id).where(runs.c.id == actor.run).with_for_update()).all()
                known = rows.same(connection, actor.run, question.kind, asked)
                if known is None:
                    _bounded(rows.of_run(connection, actor.run), question.kind, question.asked, question.why)
                    rows.add(connection, question)
        except BaseException as error:
            crossing.record(crossing.outcome(intent, receipt, ok=False, details={"error": type(error).__name__}))
            raise
        crossing.record(crossing.outcome(intent, receipt, ok=known is None, details={}))
        return question if known is None else self._checked(known)

    # --- closing ------------------------------------------------------------------------------------------

    def expire(self) -> tuple[Question, ...]:
        """Close every open question whose time has run out. Those that were closed."""
        with self._database.write() as connection:
            found = rows.waiting(connection, until=self._now())
            return tuple(_close(connection, kept, "expired") for kept in found)

    def close_of(self, run: str) -> tuple[Question, ...]:
        """Close what a run that has ended still asks. Those that were closed."""
        with self._database.write() as connection:
            found = rows.of_run(connection, run)
            return tuple(_close(connection, kept, "closed") for kept in found if kept.question.state == "open")

    # --- answering ----------------------------------------------------------------------------------------

    def answer(
        self,
        crossing: Crossing,
        *,
        question: str,
        person: Person,
        choice: AnswerChoice,
        reason: str,
        seen: str,
        ceiling: Ceiling,
        channel: Literal["cli", "console"] = "cli",
        agent_ids: Collection[str] = (),
    ) -> Answered:
        """One person's answer. `seen` is the digest of the question as it was shown; `ceiling` that of its run's base.

        Refusing a block acknowledges it: it is `closed` then, for nothing was asked for.

        Raises:
            UsageError: no such question, or a reason without a UTF-8 form.
            Refused: `review.*`, `scope.ceiling`, with the next step for the person; or what the policy said.
            DependencyDown: policy, log, database or key.
        """
        if choice not in rules.ANSWERS:
            raise UsageError("An answer is grant or refuse.")
        _usable(reason)
        given = _Given(person, choice, reason, seen, ceiling, frozenset(agent_ids))
        with self._database.read() as connection:
            found = self._checked(rows.must(connection, question))
            run_open = _run_open(connection, found.run)
        again = given.repeats(found)
        if again is not None:
            return again
        facts = given.facts(found, run_open=run_open, now=self._now())
        actor = Actor(
            run=found.run, id=person.id, kind="agent" if facts["is_agent"] else "person", attempt=found.attempt
        )
        details = {
            "question": found.id,
            "digest": found.digest,
            "kind": found.kind,
            "asked": rules.asked_digest(found.kind, found.asked),
            "paths": list((rules.paths_of(found) or ((), ""))[0]),
            "choice": choice,
            "reason": reason[:MAX_REASON],
            "channel": channel,
            "how": person.how,
        }

        def effect() -> tuple[Answered, dict[str, Any]]:
            answered = self._record(question, given)
            after = answered.question
            return answered, {"state": after.state, "key": self._key.id, "self_review": after.self_review}

        try:
            return crossing.cross_sync(
                actor,
                "question.answer",
                {"id": found.id, "choice": choice, "kind": found.kind},
                facts,
                effect,
                details=details,
            )
        except DependencyDown:
            raise
        except Refused as error:
            # The policy's answer stands; where we know the fact behind it, the person gets the better sentence.
            specific = rules.objection(person, found, facts, choice)
            if specific is None or error.refusal.rule.startswith("policy."):
                raise
            raise Refused(specific) from None
        finally:
            if facts["expired"]:
                self.expire()

    def _record(self, name: str, given: _Given) -> Answered:
        """The row, under the database's lock, after looking at everything again."""
        with self._database.write() as connection:
            kept = rows.must(connection, name, lock=True)
            question = self._checked(kept)
            again = given.repeats(question)
            if again is not None:
                return again
            moment = self._now()
            facts = given.facts(question, run_open=_run_open(connection, question.run), now=moment)
            objection = rules.objection(given.person, question, facts, given.choice)
            if objection is not None:
                raise Refused(objection)
            after = question.model_copy(
                update={
                    "state": given.state(question),
                    "person": given.person,
                    "reason": given.reason,
                    "self_review": facts["is_requester"],
                    "answered": moment,
                }
            )
            rows.store(connection, KeptQuestion(question=after, signature=self._key.sign_answer(after)))
        return Answered(question=after)


class _Given:
    """What a person says, before anything looked at it."""

    def __init__(  # noqa: PLR0917 - one caller
        self,
        person: Person,
        choice: AnswerChoice,
        reason: str,
        seen: str,
        ceiling: Ceiling,
        agent_ids: frozenset[str],
    ) -> None:
        self.person = person
        self.choice = choice
        self.reason = reason
        self._seen = seen
        self._ceiling = ceiling
        self._agent_ids = agent_ids

    def state(self, question: Question) -> Literal["granted", "refused", "closed"]:
        if self.choice == "grant":
            return "granted"
        return "closed" if question.kind == "block" else "refused"

    def repeats(self, question: Question) -> Answered | None:
        """The same answer by the same person, given before."""
        same = question.person is not None and question.person.id == self.person.id and self._seen == question.digest
        if same and question.state == self.state(question):
            return Answered(question=question, repeated=True)
        return None

    def facts(self, question: Question, *, run_open: bool, now: str) -> dict[str, Any]:
        return rules.may_answer(
            self.person,
            question,
            reason=self.reason,
            seen=self._seen,
            run_open=run_open,
            within_ceiling=not rules.beyond(question, self._ceiling),
            now=now,
            agent_ids=self._agent_ids,
        )


def any_answers(database: Database) -> bool:
    """Whether anything was ever answered here."""
    answered = questions.c.state.not_in(("open", "expired"))
    with database.read() as connection:
        return connection.execute(select(questions.c.id).where(answered).limit(1)).first() is not None


def _close(connection: Connection, kept: KeptQuestion, state: Literal["expired", "closed"]) -> Question:
    after = kept.question.model_copy(update={"state": state})
    rows.store(connection, KeptQuestion(question=after))
    return after


def _run_open(connection: Connection, run: str) -> bool:
    """Whether the run has not ended: what ended asks nobody any more, whatever its rows say."""
    state = connection.execute(select(runs.c.state).where(runs.c.id == run)).scalar()
    return state is not None and state not in _FINAL


_FINAL = frozenset(state.value for state in State if state.final)


def _digest(kind: QuestionKind, asked: Mapping[str, Any]) -> str:
    try:
        return rules.asked_digest(kind, asked)
    except (TypeError, ValueError, RecursionError):
        raise Refused(
            refusal(
                "question.asked",
                "What was asked has no plain form.",
                agent="Ask with plain text and numbers only.",
                person="Nothing to do.",
            )
        ) from None


def _bounded(there: Collection[KeptQuestion], kind: QuestionKind, asked: Mapping[str, Any], why: str) -> None:
    """Raises Refused: `question.limit`."""
    still_open = sum(item.question.state == "open" for item in there)
    fact = rules.limit_passed(len(there), still_open, kind, asked, why)
    if fact:
        raise Refused(
            refusal(
                "question.limit",
                "The run has asked people too much.",
                fact=fact,
                agent="Go on without asking; wait for the answers that are still open.",
                person="Answer or refuse what is open, with `vestibule questions`.",
            )
        )


def _usable(reason: str) -> None:
    try:
        reason.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(
            "The reason holds bytes that are no text.", next_step="Write it as UTF-8: --reason TEXT."
        ) from None
