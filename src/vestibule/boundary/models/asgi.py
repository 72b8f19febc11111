"""The little of ASGI that the gateway needs: bounded bodies, small answers."""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from typing import Any, NamedTuple

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class Call(NamedTuple):
    """The three things an ASGI application is called with."""

    scope: Scope
    receive: Receive
    send: Send


class ClientGone(Exception):
    """The client left, or was too slow, before its request was whole."""


class TooLarge(Exception):
    """The body is beyond its bound."""


def header(scope: Scope, name: bytes) -> bytes:
    """The header's value; several of one name are refused by giving a value that matches nothing."""
    found: dict[bytes, bytes] | None = scope.get(_HEADERS)
    if found is None:
        found = scope[_HEADERS] = {}
        for key, value in scope["headers"]:
            found[key] = b"\x00" if key in found else value
    return found.get(name, b"")


_HEADERS = "vestibule.headers"
"""Where a request's headers are kept by name, once they were looked for."""


async def read_body(receive: Receive, limit: int, seconds: float) -> bytes:
    """The request's body.

    Raises:
        TooLarge, ClientGone.
    """
    try:
        found: bytes = await _within(_read(receive, limit), seconds)
    except TimeoutError:
        raise ClientGone from None
    return found


async def _read(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
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
            return parts[0] if len(parts) == 1 else b"".join(parts)


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
    """The client's end of an exchange: knows whether it is still there, and never blocks for ever.

    Nothing is started for it: whether the client left is looked up, and a clock runs only while a write waits.
    """

    def __init__(self, receive: Receive, send: Send, *, write_seconds: float = 60) -> None:
        self._receive = receive
        self._send = send
        self._seconds = write_seconds
        self._writing = False
        self.started = False
        self.ended = False
        self.gone = False

    def left(self) -> bool:
        """Whether the client is gone. Never waits."""
        if not self.gone and not self.ended:  # after the answer's end a server says "gone" of everybody
            waiting = self._receive()
            # An answer at once is its leaving: the request was read to its end before.
            with contextlib.closing(waiting):  # type: ignore[type-var]  # ASGI's awaitables are coroutines
                try:
                    waiting.send(None)  # type: ignore[attr-defined]
                except StopIteration as found:
                    self.gone = found.value["type"] == "http.disconnect"
        return self.gone

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.started = True
        await self._write({"type": "http.response.start", "status": status, "headers": headers})

    async def body(self, data: bytes, *, more: bool) -> None:
        if not more:
            self.ended = True
        await self._write({"type": "http.response.body", "body": data, "more_body": more})

    async def beat(self, data: bytes) -> None:
        """A heartbeat between frames; none while another write waits or the answer is over."""
        if self.started and not self.ended and not self._writing:
            await self.body(data, more=True)

    async def _write(self, message: Message) -> None:
        if self.gone:
            return
        self._writing = True
        try:
            await _within(self._send(message), self._seconds)
        except (TimeoutError, OSError):
            # A client that does not read is as good as gone; what it asked for is still paid and counted.
            self.gone = True
        finally:
            self._writing = False


async def _within(work: Any, seconds: float) -> Any:
    """Drive a coroutine; only if it has to wait, set a clock to it. Raises `TimeoutError`."""
    try:
        first = work.send(None)
    except StopIteration as ended:
        return ended.value
    async with asyncio.timeout(seconds):
        return await _rest(work, first)


@types.coroutine
def _rest(work: Any, first: Any) -> Generator[Any, Any, Any]:
    """What is left of a coroutine that has given `first` to wait for."""
    resume: Any
    argument: Any
    while True:
        try:
            yield first
        except BaseException as error:  # noqa: BLE001 it belongs to the coroutine
            resume, argument = work.throw, error
        else:
            resume, argument = work.send, None
        try:
            first = resume(argument)
        except StopIteration as ended:
            return ended.value
