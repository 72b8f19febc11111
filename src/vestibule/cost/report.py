"""What was spent, by agent, agent version, role, model or run."""

from __future__ import annotations

import json
from typing import Any, Literal, get_args

from sqlalchemy import select

from vestibule.core.base import Noun
from vestibule.core.model import Usage
from vestibule.store import tables
from vestibule.store.database import Database

By = Literal["agent", "agent-version", "role", "model", "run"]
DIMENSIONS: tuple[By, ...] = get_args(By)


class CostLine(Noun):
    """One value of the dimension and what it consumed. `held_nano_usd` is reserved by requests not settled yet."""

    name: str
    runs: int
    usage: Usage
    held_nano_usd: int = 0
    charged_holds: int = 0
    """Requests whose provider reported nothing: charged at their hold, an upper bound."""


def cost_lines(db: Database, by: By) -> list[CostLine]:
    """Lines of the whole ledger, dearest first."""
    usage: dict[str, Usage] = {}
    runs: dict[str, set[str]] = {}
    held: dict[str, int] = {}
    charged: dict[str, int] = {}
    with db.read() as connection:
        for row in connection.execute(select(tables.holds).where(tables.holds.c.state != "released")):
            document: dict[str, Any] = json.loads(row.document)
            name = _name(row, document.get("details", {}), by)
            runs.setdefault(name, set()).add(row.run)
            usage.setdefault(name, Usage())
            if row.state == "held":
                held[name] = held.get(name, 0) + row.nano_usd
                continue
            usage[name] = usage[name].plus(Usage.model_validate(document["usage"]))
            charged[name] = charged.get(name, 0) + (row.state == "charged")
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
    return sorted(lines, key=lambda line: (-line.usage.cost_nano_usd, line.name))


def _name(row: Any, details: dict[str, Any], by: By) -> str:
    if by == "run":
        return str(row.run)
    if by == "model":
        return str(row.model)
    return str(details.get(by.replace("-", "_")) or "unknown")
