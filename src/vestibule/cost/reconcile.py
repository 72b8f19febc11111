"""What a provider bills against what the gateway counted, by UTC day and model.

Rules it keeps:
1. Only days that the report covers are compared, but on these everything: a model that one side does not know is a
   difference, never left out.
2. The tolerance is a share of the larger side and an absolute floor; both are said in the result. Money and each kind
   of tokens are compared by themselves, so that a surplus of one never hides a lack of the other.
3. Requests that were charged at their hold are an upper bound: they are told apart and not compared as tokens.
4. A provider's dated model name (`…-20260101`) and the name without its date are one model when only one of them is
   known to the other side.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

from vestibule.core.base import Noun
from vestibule.cost.bills.base import EVERY_MODEL, Bill, Where
from vestibule.cost.spend import Spend

KINDS = ("input", "cache_read", "cache_write", "output")
_DATED = re.compile(r"-(?:\d{8}|\d{4}-\d{2}-\d{2})\Z")
PER_MILLE = 1000
T = TypeVar("T")


class Tolerance(Noun):
    """What may differ: `per_mille` of the larger side, or the floor if that is more."""

    per_mille: int = 10
    tokens: int = 100
    nano_usd: int = 10_000_000

    def allows(self, counted: int, billed: int, what: str) -> bool:
        floor = self.nano_usd if what == "nano_usd" else self.tokens
        return abs(counted - billed) * PER_MILLE <= max(max(counted, billed) * self.per_mille, floor * PER_MILLE)


class Difference(Noun):
    """One line of the bill that is not what was counted. `what` is `nano_usd` or a kind of tokens."""

    day: str
    model: str
    what: str
    counted: int
    billed: int
    side: Literal["both", "only_billed", "only_counted"]


class Reconciliation(Noun):
    """What came of it. Sums are over the days of the report."""

    ok: bool
    days: tuple[str, ...]
    compared: int
    """Numbers that were compared."""
    differences: tuple[Difference, ...]
    counted_nano_usd: int
    billed_nano_usd: int | None = None
    counted_tokens: int
    billed_tokens: int | None = None
    other_nano_usd: int = 0
    """Billed for things that are not tokens; never counted here."""
    charged_holds: int = 0
    charged_nano_usd: int = 0
    """Part of what was counted that is an upper bound: the provider told no usage."""
    open_requests: int = 0
    """Requests of these days whose books are still open."""
    tolerance: Tolerance = Tolerance()


def reconcile(bill: Bill, spends: Iterable[Spend], tolerance: Tolerance | None = None) -> Reconciliation:
    """Compares. `spends` are those of one provider; days that the bill does not cover are passed over."""
    limits = tolerance or Tolerance()
    tokens: dict[Where, dict[str, int]] = {}
    money: dict[Where, int] = {}
    charged = charged_nano = still_open = 0
    for spend in spends:
        if spend.day not in bill.days:
            continue
        if spend.state == "held":
            still_open += 1
            continue
        where = (spend.day, spend.model)
        money[where] = money.get(where, 0) + spend.usage.cost_nano_usd
        if spend.state == "charged":
            charged += 1
            charged_nano += spend.usage.cost_nano_usd
            continue
        fresh, read, written, hour, output, _ = spend.tokens
        found = tokens.setdefault(where, dict.fromkeys(KINDS, 0))
        for kind, number in zip(KINDS, (fresh, read, written + hour, output), strict=True):
            found[kind] += number
    numbers = 0
    differences: list[Difference] = []

    def compare(day: str, model: str, what: str, counted: int | None, billed: int | None) -> None:
        nonlocal numbers
        numbers += 1
        if limits.allows(counted or 0, billed or 0, what):
            return
        side: Literal["both", "only_billed", "only_counted"] = "both"
        if counted is None or billed is None:
            side = "only_billed" if counted is None else "only_counted"
        differences.append(
            Difference(day=day, model=model, what=what, counted=counted or 0, billed=billed or 0, side=side)
        )

    if bill.tokens is not None:
        for where, ours, theirs in _paired(tokens, bill.tokens):
            for kind in KINDS:
                compare(*where, kind, None if ours is None else ours[kind], None if theirs is None else theirs[kind])
    if bill.nano_usd is not None:
        for where, our_cost, their_cost in _paired(_as_coarse(money, bill.nano_usd), bill.nano_usd):
            compare(*where, "nano_usd", our_cost, their_cost)
    return Reconciliation(
        ok=not differences,
        days=tuple(sorted(bill.days)),
        compared=numbers,
        differences=tuple(differences),
        counted_nano_usd=sum(money.values()),
        billed_nano_usd=None if bill.nano_usd is None else sum(bill.nano_usd.values()),
        counted_tokens=sum(sum(found.values()) for found in tokens.values()),
        billed_tokens=None if bill.tokens is None else sum(sum(found.values()) for found in bill.tokens.values()),
        other_nano_usd=bill.other_nano_usd,
        charged_holds=charged,
        charged_nano_usd=charged_nano,
        open_requests=still_open,
        tolerance=limits,
    )


def _as_coarse(money: dict[Where, int], billed: dict[Where, int]) -> dict[Where, int]:
    """Our sums as coarse as the bill: a day that it does not break down by model is one sum here too."""
    whole_days = {day for day, model in billed if model == EVERY_MODEL}
    found: dict[Where, int] = {}
    for (day, model), nano in money.items():
        where = (day, EVERY_MODEL if day in whole_days else model)
        found[where] = found.get(where, 0) + nano
    return found


def _paired(ours: Mapping[Where, T], theirs: Mapping[Where, T]) -> list[tuple[Where, T | None, T | None]]:
    """(day and the bill's model, ours, theirs), every key of both once."""
    matched: dict[Where, Where] = {}
    for where in ours:
        matched[where] = where if where in theirs else _renamed(where, ours, theirs)
    found: list[tuple[Where, T | None, T | None]] = [
        (matched[where], value, theirs.get(matched[where])) for where, value in ours.items()
    ]
    taken = set(matched.values())
    found += [(where, None, value) for where, value in theirs.items() if where not in taken]
    return sorted(found, key=lambda item: item[0])


def _renamed(where: Where, ours: Mapping[Where, T], theirs: Mapping[Where, T]) -> Where:
    """The bill's only name that differs from ours by its date alone, and is nobody else's; else ours."""
    day, model = where
    bare = _DATED.sub("", model)
    near = [name for on, name in theirs if on == day and _DATED.sub("", name) == bare and (day, name) not in ours]
    rivals = [name for on, name in ours if on == day and _DATED.sub("", name) == bare and (day, name) not in theirs]
    return (day, near[0]) if len(near) == 1 and rivals == [model] else where
