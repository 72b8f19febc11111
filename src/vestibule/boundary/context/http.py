"""Requests as the endpoint takes them in: who sends, to whom, in which shape. Nothing here is decided by policy.

Rules this module keeps:
1. The task token comes first: without it every answer is 401, whatever the path. The challenge is plain
   `Bearer`, never `insufficient_scope`: MCP clients answer that with an authorisation flow (docs/adr/0003).
2. Host is one of ours, Origin too when there is one: a page in a browser cannot rebind its way in.
3. POST of one JSON document only; size, headers and time are bounded; headers that decide come once.
4. What all unanswered requests hold in memory is bounded together: it is the supervisor's, not the sandbox's.

Source: RFC 9110 (405, 408, 413, 415, 421), RFC 6750 section 3, RFC 6585 (431); MCP 2026-07-28,
"Streamable HTTP", security.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vestibule.boundary.context.limits import ContextLimits
from vestibule.boundary.context.protocol import Reply

JSON = ((b"content-type", b"application/json"),)
_ONCE = (b"authorization", b"host", b"content-type", b"content-length", b"content-encoding", b"origin")
_MAX_TOKEN = 8192


class Rejected(Exception):
    """The request is answered here."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        super().__init__(reply.status)


class Headers:
    """The request's headers, each deciding one at most once."""

    def __init__(self, scope: dict[str, Any], limits: ContextLimits) -> None:
        # White space around a value is not part of it (RFC 9110 section 5.5), and the server leaves it there.
        self.raw: list[tuple[bytes, bytes]] = [(name.lower(), value.strip(b" \t")) for name, value in scope["headers"]]
        if sum(len(name) + len(value) for name, value in self.raw) > limits.header_bytes:
            raise Rejected(plain(431, "headers_too_large", "The headers are too large."))
        names = [name for name, _ in self.raw]
        self.twice = next((name for name in _ONCE if names.count(name) > 1), None)
        self._found = dict(self.raw)

    def get(self, name: bytes) -> bytes:
        return self._found.get(name, b"")

    def bearer(self) -> bytes:
        """The token, empty when there is none."""
        scheme, _, token = self.get(b"authorization").partition(b" ")
        if scheme.lower() != b"bearer" or len(token) > _MAX_TOKEN or self.twice == b"authorization":
            return b""
        return token.strip()


def plain(status: int, error: str, message: str, *headers: tuple[bytes, bytes]) -> Reply:
    """An answer below the protocol: a small JSON object."""
    body = json.dumps({"error": error, "message": message}).encode()
    return Reply(status, body, (*JSON, *headers))


def unauthorized() -> Reply:
    """RFC 6750 section 3: without credentials the challenge carries no error code."""
    return plain(
        401, "unauthorized", "Send the task's token as 'Authorization: Bearer'.", (b"www-authenticate", b"Bearer")
    )


def check(scope: dict[str, Any], headers: Headers, hosts: frozenset[str], limits: ContextLimits) -> None:
    """Everything but the body.

    Raises:
        Rejected: with the status that says why.
    """
    if headers.twice is not None:
        raise Rejected(plain(400, "duplicate_header", f"The header {headers.twice.decode()} comes twice."))
    host = headers.get(b"host").decode("latin-1").lower()
    if host.removesuffix(":80") not in hosts:
        raise Rejected(plain(421, "wrong_host", "This endpoint is context.vestibule.internal."))
    origin = headers.get(b"origin").decode("latin-1").lower()
    if origin and origin.removeprefix("http://").removesuffix(":80") not in hosts:
        raise Rejected(plain(403, "wrong_origin", "Requests from web pages are not served."))
    if scope["path"] != "/mcp":
        raise Rejected(plain(404, "not_found", "The endpoint is /mcp."))
    if scope["method"] != "POST":
        raise Rejected(plain(405, "method_not_allowed", "Send requests with POST.", (b"allow", b"POST")))
    kind, _, parameters = headers.get(b"content-type").decode("latin-1").lower().partition(";")
    charset = parameters.strip().removeprefix("charset=").strip('"')
    if kind.strip() != "application/json" or charset not in ("", "utf-8") or headers.get(b"content-encoding"):
        raise Rejected(plain(415, "unsupported_media_type", "Send application/json in UTF-8, not compressed."))
    length = headers.get(b"content-length")
    if length and (not length.isdigit() or len(length) > 19 or int(length) > limits.body_bytes):
        raise Rejected(too_large(limits))


def too_large(limits: ContextLimits) -> Reply:
    return plain(413, "too_large", f"A request has at most {limits.body_bytes} bytes.")


class Held:
    """Bytes of bodies that are held for requests under way. Of one event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0

    @contextmanager
    def request(self) -> Iterator[Callable[[int], None]]:
        """While one request is under way: what is given to takes bytes, and raises `Rejected` (429) past the bound."""
        mine = 0

        def take(count: int) -> None:
            nonlocal mine
            if self._bytes + count > self._limit:
                raise Rejected(plain(429, "busy", "Too much is being sent at once; wait for the answers."))
            self._bytes += count
            mine += count

        try:
            yield take
        finally:
            self._bytes -= mine


async def body(receive: Any, limits: ContextLimits, take: Callable[[int], None]) -> bytes:
    """The whole body; `take` is told of every part.

    Raises:
        Rejected: too large, too slow or too much; status 0 when the client went away.
    """
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Rejected(Reply(0))
                part = message.get("body", b"")
                size += len(part)
                if size > limits.body_bytes:
                    raise Rejected(too_large(limits))
                take(len(part))
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise Rejected(plain(408, "timeout", "The request took too long to arrive.")) from None
