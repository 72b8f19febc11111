"""The ledger's own connection to the state database: plain statements with `?`, one transaction at a time.

Rules it keeps:
1. Of all processes one writes at a time: SQLite's IMMEDIATE lock, an advisory lock until the commit on PostgreSQL.
2. A commit is on the disk when it returns (`synchronous=FULL`; PostgreSQL's default).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from vestibule.store.database import BUSY_SECONDS, Database

_LOCK = 0x76657374
"""The advisory lock's number on PostgreSQL."""


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
