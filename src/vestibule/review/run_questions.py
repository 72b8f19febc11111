"""The questions of one attempt, as its agent's tools use them.

Rules it keeps:
1. A grant is told only once log, base configuration and database agree on it and it has taken effect; until then the
   question is open.
2. The agent learns the answer and its reason; never who answered, who could, or where the ceiling is.
3. Waiting is bounded, and ends when the attempt does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from vestibule.core.crossing import Actor, Crossing
from vestibule.core.errors import UsageError
from vestibule.core.labels import Label
from vestibule.core.model import Question, QuestionKind
from vestibule.review.question_rules import Terms
from vestibule.review.questions import QuestionBook

POLL_SECONDS = 1.0
"""How often who waits looks at the rows: an answer may come from another process."""

MAX_WAIT_SECONDS = 900.0
"""The longest that one call waits for an answer."""

Stands = Callable[[Question], bool]
"""Whether log, base configuration and database agree on a grant, and it has taken effect."""


class RunQuestions:
    """`core.ports.Questions` of one attempt. `stands` says whether a grant may be believed and has taken effect."""

    def __init__(
        self,
        book: QuestionBook,
        crossing: Crossing,
        actor: Actor,
        *,
        round: int,  # noqa: A002 - the noun's own word
        terms: Terms,
        stands: Stands,
    ) -> None:
        self._book = book
        self._crossing = crossing
        self._actor = actor
        self._round = round
        self._terms = terms
        self._stands = stands
        self._one = threading.Lock()
        self._news = threading.Condition()
        self._closed = False
        self.asked = threading.Event()
        """Set by every ask: there is something to look out for."""

    def ask(self, kind: QuestionKind, asked: Mapping[str, Any], why: str, *, labels: Label) -> Question:
        with self._one:
            question = self._book.ask(
                self._crossing,
                self._actor,
                kind,
                asked,
                why,
                round=self._round,
                labels=labels,
                terms=self._terms,
            )
        self.asked.set()
        return self._told(question)

    def find(self, kind: QuestionKind, asked: Mapping[str, Any]) -> Question | None:
        found = self._book.find(self._actor.run, kind, asked)
        return None if found is None else self._told(found)

    def wait(self, question: str, seconds: float) -> Question:
        """Raises Refused: it is not this run's. Ends at the latest when the attempt does."""
        deadline = time.monotonic() + min(max(seconds, 0.0), MAX_WAIT_SECONDS)
        while True:
            found = self._book.must(question)
            if found.run != self._actor.run:
                raise UsageError(f"There is no question {question!r} in this run.")
            told = self._told(found)
            left = deadline - time.monotonic()
            with self._news:
                if told.state != "open" or left <= 0 or self._closed:
                    return told
                self._news.wait(min(left, POLL_SECONDS))

    def nudge(self) -> None:
        """Something was answered, or took effect: who waits looks again."""
        with self._news:
            self._news.notify_all()

    def close(self) -> None:
        """Nobody waits any longer. Idempotent."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        self.asked.set()

    @property
    def closed(self) -> bool:
        return self._closed

    def _told(self, question: Question) -> Question:
        """As the agent is told: granted only once it is so, and never who answered or what they said of it."""
        state = question.state
        if state == "granted" and not self._stands(question):
            state = "open"
        blank: dict[str, Any] = {"person": None, "self_review": False, "answered": "", "eligible": ()}
        return question.model_copy(
            update={**blank, "state": state, "reason": question.reason if state != "open" else ""}
        )
