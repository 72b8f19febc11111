"""The way to a server that is an HTTP endpoint ("streamable HTTP"), from outside the sandbox.

Rules this module keeps:
1. The address is the operator's; no redirect is followed, no proxy variable read, no cookie kept. `https`, or this
   machine's own addresses.
2. The key is added here and nowhere else; no exception of this module holds it, or anything that the server said.
3. One request, one connection, one answer: at most `MAX_BODY` bytes and the call's time, whatever comes drop by drop.
   Answers are accepted uncompressed only (CWE-409).
4. An answer that has another id than the request is a broken server.

Source: MCP 2025-11-25 and 2026-07-28, "Streamable HTTP"; WHATWG HTML, "Server-sent events".
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from vestibule import __version__
from vestibule.boundary.context.upstream import wire

MAX_BODY = 4 << 20
MAX_UNASKED = 1_000
MAX_SESSION = 512
CONNECT_SECONDS = 10.0


class HttpConnection:
    """One endpoint. Thread-safe. `changed` says that the server announced other tools since it was last cleared."""

    def __init__(self, url: str, *, header: str = "Authorization", key: str = "") -> None:
        parts = urlsplit(url)
        self._tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._path = parts.path or "/"
        self._key = {header: f"Bearer {key}" if header.lower() == "authorization" else key} if key else {}
        self._lock = threading.Lock()
        self._number = 0
        self._session = ""
        self._version = ""
        self._modern = False
        self._live: set[_UnderWay] = set()
        self._closed = False
        self.changed = threading.Event()

    @property
    def alive(self) -> bool:
        return not self._closed

    def speak(self, version: str, *, modern: bool) -> None:
        """The revision that was agreed on; later requests name it."""
        self._version, self._modern = version, modern

    def request(self, method: str, params: Mapping[str, Any], deadline: float, *, name: str = "") -> wire.Response:
        """The server's answer. `deadline` is of `time.monotonic()`. Raises `ServerFailed`."""
        with self._lock:
            self._number += 1
            number = self._number
        headers = {}
        if self._modern:
            headers = {"Mcp-Method": method, **({"Mcp-Name": name} if name else {})}
        with self._exchange("POST", wire.request(number, method, params), headers, deadline) as response:
            session = response.headers.get("Mcp-Session-Id", "")
            if method == "initialize" and session:
                if len(session) > MAX_SESSION or not session.isascii() or not session.isprintable():
                    raise wire.BadServer("its session id is none")
                self._session = session
            return self._answer(response, number, deadline)

    def notify(self, method: str) -> None:
        self._tell(wire.notification(method), time.monotonic() + CONNECT_SECONDS)

    def close(self) -> str:
        """No request is under way when this returns, and none will be. Idempotent."""
        with self._lock:
            if self._closed:
                return ""
        if self._session:
            with contextlib.suppress(wire.ServerFailed), self._exchange("DELETE", b"", {}, time.monotonic() + 1):
                pass
        with self._lock:
            self._closed = True
            live = list(self._live)
        for under_way in live:
            under_way.abort()
        return ""

    # --- one exchange ---------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _exchange(
        self, verb: str, body: bytes, more: Mapping[str, str], deadline: float
    ) -> Iterator[http.client.HTTPResponse]:
        left = deadline - time.monotonic()
        if left <= 0:
            raise wire.Slow("there was no time left to ask it")
        connection = self._connection(min(left, CONNECT_SECONDS))
        under_way = _UnderWay()
        with self._lock:
            if self._closed:
                raise wire.Gone("it was ended")
            self._live.add(under_way)
        late = threading.Event()

        def stop() -> None:
            late.set()
            under_way.abort()

        timer = threading.Timer(left, stop)
        timer.daemon = True
        timer.start()
        try:
            connection.connect()
            under_way.begin(connection.sock)
            connection.sock.settimeout(max(0.01, deadline - time.monotonic()))
            connection.request(verb, self._path, body=body, headers=self._headers(more))
            response = connection.getresponse()
            _check(response)
            yield response
        except wire.ServerFailed:
            if late.is_set():
                raise wire.Slow("it did not answer in time") from None
            raise
        except (OSError, http.client.HTTPException, ValueError):
            if late.is_set() or time.monotonic() >= deadline:
                raise wire.Slow("it did not answer in time") from None
            raise wire.Gone("it cannot be reached, or left without an answer") from None
        finally:
            timer.cancel()
            with self._lock:
                self._live.discard(under_way)
            connection.close()

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        if self._tls:
            context = ssl.create_default_context()
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            return http.client.HTTPSConnection(self._host, self._port, timeout=seconds, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=seconds)

    def _headers(self, more: Mapping[str, str]) -> dict[str, str]:
        return {
            "Accept": "application/json, text/event-stream",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": f"vestibule/{__version__}",
            **({"Mcp-Protocol-Version": self._version} if self._version else {}),
            **({"Mcp-Session-Id": self._session} if self._session else {}),
            **more,
            **self._key,
        }

    def _answer(self, response: http.client.HTTPResponse, number: int, deadline: float) -> wire.Response:
        kind = response.headers.get_content_type()
        if kind == "application/json":
            data = response.read(MAX_BODY + 1)
            if len(data) > MAX_BODY:
                raise wire.BadServer("its answer is too large")
            return _ours(wire.read(data), number)
        if kind != "text/event-stream":
            raise wire.BadServer("it answered with another type of content")
        for unasked, data in enumerate(_events(response)):
            message = wire.read(data)
            if isinstance(message, wire.Response):
                return _ours(message, number)
            if unasked >= MAX_UNASKED:
                raise wire.BadServer("it talks without end")
            if isinstance(message, wire.Asked):
                self._tell(wire.refused(message), deadline)
            elif message.method == "notifications/tools/list_changed":
                self.changed.set()
        raise wire.Gone("it left without an answer")

    def _tell(self, message: bytes, deadline: float) -> None:
        """A notification or a refusal: what comes back does not matter."""
        with contextlib.suppress(wire.ServerFailed), self._exchange("POST", message, {}, deadline):
            pass


def _check(response: http.client.HTTPResponse) -> None:
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise wire.BadServer("it answered compressed, though asked not to")
    if 300 <= response.status < 400:
        raise wire.BadServer("it answered with a redirect, and none is followed")
    if response.status not in (200, 202, 204):
        raise wire.Rejected(response.status)


def _ours(message: wire.Message, number: int) -> wire.Response:
    if not isinstance(message, wire.Response) or message.id != number:
        raise wire.BadServer("it answered what nobody asked")
    return message


def _events(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The data of each server-sent event, as it comes."""
    size = 0
    data: list[bytes] = []
    while line := response.readline(MAX_BODY + 1):
        size += len(line)
        if size > MAX_BODY:
            raise wire.BadServer("its answer is too large")
        line = line.rstrip(b"\r\n")
        if not line:
            if any(data):  # an event without data only primes a client that would reconnect
                yield b"\n".join(data)
            data = []
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))


class _UnderWay:
    """The socket of an exchange. `http.client` forgets it when an answer has no length, and goes on reading."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._ended = False

    def begin(self, sock: socket.socket) -> None:
        with self._lock:
            self._socket = sock
            ended = self._ended
        if ended:
            self.abort()

    def abort(self) -> None:
        """Whoever reads or writes there fails now."""
        with self._lock:
            self._ended = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # The plain socket's: that of a TLS socket would let who reads go on without TLS.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
