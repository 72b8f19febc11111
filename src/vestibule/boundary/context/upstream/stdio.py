"""The way to a server that is a program: newline-delimited JSON-RPC over its standard streams.

Rules this module keeps:
1. A line has at most `MAX_LINE` bytes; more, or bytes that are no message, end the server.
2. A response goes to the request whose id it has; one that nobody waits for ends the server, unless the wait for it was
   given up. (A server that answers another's request could pass one call's data off as another's.)
3. Whatever the server asks of us is refused. What it tells is heard only when it says that its tools changed.
4. Messages that nobody asked for are counted, empty ones too, and so are their bytes; a server that talks without end
   is ended.
5. A server that does not read cannot make us wait beyond the call's time.

Source: MCP 2025-11-25 and 2026-07-28, "stdio".
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from vestibule.boundary.context.upstream import wire
from vestibule.core.ports import ServerProcess

MAX_LINE = 4 << 20
MAX_UNASKED = 10_000
UNASKED_BYTES = 64 << 20
"""Of all messages that nobody asked for."""
REFUSE_SECONDS = 0.2
MAX_GIVEN_UP = 64
_CHUNK = 1 << 16


class StdioConnection:
    """One process. Thread-safe. `changed` says that the server announced other tools since it was last cleared."""

    per_request_headers = False

    def __init__(self, process: ServerProcess) -> None:
        self._process = process
        self._write = threading.Lock()
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[wire.Response]] = {}
        self._given_up: list[int] = []
        self._number = 0
        self._unasked = 0
        self._unasked_bytes = 0
        self._ended: wire.ServerFailed | None = None
        self._closed = False
        self.changed = threading.Event()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        os.set_blocking(process.stdin, False)
        os.set_blocking(process.stdout, False)
        self._reader = threading.Thread(target=self._read, name="upstream-reader", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        return self._ended is None

    def request(self, method: str, params: Mapping[str, Any], deadline: float, *, name: str = "") -> wire.Response:  # noqa: ARG002
        """The server's answer. `deadline` is of `time.monotonic()`. Raises `ServerFailed`."""
        found: Future[wire.Response] = Future()
        with self._lock:
            if self._ended is not None:
                raise self._ended
            self._number += 1
            number = self._number
            self._waiting[number] = found
        try:
            self._send(wire.request(number, method, params), deadline)
            return found.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            self._give_up(number)
            raise wire.Slow("it did not answer in time") from None
        except wire.Slow:
            self._end(wire.Slow("it does not read what it is sent"))
            raise
        finally:
            with self._lock:
                self._waiting.pop(number, None)

    def notify(self, method: str) -> None:
        with contextlib.suppress(wire.ServerFailed):
            self._send(wire.notification(method), time.monotonic() + 1)

    def speak(self, version: str, *, modern: bool) -> None:
        """The revision that was agreed on; nothing of it shows in this transport's frames."""

    def close(self) -> str:
        """The process is gone when this returns; the tail of its stderr, untrusted. Idempotent."""
        self._end(wire.Gone("it was ended"))
        said = self._process.kill()
        with self._lock:
            if self._closed:
                return said
            self._closed = True
        os.eventfd_write(self._wake, 1)
        if threading.current_thread() is not self._reader:
            self._reader.join()
        with self._write:
            os.close(self._process.stdin)
            os.close(self._process.stdout)
            os.close(self._wake)
        return said

    # --- writing --------------------------------------------------------------------------------------------

    def _send(self, message: bytes, deadline: float) -> None:
        with self._write:
            if self._closed:
                raise wire.Gone("it was ended")
            view = memoryview(message + b"\n")
            poller = select.poll()
            poller.register(self._process.stdin, select.POLLOUT)
            while view:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise wire.Slow("it does not read what it is sent")
                poller.poll(min(left, 1.0) * 1000)
                try:
                    view = view[os.write(self._process.stdin, view) :]
                except BlockingIOError:
                    if self._ended is not None:
                        raise self._ended from None
                except OSError:
                    raise wire.Gone("it ended") from None

    def _refuse(self, asked: wire.Asked) -> None:
        """A whole line or none, as small ones go (pipe(7), PIPE_BUF); nobody waits long for one that does not read.

        Whoever has just sent a request may still hold the lock when the server's answer is here.
        """
        message = wire.refused(asked) + b"\n"
        if self._write.acquire(timeout=REFUSE_SECONDS):
            try:
                if not self._closed and len(message) <= select.PIPE_BUF:
                    with contextlib.suppress(OSError):
                        os.write(self._process.stdin, message)
            finally:
                self._write.release()

    def _give_up(self, number: int) -> None:
        with self._lock:
            self._given_up.append(number)
            del self._given_up[:-MAX_GIVEN_UP]
        message = wire.notification("notifications/cancelled", {"requestId": number, "reason": "time-out"})
        with contextlib.suppress(wire.ServerFailed):
            self._send(message, time.monotonic() + 0.2)

    # --- reading --------------------------------------------------------------------------------------------

    def _read(self) -> None:
        poller = select.poll()
        poller.register(self._process.stdout, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        rest = bytearray()
        try:
            while True:
                if any(fd == self._wake for fd, _ in poller.poll()):
                    return
                try:
                    chunk = os.read(self._process.stdout, _CHUNK)
                except BlockingIOError:
                    continue
                if not chunk:
                    raise wire.Gone("it ended")
                start = 0
                while (at := chunk.find(b"\n", start)) >= 0:
                    rest += chunk[start:at]
                    start = at + 1
                    self._line(bytes(rest))
                    rest.clear()
                rest += chunk[start:]
                if len(rest) > MAX_LINE:
                    raise wire.BadServer("it sent a line without end")
        except wire.ServerFailed as failed:
            self._end(failed)
        except OSError:
            self._end(wire.Gone("it ended"))

    def _line(self, line: bytes) -> None:
        if len(line) > MAX_LINE:
            raise wire.BadServer("it sent a line without end")
        if not line.strip():
            self._heard(len(line))
            return
        message = wire.read(line)
        if isinstance(message, wire.Response):
            with self._lock:
                waiting = self._waiting.pop(message.id, None)
                if waiting is None and message.id not in self._given_up:
                    raise wire.BadServer("it answered what nobody asked")
                if waiting is None:
                    self._given_up.remove(message.id)
            if waiting is not None:
                waiting.set_result(message)
            return
        self._heard(len(line))
        if isinstance(message, wire.Asked):
            self._refuse(message)
        elif message.method == "notifications/tools/list_changed":
            self.changed.set()

    def _heard(self, size: int) -> None:
        self._unasked += 1
        self._unasked_bytes += size
        if self._unasked > MAX_UNASKED or self._unasked_bytes > UNASKED_BYTES:
            raise wire.BadServer("it talks without end")

    def _end(self, failed: wire.ServerFailed) -> None:
        with self._lock:
            if self._ended is None:
                self._ended = failed
            waiting, self._waiting = list(self._waiting.values()), {}
        for found in waiting:
            if not found.done():
                found.set_exception(failed)
