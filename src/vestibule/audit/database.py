"""The log's SQLite file: its schema, how it is opened, and its Merkle nodes.

Rules it keeps:
1. WAL and `synchronous=FULL`: a commit that returned survives a crash and a power cut.
2. Rows are only ever inserted: triggers forbid UPDATE and DELETE, and a row that is not the next one.
   Triggers are a tripwire, not the proof; the proof is the signed tree.
3. The schema must be exactly ours, so that neither a dropped trigger nor a view in a table's place goes unseen.

A row's `hashes` are the nodes its leaf completes, from level 0 up: node `(level, index)` is bytes
`32 * level` onwards of the row with `seq = (index + 1) << level`. No other table is needed for proofs.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote

from vestibule.audit.tree import HASH_SIZE, NodeReader
from vestibule.audit.trust import locked

FILE: Final = "log.db"
MAX_VALUE: Final = 8 << 20
"""Bytes of the largest value a reader takes; ours are far smaller."""
APPLICATION_ID: Final = 0x56455354  # "VEST"

SCHEMA: Final = (
    """CREATE TABLE entries (
    seq INTEGER PRIMARY KEY,
    ms INTEGER NOT NULL,
    run TEXT NOT NULL,
    action TEXT NOT NULL,
    phase TEXT NOT NULL,
    intent INTEGER,
    hashes BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT""",
    "CREATE INDEX entries_by_run ON entries (run, seq)",
    "CREATE UNIQUE INDEX one_outcome ON entries (intent) WHERE intent IS NOT NULL",
    """CREATE TABLE checkpoints (
    size INTEGER PRIMARY KEY,
    note TEXT NOT NULL
) STRICT""",
    # A cache for `reconcile`, not evidence: what it says can be worked out from the entries.
    """CREATE TABLE open_intents (
    seq INTEGER PRIMARY KEY,
    run TEXT NOT NULL
) STRICT""",
    """CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
    """CREATE TRIGGER entries_no_delete BEFORE DELETE ON entries
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
    # Also stops INSERT OR REPLACE, which deletes without a DELETE trigger.
    """CREATE TRIGGER entries_next BEFORE INSERT ON entries
WHEN NEW.seq IS NOT (SELECT ifnull(max(seq), 0) + 1 FROM entries)
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
    """CREATE TRIGGER checkpoints_no_update BEFORE UPDATE ON checkpoints
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
    """CREATE TRIGGER checkpoints_no_delete BEFORE DELETE ON checkpoints
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
    """CREATE TRIGGER checkpoints_next BEFORE INSERT ON checkpoints
WHEN NEW.size <= (SELECT ifnull(max(size), 0) FROM checkpoints)
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
)


class BrokenLog(Exception):
    """The file is not a log of ours, or not the one it was."""


def open_writer(path: Path, *, busy_ms: int) -> sqlite3.Connection:
    """Opens the log for appending; makes it when it does not exist.

    Raises:
        sqlite3.Error, BrokenLog, OSError: it cannot be used.
    """
    deadline = time.monotonic() + busy_ms / 1000
    # SQLite's own waiting does not cover the change to WAL, nor the moment when a last user leaves.
    with locked(path.with_name(".lock")):
        while True:
            try:
                return _open(path, busy_ms)
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() >= deadline:
                    raise
            time.sleep(0.005)


def _open(path: Path, busy_ms: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=busy_ms / 1000, isolation_level=None, check_same_thread=False)
    try:
        _harden(connection)
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != ("wal",):
            raise BrokenLog("the file system does not allow a write-ahead log")
        connection.execute("PRAGMA synchronous=FULL")
        if not _schema(connection):
            _create(connection)
        check_schema(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path, *, busy_ms: int = 5_000) -> sqlite3.Connection:
    """Opens the log for reading; never writes to the file. The caller begins and ends transactions.

    Raises:
        sqlite3.Error, BrokenLog: it cannot be read.
    """
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=busy_ms / 1000, isolation_level=None, check_same_thread=False)
    try:
        _harden(connection)
        connection.execute("PRAGMA query_only=ON")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
        connection.execute("BEGIN")
        check_schema(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def check_schema(connection: sqlite3.Connection) -> None:
    """Raises `BrokenLog` unless the schema is exactly ours."""
    if _schema(connection) != set(SCHEMA):
        raise BrokenLog("the log's schema is not the one it was made with")


def node_reader(connection: sqlite3.Connection) -> NodeReader:
    """Reads stored nodes. The reader raises `BrokenLog` for one that is missing."""

    def read(level: int, index: int) -> bytes:
        row = connection.execute(
            "SELECT substr(hashes, ?, ?) FROM entries WHERE seq = ?",
            (level * HASH_SIZE + 1, HASH_SIZE, (index + 1) << level),
        ).fetchone()
        if row is None or len(row[0]) != HASH_SIZE:
            raise BrokenLog(f"node {index} of level {level} is missing")
        return bytes(row[0])

    return read


def _harden(connection: sqlite3.Connection) -> None:
    # sqlite.org/security.html: for files an adversary may have written.
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")


def _schema(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {str(row[0]) for row in rows}


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _schema(connection):  # another process may have been first
            for statement in SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
