"""The rows of the ledger, and the few statements that change them. Used by the ledger's own thread only.

Rules it keeps:
1. A hold is one UPDATE over every row that applies, whose condition asks of each of them that the request fits: all of
   them take it, or none does and nothing was written.
2. One transaction at a time writes, over all processes: SQLite's IMMEDIATE lock, an advisory lock on PostgreSQL.
   So what a statement reads is what it changes.
3. What a hold was taken from is written beside it, and is what its end gives back to.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from vestibule.core import clock
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.ids import new_id
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
from vestibule.cost.spend_slots import ADD_SPEND
from vestibule.store.database import BUSY_SECONDS, Database

MOST = 1 << 50
"""Tokens or nano-USD (1.1 million US dollars) of one request."""
_LOCK = 0x76657374
"""The advisory lock's number on PostgreSQL."""
_WIDTH = {"agent": 128, "agent_version": 512, "role": 128, "repository": 2048, "provider": 128, "prices": 128}
_MANY = 4096

_INSERT = (
    "INSERT INTO holds (id, run, day, state, time, model, nano_usd, tokens, budgets, document, "
    "agent, agent_version, role, repository, provider, prices) "
    "VALUES (?, ?, ?, 'held', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_CLOSE = (
    "UPDATE holds SET state = ?, closed = ?, document = ?, cost_nano_usd = ?, input_tokens = ?, output_tokens = ?, "
    "cache_read_tokens = ?, cache_write_tokens = ?, cache_write_1h_tokens = ? WHERE id = ? AND state = 'held'"
)
_ROW = (
    "name, limit_nano_usd, limit_tokens, limit_requests, held_nano_usd, held_tokens, held_requests, "
    "spent_nano_usd, spent_tokens"
)


class Open(NamedTuple):
    """A hold that is not closed."""

    nano_usd: int
    tokens: int
    keys: tuple[str, ...]
    details: str


class Cursor(Protocol):
    """What both drivers have of the Python database API (PEP 249)."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> Any: ...


class Link(Protocol):
    """A connection of the ledger's own."""

    def begin(self) -> None: ...
    def execute(self, statement: str, values: Sequence[Any]) -> Cursor: ...
    def commit(self) -> None: ...
    def close(self) -> None:
        """Whatever is not committed is gone."""
        ...


class SqliteLink:
    """Without SQLAlchemy: building statements would cost more than running them."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        # Unused until it is needed; a write-ahead log was set by the store already.
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
        self.execute: Callable[[str, Sequence[Any]], Cursor] = self._connection.execute

    def begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()


class PooledLink:
    """Any other database, by the engine's own driver."""

    def __init__(self, db: Database) -> None:
        self._connection = db.engine.raw_connection()
        self._postgres = db.engine.dialect.name == "postgresql"

    def begin(self) -> None:
        if self._postgres:
            self.execute("SELECT pg_advisory_xact_lock(?)", (_LOCK,))

    def execute(self, statement: str, values: Sequence[Any]) -> Cursor:
        cursor = self._connection.cursor()
        cursor.execute(statement.replace("?", "%s") if self._postgres else statement, tuple(values))
        return cursor

    def commit(self) -> None:
        self._connection.commit()

    def close(self) -> None:
        self._connection.invalidate()


def connect(db: Database) -> Link:
    """A connection of its own to the state database. Raises what its driver raises."""
    url = db.engine.url
    if url.get_backend_name() == "sqlite" and url.database and not url.query:
        return SqliteLink(url.database)
    return PooledLink(db)


class Books:
    """What the ledger's thread does within its transactions. A `Refused` means that nothing was written for it."""

    def __init__(self, db: Database, ceilings: Ceilings, now: Callable[[], str]) -> None:
        self._db = db
        self._ceilings = ceilings
        self._now = now
        self._link: Link | None = None
        self._made: dict[str, Ceiling] = {}
        self._open: dict[str, Open] = {}
        self._applies: dict[tuple[str, ...], Applies] = {}

    # --- transactions -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        if self._link is None:
            self._link = connect(self._db)
        self._link.begin()

    def commit(self) -> None:
        self._own.commit()

    def abandon(self) -> None:
        """Roll back, and forget what may not be in the database."""
        self._made.clear()
        self._open.clear()
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

    def hold(self, run: str, model: str, nano_usd: int, tokens: int, details: Mapping[str, Any]) -> str:
        """Take it from every ceiling that applies.

        Raises:
            Refused: `budget.*`, naming the ceiling.
            DependencyDown: `budget`: the run's ceilings were never opened.
        """
        if nano_usd > MOST or tokens > MOST:
            raise Refused(too_large(nano_usd, tokens))
        now = self._now()
        applies = self._which(run, model, details, now)
        execute = self._own.execute
        for ceiling in applies.ceilings:
            if self._made.get(ceiling.key) != ceiling:
                self._make(ceiling)
        keys, rates = applies.keys, applies.rates
        values: list[Any] = [nano_usd, tokens, *keys, *keys, nano_usd, tokens]
        if rates:
            since = _before(now)
            for rate in rates:
                values += (rate.value, since, rate.most)
        statement = _take(len(keys), tuple(rate.column for rate in rates))
        if execute(statement, values).rowcount != len(keys):
            raise self._why(applies, nano_usd, tokens, now)
        hold = new_id("h")
        whose = [str(details.get(name) or "")[: _WIDTH[name]] for name in SPENDER]
        written = _details(tuple(sorted(details.items())))
        execute(
            _INSERT,
            (
                hold, run, now[:10], now, model[:128], nano_usd, tokens, "\n".join(keys),
                f'{{"details": {written}}}', *whose,
            ),
        )  # fmt: skip
        self._open[hold] = Open(nano_usd, tokens, keys, written)
        return hold

    def close(self, hold: str, state: str, usage: Usage | None, details: Mapping[str, Any]) -> None:
        """`usage` None: the whole hold counts as used. Closing what is closed changes nothing.

        Raises:
            DependencyDown: `budget`: there is no such hold.
        """
        found = self._open.pop(hold, None) or self._read(hold)
        if found is None:
            return
        nano_usd, tokens, keys, written = found
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
        execute = self._own.execute
        values = (state, self._now(), document, cost, fresh, output, read, write, hour, hold)
        if execute(_CLOSE, values).rowcount != 1:
            return
        if cost:
            execute(ADD_SPEND, (hold,))
        execute(_give(len(keys)), (nano_usd, tokens, cost, fresh + output + write, *keys))

    def charge_all(self, run: str) -> int:
        """Charge every open hold of a run; how many there were."""
        found = self._own.execute("SELECT id FROM holds WHERE run = ? AND state = 'held'", (run,)).fetchall()
        for (hold,) in found:
            self.close(hold, "charged", None, {})
        return len(found)

    # --- parts --------------------------------------------------------------------------------------------------

    def _which(self, run: str, model: str, details: Mapping[str, Any], now: str) -> Applies:
        key = (now[:13], run, model, *(str(details.get(name) or "") for name in SPENDER))
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

    def _why(self, applies: Applies, nano_usd: int, tokens: int, now: str) -> Refused:
        execute = self._own.execute
        marks = ", ".join("?" * len(applies.keys))
        found = execute(f"SELECT key, {_ROW} FROM budgets WHERE key IN ({marks})", applies.keys).fetchall()  # noqa: S608
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
            if execute(count, (rate.value, _before(now))).fetchone()[0] >= rate.most:
                return Refused(rate_refusal(rate))
        return DependencyDown("budget", "The books took no hold and name no ceiling.", fact=applies.run_key)

    def _read(self, hold: str) -> Open | None:
        """A hold that another process made, or a batch that failed; None: it is closed."""
        row = self._own.execute(
            "SELECT state, nano_usd, tokens, budgets, document FROM holds WHERE id = ?", (hold,)
        ).fetchone()
        if row is None:
            raise DependencyDown("budget", "A budget hold is missing from the books.", fact=hold)
        if row[0] != "held":
            return None
        details = json.dumps(json.loads(row[4]).get("details", {}), sort_keys=True)
        return Open(row[1], row[2], tuple(row[3].split("\n")), details)


@lru_cache(maxsize=128)
def _take(keys: int, rates: tuple[str, ...]) -> str:
    marks = ", ".join("?" * keys)
    since = [f"(SELECT count(*) FROM holds WHERE {column} = ? AND time > ?)" for column in rates]  # noqa: S608 ours
    slow = "".join(f" AND {count} < ?" for count in since)
    return (
        "UPDATE budgets SET held_nano_usd = held_nano_usd + ?, held_tokens = held_tokens + ?, "  # noqa: S608 ours
        f"held_requests = held_requests + 1 WHERE key IN ({marks}) AND (SELECT count(*) FROM budgets "
        f"WHERE key IN ({marks}) "
        "AND (limit_nano_usd IS NULL OR spent_nano_usd + held_nano_usd + ? <= limit_nano_usd) "
        "AND (limit_tokens IS NULL OR spent_tokens + held_tokens + ? <= limit_tokens) "
        f"AND (limit_requests IS NULL OR held_requests < limit_requests)) = {keys}{slow}"
    )


@lru_cache(maxsize=32)
def _give(keys: int) -> str:
    marks = ", ".join("?" * keys)
    return (
        "UPDATE budgets SET held_nano_usd = held_nano_usd - ?, held_tokens = held_tokens - ?, "  # noqa: S608 ours
        "held_requests = held_requests - 1, spent_nano_usd = spent_nano_usd + ?, spent_tokens = spent_tokens + ? "
        f"WHERE key IN ({marks})"
    )


@lru_cache(maxsize=256)
def _details(items: tuple[tuple[str, Any], ...]) -> str:
    return json.dumps(dict(items), sort_keys=True)


def _joined(written: str, more: Mapping[str, Any]) -> str:
    """A JSON object of ours with `more` in it."""
    if written == "{}" or any(f'"{name}": ' in written for name in more):
        return json.dumps({**json.loads(written), **more}, sort_keys=True)
    return f"{written[:-1]}, {json.dumps(dict(more))[1:]}"


def _before(now: str) -> str:
    return clock.rfc3339(clock.parse_rfc3339(now) - timedelta(seconds=RATE_SECONDS))


def _bound(value: int) -> int:
    return MOST if value > MOST else max(0, value)
