"""A book of questions over a database, for review tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from review_world import BOB, REQUESTER, RUN, World

from vestibule.core.crossing import Actor
from vestibule.core.labels import Label
from vestibule.core.model import Person, Question
from vestibule.review.question_rules import Ceiling, Terms
from vestibule.review.questions import Answered, QuestionBook
from vestibule.review.run_questions import RunQuestions

AGENT = Actor(RUN, f"spiffe://vestibule.local/run/{RUN}/agent/claude", "agent")
CEILING = Ceiling(read=("src/**", "lib/**", "docs/*.md"), write=("src/**", "lib/gen/**"), protected=("deploy/**",))


class Asking(World):
    """Everything around the questions of one run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.book = QuestionBook(self.database, self.key, now=self.time)
        self.terms = Terms(requester=REQUESTER.id, seconds=3600)
        self.ceiling = CEILING
        self.stands = True

    def of_run(self, run: str = RUN) -> RunQuestions:
        actor = Actor(run, AGENT.id, "agent")
        return RunQuestions(self.book, self.crossing, actor, round=1, terms=self.terms, stands=lambda _: self.stands)

    def ask(self, *paths: str, why: str = "It needs it.", access: str = "read", **more: Any) -> Question:
        asked = {"paths": list(paths or ("lib/a.py",)), "access": access}
        return self.of_run(**more).ask("scope", asked, why, labels=Label())

    def answer(self, question: Question, choice: Any = "grant", person: Person = BOB, **more: Any) -> Answered:
        given: dict[str, Any] = {"reason": "It may.", "seen": question.digest, "ceiling": self.ceiling, **more}
        return self.book.answer(self.crossing, question=question.id, person=person, choice=choice, **given)
