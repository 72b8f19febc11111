"""HTTP/1.1 as the gateways take it from a sandbox: uvicorn's protocol with the bounds that it lacks.

What a program inside sends is parsed in the supervisor's memory, outside the sandbox's ceilings and before any token
is looked at. Rules this module keeps:
1. Connections are bounded in number; one more is closed at once, and those that are open go on.
2. Bytes that belong to no body (request line, headers, chunk sizes, trailers) are bounded; beyond, the connection is
   closed. The parser keeps such bytes until a part is whole, and knows no limit of its own.
3. A request's head arrives in time, and so does the first one of a connection.

Source: RFC 9112 sections 2.2, 3 and 5 (limits are the recipient's to set), RFC 6585 section 5 (431); CWE-770.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_CONNECTIONS = 128
HEAD_BYTES = 128 << 10
"""More than the applications accept, so that theirs is the answer whenever the head arrives in one piece."""
HEAD_SECONDS = 30.0


class BoundedProtocol(HttpToolsProtocol):
    """One connection. `max_connections`, `head_bytes` and `head_seconds` are the bounds."""

    max_connections = MAX_CONNECTIONS
    head_bytes = HEAD_BYTES
    head_seconds = HEAD_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._progress = False
        self._pending = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None
        super().__init__(*args, **kwargs)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._progress = False
        super().data_received(data)
        self._pending = 0 if self._progress else self._pending + len(data)
        if self._pending > self.head_bytes:
            self.transport.abort()
        elif self._in_head and self._pending and self._head_timer is None:
            self._await_head()

    # What the parser tells: everything but a header is progress.

    def on_headers_complete(self) -> None:
        self._progress = True
        self._in_head = False
        self._head_came()
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        self._progress = True

    def on_body(self, body: bytes) -> None:
        self._progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._progress = True
        self._in_head = True
        super().on_message_complete()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self.transport.abort)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
