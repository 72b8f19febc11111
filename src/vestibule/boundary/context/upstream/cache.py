"""Answers of one run's upstream calls, kept for a while: bounded in number, bytes and time.

A kept answer is released by the same decision and record as a new one; it only saves the way to the server.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_ENTRIES = 256
MAX_BYTES = 8 << 20


class AnswerCache(Generic[T]):
    """One server's answers. Thread-safe."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, int, T]] = OrderedDict()
        self._bytes = 0

    def get(self, key: str, now: float) -> T | None:
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            until, size, value = found
            if now >= until:
                del self._kept[key]
                self._bytes -= size
                return None
            self._kept.move_to_end(key)
            return value

    def put(self, key: str, value: T, size: int, now: float) -> None:
        if self._seconds <= 0 or size > MAX_BYTES:
            return
        with self._lock:
            old = self._kept.pop(key, None)
            self._bytes += size - (old[1] if old else 0)
            self._kept[key] = (now + self._seconds, size, value)
            while len(self._kept) > MAX_ENTRIES or self._bytes > MAX_BYTES:
                _, (_, gone, _) = self._kept.popitem(last=False)
                self._bytes -= gone

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self._bytes = 0
