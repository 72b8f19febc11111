"""A database of an older version: its rows are there afterwards, in the shape of now, and go on counting."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from sqlalchemy import select

from vestibule.core.model import Usage
from vestibule.cost.ledger import Ledger
from vestibule.store import tables
from vestibule.store.database import SCHEMA_VERSION, Database

_OLD = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
INSERT INTO schema_version VALUES (2);
CREATE TABLE budgets (key VARCHAR(128) NOT NULL PRIMARY KEY, limit_nano_usd BIGINT, limit_tokens BIGINT,
  held_nano_usd BIGINT NOT NULL, held_tokens BIGINT NOT NULL, spent_nano_usd BIGINT NOT NULL,
  spent_tokens BIGINT NOT NULL);
CREATE TABLE holds (id VARCHAR(32) NOT NULL PRIMARY KEY, run VARCHAR(32) NOT NULL, day VARCHAR(16) NOT NULL,
  state VARCHAR(16) NOT NULL, time VARCHAR(32) NOT NULL, model VARCHAR(128) NOT NULL, nano_usd BIGINT NOT NULL,
  tokens BIGINT NOT NULL, document TEXT NOT NULL);
CREATE INDEX ix_holds_run ON holds (run);
INSERT INTO budgets VALUES ('run:r1', 100, NULL, 60, 6, 30, 3), ('day:2026-01-02', NULL, NULL, 60, 6, 30, 3);
"""


def old_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(_OLD)
    details = {"agent": "claude", "agent_version": "v1", "role": "docs", "provider": "anthropic", "prices": "sha256:x"}
    used = Usage(requests=1, input_tokens=2, output_tokens=1, cost_nano_usd=30).model_dump(mode="json")
    rows = [
        ("h-done", "settled", 40, 4, {"details": details, "usage": used}),
        ("h-open", "held", 60, 6, {"details": details}),
    ]
    for name, state, nano_usd, tokens, document in rows:
        values = (name, "r1", "2026-01-02", state, "2026-01-02T00:00:00.000Z", "m", nano_usd, tokens)
        connection.execute("INSERT INTO holds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*values, json.dumps(document)))
    connection.commit()
    connection.close()


def test_books_of_an_older_version_go_on(tmp_path: Path) -> None:
    old_database(tmp_path / "state.db")
    db = Database(f"sqlite:///{tmp_path / 'state.db'}")
    with db.read() as connection:
        assert connection.execute(select(tables.schema_version.c.version)).scalar_one() == SCHEMA_VERSION
        holds = {row.id: row for row in connection.execute(select(tables.holds))}
    assert holds["h-done"].agent_version == "v1"
    assert (holds["h-done"].cost_nano_usd, holds["h-open"].cost_nano_usd) == (30, None)
    ledger = Ledger(db)
    assert ledger.usage("r1").cost_nano_usd == 30
    assert ledger.recover("r1") == 1
    standing = ledger.standing("r1")
    assert standing is not None
    assert (standing.held_nano_usd, standing.spent_nano_usd) == (0, 90)


def test_tables_of_an_older_version_become_those_of_a_new_one(tmp_path: Path) -> None:
    old_database(tmp_path / "state.db")
    shapes = []
    for name in ("state.db", "new.db"):
        Database(f"sqlite:///{tmp_path / name}").close()
        connection = sqlite3.connect(tmp_path / name)
        columns = {
            table: {(row[1], row[2], row[3]) for row in connection.execute(f"PRAGMA table_info({table})")}
            for table in ("budgets", "holds")
        }
        indexes = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
        shapes.append((columns, {name for name in indexes if name.startswith("ix_holds")}))
        connection.close()
    assert shapes[0] == shapes[1]
