"""Running sums of what agent versions spend: written with each settlement, read to judge a version.

Rules it keeps:
1. A slot's sum changes in the transaction that closes the hold, or not at all (`spend_slots`): sums and ledger never
   disagree.
2. Spend belongs to the ten minutes in which its request was admitted, so that the ledger's records give the same sums
   whenever they are added up again (`recomputed`).
3. A database that cannot answer is `DependencyDown`, never a version that spent nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select

from vestibule.config.spending import SpendWatch
from vestibule.core.clock import parse_rfc3339, rfc3339
from vestibule.cost.spend_slots import HOUR_CHARS, SLOT_CHARS
from vestibule.cost.spikes import (
    BASELINE_HOURS,
    RUN_WINDOWS,
    SLOT_SECONDS,
    WEEK_HOURS,
    Cell,
    Reading,
    Terms,
    hour_of,
    judge,
    slot_of,
)
from vestibule.store import tables
from vestibule.store.database import Database

SLOTS = tables.spend_slots
HOLDS = tables.holds
SPENT = ("settled", "charged")

Key = tuple[str, str, str, str]
"""Agent, slot, version, run."""


class SpendSeries:
    """The sums of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def read(self, agent: str, version: str, *, at: str, terms: Terms, accepted: str = "") -> Reading:
        """The reading of one version at `at`; `accepted` is when a person last released it. Times are RFC 3339.

        Raises:
            DependencyDown: `database`.
        """
        moment = seconds_of(at)
        hour = hour_of(moment)
        spans = (
            (hour - WEEK_HOURS - 1, hour - WEEK_HOURS + 1),
            (hour - BASELINE_HOURS - max(RUN_WINDOWS) + 1, hour),
        )
        with self._db.read() as connection:
            cells = [cell for first, last in spans for cell in _cells(connection, agent, first, last)]
            recent = _recent(connection, agent, version, moment)
        released = seconds_of(accepted) if accepted else None
        return judge(cells, version, at=moment, recent=recent, terms=terms, accepted=released)

    def versions(self, *, at: str) -> list[tuple[str, str]]:
        """Agents and versions that spent anything in this hour or the last."""
        since = rfc3339(parse_rfc3339(at) - timedelta(hours=1))[:HOUR_CHARS]
        query = select(SLOTS.c.agent, SLOTS.c.version).where(SLOTS.c.slot >= since).distinct()
        with self._db.read() as connection:
            return sorted((row.agent, row.version) for row in connection.execute(query))

    def sums(self) -> dict[Key, tuple[int, int]]:
        """Every slot: nano-USD and requests."""
        with self._db.read() as connection:
            rows = connection.execute(select(SLOTS)).all()
        return {(row.agent, row.slot, row.version, row.run): (row.nano_usd, row.requests) for row in rows}

    def recomputed(self) -> dict[Key, tuple[int, int]]:
        """The same sums from the ledger's records alone."""
        columns = (HOLDS.c.agent, HOLDS.c.time, HOLDS.c.agent_version, HOLDS.c.run, HOLDS.c.cost_nano_usd)
        query = select(*columns).where(HOLDS.c.state.in_(SPENT), HOLDS.c.agent_version != "", HOLDS.c.cost_nano_usd > 0)
        with self._db.read() as connection:
            return summed(connection.execute(query))


def summed(rows: Iterable[Any]) -> dict[Key, tuple[int, int]]:
    """Sums of spend records."""
    found: dict[Key, tuple[int, int]] = {}
    for row in rows:
        key = (row.agent, row.time[:SLOT_CHARS], row.agent_version, row.run)
        spent, count = found.get(key, (0, 0))
        found[key] = spent + row.cost_nano_usd, count + 1
    return found


def seconds_of(time: str) -> int:
    """Whole seconds since 1970 of an RFC 3339 time."""
    return int(parse_rfc3339(time).timestamp())


def terms_of(watch: SpendWatch) -> Terms:
    return Terms(
        alert_percent=watch.alert_percent,
        pause_percent=watch.pause_ratio,
        pause_floor_nano_usd=watch.pause_floor_usd,
        pause_nano_usd_per_minute=watch.pause_usd_per_minute,
        pause_runs=watch.pause_runs,
        minimum_nano_usd=watch.minimum_usd,
        minimum_hours=watch.minimum_hours,
        noise=watch.noise,
    )


def _cells(connection: Connection, agent: str, first: int, last: int) -> list[Cell]:
    hour = func.substr(SLOTS.c.slot, 1, HOUR_CHARS)
    query = (
        select(SLOTS.c.version, SLOTS.c.run, hour.label("hour"), func.sum(SLOTS.c.nano_usd).label("nano_usd"))
        .where(SLOTS.c.agent == agent, SLOTS.c.slot >= _hour_text(first), SLOTS.c.slot < _hour_text(last + 1))
        .group_by(SLOTS.c.version, SLOTS.c.run, hour)
    )
    hours = {_hour_text(number): number for number in range(first, last + 1)}
    return [
        Cell(
            version=row.version,
            run=row.run,
            hour=hours[row.hour],
            nano_usd=int(row.nano_usd),
        )
        for row in connection.execute(query)
    ]


def _recent(connection: Connection, agent: str, version: str, moment: int) -> dict[int, int]:
    slot = slot_of(moment)
    named = {_slot_text(number): number for number in (slot - 1, slot)}
    query = (
        select(SLOTS.c.slot, func.sum(SLOTS.c.nano_usd).label("nano_usd"))
        .where(SLOTS.c.agent == agent, SLOTS.c.version == version, SLOTS.c.slot.in_(list(named)))
        .group_by(SLOTS.c.slot)
    )
    return {named[row.slot]: int(row.nano_usd) for row in connection.execute(query)}


def _hour_text(hour: int) -> str:
    return rfc3339(datetime.fromtimestamp(hour * 3600, UTC))[:HOUR_CHARS]


def _slot_text(slot: int) -> str:
    return rfc3339(datetime.fromtimestamp(slot * SLOT_SECONDS, UTC))[:SLOT_CHARS]
