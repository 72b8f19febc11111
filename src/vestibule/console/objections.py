"""What the console itself has against an answer or a decision, before policy is asked."""

from __future__ import annotations

from datetime import datetime
from typing import get_args

from vestibule.console.pages import unanswerable
from vestibule.core.model import AnswerChoice
from vestibule.core.refusal import Refusal, refusal
from vestibule.core.runs import AskedView
from vestibule.core.text.sanitize import find_hidden

MAX_REASON = 4000


def answer_objection(
    item: AskedView | None, moment: datetime, *, choice: str, reason: str, seen: str, served: bool
) -> Refusal | None:
    """What the console itself has against this answer, before policy is asked."""
    if item is None or not served:
        return refuse("review.closed", "There is no such question in this run.", "Look at the run as it stands now.")
    if seen != item.question.digest:
        return refuse(
            "review.stale", "The question is not the one that was shown.", "Nothing was answered. Read it again below."
        )
    if why_not := unanswerable(item, moment):
        return refuse("review.closed", why_not, "Nothing was answered. Look at the run as it stands now.")
    if choice not in get_args(AnswerChoice):
        return refuse("review.choice", "No answer was chosen.", "Choose one of them.")
    if not says_something(reason):
        return refuse("review.reason", "An answer needs a reason.", "Write in a sentence why.")
    if len(reason) > MAX_REASON:
        return refuse("review.reason", f"The reason is longer than {MAX_REASON} characters.", "Shorten it.")
    return None


def says_something(reason: str) -> bool:
    """Whether a reader sees more than a mark or two."""
    hidden = {item.offset for item in find_hidden(reason)}
    return sum(char.isalnum() for offset, char in enumerate(reason) if offset not in hidden) >= 2


def refuse(rule: str, reason: str, person: str, *, fact: str = "") -> Refusal:
    """A refusal by the console itself."""
    return refusal(rule, reason, fact=fact, agent="The console is for people.", person=person)
