"""The way to the MCP SDK: loaded in the background, given rebuilt requests, its answers read back.

Rules this module keeps:
1. The listener answers 401 and 403 before the SDK is there; only what needs the SDK waits for it.
2. The SDK gets a request that was written anew from the parsed message, with no headers but those that the protocol
   gives a meaning to.
3. An SDK that cannot be loaded, or that fails, is a dependency that is down (`mcp`).
4. An answer is one JSON document. Only a surface streams, and only when its request was decided and recorded.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from typing import Protocol as Shape

from vestibule.boundary.context import catalogue
from vestibule.boundary.context.cleared import SCOPE_KEY, Cleared
from vestibule.boundary.context.extension import Surface
from vestibule.boundary.context.wire.jsonrpc import Message
from vestibule.core.errors import DependencyDown

if TYPE_CHECKING:
    from vestibule.boundary.context.direct import Direct

Send = Callable[[Any], Awaitable[None]]

ROUTING = (b"mcp-protocol-version", b"mcp-method", b"mcp-name")
"""Request headers that the protocol's revisions give a meaning to. Arguments come mirrored in `mcp-param-*`."""
_MIRRORED = b"mcp-param-"
_SESSION = b"mcp-session-id"

_log = logging.getLogger(__name__)

_MODULE = "vestibule.boundary.context.sdk"


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Server(Shape):
    """The SDK as this endpoint uses it (`sdk.Endpoint`), or as a surface does."""

    @property
    def direct(self) -> Direct:
        """Which calls need no server."""
        ...

    async def serve(self, scope: Any, receive: Any, send: Send) -> None:
        """One HTTP request, as an ASGI application."""
        ...


class Protocol:
    """The SDK's side of one endpoint. Loading goes on in a thread: from the start, or (`preload=False`) when needed."""

    def __init__(
        self,
        tools: tuple[catalogue.Tool, ...],
        *,
        body_bytes: int,
        preload: bool = True,
        surface: Surface | None = None,
    ) -> None:
        self._loaded: concurrent.futures.Future[Server] = concurrent.futures.Future()
        self._tools = tools
        self._surface = surface
        # A body written anew can be longer than it came: "\u0041" shrinks, but control characters grow sixfold.
        self._body_bytes = body_bytes * 6 + 4096
        self._loader = threading.Thread(target=self._load, name="load-mcp", daemon=True)
        self._start = threading.Lock()
        if preload:
            self._begin()

    def _begin(self) -> None:
        with self._start:
            if self._loader.ident is None:
                self._loader.start()

    def _load(self) -> None:
        try:
            make = importlib.import_module(_MODULE).Endpoint if self._surface is None else self._surface.server
            self._loaded.set_result(make(self._tools, body_bytes=self._body_bytes))
        except BaseException as error:  # noqa: BLE001 - whoever waits must hear of it
            self._loaded.set_exception(_down(error))

    async def call(
        self,
        message: Message,
        params: dict[str, Any],
        headers: Sequence[tuple[bytes, bytes]],
        cleared: Cleared,
        stream: Send | None = None,
    ) -> Reply:
        """The answer to a decided request, with `params` in place of its own.

        Raises:
            DependencyDown: `mcp`.
        """
        direct = (await self._server()).direct
        if message.answer is not None:
            posted = partial(self.serve, message.encoded(), headers, None, stream)
            return await cleared.take_with(message.method, {}, posted)
        revision = direct.revision(message, params, headers)
        if revision is None or (self._surface is not None and cleared.source is self._surface):
            return await self.serve(message.encoded(params), headers, cleared, stream)
        answer = await cleared.take(params["name"], params["arguments"])
        try:
            return direct.reply(revision, message.request_id, answer)
        except UnicodeEncodeError as error:
            raise _down(error) from error

    async def _server(self) -> Server:
        if not self._loaded.done():
            self._begin()
            await asyncio.shield(asyncio.wrap_future(self._loaded))
        return self._loaded.result()

    async def serve(
        self,
        body: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        cleared: Cleared | None = None,
        stream: Send | None = None,
    ) -> Reply:
        """The SDK's answer to one message. What a surface streams goes to `stream` at once; the reply is 0 then.

        Raises:
            DependencyDown: `mcp`.
        """
        endpoint = await self._server()
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/mcp",
            "raw_path": b"/mcp",
            "query_string": b"",
            "root_path": "",
            "headers": [
                (b"host", b"context.vestibule.internal"),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"accept", b"application/json, text/event-stream"),
                *(item for item in headers if self._forwards(item[0])),
            ],
            "client": None,
            "server": ("context.vestibule.internal", 80),
            SCOPE_KEY: cleared,
        }
        exchange = _Exchange(body, stream)
        try:
            await endpoint.serve(scope, exchange.receive, exchange.send)
        except Exception as error:
            if not exchange.streamed:
                raise _down(error) from error
            _log.exception("the protocol layer failed while it streamed")
        if exchange.streamed:
            return Reply(0)
        if exchange.status == 0 or exchange.status >= 500:
            raise DependencyDown("mcp", "The protocol layer gave no answer.", fact=f"status {exchange.status}")
        kept = tuple(item for item in exchange.headers if item[0] in (b"content-type", b"allow", _SESSION))
        return Reply(exchange.status, bytes(exchange.body), kept)

    def _forwards(self, name: bytes) -> bool:
        return name in ROUTING or name.startswith(_MIRRORED) or (name == _SESSION and self._surface is not None)


class _Exchange:
    """One request's body in, one response out. The client's hanging up never reaches a tool that has begun."""

    def __init__(self, body: bytes, stream: Send | None) -> None:
        self._body: bytes | None = body
        self._stream = stream
        self.streamed = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()

    async def receive(self) -> dict[str, Any]:
        if self._body is None:
            await asyncio.Event().wait()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            self.headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
            kind = dict(self.headers).get(b"content-type", b"")
            self.streamed = self._stream is not None and kind.startswith(b"text/event-stream")
        if self._stream is not None and self.streamed:
            await self._stream(message)
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")


def _down(error: BaseException) -> DependencyDown:
    return DependencyDown(
        "mcp",
        "The protocol layer of the context endpoint failed.",
        fact=type(error).__name__,
        person="Reinstall Vestibule with its locked requirements, then `vestibule resume` the run.",
    )
