"""One engine per process. SQLite embedded (WAL, FULL where a promise hangs on it), PostgreSQL by URL.

Rules it keeps:
1. A database that cannot be opened, is locked too long, or is newer than this program is
   `DependencyDown("database")`: refused, never worked around.
2. Every writing transaction on SQLite is IMMEDIATE: two writers never read the same state and both write.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from vestibule.core.errors import DependencyDown
from vestibule.store import migrate, tables

SCHEMA_VERSION = 5
"""1: the first. 2: the table `questions`. 3: an index of holds by time.
4: the tables `spend_slots` and `agent_pauses`.
5: ceilings of many kinds; whose spend a hold is and what it used, in columns."""
BUSY_SECONDS = 10


class Database:
    """The state database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = make_engine(url)
        with self._explained():
            self._migrate()

    @classmethod
    def open(cls, home: Path, environ: Mapping[str, str] | None = None) -> Database:
        """`VESTIBULE_DATABASE_URL`, else `vestibule.db` in the state folder (made 0700)."""
        environ = os.environ if environ is None else environ
        url = environ.get("VESTIBULE_DATABASE_URL", "")
        if not url:
            make_private_folder(home)
            url = f"sqlite:///{home / 'vestibule.db'}"
        return cls(url)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A writing transaction: committed when the block ends, rolled back when it raises."""
        with self._explained(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A snapshot. It locks nobody out, however long it is read."""
        with self._explained(), self.engine.connect().execution_options(vestibule_reads=True) as connection:
            yield connection

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, sqlite3.Error) as error:
            cause = str(getattr(error, "orig", None) or error)
            raise DependencyDown(
                "database",
                "The state database cannot be used.",
                fact=cause[:300],
                person="Check that its disk has room, that it is readable, and that no other program locks it.",
            ) from error
        except SQLAlchemyError as error:
            raise DependencyDown("database", "The state database cannot be used.", fact=str(error)[:300]) from error

    def _migrate(self) -> None:
        with self.engine.begin() as connection:
            if not inspect(connection).has_table("schema_version"):
                tables.metadata.create_all(connection)
                connection.execute(insert(tables.schema_version).values(version=SCHEMA_VERSION))
                return
            found = connection.execute(select(tables.schema_version.c.version)).scalar_one()
            if found > SCHEMA_VERSION:
                raise DependencyDown(
                    "database",
                    f"The state database has schema {found}, newer than this program's {SCHEMA_VERSION}.",
                    person="Upgrade vestibule, or point VESTIBULE_HOME at another folder.",
                )
            if found < SCHEMA_VERSION:
                if found < 5:
                    migrate.to_5(connection)
                # What is missing is made, what is there stays.
                tables.metadata.create_all(connection)
                for index in (index for table in tables.metadata.sorted_tables for index in table.indexes):
                    index.create(connection, checkfirst=True)
                connection.execute(update(tables.schema_version).values(version=SCHEMA_VERSION))


def make_engine(url: str, *, synchronous: str = "FULL", immediate: bool = True) -> Engine:
    """A SQLAlchemy engine with our settings. `immediate=False` for code that begins its own transactions."""
    if not url.startswith("sqlite"):
        # Without a driver's name SQLAlchemy means one that is not installed here.
        for scheme in ("postgresql://", "postgres://"):
            if url.startswith(scheme):
                url = "postgresql+psycopg://" + url.removeprefix(scheme)
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _settings(connection: sqlite3.Connection, _record: object) -> None:
        if immediate:
            connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA synchronous={synchronous}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
        cursor.close()

    if immediate:

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            reads = connection.get_execution_options().get("vestibule_reads")
            connection.execute(text("BEGIN" if reads else "BEGIN IMMEDIATE"))

    return engine


def make_private_folder(path: Path) -> Path:
    """Create `path` (0700) with its parents, or say why not. What is there already must be ours alone to write.

    Raises:
        DependencyDown: `state`: it cannot be made, belongs to another user, or others may write in it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        raise DependencyDown(
            "state",
            f"The state folder {path} cannot be made.",
            fact=error.strerror or "",
            person="Point VESTIBULE_HOME at a folder that this user can write.",
        ) from None
    # Whoever can write here can put rows, keys and repositories of their own in place of ours.
    if found.st_uid != os.geteuid():
        raise DependencyDown(
            "state",
            f"The state folder {path} belongs to another user.",
            fact=f"owner {found.st_uid}, this process is {os.geteuid()}",
            person="Point VESTIBULE_HOME at a folder of this user's own.",
        )
    if found.st_mode & 0o022:
        raise DependencyDown(
            "state",
            f"The state folder {path} can be written by others.",
            fact=f"mode {found.st_mode & 0o7777:04o}",
            person=f"Run `chmod go-w {path}`, after a look at who could have written there.",
        )
    return path
