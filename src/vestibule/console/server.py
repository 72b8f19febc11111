"""Serves the console on a loopback socket of its own, in a thread.

Rules it keeps:
1. It binds 127.0.0.1 or ::1 and nothing else; the application is built for exactly that address and port.
2. The socket listens before its address is handed out, so that a link printed is a link that answers.
3. No access log: login links would be in it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from vestibule.console.guard import Origin
from vestibule.core.errors import DependencyDown, UsageError

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

START_SECONDS = 20.0
STOP_SECONDS = 10.0


class Server:
    """A console on its way up, up, or stopped. Use `start()` once; `stop()` any number of times."""

    def __init__(self, build: Callable[[Origin], ASGIApp], host: str, port: int) -> None:
        self._socket = bind_loopback(host, port)
        self.origin = Origin(host, self._socket.getsockname()[1])
        try:
            self._app = build(self.origin)
        except BaseException:
            self._socket.close()
            raise
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._failed = False

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, without a slash at the end."""
        return self.origin.url

    def start(self) -> Self:
        """Returns when pages are served.

        Raises:
            DependencyDown: the server did not come up.
        """
        import uvicorn

        config = uvicorn.Config(
            self._app,
            http="h11",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="warning",  # at its trace level uvicorn logs query strings
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=32 << 10,
            limit_concurrency=128,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=2,
        )
        server = self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, args=(server,), name="vestibule-console", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_SECONDS) or self._failed:
            self.stop()
            raise DependencyDown(
                "console",
                "The console could not be started.",
                fact=self.url,
                person="Try another port, or decide with `vestibule review`.",
            )
        return self

    def _run(self, server: uvicorn.Server) -> None:
        startup = server.startup

        async def then_ready(sockets: list[socket.socket] | None = None) -> None:
            await startup(sockets=sockets)
            self._ready.set()

        server.startup = then_ready  # type: ignore[method-assign]
        try:
            server.run(sockets=[self._socket])
        except (OSError, RuntimeError, SystemExit):
            self._failed = True
        finally:
            self._failed = self._failed or not self._ready.is_set()
            self._ready.set()

    def stop(self) -> None:
        """Idempotent. Open requests get two seconds."""
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
        with contextlib.suppress(OSError):
            self._socket.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def serve_console(build: Callable[[Origin], ASGIApp], host: str = "127.0.0.1", port: int = 0) -> Server:
    """A server for what `build` makes of the address; port 0 takes a free one. Not started yet.

    Raises:
        UsageError: not a loopback address, or the port is taken.
    """
    return Server(build, host, port)


def bind_loopback(host: str, port: int) -> socket.socket:
    """A listening socket on 127.0.0.1 or ::1.

    Raises:
        UsageError: another address, or the port is taken or forbidden.
    """
    if host not in ("127.0.0.1", "::1"):
        raise UsageError(
            f"The console does not listen on {host!r}.",
            why="It decides with the rights of the person who started it, so it stays on this machine.",
            next_step="Use 127.0.0.1 or ::1; from elsewhere, forward the same port number with `ssh -L`.",
        )
    listener = socket.socket(socket.AF_INET6 if host == "::1" else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(64)
    except (OSError, OverflowError) as error:
        listener.close()
        raise UsageError(
            f"The console cannot listen on {host} port {port}.",
            why=str(getattr(error, "strerror", None) or error),
            next_step="Choose another port; port 0 takes a free one.",
        ) from None
    return listener
