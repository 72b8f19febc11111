"""One thread, one queue, one transaction for all that waits: what is asked of the books becomes durable together.

Rules it keeps:
1. A future resolves only after the commit that made its work durable.
2. A `Refused` of one piece of work is its own: by the books' promise it wrote nothing, and the others go on.
3. Whatever else breaks fails the whole batch with `DependencyDown("database")`; nothing of it is in the books. The next
   batch begins with a fresh connection.
4. Ends of holds go before new holds: what they give back is there for those who wait beside them. Nothing in a batch
   can refer to another piece of work of it.
5. A process that was forked from the one that started the thread is refused.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar, overload

from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.pending import Pending, answer_all
from vestibule.cost.books import Books, Close, Hold

T = TypeVar("T")
MAX_BATCH: Final = 256
STOP_SECONDS: Final = 15.0
COMPANY: Final = 4
"""Batches of at least so many are worth waiting for the next."""
LINGER_SECONDS: Final = 0.0002

Work = Hold | Close | Callable[[Books], Any]
_Item = tuple[Work, "Pending[Any]"]
_Answer = tuple["Pending[Any]", Any, Refused | None]


class Writer:
    """Starts with the first piece of work. Thread-safe."""

    def __init__(self, books: Books) -> None:
        self._inbox = _Inbox()
        self._books = books
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pid = 0
        # The thread knows the inbox and the books only, so that a writer that nobody holds any more ends it.
        self._end = weakref.finalize(self, self._inbox.stop)

    @overload
    def submit(self, work: Hold) -> Future[str]: ...
    @overload
    def submit(self, work: Close) -> Future[None]: ...
    @overload
    def submit(self, work: Callable[[Books], T]) -> Future[T]: ...
    def submit(self, work: Work) -> Future[Any]:
        """What `work` gives, once it is durable; fails with `Refused`, or `DependencyDown` (`database`)."""
        future: Pending[Any] = Pending()
        if self._thread is None or self._pid != os.getpid():
            down = self._start()
            if down is not None:
                future.set_exception(down)
                return future
        if not self._inbox.put((work, future)):
            future.set_exception(_down("The ledger is closed."))
        return future

    def close(self) -> None:
        """What was submitted is written first. Idempotent."""
        self._end()
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join(STOP_SECONDS)

    def _start(self) -> DependencyDown | None:
        with self._lock:
            if self._thread is None:
                self._pid = os.getpid()
                self._thread = threading.Thread(
                    target=_work, args=(self._inbox, self._books), name="vestibule-ledger", daemon=True
                )
                self._inbox.thread = self._thread
                self._thread.start()
            if self._pid != os.getpid():
                return _down("The ledger was opened by another process and cannot be used after a fork.")
        return None


class _Inbox:
    """What waits. Closed once; what was put before is taken."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None
        self._closed = False
        self._lock = threading.Lock()

    def put(self, item: _Item) -> bool:
        # The lock orders this against the end: nothing is queued that nobody will take.
        with self._lock:
            if self._closed:
                return False
            self.queue.put(item)
            return True

    def stop(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self.queue.put(None)
        # At the interpreter's end threads of this kind are not waited for otherwise.
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join(STOP_SECONDS)


def _work(inbox: _Inbox, books: Books) -> None:
    """The writer thread."""
    waiting = inbox.queue
    before = 0
    while True:
        batch: list[_Item] = []
        stop = False
        item = waiting.get()
        if before >= COMPANY:
            # Those whom the last commit answered, and others beside them, are about to ask again.
            time.sleep(LINGER_SECONDS)
        try:
            while True:
                if item is None:
                    stop = True
                    break
                if item[1].set_running_or_notify_cancel():
                    batch.append(item)
                if len(batch) >= MAX_BATCH:
                    break
                item = waiting.get_nowait()
        except queue.Empty:
            pass
        before = len(batch)
        if batch:
            _write(books, batch)
        del item, batch  # an answer is not kept alive by the one who waits for the next
        if stop:
            books.abandon()
            return


def _write(books: Books, batch: list[_Item]) -> None:
    done: list[_Answer] = []
    try:
        books.begin()
        others = [item for item in batch if not isinstance(item[0], Close)]
        _carry_out(books, [item for item in batch if isinstance(item[0], Close)], done)
        books.take_together([work for work, _ in others if isinstance(work, Hold)])
        _carry_out(books, others, done)
        books.commit()
    except BaseException as error:  # noqa: BLE001 whatever broke: nothing of the batch is known to be in the books
        failure = _down("The state database cannot be used.", error)
        _abandon(books)
        done = [(future, None, failure) for _, future in batch]
    answer_all(done)


def _carry_out(books: Books, items: list[_Item], done: list[_Answer]) -> None:
    for work, future in items:
        value: Any = None
        try:
            if isinstance(work, Hold):
                value = books.hold(work)
            elif isinstance(work, Close):
                books.close(work)
            else:
                value = work(books)
            done.append((future, value, None))
        except Refused as error:
            done.append((future, None, error))


def _abandon(books: Books) -> None:
    # It is broken already, and a new connection is made for the next batch.
    with contextlib.suppress(Exception):
        books.abandon()


def _down(what: str, error: BaseException | None = None) -> DependencyDown:
    return DependencyDown(
        "database",
        what,
        fact=f"{type(error).__name__}: {error}"[:300] if error is not None else "",
        person="Check that its disk has room, that it is readable, and that no other program locks it.",
    )
