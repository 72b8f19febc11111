"""Whether a server that failed is asked again. Pure: the time is handed in.

Closed: calls go. After so many failures in a row it opens, and none goes for a while; then one call is let through
(half-open). When that goes well it closes; when not it opens again, for twice as long, at most `MAX_PAUSE`.
"""

from __future__ import annotations

import threading

MAX_PAUSE = 3600.0


class Breaker:
    """One server's. Thread-safe."""

    def __init__(self, failures: int, pause_seconds: float) -> None:
        self._limit = failures
        self._first_pause = pause_seconds
        self._lock = threading.Lock()
        self._failures = 0
        self._pause = pause_seconds
        self._until: float | None = None
        self._trying = False

    def enter(self, now: float) -> float:
        """0 when a call may go; it must end with `success` or `failure`. Else the seconds until one may."""
        with self._lock:
            if self._until is None:
                return 0.0
            if now < self._until:
                return self._until - now
            if self._trying:
                return self._pause
            self._trying = True
            return 0.0

    def success(self) -> None:
        with self._lock:
            self._failures = 0
            self._pause = self._first_pause
            self._until = None
            self._trying = False

    def failure(self, now: float) -> None:
        with self._lock:
            self._failures += 1
            if self._trying:
                self._pause = min(self._pause * 2, MAX_PAUSE)
                self._until = now + self._pause
                self._trying = False
            elif self._failures >= self._limit and self._until is None:
                self._until = now + self._pause

    @property
    def state(self) -> str:
        """`closed`, `open` or `half-open`."""
        with self._lock:
            return "closed" if self._until is None else "half-open" if self._trying else "open"
