"""What an agent is told of its budget before it is used up. Pure.

Rules it keeps:
1. A sentence is said for each threshold, at most: the highest that is passed.
2. It says the run's own numbers only, and nothing that came from the agent.
"""

from __future__ import annotations

from typing import NamedTuple

from vestibule.core.model import Budget, Usage
from vestibule.core.money import format_usd

THRESHOLDS = (80, 95)
"""Per cent of the run's budget that are spent."""


class Note(NamedTuple):
    """A threshold that is passed, and what is said of it."""

    percent: int
    text: str


def note_for(budget: Budget, spent: Usage) -> Note | None:
    """The highest threshold that is passed; None: none, or no ceiling of money or tokens."""
    parts = []
    if budget.nano_usd:
        parts.append(
            (
                spent.cost_nano_usd * 100 // budget.nano_usd,
                f"{format_usd(spent.cost_nano_usd)} of {format_usd(budget.nano_usd)}",
            )
        )
    if budget.tokens:
        used = spent.budgeted_tokens
        parts.append((used * 100 // budget.tokens, f"{used} of {budget.tokens} tokens"))
    if not parts:
        return None
    percent, amounts = max(parts)
    passed = [threshold for threshold in THRESHOLDS if percent >= threshold]
    if not passed:
        return None
    return Note(passed[-1], f"[budget] {percent}% of this task's budget is spent ({amounts}). {_ADVICE[passed[-1]]}")


_ADVICE = {
    80: "Finish what is begun, keep answers and files that you read short, and begin nothing that is not needed.",
    95: "Bring the work to an end now: leave it in a state that holds, and say what is missing. "
    "When the budget is used up, every further request is refused.",
}
