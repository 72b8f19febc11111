"""The life of questions under every order of asking, answering, time, closing and reopening."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from question_world import Asking
from review_world import AGENT, BOB, CAROL, REQUESTER, RUN

from vestibule.core.errors import Refused
from vestibule.core.model import Question
from vestibule.review import question_rules as rules
from vestibule.review.questions import QuestionBook

PATHS = ("lib/a.py", "lib/b.py", "src/c.py", "deploy/prod.yaml")
PEOPLE = (BOB, CAROL, REQUESTER, AGENT)


class Life(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.asking = Asking(self.folder)
        self.first: dict[str, Question] = {}
        self.final: dict[str, str] = {}

    def teardown(self) -> None:
        if hasattr(self, "asking"):
            self.asking.database.close()
            shutil.rmtree(self.folder)

    @rule(path=st.sampled_from(PATHS), why=st.sampled_from(["One.", "Two."]))
    def ask(self, path: str, why: str) -> None:
        found = self.asking.ask(path, why=why)
        known = self.first.setdefault(path, self.asking.book.must(found.id))
        assert (found.id, found.why, found.digest) == (known.id, known.why, known.digest)

    @precondition(lambda self: self.first)
    @rule(
        path=st.sampled_from(PATHS),
        person=st.sampled_from(PEOPLE),
        choice=st.sampled_from(["grant", "refuse"]),
        fresh=st.booleans(),
    )
    def answer(self, path: str, person: object, choice: str, fresh: bool) -> None:
        if path not in self.first:
            return
        question = self.first[path]
        before = self.asking.book.must(question.id)
        seen = question.digest if fresh else "sha256:" + "0" * 64
        try:
            after = self.asking.answer(question, choice, person, seen=seen).question  # type: ignore[arg-type]
        except Refused:
            assert self.asking.book.must(question.id).state in (before.state, "expired")
            return
        assert fresh
        assert person is not AGENT
        assert before.state in ("open", after.state)
        if choice == "grant":
            assert person is not REQUESTER
            assert not rules.beyond(question, self.asking.ceiling)

    @rule()
    def time_passes(self) -> None:
        self.asking.time.pass_(1500)

    @rule()
    def expire(self) -> None:
        self.asking.book.expire()

    @rule()
    def close(self) -> None:
        self.asking.book.close_of(RUN)

    @rule()
    def reopen(self) -> None:
        self.asking.book = QuestionBook(self.asking.database, self.asking.key, now=self.asking.time)

    @invariant()
    def what_ended_stays_ended(self) -> None:
        if not hasattr(self, "asking"):
            return
        for question in self.asking.book.of_run(RUN):
            if question.id in self.final:
                assert question.state == self.final[question.id]
            if question.state != "open":
                self.final[question.id] = question.state
            said = [
                event
                for event in self.asking.log.events
                if event.phase == "intent" and event.details.get("question") == question.id
            ]
            if question.state == "granted":
                assert any(event.details["choice"] == "grant" and event.subject == "person" for event in said)
                assert question.person in (BOB, CAROL)


Life.TestCase.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
TestLife = Life.TestCase
