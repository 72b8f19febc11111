"""Refusals that help: one typed form in the 403 body, the event, the CLI and the console."""

from __future__ import annotations

from typing import Any

from vestibule.core.base import Noun


class NextStep(Noun):
    """What to do now, one sentence for each reader."""

    agent: str
    person: str


class Refusal(Noun):
    """Why something was not allowed.

    `rule` is a stable dotted name (`context.write.scope`), `reason` one sentence, `fact` the
    observed value the rule was about.
    """

    rule: str
    reason: str
    fact: str = ""
    next: NextStep

    def sentence(self) -> str:
        """Rule, reason and next step in one line: some agent CLIs show only this much."""
        parts = [f"[{self.rule}] {self.reason}"]
        if self.fact:
            parts.append(f"({self.fact})")
        parts.append(self.next.agent)
        return " ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """The contract's `refusals[]` shape."""
        return self.model_dump(mode="json")


def refusal(rule: str, reason: str, *, fact: str = "", agent: str, person: str) -> Refusal:
    """Shorthand for the nested form."""
    return Refusal(rule=rule, reason=reason, fact=fact, next=NextStep(agent=agent, person=person))
