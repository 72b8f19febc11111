"""Threads that tools run in, with as little between the event loop and a tool as there can be.

What `ThreadPoolExecutor` and `run_in_executor` do for a call, without their futures' locks and conditions: for a tool
that takes tens of microseconds those cost more than the tool.

Rules this module keeps:
1. At most `count` tools run at a time; more wait in order.
2. When `shutdown` returns, no tool runs and none will.
3. What a tool raises, and that nobody waits for it any more, never ends a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Any]


class Workers:
    """Up to `count` threads, begun when they are needed."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """What `work` gives or raises.

        Raises:
            RuntimeError: the workers were shut down.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        # The lock orders this against `shutdown`: nothing is queued that nobody will take.
        with self._lock:
            if self._closed:
                raise RuntimeError("the workers were shut down")
            self._jobs.put(_Job(work, arguments, loop, done))
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._count:
                thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        return await done

    def shutdown(self) -> None:
        """Waits for what runs and for what was handed over before. Thread-safe, idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                found, error = job.work(*job.arguments), None
            except BaseException as raised:  # noqa: BLE001 - it is told to whoever waits
                found, error = None, raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                job.loop.call_soon_threadsafe(_tell, job.done, found, error)
            del job, found, error
            self._idle.release()


def _tell(done: asyncio.Future[Any], found: Any, error: BaseException | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(found)
