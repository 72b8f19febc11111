"""A changed policy over past runs: which verdicts would have been others.

Every decision of a run whose input was kept is asked again. The input is taken only if its digest is the one in the
audit log; nothing is recorded and nothing happens. Verdicts differ when the ruling does, or has a reason it had not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vestibule.core.model import Event
from vestibule.core.ports import Decider, PolicyInput


@dataclass(frozen=True, slots=True)
class Difference:
    """One decision that the other policy makes otherwise. `before` and `after` are verdict and reasons."""

    run: str
    seq: int
    action: str
    resource: str
    before: tuple[str, tuple[str, ...]]
    after: tuple[str, tuple[str, ...]]

    def as_json(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "seq": self.seq,
            "action": self.action,
            "resource": self.resource,
            "before": {"verdict": self.before[0], "reasons": list(self.before[1])},
            "after": {"verdict": self.after[0], "reasons": list(self.after[1])},
        }


@dataclass(slots=True)
class Replay:
    """What came of it. `without_input` are decisions whose input was not kept, as run and entry number; `left_out`
    runs whose repository or base commit is gone, with why."""

    decisions: int = 0
    replayed: int = 0
    differences: list[Difference] = field(default_factory=list)
    without_input: list[tuple[str, int]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "decisions": self.decisions,
            "replayed": self.replayed,
            "differences": [item.as_json() for item in self.differences],
            "without_input": [{"run": run, "seq": seq} for run, seq in self.without_input],
            "left_out": [{"run": run, "why": why} for run, why in self.left_out.items()],
        }


def replay(policy: Decider, events: Iterable[tuple[int, Event]], kept: Mapping[str, PolicyInput], into: Replay) -> None:
    """Asks `policy` about every decision in one run's `events` (entry number, event)."""
    for seq, event in events:
        if event.phase != "intent" or not event.input_digest or event.subject == "probe":
            continue  # an outcome, an entry that no policy decided, or a guard that was tried out
        into.decisions += 1
        asked = kept.get(event.input_digest)
        if asked is None:
            into.without_input.append((event.run, seq))
            continue
        into.replayed += 1
        verdict = policy.decide(asked)
        before = (event.verdict.value if event.verdict else "", tuple(sorted(event.reasons)))
        after = (verdict.ruling.value, tuple(sorted(verdict.reasons)))
        # An entry may name findings besides the policy's own reasons, so a reason that is gone says nothing by itself.
        if before[0] != after[0] or set(after[1]) - set(before[1]):
            into.differences.append(Difference(event.run, seq, event.action, event.resource, before, after))
