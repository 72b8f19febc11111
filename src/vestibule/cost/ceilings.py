"""Which ceilings a request counts against, and what is said when one does not hold. Pure.

Rules it keeps:
1. Every ceiling that names the request applies; of several for one name and window the smallest counts.
2. Each window begins at its own UTC hour, day or month, and a request belongs to the windows in which it was held.
3. An agent is told the numbers of its own run. Of ceilings over several runs it learns which one it met, and nothing
   that others spent.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from vestibule.config.spending import OperatorBudget
from vestibule.core.money import format_usd
from vestibule.core.refusal import Refusal, refusal

SPENDER: Final = ("agent", "agent_version", "role", "repository", "provider", "prices")
"""What a hold's details say of whose spend it is, and columns of `holds`."""
COLUMNS: Final = {
    "agent": "agent",
    "agent-version": "agent_version",
    "role": "role",
    "repository": "repository",
    "model": "model",
    "organisation": "",
}
_WINDOW: Final = {"hour": 13, "day": 10, "month": 7, "total": 0}
RATE_SECONDS: Final = 60


class Ceiling(NamedTuple):
    """One row of the books. `column` and `value` name its holds ("" and "": all), `start` when its window began."""

    key: str
    name: str
    nano_usd: int | None
    tokens: int | None
    requests: int | None
    column: str
    value: str
    start: str


class Rate(NamedTuple):
    """At most `most` requests whose `column` is `value` in any `RATE_SECONDS`."""

    column: str
    value: str
    most: int


class Applies(NamedTuple):
    """Everything that one request counts against. The run's own row, which `Ledger.open` makes, comes first."""

    run_key: str
    ceilings: tuple[Ceiling, ...]
    rates: tuple[Rate, ...]
    keys: tuple[str, ...]
    written: str
    """The keys, one a line."""


class Standing(NamedTuple):
    """A row of the books as it stands."""

    name: str
    limit_nano_usd: int | None
    limit_tokens: int | None
    limit_requests: int | None
    held_nano_usd: int
    held_tokens: int
    held_requests: int
    spent_nano_usd: int
    spent_tokens: int


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The operator's ceilings."""

    budget: OperatorBudget

    def of(self, run: str, model: str, details: Mapping[str, Any], now: str) -> Applies:
        """`now` is RFC 3339 in UTC, as `core.clock` writes it."""
        day = now[:10]
        found: dict[tuple[str, str, str], Ceiling] = {}
        run_key = f"run:{run}"
        rows = [
            Ceiling(f"day:{day}", f"all runs of the day {day}", self.budget.usd_per_day, None, None, "", "", day),
        ]
        values = {**{name: str(details.get(name) or "") for name in SPENDER}, "model": model}
        version = values["agent_version"]
        for limit in self.budget.limits:
            column = COLUMNS[limit.per]
            value = values[column] if column else ""
            if not fnmatch.fnmatchcase(value, limit.name):
                continue
            _join(found, (limit.per, limit.window, value), now, (limit.usd, limit.tokens, None))
        if self.budget.concurrent.agent_version is not None:
            most = self.budget.concurrent.agent_version
            _join(found, ("agent-version", "total", version), now, (None, None, most))
        rates = []
        per_minute = self.budget.requests_per_minute
        if per_minute.run is not None:
            rates.append(Rate("run", run, per_minute.run))
        if per_minute.agent_version is not None:
            rates.append(Rate("agent_version", version, per_minute.agent_version))
        ceilings = (*rows, *found.values())
        keys = (run_key, *(row.key for row in ceilings))
        return Applies(run_key, ceilings, tuple(rates), keys, "\n".join(keys))


def _join(
    found: dict[tuple[str, str, str], Ceiling],
    of: tuple[str, str, str],
    now: str,
    limits: tuple[int | None, int | None, int | None],
) -> None:
    per, window, value = of
    nano_usd, tokens, requests = limits
    start = now[: _WINDOW[window]]
    before = found.get(of)
    if before is not None:
        nano_usd = _least(before.nano_usd, nano_usd)
        tokens = _least(before.tokens, tokens)
        requests = _least(before.requests, requests)
    # A name can be long (an agent's version names program, model and configuration): the key has its digest.
    key = f"{per}:{start or 'total'}:{hashlib.sha256(value.encode()).hexdigest()[:32]}"
    name = f"{per} {value}".rstrip() + (f", {window} {start}" if start else ", in total")
    found[of] = Ceiling(key, name, nano_usd, tokens, requests, COLUMNS[per], value, start)


def _least(one: int | None, other: int | None) -> int | None:
    return min((value for value in (one, other) if value is not None), default=None)


def unmet(applies: Applies, rows: Mapping[str, Standing], nano_usd: int, tokens: int) -> Refusal | None:
    """The first ceiling that a request does not fit under. None: it fits under all of them."""
    for key in applies.keys:
        row = rows[key]
        own = key == applies.run_key
        if row.limit_nano_usd is not None and row.spent_nano_usd + row.held_nano_usd + nano_usd > row.limit_nano_usd:
            return _usd(row, nano_usd, own=own)
        if row.limit_tokens is not None and row.spent_tokens + row.held_tokens + tokens > row.limit_tokens:
            return _tokens(row, tokens, own=own)
        if row.limit_requests is not None and row.held_requests >= row.limit_requests:
            return _concurrent(row, own=own)
    return None


_LESS = "Finish with what you have, or ask for less: a smaller max_tokens or a shorter conversation."


def _usd(row: Standing, nano_usd: int, *, own: bool) -> Refusal:
    asked = f"this request may cost up to {format_usd(nano_usd)}"
    fact = f"{row.name}: {asked}"
    if own:
        fact = (
            f"run: {format_usd(row.spent_nano_usd)} spent and {format_usd(row.held_nano_usd)} reserved "
            f"of {format_usd(row.limit_nano_usd or 0)}; {asked}"
        )
    return refusal(
        "budget.usd",
        f"This request may cost more than the budget of {_whose(row, own=own)} has left.",
        fact=fact,
        agent=_LESS,
        person="Raise the role's budget.usd, or the operator's budget.usd_per_run."
        if own
        else "See `vestibule cost`; ceilings over all runs are the operator's budget.usd_per_day and budget.limits.",
    )


def _tokens(row: Standing, tokens: int, *, own: bool) -> Refusal:
    asked = f"this request may use up to {tokens}"
    fact = f"{row.name}: {asked}"
    if own:
        fact = f"run: {row.spent_tokens} tokens spent and {row.held_tokens} reserved of {row.limit_tokens}; {asked}"
    return refusal(
        "budget.tokens",
        f"This request may use more tokens than the budget of {_whose(row, own=own)} has left.",
        fact=fact,
        agent=_LESS,
        person="Raise the role's budget.tokens."
        if own
        else "See `vestibule cost`; the operator's budget.limits say the ceilings over all runs.",
    )


def _concurrent(row: Standing, *, own: bool) -> Refusal:
    return refusal(
        "budget.concurrent",
        f"As many requests as are allowed at one time are under way for {_whose(row, own=own)}.",
        fact=f"run: at most {row.limit_requests} at one time" if own else row.name,
        agent="Wait until a request of yours has ended, then send it again.",
        person="Raise the operator's budget.concurrent. Requests that a killed process left count until the run is "
        "resumed or ended.",
    )


def rate_refusal(rate: Rate) -> Refusal:
    """Too many requests within a minute."""
    whose = "this run" if rate.column == "run" else "this agent's version, over all its runs,"
    return refusal(
        "budget.rate",
        f"{whose[:1].upper()}{whose[1:]} has sent as many requests as are allowed in a minute.",
        fact=f"at most {rate.most} in {RATE_SECONDS} seconds",
        agent="Wait some seconds, then send it again.",
        person="Raise the operator's budget.requests_per_minute.",
    )


def too_large(nano_usd: int, tokens: int) -> Refusal:
    """No ceiling is that high."""
    return refusal(
        "budget.usd",
        "This request may cost more than any budget can hold.",
        fact=f"this request may cost up to {format_usd(nano_usd)} and use up to {tokens} tokens",
        agent=_LESS,
        person="Look at the price table: no request should cost that.",
    )


def _whose(row: Standing, *, own: bool) -> str:
    return "the run" if own else row.name
