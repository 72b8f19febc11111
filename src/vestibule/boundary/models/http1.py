"""HTTP/1.1 towards providers: httptools' parser (llhttp) on asyncio's transports, kept connections, nothing else.

A general client does much that has no place here (redirects, cookies, proxies, decompression, retries, caches), and
its cost was most of what a governed request costs (ADR 0032). What is left is small enough to have every bound in it.

Rules this module keeps:
1. A request is written whole, once, and never again by itself: nothing is paid twice.
2. A connection is used again only after an answer was read to its very end and the server means to keep it.
3. Heads are bounded, bodies are handed over as they come, and a reader that is slow stops the sender (no buffer grows).
4. Silence is bounded: to connect, and between any two bytes of an answer.
5. Heads that we write hold no line end or control character, whatever was put into them (CWE-113).

Sources: RFC 9112 (message framing), RFC 9110 sections 9.2.2 and 15.2; llhttp's strict mode refuses what is ambiguous.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import httptools

HEAD_BYTES = 64 << 10
BUFFER_BYTES = 256 << 10
KEPT_SECONDS = 10.0
_CLEAN = re.compile(rb"[\x20-\x7e\x80-\xff]*\Z")
_TARGET = re.compile(r"/[!-~]*\Z")
LookUp = Callable[[str, int], Awaitable[list[tuple[str, int]]]]
"""A host and port → addresses and ports that may be dialled. Raises `OSError`."""


class NoConnection(OSError):
    """There is no connection, so nothing was sent."""


class BrokenAnswer(OSError):
    """The request was sent, and its answer is not whole, or is none."""


class Answer:
    """An answer whose head has come. `headers` by small names; of several with one name the values joined by commas."""

    __slots__ = ("_connection", "headers", "status")

    def __init__(self, connection: _Connection, status: int, headers: Mapping[str, str]) -> None:
        self._connection = connection
        self.status = status
        self.headers = headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises `BrokenAnswer`."""
        connection = self._connection
        while True:
            if connection.body:
                data = connection.body.popleft() if len(connection.body) == 1 else connection.take()
                connection.taken(len(data))
                yield data
            elif connection.complete:
                return
            else:
                await connection.more()

    @property
    def whole(self) -> bool:
        """Whether it was read to its end."""
        return self._connection.complete and not self._connection.body


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, idle: float) -> None:
        self._loop = loop
        self._idle = idle
        self._parser: Any = None
        self._transport: Any = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._touched = 0.0
        self._head = 0
        self._size = 0
        self._beside = 0
        self._paused = False
        self._error: Exception | None = None
        self._headers: dict[str, str] = {}
        self._framed = False
        self._extra = False
        self.body: deque[bytes] = deque()
        self.status = 0
        self.complete = True
        self.keep = False
        self.lost = False
        self.idle_since = 0.0

    # What the transport tells.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._stop_clock()
        if not self.complete:
            if self.status and not self._framed and exc is None:
                self.complete = True  # its end is the connection's end (RFC 9112 section 6.3)
            else:
                self._error = self._error or BrokenAnswer("the connection ended within the answer")
        self._wake()

    def data_received(self, data: bytes) -> None:
        self._touched = time.monotonic()
        if self._parser is None or self.complete:
            self.close()  # nothing was asked: whatever this is, it answers nothing
            return
        if not self.status:
            self._head += len(data)
        size = self._size
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(BrokenAnswer(f"no HTTP ({type(error).__name__})"))
            return
        if self._head > HEAD_BYTES and not self.status:
            self._fail(BrokenAnswer("the head of the answer is too large"))
            return
        # Trailers, and what stands beside the sizes of chunks: the parser keeps them, and no body pauses the sender.
        self._beside = 0 if self._size > size or not self.status else self._beside + len(data)
        if self._beside > HEAD_BYTES and not self.complete:
            self._fail(BrokenAnswer("more stands beside its body than may"))
            return
        if self._size > BUFFER_BYTES and not self._paused and not self.complete:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        return False

    # What the parser tells.

    def on_message_begin(self) -> None:
        # A second message in an answer's place answers nothing, and the connection is not to be trusted any more.
        self._extra = self.complete

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._extra or self.status:
            return  # a trailer changes nothing of the head that was acted on (RFC 9110 section 6.5.1)
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._extra:
            return
        if status < 200:
            self._headers = {}  # an interim answer: the real one follows
            return
        self.status = status
        self._framed = "content-length" in self._headers or "transfer-encoding" in self._headers

    def on_body(self, data: bytes) -> None:
        if self._extra:
            return
        self.body.append(data)
        self._size += len(data)

    def on_message_complete(self) -> None:
        if not self.status or self._extra:
            return
        self.complete = True
        self.keep = bool(self._parser.should_keep_alive()) and self._framed
        self._stop_clock()

    # What the pool asks.

    async def ask(self, data: bytes) -> Answer:
        """Send a request and wait for its answer's head. Raises `BrokenAnswer`."""
        self._parser = httptools.HttpResponseParser(self)
        self._headers, self.status, self.complete, self.keep = {}, 0, False, False
        self._head = self._size = self._beside = 0
        self._error, self._extra = None, False
        self._touched = time.monotonic()
        self._transport.write(data)
        self._timer = self._loop.call_later(self._idle, self._look)
        while not self.status:
            await self.more()
        return Answer(self, self.status, self._headers)

    async def more(self) -> None:
        """Until something came. Raises `BrokenAnswer`."""
        if self._error is not None:
            raise self._error
        if self.lost and not self.complete:
            raise BrokenAnswer("the connection ended within the answer")
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._error is not None:
            raise self._error

    def reusable(self) -> bool:
        """Whether the request was sent and its answer read to the end, nothing more came, and the server keeps it."""
        read = self.complete and self.keep and not self._extra and not self.body and not self.lost
        return read and not self._transport.get_write_buffer_size()

    def take(self) -> bytes:
        data = b"".join(self.body)
        self.body.clear()
        return data

    def taken(self, size: int) -> None:
        self._size -= size
        if self._paused and self._size <= BUFFER_BYTES // 2:
            self._paused = False
            if not self.lost:
                self._touched = time.monotonic()
                self._transport.resume_reading()

    def usable(self) -> bool:
        return not self.lost and not self._transport.is_closing() and time.monotonic() - self.idle_since < KEPT_SECONDS

    def close(self) -> None:
        self._stop_clock()
        self.keep = False
        if self._transport is not None:
            self._transport.abort()

    def _look(self) -> None:
        """The clock of silence: runs on when something came meanwhile, or when we ourselves keep the sender waiting."""
        quiet = 0.0 if self._paused else time.monotonic() - self._touched
        if quiet >= self._idle:
            self._timer = None
            self._fail(BrokenAnswer("it was silent for too long"))
        else:
            self._timer = self._loop.call_later(self._idle - quiet, self._look)

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self.close()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Pool:
    """Connections to a few hosts. Made in the loop that uses it."""

    def __init__(self, look_up: LookUp, *, connect: float, idle: float, connections: int = 128) -> None:
        self._look_up = look_up
        self._connect = connect
        self._idle = idle
        self._room = asyncio.Semaphore(connections)
        self._kept: dict[tuple[str, str, int], list[_Connection]] = {}
        self._open: set[_Connection] = set()
        self._heads: dict[str, tuple[tuple[str, str, int], bytes]] = {}

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        return context

    async def close(self) -> None:
        for connection in list(self._open):
            connection.close()
        self._open.clear()
        self._kept.clear()

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> _Exchange:
        """`async with pool.post(…) as answer`. Raises `NoConnection`, `BrokenAnswer`."""
        place, line = self._place(url)
        parts = [line]
        for name, value in headers.items():
            text = value.encode("latin-1", "replace")
            if not _CLEAN.match(text):
                raise NoConnection("a header holds control characters")
            parts.append(b"%b: %b\r\n" % (name.encode("latin-1"), text))
        parts.append(b"content-length: %d\r\n\r\n" % len(body))
        parts.append(body)
        return _Exchange(self, place, b"".join(parts))

    def _place(self, url: str) -> tuple[tuple[str, str, int], bytes]:
        found = self._heads.get(url)
        if found is None:
            parts = urlsplit(url)
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            if parts.scheme not in ("http", "https") or not parts.hostname or not _TARGET.match(target or "/"):
                raise NoConnection("this is no address of a provider")
            port = parts.port or (443 if parts.scheme == "https" else 80)
            host = parts.netloc.encode("ascii", "replace")
            line = b"POST %b HTTP/1.1\r\nhost: %b\r\n" % ((target or "/").encode("ascii"), host)
            found = (parts.scheme, parts.hostname, port), line
            if len(self._heads) >= 256:
                self._heads.clear()
            self._heads[url] = found
        return found

    async def _take(self, place: tuple[str, str, int]) -> _Connection:
        kept = self._kept.get(place)
        while kept:
            connection = kept.pop()
            if connection.usable():
                return connection
            self._drop(connection)
        return await self._dial(place)

    async def _dial(self, place: tuple[str, str, int]) -> _Connection:
        scheme, host, port = place
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect):
                addresses = await self._look_up(host, port)
        except (OSError, UnicodeError) as error:  # TimeoutError and gaierror are such
            raise NoConnection(f"its name leads nowhere ({type(error).__name__})") from None
        why = "OSError"
        for address, number in addresses[:4]:
            try:
                async with asyncio.timeout(self._connect):
                    _, connection = await loop.create_connection(
                        lambda: _Connection(loop, self._idle),
                        address,
                        number,
                        ssl=self._tls if scheme == "https" else None,
                        server_hostname=host if scheme == "https" else None,
                    )
            except OSError as error:  # TimeoutError and ssl.SSLError are such
                why = type(error).__name__
            else:
                self._open.add(connection)
                return connection
        raise NoConnection(why)

    def _done(self, place: tuple[str, str, int], connection: _Connection) -> None:
        if connection.reusable():
            connection.idle_since = time.monotonic()
            self._kept.setdefault(place, []).append(connection)
        else:
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        connection.close()
        self._open.discard(connection)


class _Exchange:
    """One request and its answer."""

    def __init__(self, pool: Pool, place: tuple[str, str, int], data: bytes) -> None:
        self._pool = pool
        self._place = place
        self._data = data
        self._connection: _Connection | None = None

    async def __aenter__(self) -> Answer:
        await self._pool._room.acquire()
        try:
            self._connection = await self._pool._take(self._place)
            return await self._connection.ask(self._data)
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool._done(self._place, connection)
        self._pool._room.release()
