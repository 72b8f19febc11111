"""Gateways are ASGI applications; this hosts them for a run: one thread, one loop, one listener each.

Rules it keeps:
1. A gateway that ends before it is told to is reported at once (`died`), and the run is closed.
2. Nothing here listens on an address of its own: sockets come from the sandbox, or are loopback.
3. What a client sends is bounded before an application sees it (`bounded_http`).
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from vestibule.core.errors import DependencyDown

START_SECONDS = 10.0
STOP_SECONDS = 3.0


class GatewayHost:
    """An event loop in a thread of its own that serves ASGI applications on given sockets."""

    def __init__(self, died: Callable[[str], None]) -> None:
        self._died = died
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._servers: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._others: dict[str, asyncio.Task[None]] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="gateways", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_SECONDS):
            raise DependencyDown("gateway", "The gateways' event loop did not start.")

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise DependencyDown("gateway", "The gateways' event loop is not running.")
        return self._loop

    def serve(self, name: str, app: Any, listener: socket.socket) -> None:
        """Serve `app` on `listener`; returns when it accepts requests."""
        starting = asyncio.run_coroutine_threadsafe(self._serve(name, app, listener), self.loop)
        try:
            starting.result(START_SECONDS)
        except OSError as error:  # TimeoutError is one
            starting.cancel()
            fact = error.strerror or type(error).__name__
            raise DependencyDown("gateway", f"The {name} gateway did not start.", fact=fact) from None

    def run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Something that serves sockets of its own, from now on. Its end before `stop` is a gateway that died."""

        async def begin() -> None:
            task = asyncio.ensure_future(self._attend(name, work))
            self._others[name] = task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        asyncio.run_coroutine_threadsafe(begin(), self.loop).result(START_SECONDS)

    async def _attend(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        finally:
            if not self._stopping:
                self._died(name)

    def kill(self, name: str) -> None:
        """End one gateway as if it had crashed (for the tests that prove the run closes)."""
        self.loop.call_soon_threadsafe(self._end, name)

    def stop(self) -> None:
        """End all of them. Idempotent; bounded."""
        self._stopping = True
        if self._loop is None or not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._end_all)
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        import uvloop

        loop = uvloop.new_event_loop()
        asyncio.set_event_loop(loop)
        self._loop = loop
        loop.call_soon(self._ready.set)
        try:
            loop.run_forever()
        finally:
            if not self._stopping:
                # The loop itself broke: every gateway on it is gone, though none of them ended.
                for name in list(self._servers):
                    self._died(name)
        loop.close()

    async def _serve(self, name: str, app: Any, listener: socket.socket) -> None:
        import uvicorn

        from vestibule.pipeline.bounded_http import BoundedProtocol
        from vestibule.pipeline.prompt_server import PromptServer

        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=120,
            timeout_graceful_shutdown=1,
        )
        server = PromptServer(config)
        self._servers[name] = server
        task = asyncio.ensure_future(self._watch(name, server, listener))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        while not server.started:
            if task.done():
                raise DependencyDown("gateway", f"The {name} gateway did not start.")
            await asyncio.sleep(0.001)

    async def _watch(self, name: str, server: Any, listener: socket.socket) -> None:
        try:
            await server.serve(sockets=[listener])
        finally:
            if not self._stopping:
                self._died(name)

    def _end(self, name: str) -> None:
        if name in self._others:
            self._others[name].cancel()
        else:
            self._servers[name].end()

    def _end_all(self) -> None:
        for name in (*self._servers, *self._others):
            self._end(name)

        async def finish() -> None:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=STOP_SECONDS - 1)
            self.loop.stop()

        self._closing = asyncio.ensure_future(finish())


def loopback_listener() -> socket.socket:
    """A listening socket on 127.0.0.1 with a port of the system's choice."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener
