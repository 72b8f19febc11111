"""What a verification says: problems, notices, and honestly what it can and cannot see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

MAX_PROBLEMS: Final = 100
RESTORE: Final = "Keep this copy as evidence, compare it with a backup, and find out who could write it."


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that does not hold. `seq` is the entry's, when it concerns one; `next` says what a person can do."""

    rule: str
    message: str
    seq: int | None = None
    next: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"rule": self.rule, "message": self.message, "seq": self.seq, "next": self.next}


@dataclass(frozen=True, slots=True)
class Verification:
    """The contract's `audit verify --json`, with `origin`, `entries`, `unsealed` and `notices` besides.

    `size` and `root` (base64) are those of the last valid signed checkpoint; without one, of nothing (0, "").
    `entries` counts what is stored, `unsealed` those that no checkpoint covers yet.
    """

    origin: str
    size: int
    root: str
    entries: int
    unsealed: int
    problems: tuple[Problem, ...]
    notices: tuple[Problem, ...]
    detects: tuple[str, ...]
    does_not_detect: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "origin": self.origin,
            "size": self.size,
            "root": self.root,
            "entries": self.entries,
            "unsealed": self.unsealed,
            "problems": [item.as_json() for item in self.problems],
            "notices": [item.as_json() for item in self.notices],
            "detects": list(self.detects),
            "does_not_detect": list(self.does_not_detect),
        }


class Findings:
    """Collects problems, at most `MAX_PROBLEMS` of a rule's kind in words; the rest are counted."""

    def __init__(self) -> None:
        self._items: list[Problem] = []
        self._more: dict[str, int] = {}
        self._counts: dict[str, int] = {}

    def add(self, rule: str, message: str, *, seq: int | None = None, next_step: str = "") -> None:
        self._counts[rule] = self._counts.get(rule, 0) + 1
        if self._counts[rule] > MAX_PROBLEMS:
            self._more[rule] = self._more.get(rule, 0) + 1
        else:
            self._items.append(Problem(rule, message, seq, next_step))

    def all(self) -> tuple[Problem, ...]:
        rest = (Problem(rule, f"{count} more of these.") for rule, count in self._more.items())
        return (*self._items, *rest)

    def __bool__(self) -> bool:
        return bool(self._items)


def detects(size: int, remembered: int, trailers: int) -> tuple[str, ...]:
    """What this verification would have seen. Sizes are entries; `trailers` the largest head in merge commits."""
    if not size:
        return ()
    found = [
        f"an entry edited, deleted, inserted or reordered among the {size} signed ones, without the log's key",
        "a checkpoint signed by any key but the one pinned or given",
        "an outcome without its intent, or a second outcome",
        "a clock set back without a note of it in the log",
    ]
    if remembered:
        found.append(
            f"truncation, rollback or rewriting of the first {remembered} entries (the remembered head), "
            "even by a holder of the log's key"
        )
    if trailers:
        found.append(
            f"truncation, rollback or rewriting of the first {trailers} entries (merge commits), "
            "even by a holder of the log's key"
        )
    return tuple(found)


def does_not_detect(remembered: int, trailers: int) -> tuple[str, ...]:
    """What no such verification can see, said plainly."""
    known = max(remembered, trailers)
    rest = f"entries after {known}, the last known head" if known else "any entry, since no earlier head is known"
    return (
        "an action that was never recorded: this proves what the log holds, not that everything reached it",
        f"a rewrite by someone with the log's key: {rest}",
        f"truncation or rollback to an older checkpoint: {rest}",
        "changes to entries that no checkpoint covers yet (at most 256 entries or one second of a running log)",
        "a different log shown to somebody else, without an independent witness to compare with",
        "a wrong clock: times are what the machine believed, only their order is checked",
        "a false statement by the program that recorded it, or by a machine it ran on that was taken over",
        "tampering with this verifier, its pinned keys or its remembered heads",
    )
