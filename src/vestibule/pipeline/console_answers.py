"""The console's way to answer an agent's question, and what an answer leads to in words."""

from __future__ import annotations

from vestibule.core.model import AnswerChoice, Person, Question, State
from vestibule.core.runs import Outcome
from vestibule.pipeline.drive import Driver, spawn_resume
from vestibule.pipeline.record import RunRecord


class ConsoleAnswers:
    """The console's `AnswerQuestion`: records the answer here, and a process of its own drives the run on."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def __call__(self, question: str, choice: AnswerChoice, reason: str, seen: str, person: Person) -> Outcome:
        record, asked = self.driver.answer(question, choice, reason, person=person, channel="console", seen=seen)
        message = answer_message(record, asked)
        if self.driver.is_left(record):
            spawn_resume(self.driver.services, record.id)
        return Outcome(run=record.id, state=record.state, decision=asked.id, message=message)


def answer_message(record: RunRecord, question: Question) -> str:
    """What an answer leads to, in one sentence for the person."""
    if question.kind == "block":
        return "Acknowledged."
    word = "Granted." if question.state == "granted" else "Refused."
    if record.state is State.AWAITING_REVIEW:
        if question.state != "granted":
            return f"{word} The change still waits for its review."
        return f"{word} The agent has ended: request changes to let it go on with this."
    if record.state is State.AWAITING_ANSWER:
        return f"{word} The run goes on when every question is answered."
    return f"{word} The agent goes on."
