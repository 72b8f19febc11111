"""The idle limit: an agent that does nothing at all for a while is stopped, long before its wall-clock time is up.

Rules it keeps:
1. Idle is all of it together: next to no processor time inside, no output, and no request at a gateway, neither made
   nor under way. A model that thinks, a command that runs and a person who is asked are requests under way.
2. A sandbox that does not answer the question is not called idle: the question fails on its own terms elsewhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from vestibule.core.errors import DependencyDown
from vestibule.core.ports import Activity, RunningSandbox

LOOKS = 20
"""Looks in the time of the limit."""
QUIET_SHARE = 0.005
"""Processor time per second that a program uses for being there: timers, a blinking cursor."""

_Message = MutableMapping[str, Any]
_App = Callable[[_Message, Callable[[], Awaitable[_Message]], Callable[[_Message], Awaitable[None]]], Awaitable[None]]


class Requests:
    """Counts calls at gateways: what is under way, and how many there were. A stream that only listens is none."""

    def __init__(self) -> None:
        self.under_way = 0
        self.made = 0

    def counted(self, app: _App) -> _App:
        """The same ASGI application, its calls counted. Applications of one event loop only."""

        async def call(
            scope: _Message, receive: Callable[[], Awaitable[_Message]], send: Callable[[_Message], Awaitable[None]]
        ) -> None:
            if scope.get("method") != "POST":
                await app(scope, receive, send)
                return
            self.made += 1
            self.under_way += 1
            try:
                await app(scope, receive, send)
            finally:
                self.under_way -= 1

        return call


class Quiet:
    """How long nothing has happened. Pure: looks come with their time."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._last = now
        self._cpu = 0.0
        self._output = 0
        self._made = 0

    def look(self, now: float, activity: Activity, requests: Requests) -> float:
        """Seconds since something happened."""
        passed = max(now - self._last, 0.001)
        busy = (
            abs(activity.cpu_seconds - self._cpu) > passed * QUIET_SHARE
            or activity.output_bytes != self._output
            or requests.made != self._made
            or requests.under_way > 0
        )
        self._last, self._cpu, self._output = now, activity.cpu_seconds, activity.output_bytes
        self._made = requests.made
        if busy:
            self._since = now
        return now - self._since


class IdleWatch:
    """Looks at one sandbox until `stop`; calls `idle` once, from its own thread."""

    def __init__(
        self, sandbox: RunningSandbox, requests: Requests, *, seconds: float, idle: Callable[[], None]
    ) -> None:
        self._sandbox = sandbox
        self._requests = requests
        self._seconds = seconds
        self._idle = idle
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="idle", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _watch(self) -> None:
        quiet = Quiet(time.monotonic())
        while not self._stop.wait(self._seconds / LOOKS):
            try:
                activity = self._sandbox.activity()
            except DependencyDown:
                continue
            if quiet.look(time.monotonic(), activity, self._requests) >= self._seconds:
                self._idle()
                return
