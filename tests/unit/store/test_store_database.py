"""The database's long reads and its migrations."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import func, insert, select, text, update

from vestibule.store import tables
from vestibule.store.database import SCHEMA_VERSION, Database


def hold(name: str) -> dict[str, object]:
    return {
        "id": name,
        "run": "r1",
        "day": "2026-01-02",
        "state": "held",
        "time": "2026-01-02T03:04:05.678Z",
        "model": "m",
        "nano_usd": 1,
        "tokens": 1,
        "document": "{}",
    }


def test_a_long_read_sees_one_moment_and_keeps_no_writer_waiting(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'state.db'}")
    count = select(func.count()).select_from(tables.holds)
    with db.write() as connection:
        connection.execute(insert(tables.holds).values(**hold("h-1")))
    with db.read() as reading:
        assert reading.execute(count).scalar_one() == 1
        with db.write() as connection:  # would wait ten seconds and fail behind a writing transaction
            connection.execute(insert(tables.holds).values(**hold("h-2")))
        assert reading.execute(count).scalar_one() == 1
    with db.read() as reading:
        assert reading.execute(count).scalar_one() == 2
    db.close()


def test_an_older_database_gets_the_index_that_reads_by_time_need(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    index = text("SELECT count(*) FROM sqlite_master WHERE type = 'index' AND name = 'ix_holds_time'")
    db = Database(url)
    with db.write() as connection:
        connection.execute(text("DROP INDEX ix_holds_time"))
        connection.execute(update(tables.schema_version).values(version=2))
        connection.execute(insert(tables.holds).values(**hold("h-1")))
    db.close()
    db = Database(url)
    with db.read() as connection:
        assert connection.execute(index).scalar_one() == 1
        assert connection.execute(select(tables.schema_version.c.version)).scalar_one() == SCHEMA_VERSION
        assert connection.execute(select(tables.holds.c.id)).scalar_one() == "h-1"
    db.close()
