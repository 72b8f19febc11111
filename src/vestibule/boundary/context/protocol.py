"""The way to the MCP SDK: loaded in the background, given rebuilt requests, its answers read back.

Rules this module keeps:
1. The listener answers 401 and 403 before the SDK is there; only what needs the SDK waits for it.
2. The SDK gets a request that was written anew from the parsed message, with three headers at most.
3. An SDK that cannot be loaded, or that fails, is a dependency that is down (`mcp`).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vestibule.boundary.context import catalogue
from vestibule.boundary.context.cleared import SCOPE_KEY, Cleared
from vestibule.core.errors import DependencyDown

if TYPE_CHECKING:
    from vestibule.boundary.context.sdk import Endpoint

FORWARDED = (b"mcp-protocol-version", b"mcp-method", b"mcp-name")
"""Request headers that the protocol's revisions give a meaning to."""

_MODULE = "vestibule.boundary.context.sdk"


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Protocol:
    """The SDK's side of one endpoint. Loading goes on in a thread: from the start, or (`preload=False`) when needed."""

    def __init__(self, tools: tuple[catalogue.Tool, ...], *, body_bytes: int, preload: bool = True) -> None:
        self._loaded: concurrent.futures.Future[Endpoint] = concurrent.futures.Future()
        self._tools = tools
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
            module = importlib.import_module(_MODULE)
            self._loaded.set_result(module.Endpoint(self._tools, body_bytes=self._body_bytes))
        except BaseException as error:  # noqa: BLE001 - whoever waits must hear of it
            self._loaded.set_exception(_down(error))

    async def serve(self, body: bytes, headers: Sequence[tuple[bytes, bytes]], cleared: Cleared | None = None) -> Reply:
        """The SDK's answer to one message.

        Raises:
            DependencyDown: `mcp`.
        """
        self._begin()
        endpoint = await asyncio.shield(asyncio.wrap_future(self._loaded))
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
                *((name, value) for name, value in headers if name in FORWARDED),
            ],
            "client": None,
            "server": ("context.vestibule.internal", 80),
            SCOPE_KEY: cleared,
        }
        exchange = _Exchange(body)
        try:
            await endpoint.serve(scope, exchange.receive, exchange.send)
        except Exception as error:
            raise _down(error) from error
        if exchange.status == 0 or exchange.status >= 500:
            raise DependencyDown("mcp", "The protocol layer gave no answer.", fact=f"status {exchange.status}")
        kept = tuple(item for item in exchange.headers if item[0] in (b"content-type", b"allow"))
        return Reply(exchange.status, bytes(exchange.body), kept)


class _Exchange:
    """One request's body in, one response out. The client's hanging up never reaches a tool that has begun."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
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
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")


def _down(error: BaseException) -> DependencyDown:
    return DependencyDown(
        "mcp",
        "The protocol layer of the context endpoint failed.",
        fact=type(error).__name__,
        person="Reinstall Vestibule with its locked requirements, then `vestibule resume` the run.",
    )
