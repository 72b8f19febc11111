"""Runs decisions on a thread of its own, so that a policy that does not end cannot hold a crossing open.

The engine cannot be interrupted: after a time-out its thread is left to itself and a new one takes over. While
`MAX_STUCK` threads are stuck, every question fails at once (and is denied): a policy that hangs again and again
must not use up the machine. A thread that ends after all makes room again.

Its expressions recurse with every character that they look at (libstdc++'s `std::regex`), and a stack that is used up
ends the process: the thread has `STACK_BYTES`, and `engine` bounds what such expressions are given.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from vestibule.policy.engine import EngineError

P = TypeVar("P")
MAX_STUCK = 3
STACK_BYTES = 512 << 20
"""Address space; memory is taken as the stack grows."""
_starting = threading.Lock()


class _Ticket:
    """One question and, once `answered` is released, its answer. A future costs three times as much."""

    __slots__ = ("answered", "error", "question", "value")

    def __init__(self, question: Callable[[Any], Any]) -> None:
        self.question = question
        self.value: Any = None
        self.error: Exception | None = None
        self.answered = threading.Lock()
        self.answered.acquire()


class Worker(Generic[P]):
    """Owns what `build` makes; every use of it happens on the worker's thread."""

    def __init__(self, build: Callable[[], P], *, timeout_seconds: float) -> None:
        self._build = build
        self._timeout = timeout_seconds
        self._lock = threading.Lock()
        self._closed = False
        self._stuck: set[queue.SimpleQueue[Any]] = set()
        self._tasks: queue.SimpleQueue[Any] | None = None

    def ask(self, question: Callable[[P], Any]) -> Any:
        """`question(program)`, computed on the worker.

        Raises:
            EngineError: too slow, closed, or too many earlier questions are stuck.
        """
        ticket = _Ticket(question)
        with self._lock:
            if self._closed or len(self._stuck) >= MAX_STUCK:
                raise EngineError("the policy engine is stopped")
            if self._tasks is None:
                self._tasks = self._start()
            tasks = self._tasks
            tasks.put(ticket)
        if not ticket.answered.acquire(timeout=self._timeout):
            self._leave(tasks)
            raise EngineError("the policy took too long")
        if ticket.error is not None:
            raise ticket.error
        return ticket.value

    def close(self) -> None:
        """Idempotent. Later questions fail."""
        with self._lock:
            self._closed = True
            if self._tasks is not None:
                self._tasks.put(None)
                self._tasks = None

    def _leave(self, stuck: queue.SimpleQueue[Any]) -> None:
        with self._lock:
            if self._tasks is stuck:
                self._stuck.add(stuck)
                self._tasks = None
                stuck.put(None)

    def _start(self) -> queue.SimpleQueue[Any]:
        tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        thread = threading.Thread(target=self._serve, args=(tasks,), name="vestibule-policy", daemon=True)
        with _starting:
            before = threading.stack_size(STACK_BYTES)
            try:
                thread.start()
            finally:
                threading.stack_size(before)
        return tasks

    def _serve(self, tasks: queue.SimpleQueue[Any]) -> None:
        program: P | None = None
        while (ticket := tasks.get()) is not None:
            try:
                if program is None:
                    program = self._build()
                ticket.value = ticket.question(program)
            except Exception as error:  # noqa: BLE001 - whatever it is, the asker gets it and denies
                ticket.error = error
            ticket.answered.release()
        with self._lock:
            self._stuck.discard(tasks)
