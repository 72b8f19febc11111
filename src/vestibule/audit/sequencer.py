"""The sequencer: gives entries their place, keeps the tree, signs heads. One thread at a time; many processes.

Rules it keeps:
1. Place, bytes and tree nodes of an entry are one transaction, begun IMMEDIATE: no forks, no gaps, whoever else writes.
2. Time never goes back unseen: within a second it waits at the last value; beyond that, and for jumps ahead,
   an entry `audit.clock` says so first.
3. An outcome names an earlier intent of its run and action, and an intent gets one outcome.
4. A head is signed only if it extends the last head signed, which is remembered outside the database and is
   durable before the signature leaves (C2SP tlog-checkpoint: never sign what is inconsistent).
5. A log that is shorter than it was, was exchanged, or misses nodes is not written to.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol

from vestibule.audit.checkpoint import Checkpoint
from vestibule.audit.database import FILE, BrokenLog, node_reader, open_writer
from vestibule.audit.entry import Prepared, Unrecordable, prepare, time_of
from vestibule.audit.keys import ensure_key, read_signed_head, write_signed_head
from vestibule.audit.note import SigningKey
from vestibule.audit.tree import (
    EMPTY_ROOT,
    CompactRange,
    consistency_proof,
    leaf_hash,
    range_at,
    root_at,
    verify_consistency,
)
from vestibule.audit.trust import Trust
from vestibule.core.model import Event, Receipt

BACK_MS: Final = 1_000
JUMP_MS: Final = 2_000
_ROWS: Final = 16
"""Rows of one statement: between statements the interpreter's lock changes hands, which costs more than a row."""
_MANY: Final = 65_536
_ENTRY: Final = "INSERT INTO entries (seq, ms, run, action, phase, intent, hashes, body) VALUES"
_OPEN: Final = "INSERT INTO open_intents (seq, run) VALUES"
_CLOSE: Final = "DELETE FROM open_intents WHERE seq IN"


class Clock(Protocol):
    """Two clocks: the wall's, which people set, and one that only runs."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        ...

    def running_ms(self) -> int:
        """Milliseconds since some fixed moment, suspended time included."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def running_ms(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Sequencer:
    """The log's writing end, without threads. Methods raise `sqlite3.Error`, `OSError` or `BrokenLog` when it broke."""

    def __init__(
        self, folder: Path, trust: Trust, *, trust_domain: str, clock: Clock | None = None, busy_ms: int = 10_000
    ) -> None:
        self.folder = folder
        self.key: SigningKey = ensure_key(folder, trust, trust_domain=trust_domain)
        self._clock: Clock = clock or SystemClock()
        self._anchor: tuple[int, int] | None = None
        self._path = folder / FILE
        self._connection = open_writer(self._path, busy_ms=busy_ms)
        try:
            self._file = self._identity()
            self._read = node_reader(self._connection)
            self._range = CompactRange()
            self._last_ms = 0
            self._open: dict[int, tuple[str, str]] = {}
            """Run and action of intents of this process without outcome. Exact: forgotten when others append."""
            # Heads before the snapshot: what others append and sign meanwhile must not look like a rollback.
            signed = read_signed_head(folder, self.key)
            remembered = trust.head(self.key.verifier)
            self._connection.execute("BEGIN")
            self._catch_up()
            self._check_extends(signed)
            if remembered is not None:
                self._check_extends(remembered)
            self.sealed = signed.size
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.close()
            raise

    @property
    def size(self) -> int:
        """Entries when this process last looked."""
        return self._range.size

    @property
    def root(self) -> bytes:
        return self._range.root()

    def append(self, batch: Sequence[Prepared]) -> list[Receipt | Unrecordable]:
        """Makes a batch durable in one transaction. An entry that breaks rule 3 gets its error; the others stand."""
        self._begin()
        try:
            answers = self._append(batch)
            self._connection.execute("COMMIT")
        except BaseException:
            self._rollback()
            raise
        return answers

    def seal(self) -> str:
        """A signed checkpoint of everything durable, as a note. The stored one, when nothing was added since."""
        self._begin()
        try:
            stored = self._connection.execute(
                "SELECT size, note FROM checkpoints ORDER BY size DESC LIMIT 1"
            ).fetchone()
            if stored is not None and stored[0] == self.size:
                self._connection.execute("ROLLBACK")
                self.sealed = self.size
                return str(stored[1])
            head = Checkpoint(self.key.name, self.size, self.root)
            self._check_extends(read_signed_head(self.folder, self.key))
            note = head.signed(self.key)
            if self.size:
                write_signed_head(self.folder, note)
                self._connection.execute("INSERT INTO checkpoints (size, note) VALUES (?, ?)", (self.size, note))
            self._connection.execute("COMMIT")
            self.sealed = self.size
        except BaseException:
            self._rollback()
            raise
        return note

    def close(self) -> None:
        self._connection.close()

    def _begin(self) -> None:
        if self._identity() != self._file:
            raise BrokenLog("the log's file was exchanged")
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._catch_up()
        except BaseException:
            self._rollback()
            raise

    def _catch_up(self) -> None:
        """Takes in what other processes appended."""
        row = self._connection.execute("SELECT seq, ms FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
        size, last_ms = (int(row[0]), int(row[1])) if row else (0, 0)
        if size < self.size:
            raise BrokenLog(f"the log got shorter: it had {self.size} entries and has {size}")
        if size > self.size:
            self._range = range_at(size, self._read)
            self._open.clear()
        self._last_ms = last_ms

    def _append(self, batch: Sequence[Prepared]) -> list[Receipt | Unrecordable]:
        tree = self._range.copy()
        values: list[int | str | bytes | None] = []
        opened: dict[int, tuple[str, str]] = {}
        closed: set[int] = set()
        now, notices = self._now()
        moment = time_of(now)
        answers: list[Receipt | Unrecordable] = []
        for number, item in enumerate([*notices, *batch]):
            event = item.event
            intent = event.intent
            if intent is not None:
                refused = self._check_outcome(item, intent, closed)
                if refused is not None:
                    answers.append(refused)
                    continue
                closed.add(intent)
            seq = tree.size + 1
            body = item.entry(seq, moment)
            hashes = b"".join(tree.append(leaf_hash(body)))
            values += (seq, now, item.run, item.action, event.phase, intent, hashes, body)
            if event.phase == "intent" and event.verdict is not None and event.verdict.value == "allow":
                opened[seq] = (item.run, item.action)
            if number >= len(notices):
                answers.append(Receipt(seq=seq, time=moment))
        self._write(_ENTRY, 8, values)
        self._write(_OPEN, 2, [value for seq, (run, _) in opened.items() for value in (seq, run)])
        self._write(_CLOSE, 0, list(closed))
        # The log is given up when the commit fails, so the tree may run ahead of it here.
        self._range, self._last_ms = tree, now
        self._remember(opened, closed)
        return answers

    def _write(self, head: str, columns: int, values: Sequence[int | str | bytes | None]) -> None:
        """`values` as rows of so many columns each; 0 columns: as one list."""
        step = _ROWS * (columns or 1)
        for start in range(0, len(values), step):
            part = values[start : start + step]
            self._connection.execute(_statement(head, columns, len(part)), part)

    def _remember(self, opened: dict[int, tuple[str, str]], closed: set[int]) -> None:
        for seq in closed:
            self._open.pop(seq, None)
        if len(self._open) > _MANY:
            self._open.clear()
        self._open.update(opened)

    def _check_outcome(self, item: Prepared, intent: int, closed: set[int]) -> Unrecordable | None:
        if self._open.get(intent) == (item.run, item.action) and intent not in closed:
            return None
        row = self._connection.execute("SELECT run, action, phase FROM entries WHERE seq = ?", (intent,)).fetchone()
        if row is None or row != (item.run, item.action, "intent"):
            return Unrecordable(f"entry {intent} is no intent of this run and action")
        done = self._connection.execute("SELECT 1 FROM entries WHERE intent = ?", (intent,)).fetchone()
        if done is not None or intent in closed:
            return OutcomeExists(f"intent {intent} already has its outcome")
        return None

    def _now(self) -> tuple[int, list[Prepared]]:
        """The time of this batch, and entries about jumps of the clock to write before it."""
        wall, running = self._clock.wall_ms(), self._clock.running_ms()
        jump = 0
        if self._anchor is not None:
            jump = (wall - self._anchor[0]) - (running - self._anchor[1])
        self._anchor = (wall, running)
        back = self._last_ms - wall
        if back > BACK_MS or abs(jump) > JUMP_MS:
            return wall if back > BACK_MS else max(wall, self._last_ms), [clock_event(self._last_ms, wall, jump)]
        return max(wall, self._last_ms), []

    def _check_extends(self, old: Checkpoint) -> None:
        """Raises `BrokenLog` unless the log is an extension of `old`, by the stored nodes."""
        if old.size > self.size:
            raise BrokenLog(f"the log has {self.size} entries, but {old.size} were signed: it was cut or rolled back")
        if old.size == 0:
            consistent = old.root == EMPTY_ROOT
        else:
            proof = consistency_proof(old.size, self.size, self._read)
            consistent = root_at(self.size, self._read) == self.root and verify_consistency(
                old.size, self.size, old.root, self.root, proof
            )
        if not consistent:
            raise BrokenLog(f"the log is not an extension of the head signed at {old.size} entries: it was changed")

    def _identity(self) -> tuple[int, int]:
        found = self._path.stat()
        return found.st_dev, found.st_ino

    def _rollback(self) -> None:
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                return  # the log is given up anyway, and the first error says why


@lru_cache(maxsize=3 * _ROWS)
def _statement(head: str, columns: int, values: int) -> str:
    if columns == 0:
        return f"{head} ({', '.join('?' * values)})"
    row = f"({', '.join('?' * columns)})"
    return f"{head} {', '.join([row] * (values // columns))}"


class OutcomeExists(Unrecordable):
    """The intent is closed already."""


def clock_event(last_ms: int, wall_ms: int, jump_ms: int) -> Prepared:
    """The entry that makes a jump of the clock visible. Times in RFC 3339, the jump in milliseconds."""
    return prepare(
        Event(
            run="",
            phase="intent",
            action="audit.clock",
            resource="",
            subject="system",
            actor="vestibule",
            details={"last": time_of(last_ms), "now": time_of(wall_ms), "jump_ms": jump_ms},
        )
    )
