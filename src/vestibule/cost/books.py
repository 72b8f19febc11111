"""The rows of the ledger, and the few statements that change them. Used by the ledger's own thread only.

Rules it keeps:
1. A hold is one UPDATE over every row that applies, whose condition asks of each of them that the request fits: all of
   them take it, or none does and nothing was written. Holds that came together and meet the same rows are asked for in
   one such UPDATE, each by itself when their sum does not fit.
2. One transaction at a time writes, over all processes: SQLite's IMMEDIATE lock, an advisory lock on PostgreSQL.
   So what a statement reads is what it changes.
3. What a hold was taken from is written beside it, and is what its end gives back to.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from vestibule.core import clock
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.model import Usage
from vestibule.cost.ceilings import (
    RATE_SECONDS,
    SPENDER,
    Applies,
    Ceiling,
    Ceilings,
    Standing,
    rate_refusal,
    too_large,
    unmet,
)
from vestibule.cost.links import Link, connect
from vestibule.cost.spend_slots import ADD_SPEND, SLOT_CHARS
from vestibule.cost.statements import CLOSE, COLUMNS, ROW, ROWS, giving, inserting, taking
from vestibule.store.database import Database

MOST = 1 << 50
"""Tokens or nano-USD (1.1 million US dollars) of one request."""
_WIDTH = {"agent": 128, "agent_version": 512, "role": 128, "repository": 2048, "provider": 128, "prices": 128}
_MANY = 4096


class Open(NamedTuple):
    """A hold that is not closed."""

    nano_usd: int
    tokens: int
    keys: tuple[str, ...]
    details: str
    slot: tuple[str, str, str, str]
    """Agent, ten minutes, version and run: where its spend is summed."""


class Hold(NamedTuple):
    """A hold that is asked for."""

    run: str
    model: str
    nano_usd: int
    tokens: int
    details: Mapping[str, Any]


class Close(NamedTuple):
    """A hold's end. `usage` None: the whole hold counts as used."""

    hold: str
    state: str
    usage: Usage | None
    details: Mapping[str, Any]


class Books:
    """What the ledger's thread does within its transactions. A `Refused` means that nothing was written for it."""

    def __init__(self, db: Database, ceilings: Ceilings, now: Callable[[], str]) -> None:
        self._db = db
        self._ceilings = ceilings
        self._now = now
        self._link: Link | None = None
        self._made: dict[str, Ceiling] = {}
        self._open: dict[str, Open] = {}
        self._applies: dict[tuple[Any, ...], Applies] = {}
        self._giving: dict[tuple[str, ...], list[int]] = {}
        """What closed holds give back, by the rows that they were taken from; written before anything is taken."""
        self._slots: dict[tuple[str, str, str, str], list[int]] = {}
        """What they spent, by agent version and time; written before the commit."""
        self._paid: set[int] = set()
        """Holds (by `id`) of this transaction that were taken already, together with others."""
        self._rows: list[Any] = []
        """Rows of holds that were taken, value by value: written before anything looks for them, and at the commit."""
        self._time = ""

    # --- transactions -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        if self._link is None:
            self._link = connect(self._db)
        self._link.begin()
        self._time = self._now()

    def commit(self) -> None:
        self._insert()
        self._give()
        for slot, sums in self._slots.items():
            self._own.execute(ADD_SPEND, (*slot, *sums))
        self._slots.clear()
        self._paid.clear()
        self._own.commit()

    def abandon(self) -> None:
        """Roll back, and forget what may not be in the database."""
        for kept in (self._made, self._open, self._giving, self._slots, self._paid, self._rows):
            kept.clear()
        link, self._link = self._link, None
        if link is not None:
            link.close()

    @property
    def _own(self) -> Link:
        if self._link is None:
            raise RuntimeError("no transaction has begun")
        return self._link

    # --- what happens within one --------------------------------------------------------------------------------

    def open(self, run: str, nano_usd: int | None, tokens: int | None, requests: int | None) -> None:
        """Set a run's ceilings; what was spent stays."""
        self._own.execute(
            "INSERT INTO budgets (key, name, limit_nano_usd, limit_tokens, limit_requests) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (key) DO UPDATE SET limit_nano_usd = excluded.limit_nano_usd, "
            "limit_tokens = excluded.limit_tokens, limit_requests = excluded.limit_requests",
            (f"run:{run}", f"run {run}", nano_usd, tokens, requests),
        )

    def take_together(self, holds: Sequence[Hold]) -> None:
        """Take at once what fits at once: for each set of rows one statement, where it admits all who meet them."""
        groups: dict[str, tuple[Applies, list[Hold]]] = {}
        for hold in holds:
            if hold.nano_usd <= MOST and hold.tokens <= MOST:
                applies = self._which(hold)
                groups.setdefault(applies.written, (applies, []))[1].append(hold)
        for applies, group in groups.values():
            if len(group) > 1:
                nano_usd = sum(hold.nano_usd for hold in group)
                if self._take(applies, nano_usd, sum(hold.tokens for hold in group), len(group)):
                    self._paid.update(id(hold) for hold in group)

    def hold(self, hold: Hold) -> str:
        """Take it from every ceiling that applies.

        Raises:
            Refused: `budget.*`, naming the ceiling.
            DependencyDown: `budget`: the run's ceilings were never opened.
        """
        run, model, nano_usd, tokens, details = hold
        if nano_usd > MOST or tokens > MOST:
            raise Refused(too_large(nano_usd, tokens))
        applies = self._which(hold)
        if id(hold) not in self._paid and not self._take(applies, nano_usd, tokens, 1):
            raise self._why(applies, nano_usd, tokens)
        name, now = _hold_id(), self._time
        written = _written(details)
        whose = _whose(tuple([details.get(item) for item in SPENDER]))
        document = f'{{"details": {written}}}'
        self._rows += (name, run, now[:10], now, model[:128], nano_usd, tokens, applies.written, document, *whose)
        self._open[name] = Open(nano_usd, tokens, applies.keys, written, (whose[0], now[:SLOT_CHARS], whose[1], run))
        return name

    def close(self, end: Close) -> None:
        """Closing what is closed changes nothing.

        Raises:
            DependencyDown: `budget`: there is no such hold.
        """
        hold, state, usage, details = end
        found = self._open.pop(hold, None) or self._read(hold)
        if found is None:
            return
        nano_usd, tokens, keys, written, slot = found
        if usage is None:
            cost, fresh, output, read, write = nano_usd, tokens, 0, 0, 0
            requests = 1
        else:
            requests, cost = _bound(usage.requests), _bound(usage.cost_nano_usd)
            fresh, output = _bound(usage.input_tokens), _bound(usage.output_tokens)
            read, write = _bound(usage.cache_read_tokens), _bound(usage.cache_write_tokens)
        hour = _bound(int(details.get("cache_write_1h_tokens") or 0))
        if details:
            written = _joined(written, details)
        document = (
            f'{{"details": {written}, "usage": {{"cache_read_tokens": {read}, "cache_write_tokens": {write}, '
            f'"cost_nano_usd": {cost}, "input_tokens": {fresh}, "output_tokens": {output}, "requests": {requests}}}}}'
        )
        values = (state, self._time, document, cost, fresh, output, read, write, hour, hold)
        if self._own.execute(CLOSE, values).rowcount != 1:
            return
        _add(self._giving, keys, (nano_usd, tokens, 1, cost, fresh + output + write))
        if cost and slot[2]:
            _add(self._slots, slot, (cost, 1))

    def charge_all(self, run: str) -> int:
        """Charge every open hold of a run; how many there were."""
        self._insert()
        found = self._own.execute("SELECT id FROM holds WHERE run = ? AND state = 'held'", (run,)).fetchall()
        for (hold,) in found:
            self.close(Close(hold, "charged", None, {}))
        return len(found)

    # --- parts --------------------------------------------------------------------------------------------------

    def _take(self, applies: Applies, nano_usd: int, tokens: int, count: int) -> bool:
        """Whether every row took it. False: none did."""
        self._give()
        for ceiling in applies.ceilings:
            if self._made.get(ceiling.key) != ceiling:
                self._make(ceiling)
        keys, rates = applies.keys, applies.rates
        values: list[Any] = [nano_usd, tokens, count, *keys, *keys, nano_usd, tokens, count]
        if rates:
            self._insert()
            since = _before(self._time)
            for rate in rates:
                values += (rate.value, since, rate.most - count)
        statement = taking(len(keys), tuple(rate.column for rate in rates))
        return self._own.execute(statement, values).rowcount == len(keys)

    def _insert(self) -> None:
        """What was taken in this transaction and does not stand in it yet."""
        step = ROWS * COLUMNS
        for start in range(0, len(self._rows), step):
            part = self._rows[start : start + step]
            self._own.execute(inserting(len(part) // COLUMNS), part)
        self._rows.clear()

    def _give(self) -> None:
        """What closed holds give back, and what they spent."""
        if not self._giving:
            return
        for keys, sums in self._giving.items():
            self._own.execute(giving(len(keys)), (*sums, *keys))
        self._giving.clear()

    def _which(self, hold: Hold) -> Applies:
        run, model, _, _, details = hold
        now = self._time
        key = (now[:13], run, model, *[details.get(name) for name in SPENDER])
        found = self._applies.get(key)
        if found is None:
            if len(self._applies) >= _MANY:
                self._applies.clear()
                self._made.clear()
            found = self._applies[key] = self._ceilings.of(run, model, details, now)
        return found

    def _make(self, ceiling: Ceiling) -> None:
        """The ceiling's row, with its limits of now. A new one begins with what its window has seen already."""
        execute = self._own.execute
        limits = (ceiling.nano_usd, ceiling.tokens, ceiling.requests)
        done = execute(
            "UPDATE budgets SET limit_nano_usd = ?, limit_tokens = ?, limit_requests = ? WHERE key = ?",
            (*limits, ceiling.key),
        )
        if done.rowcount == 0:
            named = f" AND {ceiling.column} = ?" if ceiling.column else ""  # a column's name of ours
            spent = execute(
                "SELECT coalesce(sum(cost_nano_usd), 0), "  # noqa: S608 constants only
                "coalesce(sum(input_tokens + output_tokens + cache_write_tokens), 0) FROM holds "
                f"WHERE time >= ?{named} AND state IN ('settled', 'charged')",
                (ceiling.start, *((ceiling.value,) if ceiling.column else ())),
            ).fetchone()
            execute(
                "INSERT INTO budgets (key, name, limit_nano_usd, limit_tokens, limit_requests, spent_nano_usd, "
                "spent_tokens) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (ceiling.key, ceiling.name, *limits, int(spent[0]), int(spent[1])),
            )
        self._made[ceiling.key] = ceiling

    def _why(self, applies: Applies, nano_usd: int, tokens: int) -> Refused:
        execute = self._own.execute
        marks = ", ".join("?" * len(applies.keys))
        found = execute(f"SELECT key, {ROW} FROM budgets WHERE key IN ({marks})", applies.keys).fetchall()  # noqa: S608
        rows = {row[0]: Standing(*row[1:]) for row in found}
        for key in applies.keys:
            if key not in rows:
                self._made.pop(key, None)
                missing = "This run has no budget" if key == applies.run_key else "A ceiling is not"
                return DependencyDown("budget", f"{missing} on the books.", fact=key)
        refused = unmet(applies, rows, nano_usd, tokens)
        if refused is not None:
            return Refused(refused)
        for rate in applies.rates:
            count = f"SELECT count(*) FROM holds WHERE {rate.column} = ? AND time > ?"  # noqa: S608 a column of ours
            if execute(count, (rate.value, _before(self._time))).fetchone()[0] >= rate.most:
                return Refused(rate_refusal(rate))
        return DependencyDown("budget", "The books took no hold and name no ceiling.", fact=applies.run_key)

    def _read(self, hold: str) -> Open | None:
        """A hold that another process made, or a batch that failed; None: it is closed."""
        self._insert()
        row = self._own.execute(
            "SELECT state, nano_usd, tokens, budgets, document, agent, time, agent_version, run FROM holds "
            "WHERE id = ?",
            (hold,),
        ).fetchone()
        if row is None:
            raise DependencyDown("budget", "A budget hold is missing from the books.", fact=hold)
        if row[0] != "held":
            return None
        details = json.dumps(json.loads(row[4]).get("details", {}), sort_keys=True)
        slot = (row[5], row[6][:SLOT_CHARS], row[7], row[8])
        return Open(row[1], row[2], tuple(row[3].split("\n")), details, slot)


def _written(details: Mapping[str, Any]) -> str:
    """As JSON. Requests of one run have the same details, over and over."""
    try:
        return _details(tuple(details.items()))
    except TypeError:  # a list or an object in it
        return json.dumps(dict(details), sort_keys=True)


@lru_cache(maxsize=256)
def _details(items: tuple[tuple[str, Any], ...]) -> str:
    return json.dumps(dict(items), sort_keys=True)


@lru_cache(maxsize=256)
def _whose(values: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple([str(value or "")[: _WIDTH[name]] for name, value in zip(SPENDER, values, strict=True)])


def _add(sums: dict[Any, list[int]], key: Any, values: tuple[int, ...]) -> None:
    found = sums.get(key)
    if found is None:
        sums[key] = list(values)
    else:
        for place, value in enumerate(values):
            found[place] += value


def _hold_id() -> str:
    """Sorts by time, so that new rows stand together in the table and its indices; 48 bits of it are random."""
    return f"h-{time.time_ns() // 1_000_000:011x}{os.urandom(6).hex()}"


def _joined(written: str, more: Mapping[str, Any]) -> str:
    """A JSON object of ours with `more` in it."""
    parts = []
    for name, value in more.items():
        place = f'"{name}": '
        if written == "{}" or place in written:
            return json.dumps({**json.loads(written), **more}, sort_keys=True)
        if type(value) is int and name.isascii() and name.isidentifier():
            parts.append(f"{place}{value}")
        else:
            parts.append(json.dumps({name: value})[1:-1])
    return f"{written[:-1]}, {', '.join(parts)}}}"


def _before(now: str) -> str:
    return clock.rfc3339(clock.parse_rfc3339(now) - timedelta(seconds=RATE_SECONDS))


def _bound(value: int) -> int:
    return MOST if value > MOST else max(0, value)
