"""A ceiling on what one attempt may have decided: an agent that asks without end fills no log and hides nothing in it.

Rules it keeps:
1. Beyond the ceiling nothing is recorded, so nothing is allowed; the attempt is stopped and the run refused.
2. Only the agent's own intents count; outcomes of what was allowed are always recorded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from vestibule.core.errors import Refused
from vestibule.core.model import Event, Receipt
from vestibule.core.ports import AuditSink
from vestibule.core.refusal import refusal

MAX_DECISIONS = 20_000
"""Intents of an agent in one attempt: a call a second for five and a half hours."""


class BoundedSink:
    """An `AuditSink` for one attempt. `on_full` is called once, when the ceiling is passed. Thread-safe."""

    def __init__(self, sink: AuditSink, on_full: Callable[[], None], *, most: int = MAX_DECISIONS) -> None:
        self._sink = sink
        self._on_full = on_full
        self._most = most
        self._count = 0
        self._lock = threading.Lock()

    def submit(self, event: Event) -> Future[Receipt]:
        if event.subject == "agent" and event.phase == "intent":
            with self._lock:
                self._count += 1
                count = self._count
            if count > self._most:
                if count == self._most + 1:
                    self._on_full()
                future: Future[Receipt] = Future()
                future.set_exception(flooded(self._most))
                return future
        return self._sink.submit(event)


def flooded(most: int) -> Refused:
    """The refusal of an attempt that asked too much."""
    return Refused(
        refusal(
            "run.decisions",
            f"The agent asked for more than {most:,} decisions in one attempt and was stopped.",
            agent="Stop here.",
            person="Look at what it asked for with `vestibule show RUN --all`; no useful work asks so often.",
        )
    )
