"""The audit log's writing end: an `AuditSink` with group commit.

Rules it keeps:
1. A receipt exists only after the commit that made its entry durable.
2. Whatever breaks (disk full, locked, corrupted, read-only, exchanged, closed, forked process), the futures at hand and
   all later ones fail with `DependencyDown("audit")` until the log is opened anew. Nothing is retried.
3. A signed checkpoint follows within 256 entries or one second, and at close.
4. An intent is written at once. An outcome, which no effect waits for, may wait some milliseconds for the next intent
   and share its commit; an intent whose outcome a kill took away meanwhile is closed as unknown by the reconciler.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import sqlite3
import threading
import time
import weakref
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from vestibule.audit.checkpoint import Checkpoint, peek
from vestibule.audit.database import FILE, BrokenLog, open_reader
from vestibule.audit.entry import Entry, Prepared, Unrecordable, as_entry, parse_entry, prepare
from vestibule.audit.keys import audit_down
from vestibule.audit.note import BadNote
from vestibule.audit.sequencer import Clock, OutcomeExists, Sequencer
from vestibule.audit.trust import Trust, TrustError
from vestibule.core.errors import DependencyDown
from vestibule.core.model import Event, Receipt
from vestibule.core.pending import Pending, answer_all

SEAL_EVERY: Final = 256
SEAL_SECONDS: Final = 1.0
MAX_BATCH: Final = 512
LINGER_SECONDS: Final = 0.005
"""How long outcomes wait for company before they are committed by themselves."""


@dataclass(slots=True)
class _Append:
    prepared: Prepared
    future: Pending[Receipt]


@dataclass(frozen=True, slots=True)
class _Seal:
    future: Future[str]


@dataclass(frozen=True, slots=True)
class _Stop:
    pass


@dataclass(frozen=True, slots=True)
class _Look:
    """There are outcomes, and the writer would sleep on."""


_Work = _Append | _Seal | _Look | _Stop


class AuditLog:
    """The log of one folder, for one process. Thread-safe. Other processes may have the same log open."""

    def __init__(self, sequencer: Sequencer) -> None:
        """Use `AuditLog.open`."""
        self._sequencer = sequencer
        self._queue: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._later: list[_Append] = []
        """Outcomes that the writer takes along with the next intent, or within `LINGER_SECONDS` of its last look."""
        self._looks_soon = False
        self._lock = threading.Lock()
        self._broken: DependencyDown | None = None
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._work, name="vestibule-audit", daemon=True)
        self._thread.start()
        reference = weakref.ref(self)
        atexit.register(_close_at_exit, reference)

    @classmethod
    def open(
        cls,
        folder: Path,
        trust: Path,
        *,
        trust_domain: str = "vestibule.local",
        clock: Clock | None = None,
        busy_ms: int = 10_000,
    ) -> AuditLog:
        """Opens the log in `folder` (`$VESTIBULE_HOME/audit`), made on first use with its key pinned in `trust`.

        Args:
            busy_ms: how long another process may hold the file before that counts as broken.

        Raises:
            DependencyDown: `audit`: it cannot be used, or is not the log that was last signed.
        """
        try:
            return cls(Sequencer(folder, Trust(trust), trust_domain=trust_domain, clock=clock, busy_ms=busy_ms))
        except (sqlite3.Error, OSError, BrokenLog, TrustError) as error:
            raise down(error, folder) from None

    @property
    def folder(self) -> Path:
        return self._sequencer.folder

    @property
    def origin(self) -> str:
        """The log's name, also the name of its key."""
        return self._sequencer.key.name

    @property
    def vkey(self) -> str:
        """The verifying key in text form, for `--key` elsewhere."""
        return self._sequencer.key.verifier.text()

    def submit(self, event: Event) -> Future[Receipt]:
        """Resolves when the entry is durable.

        Fails with `DependencyDown("audit")`: the log is broken or closed (then for every later call too), or this event
        cannot be recorded (floats, an outcome without or with a closed intent; then for this event only).
        """
        future: Pending[Receipt] = Pending()
        try:
            prepared = prepare(event)
        except Unrecordable as error:
            future.set_exception(_unrecordable(error))
            return future
        self._put(_Append(prepared, future), future, later=event.phase == "outcome")
        return future

    def append(self, event: Event) -> Receipt:
        """`submit`, waited for."""
        return self.submit(event).result()

    def checkpoint(self) -> str:
        """A signed checkpoint (C2SP note) of all entries that were durable before the call. Waits.

        Raises:
            DependencyDown: `audit`.
        """
        future: Future[str] = Future()
        self._put(_Seal(future), future)
        return future.result()

    def head(self) -> Checkpoint:
        """Origin, size and root of a fresh checkpoint; `head().trailer()` is the merge trailer's value.

        Raises:
            DependencyDown: `audit`.
        """
        return peek(self.checkpoint())

    def entries(self, run: str | None = None, after: int = 0) -> Iterator[Entry]:
        """Entries in order, of one run or all, with `seq > after`, as they were durable when iteration began.

        Raises:
            DependencyDown: `audit`: unreadable, or an entry is malformed.
        """
        return read_entries(self.folder, run, after)

    def reconcile(self, live_runs: Collection[str] = ()) -> list[Receipt]:
        """Closes allowed intents without outcome, of runs that are not alive, with `result: unknown`. Idempotent.

        Raises:
            DependencyDown: `audit`.
        """
        waiting: list[Future[Receipt]] = []
        for intent in open_intents(self.folder):
            if intent.event.run in live_runs:
                continue
            update = {
                "phase": "outcome",
                "intent": intent.seq,
                "result": "unknown",
                "subject": "system",
                "actor": "vestibule",
                "details": {"closed_by": "reconcile"},
            }
            waiting.append(self.submit(intent.event.model_copy(update=update)))
        receipts = []
        for future in waiting:
            error = future.exception()
            if error is None:
                receipts.append(future.result())
            elif not isinstance(error.__cause__, OutcomeExists):
                raise error
        return receipts

    def close(self) -> None:
        """Writes what was submitted, signs a last checkpoint, lets go of the file. Idempotent."""
        with self._lock:
            first = self._broken is None
            if first:
                self._broken = audit_down("The audit log is closed.")
                self._queue.put(_Stop())
        if self._pid == os.getpid():
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, work: _Work, future: Future[Receipt] | Future[str], *, later: bool = False) -> None:
        # The lock orders this against the writer's end: nothing is queued that nobody will take.
        with self._lock:
            broken = self._broken
            if broken is None and self._pid != os.getpid():
                broken = audit_down("The audit log was opened by another process and cannot be used after a fork.")
            if broken is None and later and isinstance(work, _Append):
                self._later.append(work)
                if not self._looks_soon:
                    self._looks_soon = True
                    self._queue.put(_Look())
            elif broken is None:
                self._queue.put(work)
        if broken is not None:
            future.set_exception(broken)

    def _work(self) -> None:
        """The writer thread."""
        batch: list[_Append] = []
        stop = False
        sealed_at = time.monotonic()
        try:
            while not stop:
                batch, seals, stop = self._take(sealed_at)
                if batch:
                    self._write(batch)
                    batch = []
                unsealed = self._sequencer.size - self._sequencer.sealed
                due = unsealed >= SEAL_EVERY or (unsealed > 0 and time.monotonic() - sealed_at >= SEAL_SECONDS)
                if seals or due or stop:  # at the end also what another process left unsealed
                    self._seal(seals)
                    sealed_at = time.monotonic()
        except (sqlite3.Error, OSError, BrokenLog, BadNote, DependencyDown) as error:
            self._give_up(down(error, self.folder), batch)
        except BaseException as error:
            self._give_up(audit_down("The audit log's writer failed.", fact=type(error).__name__), batch)
            raise
        finally:
            self._sequencer.close()

    def _take(self, sealed_at: float) -> tuple[list[_Append], list[_Seal], bool]:
        """Waits for work, then takes all there is, up to a batch."""
        batch: list[_Append] = []
        seals: list[_Seal] = []
        stop = False
        timeout = LINGER_SECONDS if self._looks_soon else None
        if timeout is None and self._sequencer.size > self._sequencer.sealed:
            timeout = max(0.0, sealed_at + SEAL_SECONDS - time.monotonic())
        try:
            work = self._queue.get(timeout=timeout)
            if isinstance(work, _Look):  # outcomes only: an intent may follow at once, and takes them along
                work = self._queue.get(timeout=LINGER_SECONDS)
            while True:
                if isinstance(work, _Stop):
                    stop = True
                    break
                if isinstance(work, _Seal):
                    seals.append(work)
                elif isinstance(work, _Append) and work.future.set_running_or_notify_cancel():
                    batch.append(work)
                if len(batch) >= MAX_BATCH:
                    break
                work = self._queue.get_nowait()
        except queue.Empty:
            pass
        with self._lock:
            outcomes, self._later = self._later, []
            # After intents their outcomes are near. With nothing at hand, whoever brings one says so.
            self._looks_soon = bool(batch or outcomes) and not stop
        # An outcome goes before what came after it; nothing in a batch can refer to another entry of it.
        taken = [item for item in outcomes if item.future.set_running_or_notify_cancel()]
        return [*taken, *batch], seals, stop

    def _write(self, batch: list[_Append]) -> None:
        answers = self._sequencer.append([item.prepared for item in batch])
        answer_all(
            (item.future, None, _unrecordable(answer))
            if isinstance(answer, Unrecordable)
            else (item.future, answer, None)
            for item, answer in zip(batch, answers, strict=True)
        )

    def _seal(self, seals: list[_Seal]) -> None:
        try:
            note = self._sequencer.seal()
        except BaseException as error:
            broken = error if isinstance(error, DependencyDown) else down(error, self.folder)
            for item in seals:
                item.future.set_exception(broken)
            raise
        for item in seals:
            item.future.set_result(note)

    def _give_up(self, broken: DependencyDown, batch: list[_Append]) -> None:
        with self._lock:
            self._broken = broken
            later, self._later = self._later, []
        for item in [*batch, *later]:
            if not item.future.done() and not item.future.cancelled():
                item.future.set_exception(broken)
        with contextlib.suppress(queue.Empty):
            while True:
                work = self._queue.get_nowait()
                if isinstance(work, (_Append, _Seal)) and work.future.set_running_or_notify_cancel():
                    work.future.set_exception(broken)


def read_entries(folder: Path, run: str | None = None, after: int = 0) -> Iterator[Entry]:
    """Entries of the log in `folder`, read without opening it for writing. Raises `DependencyDown("audit")`."""
    query, parameters = "SELECT seq, body FROM entries WHERE seq > ?", [after]
    if run is not None:
        return _read(folder, f"{query} AND run = ? ORDER BY seq", (*parameters, run))
    return _read(folder, f"{query} ORDER BY seq", tuple(parameters))


def open_intents(folder: Path) -> Iterator[Entry]:
    """Allowed intents without outcome. Raises `DependencyDown("audit")`."""
    query = "SELECT seq, body FROM entries WHERE seq IN (SELECT seq FROM open_intents) ORDER BY seq"
    return _read(folder, query, ())


def count_decisions(folder: Path) -> dict[str, dict[str, int]]:
    """How the agents' own intents were decided: run → verdict → number. One pass over the log, nothing is parsed here.

    Raises:
        DependencyDown: `audit`.
    """
    body = "CAST(body AS TEXT)"
    query = (
        f"SELECT run, json_extract({body}, '$.verdict') AS verdict, count(*) FROM entries "  # noqa: S608 constants
        f"WHERE phase = 'intent' AND json_extract({body}, '$.subject') = 'agent' AND verdict IS NOT NULL "
        "GROUP BY run, verdict"
    )
    found: dict[str, dict[str, int]] = {}
    try:
        with contextlib.closing(open_reader(folder / FILE)) as connection:
            for run, verdict, count in connection.execute(query):
                found.setdefault(run, {})[str(verdict)] = count
    except (sqlite3.Error, OSError, BrokenLog) as error:
        raise down(error, folder) from None
    return found


def _read(folder: Path, query: str, parameters: tuple[object, ...]) -> Iterator[Entry]:
    seq = 0
    try:
        with contextlib.closing(open_reader(folder / FILE)) as connection:
            for seq, body in connection.execute(query, parameters):
                fields = parse_entry(body)
                if fields["seq"] != seq:
                    raise ValueError("it bears another number than its place")
                yield as_entry(fields)
    except ValueError as error:
        raise audit_down(
            f"Entry {seq} of the audit log is malformed.", fact=str(error), person="Run `vestibule audit verify`."
        ) from None
    except (sqlite3.Error, OSError, BrokenLog) as error:
        raise down(error, folder) from None


def down(error: BaseException, folder: Path) -> DependencyDown:
    """The refusal behind what broke, in words a person can act on."""
    if isinstance(error, DependencyDown):
        return error
    text = str(error).lower()
    if isinstance(error, BrokenLog):
        reason, person = (
            "The audit log is not the log it was.",
            "Run `vestibule audit verify` and look into what it says.",
        )
    elif "full" in text or getattr(error, "errno", None) == 28:
        reason, person = "The audit log cannot grow: the disk is full.", "Free space on the disk that holds it."
    elif "locked" in text or "busy" in text:
        reason, person = "The audit log is locked by another program.", "Find out what holds it, and stop that."
    elif "readonly" in text or "read-only" in text or "unable to open" in text:
        reason, person = "The audit log cannot be written.", "Make its folder writable for the user that runs this."
    elif "malformed" in text or "not a database" in text or "corrupt" in text:
        reason, person = (
            "The audit log's file is damaged.",
            "Restore it from a copy, then run `vestibule audit verify`.",
        )
    else:
        reason, person = "The audit log cannot be used.", "Repair its folder, then run this again."
    return audit_down(reason, fact=f"{folder}: {error}", person=person)


def _unrecordable(error: Unrecordable) -> DependencyDown:
    refused = audit_down(
        "This event cannot be recorded.", fact=str(error), person="Report this: no event should be so."
    )
    refused.__cause__ = error
    return refused


def _close_at_exit(reference: weakref.ref[AuditLog]) -> None:
    log = reference()
    if log is not None:
        log.close()
