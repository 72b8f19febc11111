"""A log to test with, and an adversary who can write its database."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vestibule.audit.checkpoint import Checkpoint
from vestibule.audit.database import FILE, SCHEMA
from vestibule.audit.entry import ms_of
from vestibule.audit.keys import HEAD_FILE, KEY_FILE
from vestibule.audit.log import AuditLog
from vestibule.audit.note import SigningKey
from vestibule.audit.report import Verification
from vestibule.audit.tree import CompactRange, leaf_hash
from vestibule.audit.verify import verify
from vestibule.core.canonical import canonical_json
from vestibule.core.model import Event


class FakeClock:
    """Both clocks, moved by hand."""

    def __init__(self, wall_ms: int = 1_800_000_000_000) -> None:
        self.wall = wall_ms
        self.running = 5_000

    def wall_ms(self) -> int:
        return self.wall

    def running_ms(self) -> int:
        return self.running

    def pass_time(self, ms: int) -> None:
        self.wall += ms
        self.running += ms


def event(**changes: Any) -> Event:
    """An allowed read by an agent."""
    fields: dict[str, Any] = {
        "run": "r0",
        "phase": "intent",
        "action": "context.read",
        "resource": "src/a.py",
        "subject": "agent",
        "actor": "spiffe://example.com/run/r0/agent/a",
        "verdict": "allow",
    }
    return Event(**(fields | changes))


def outcome(intent: int, **changes: Any) -> Event:
    return event(phase="outcome", intent=intent, result="ok", **changes)


@dataclass
class Place:
    """A log's folder and the trust folder beside it."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "audit"

    @property
    def trust(self) -> Path:
        return self.root / "trust"

    @property
    def db(self) -> Path:
        return self.folder / FILE

    def open(self, **options: Any) -> AuditLog:
        return AuditLog.open(self.folder, self.trust, **options)

    def key(self) -> SigningKey:
        return SigningKey.parse((self.folder / KEY_FILE).read_text().strip())

    def fill(self, entries: int) -> None:
        """`entries` entries, in intents and outcomes by turns, and a last checkpoint."""
        with self.open() as log:
            for _ in range(entries // 2):
                log.append(outcome(log.append(event()).seq))
            if entries % 2:
                log.append(event(verdict="deny"))

    def verify(self, **options: Any) -> Verification:
        return verify(self.folder, self.trust, **({"remember": False} | options))

    def copy(self) -> Path:
        """The whole audit folder, set aside."""
        target = self.root / "copy"
        shutil.copytree(self.folder, target)
        return target

    def restore(self, copy: Path) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(copy, self.folder)


def rules(result: Verification) -> set[str]:
    return {item.rule for item in result.problems}


@dataclass
class Row:
    """One entry in an adversary's hands."""

    seq: int
    fields: dict[str, Any]
    intent_column: bool = True


class Adversary:
    """Writes the database at will: drops the triggers, changes rows, puts the triggers back."""

    def __init__(self, place: Place) -> None:
        self.place = place

    @contextlib.contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """Without triggers inside, exactly with the schema again afterwards."""
        with contextlib.closing(sqlite3.connect(self.place.db, isolation_level=None)) as connection:
            triggers = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
            for name in triggers:
                connection.execute(f"DROP TRIGGER {name}")
            yield connection
            for statement in SCHEMA:
                if statement.startswith("CREATE TRIGGER"):
                    connection.execute(statement)

    def rewrite(
        self, change: Callable[[list[Row]], None], *, rehash: bool = True, renumber: bool = False, sign: bool = False
    ) -> None:
        """Changes the rows; then computes the tree anew, and signs it with the log's own key, as asked."""
        with self.database() as connection:
            stored = connection.execute("SELECT seq, body, hashes FROM entries ORDER BY seq").fetchall()
            rows = [Row(seq, json.loads(body)) for seq, body, _ in stored]
            old_hashes = {seq: hashes for seq, _, hashes in stored}
            change(rows)
            connection.execute("DELETE FROM entries")
            tree = CompactRange()
            for number, row in enumerate(rows, start=1):
                if renumber:
                    row.seq = row.fields["seq"] = number
                body = canonical_json(row.fields)
                hashes = b"".join(tree.append(leaf_hash(body)))
                if not rehash:
                    hashes = old_hashes[row.seq]
                connection.execute(
                    "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        row.seq,
                        ms_of(row.fields["time"]),
                        row.fields["run"],
                        row.fields["action"],
                        row.fields["phase"],
                        row.fields["intent"] if row.intent_column else None,
                        hashes,
                        body,
                    ),
                )
            if sign:
                key = self.place.key()
                note = Checkpoint(key.name, tree.size, tree.root()).signed(key)
                connection.execute("DELETE FROM checkpoints")
                connection.execute("INSERT INTO checkpoints VALUES (?, ?)", (tree.size, note))
                (self.place.folder / HEAD_FILE).write_text(note)

    def run(self, *statements: str) -> None:
        with self.database() as connection:
            for statement in statements:
                connection.execute(statement)
