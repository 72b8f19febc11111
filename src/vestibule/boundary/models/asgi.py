"""The little of ASGI that the gateway needs: bounded bodies, small answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class ClientGone(Exception):
    """The client left, or was too slow, before its request was whole."""


class TooLarge(Exception):
    """The body is beyond its bound."""


def header(scope: Scope, name: bytes) -> bytes:
    """The header's value; several of one name are refused by giving a value that matches nothing."""
    found = [value for key, value in scope["headers"] if key == name]
    if len(found) > 1:
        return b"\x00"
    return bytes(found[0]) if found else b""


async def read_body(receive: Receive, limit: int, seconds: float) -> bytes:
    """The request's body.

    Raises:
        TooLarge, ClientGone.
    """
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                part = message.get("body", b"")
                size += len(part)
                if size > limit:
                    raise TooLarge
                parts.append(part)
                if not message.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        raise ClientGone from None


async def answer(
    send: Send, status: int, body: bytes, headers: tuple[tuple[bytes, bytes], ...] = (), *, head: bool = False
) -> None:
    """One whole JSON answer."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": b"" if head else body})


class Client:
    """The client's end of an exchange: knows whether it is still there, and never blocks for ever."""

    def __init__(self, receive: Receive, send: Send, *, write_seconds: float = 60) -> None:
        self._send = send
        self._seconds = write_seconds
        self.started = False
        self.gone = False
        self._watch = asyncio.ensure_future(self._until_gone(receive))

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone = True

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.started = True
        await self._write({"type": "http.response.start", "status": status, "headers": headers})

    async def body(self, data: bytes, *, more: bool) -> None:
        await self._write({"type": "http.response.body", "body": data, "more_body": more})

    async def _write(self, message: Message) -> None:
        if self.gone:
            return
        try:
            async with asyncio.timeout(self._seconds):
                await self._send(message)
        except (TimeoutError, OSError):
            # A client that does not read is as good as gone; what it asked for is still paid and counted.
            self.gone = True

    def close(self) -> None:
        self._watch.cancel()
