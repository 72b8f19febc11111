"""What was spent, by agent, agent version, role, model, run, repository, provider or day; and budgets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, get_args

from pydantic import ConfigDict
from sqlalchemy import select

from vestibule.core.base import Noun
from vestibule.core.model import Usage
from vestibule.cost.spend import Spend, read_spends
from vestibule.store import tables
from vestibule.store.database import Database

By = Literal["agent", "agent-version", "role", "model", "run", "repository", "provider", "day"]
DIMENSIONS: tuple[By, ...] = get_args(By)

_NAMES: dict[By, Callable[[Spend], str]] = {
    "agent": lambda spend: spend.agent,
    "agent-version": lambda spend: spend.agent_version,
    "role": lambda spend: spend.role,
    "model": lambda spend: spend.asked,
    "run": lambda spend: spend.run,
    "repository": lambda spend: spend.repository,
    "provider": lambda spend: spend.provider,
    "day": lambda spend: spend.day,
}


_WINDOWS = {13: "hour", 10: "day", 7: "month"}
"""Windows by the length of their beginning."""


class CostLine(Noun):
    """One value of the dimension and what it consumed. `held_nano_usd` is reserved by requests not settled yet."""

    name: str
    runs: int
    usage: Usage
    held_nano_usd: int = 0
    charged_holds: int = 0
    """Requests whose provider reported nothing: charged at their hold, an upper bound."""


class BudgetLine(Noun):
    """One ceiling and its books. A limit of None: counted, without a ceiling."""

    model_config = ConfigDict(extra="ignore")

    scope: str
    window: str
    name: str
    limit_nano_usd: int | None = None
    limit_tokens: int | None = None
    spent_nano_usd: int = 0
    spent_tokens: int = 0
    held_nano_usd: int = 0
    held_tokens: int = 0


def cost_lines(db: Database, by: By, *, since: str = "", until: str = "") -> list[CostLine]:
    """Lines of the ledger from `since` (included) to `until`, dearest first; days in their order.

    Raises:
        DependencyDown: `database`.
    """
    return lines_of(read_spends(db, since=since, until=until), by)


def lines_of(spends: Iterable[Spend], by: By) -> list[CostLine]:
    """The same, of these."""
    name_of = _NAMES[by]
    usage: dict[str, Usage] = {}
    runs: dict[str, set[str]] = {}
    held: dict[str, int] = {}
    charged: dict[str, int] = {}
    for spend in spends:
        name = name_of(spend)
        runs.setdefault(name, set()).add(spend.run)
        usage.setdefault(name, Usage())
        if spend.state == "held":
            held[name] = held.get(name, 0) + spend.held_nano_usd
            continue
        usage[name] = usage[name].plus(spend.usage)
        charged[name] = charged.get(name, 0) + (spend.state == "charged")
    lines = [
        CostLine(
            name=name,
            runs=len(runs[name]),
            usage=found,
            held_nano_usd=held.get(name, 0),
            charged_holds=charged.get(name, 0),
        )
        for name, found in usage.items()
    ]
    if by == "day":
        return sorted(lines, key=lambda line: line.name)
    return sorted(lines, key=lambda line: (-line.usage.cost_nano_usd, line.name))


class BudgetName(NamedTuple):
    """What a row of the books is about: `scope` agent, role, … (all: of all runs), its window, and whose."""

    scope: str
    window: str
    name: str


def budget_name(key: str, name: str, now: str) -> BudgetName | None:
    """Of a key and the name beside it (`cost.ceilings`). None: a single run's, or of a window that is not `now`'s."""
    scope, _, rest = key.partition(":")
    start = rest.partition(":")[0]
    window = _WINDOWS.get(len(start), "total") if start != "total" else "total"
    if scope == "run" or (window != "total" and not now.startswith(start)):
        return None
    if scope == "day":
        return BudgetName("all", "day", "all")
    return BudgetName(scope, window, name.removeprefix(scope).rpartition(", ")[0].strip() or "all")


def budget_lines(db: Database, *, now: str) -> list[BudgetLine]:
    """The ceilings that hold `now` (RFC 3339, UTC), and those of runs that have something reserved.

    Raises:
        DependencyDown: `database`.
    """
    budgets = tables.budgets
    lines = []
    with db.read() as connection:
        for row in connection.execute(select(budgets).order_by(budgets.c.key)):
            named = budget_name(row.key, row.name, now)
            if named is None:
                if not (row.key.startswith("run:") and row.held_nano_usd):
                    continue
                named = BudgetName("run", "total", row.key.removeprefix("run:"))
            lines.append(BudgetLine.model_validate({**row._mapping, **named._asdict()}))
    return lines
