"""One upstream server of one run: started when it is needed, asked in time, left alone when it fails.

Rules this module keeps:
1. A server serves one run: it is started for it and ends with it, and nothing it knows is shared with another.
2. What cannot be had in time is `dependency.upstream`, with the server's name and nothing that it said.
3. After `failures` failures in a row it is ended and left alone for a while; restarts are bounded so too.
4. What it offers is asked for when it starts, when it says that it changed, and when the list is old; a call never goes
   by an older list.
5. At most `concurrent` calls are under way; others wait within their own time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from vestibule.boundary.context.upstream.breaker import Breaker
from vestibule.boundary.context.upstream.session import Connection, Session
from vestibule.boundary.context.upstream.wire import Response, ServerFailed
from vestibule.config.schema import Upstream
from vestibule.core.errors import DependencyDown, Refused

LIST_SECONDS = 30.0
"""A list of tools that is older is asked for again before a call."""

Catalogue = dict[str, dict[str, Any] | None]
Clock = Callable[[], float]


class UpstreamServer:
    """Thread-safe. `connect` starts the server, or makes what reaches it; it may raise `DependencyDown`."""

    def __init__(
        self, name: str, config: Upstream, connect: Callable[[], Connection], *, now: Clock = time.monotonic
    ) -> None:
        self.name = name
        self.config = config
        self.breaker = Breaker(config.failures, config.pause_seconds)
        self._connect = connect
        self._now = now
        self._opening = threading.Lock()
        self._slots = threading.BoundedSemaphore(config.concurrent)
        self._session: Session | None = None
        self._starting: Session | None = None
        self._catalogue: Catalogue = {}
        self._listed = 0.0
        self._closed = False
        self.said = ""
        """The tail of stderr of a process that ended, untrusted; for people."""

    @property
    def changed(self) -> bool:
        """Whether it said that its tools are others since they were last asked for, or has ended."""
        session = self._session
        return session is None or not session.connection.alive or session.connection.changed.is_set()

    def offers(self) -> Catalogue:
        """What it offers now, as `pins.catalogue` has it.

        Raises:
            DependencyDown: `upstream`.
        """
        with self._asking():
            return self._current()[1]

    def call(self, tool: str, arguments: Mapping[str, Any], fits: Callable[[Catalogue], None]) -> Response:
        """The server's answer to a call. `fits` looks at what it offers just before, and may refuse.

        Raises:
            DependencyDown: `upstream`.
            Refused: what `fits` raised.
        """
        with self._asking():
            session, catalogue = self._current()
            fits(catalogue)
            return session.call(tool, arguments, time.monotonic() + self.config.seconds)

    def close(self) -> None:
        """Ends it for good; every call under way ends too. Idempotent, thread-safe."""
        self._closed = True
        for session in (self._starting, self._session):
            if session is not None:
                session.connection.close()
        with self._opening:  # one that was just being started
            self._drop()

    # --- within -------------------------------------------------------------------------------------------

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """A turn at the server: within its concurrency, and by its breaker."""
        if not self._slots.acquire(timeout=self.config.seconds):
            raise self.down("it has too many calls under way")
        try:
            wait = self.breaker.enter(self._now())
            if wait > 0:
                raise self.down(f"it failed before and is left alone for {int(wait) + 1} s")
            try:
                yield
            except ServerFailed as failed:
                self._failed()
                raise self.down(str(failed)) from None
            except DependencyDown:
                self._failed()
                raise
            except Refused:
                self.breaker.success()  # the server did its part
                raise
            except BaseException:
                self._failed()
                raise
            self.breaker.success()
        finally:
            self._slots.release()

    def _failed(self) -> None:
        self.breaker.failure(self._now())
        if self.breaker.state == "open":
            with self._opening:
                self._drop()

    def _current(self) -> tuple[Session, Catalogue]:
        """A greeted session and a list that is not old."""
        with self._opening:
            session = self._session
            if session is not None and not session.connection.alive:
                self._drop()
                session = None
            if self._closed:
                raise self.down("the run has ended")
            if session is None:
                session = self._open()
            elif session.connection.changed.is_set() or self._now() - self._listed > LIST_SECONDS:
                self._list(session)
            return session, self._catalogue

    def _open(self) -> Session:
        session = self._starting = Session(self._connect())
        try:
            if self._closed:
                raise self.down("the run has ended")
            session.open(time.monotonic() + self.config.start_seconds)
            self._list(session)
        except BaseException:
            self.said = session.connection.close()
            raise
        finally:
            self._starting = None
        self._session = session
        return session

    def _list(self, session: Session) -> None:
        # Cleared first: what changes while the list is on its way is asked for again.
        session.connection.changed.clear()
        try:
            self._catalogue = session.tools(time.monotonic() + self.config.start_seconds)
        except BaseException:
            session.connection.changed.set()
            raise
        self._listed = self._now()

    def _drop(self) -> None:
        session, self._session = self._session, None
        self._catalogue = {}
        if session is not None:
            self.said = session.connection.close()

    def down(self, why: str) -> DependencyDown:
        """`dependency.upstream` with this server's name."""
        return DependencyDown(
            "upstream",
            f"The upstream server {self.name!r} cannot be used now.",
            fact=f"{self.name}: {why}",
            agent="Go on without this server's tools, or try again later.",
            person=f"See what it says with `vestibule upstream check {self.name}`.",
        )
