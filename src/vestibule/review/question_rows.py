"""Rows of the table `questions`, read and written strictly: a row that is not ours is refused.

The document holds the question as it stands, and the signature of its answer once there is one.
"""

from __future__ import annotations

import json

from pydantic import ValidationError
from sqlalchemy import Connection, insert, select, update

from vestibule.core.base import Noun
from vestibule.core.errors import DependencyDown, UsageError
from vestibule.core.model import Question, QuestionKind
from vestibule.review.question_rules import asked_digest, question_digest
from vestibule.review.rows import damaged
from vestibule.review.signing import DecisionSignature
from vestibule.store.tables import questions


class KeptQuestion(Noun):
    """What a row's document holds."""

    question: Question
    signature: DecisionSignature | None = None


def _row(kept: KeptQuestion) -> dict[str, str]:
    question = kept.question
    return {
        "id": question.id,
        "run": question.run,
        "kind": question.kind,
        "asked": asked_digest(question.kind, question.asked),
        "state": question.state,
        "expires": question.expires,
        "document": json.dumps(kept.model_dump(mode="json"), sort_keys=True, ensure_ascii=False),
    }


def _kept(row: object) -> KeptQuestion:
    name = str(row.id)  # type: ignore[attr-defined]
    try:
        kept = KeptQuestion.model_validate_json(row.document)  # type: ignore[attr-defined]
        expected = _row(kept)
        if any(getattr(row, field) != expected[field] for field in ("id", "run", "kind", "asked", "state", "expires")):
            raise ValueError("its columns say something else")
        if question_digest(kept.question) != kept.question.digest:
            raise ValueError("its digest is another")
    except (ValidationError, ValueError, TypeError):
        raise damaged("question", name) from None
    return kept


def load(connection: Connection, name: str, *, lock: bool = False) -> KeptQuestion | None:
    query = select(questions).where(questions.c.id == name)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else _kept(row)


def must(connection: Connection, name: str, *, lock: bool = False) -> KeptQuestion:
    found = load(connection, name, lock=lock)
    if found is None:
        raise UsageError(f"There is no question {name!r}.", next_step="`vestibule questions` lists those that wait.")
    return found


def same(connection: Connection, run: str, kind: QuestionKind, asked: str) -> KeptQuestion | None:
    """The run's question about exactly this."""
    query = select(questions).where(questions.c.run == run, questions.c.kind == kind, questions.c.asked == asked)
    row = connection.execute(query).one_or_none()
    return None if row is None else _kept(row)


def of_run(connection: Connection, run: str) -> tuple[KeptQuestion, ...]:
    """In the order in which they were asked."""
    rows = connection.execute(select(questions).where(questions.c.run == run)).all()
    found = [_kept(row) for row in rows]
    return tuple(sorted(found, key=lambda kept: (kept.question.opened, kept.question.id)))


def waiting(connection: Connection, *, until: str = "") -> tuple[KeptQuestion, ...]:
    """Open ones, the one that runs out first at the front; with `until` those that have run out by then."""
    query = select(questions).where(questions.c.state == "open").order_by(questions.c.expires)
    rows = connection.execute(query.where(questions.c.expires <= until) if until else query).all()
    return tuple(_kept(row) for row in rows)


def add(connection: Connection, question: Question) -> None:
    connection.execute(insert(questions).values(**_row(KeptQuestion(question=question))))


def store(connection: Connection, kept: KeptQuestion) -> None:
    """The question with its answer, or closed; refuses when it was not open any more."""
    row = _row(kept)
    done = connection.execute(
        update(questions)
        .where(questions.c.id == row["id"], questions.c.state == "open")
        .values(state=row["state"], document=row["document"])
    )
    if done.rowcount != 1:
        raise DependencyDown("database", "A question changed while it was being written.", fact=row["id"])
