"""A future that a writer's thread (the log's, the ledger's) answers with many others at once, and cheaply.

Rules it keeps:
1. It is a `concurrent.futures.Future` to whoever blocks on it, cancels it or waits for several: then it makes its
   condition, and all goes the ordinary way. Who awaits it in an event loop (`core.crossing.durable`) needs none.
2. It is answered once. What is asked of it between answers of a batch sees either all of its answer or nothing.
3. An event loop is woken once for all that a batch answers in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

T = TypeVar("T")
_WAITING: Final = ("PENDING", "RUNNING")
_lock = threading.Lock()
"""Orders the making of a condition against answers. Held for some assignments, never while anything waits."""


def _renew() -> None:
    # Another thread may have held it when the process was forked.
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew)


class Pending(Future[T]):
    """A future whose condition is made when it is needed."""

    _done_callbacks: list[Callable[[Future[T]], object]]

    def __init__(self) -> None:
        # Not the base's: the condition is what it costs.
        self._state = "PENDING"
        self._result = None
        self._exception = None
        self._waiters = []
        self._done_callbacks = []
        self._made: threading.Condition | None = None

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        with _lock:
            if self._made is None:
                self._made = threading.Condition()
            return self._made

    def done(self) -> bool:
        return self._state not in _WAITING

    def result(self, timeout: float | None = None) -> T:
        if self._state == "FINISHED" and self._exception is None:
            return self._result  # type: ignore[return-value]
        return super().result(timeout)

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        with _lock:
            if self._made is None and self._state in _WAITING:
                self._done_callbacks.append(fn)
                return
        super().add_done_callback(fn)

    def set_running_or_notify_cancel(self) -> bool:
        with _lock:
            if self._made is None and self._state == "PENDING":
                self._state = "RUNNING"
                return True
        return super().set_running_or_notify_cancel()

    def _take(self, value: T | None, error: BaseException | None) -> Iterable[Callable[[Future[T]], object]]:
        """Be answered. Gives the callbacks that are still to be called."""
        with _lock:
            if self._made is None and self._state in _WAITING:
                self._result, self._exception = value, error
                self._state = "FINISHED"
                return self._done_callbacks
        if error is None:
            self.set_result(value)  # type: ignore[arg-type]
        else:
            self.set_exception(error)
        return ()


class Wake:
    """The callback of one who awaits in an event loop."""

    __slots__ = ("loop", "waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[None]) -> None:
        self.loop = loop
        self.waiter = waiter

    def __call__(self, _: Future[Any]) -> None:
        _wake(self.loop, [self.waiter])


def answer_all(answers: Iterable[tuple[Pending[Any], Any, BaseException | None]]) -> None:
    """Answers futures, each with a value or an error, and wakes those who await them."""
    waking: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for future, value, error in answers:
        for callback in future._take(value, error):
            if type(callback) is Wake:
                waking.setdefault(callback.loop, []).append(callback.waiter)
            else:
                Future.add_done_callback(future, callback)  # it is done: called at once, what it raises is logged
    for loop, waiters in waking.items():
        _wake(loop, waiters)


def _wake(loop: asyncio.AbstractEventLoop, waiters: list[asyncio.Future[None]]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(_written, waiters)


def _written(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
