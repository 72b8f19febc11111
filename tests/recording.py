"""A provider that keeps what it was asked: the scripted one behind a socket, and every request body beside it."""

from __future__ import annotations

import json
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from vestibule.boundary.models.scripted.provider import build_scripted_app


@dataclass
class Recording:
    """Where it listens, its key, and the bodies of the requests that reached it, in order."""

    url: str
    key: str
    bodies: list[bytes] = field(default_factory=list)

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.bodies]

    def firsts(self) -> list[dict[str, Any]]:
        """Requests that open a conversation with tools: no side calls, no answer of the model in them yet."""
        return [
            item
            for item in self.requests
            if item.get("tools") and not any(message["role"] == "assistant" for message in item["messages"])
        ]


@contextmanager
def recording(
    turns: list[dict[str, Any]], *, broken_after: int | None = None, more: dict[str, Any] | None = None
) -> Iterator[Recording]:
    """A provider on loopback that answers with `turns` until the block ends; with 400 after so many requests. `more`
    stands in the script beside them."""
    key = secrets.token_urlsafe(24)
    script = {"version": 1, "turns": turns, **(more or {})}
    provider = build_scripted_app(json.dumps(script).encode(), "script.json", key)
    listener = socket.create_server(("127.0.0.1", 0))
    found = Recording(url=f"http://127.0.0.1:{listener.getsockname()[1]}", key=key)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if broken_after is not None and len(found.bodies) >= broken_after and scope["type"] == "http":
            error = {"type": "error", "error": {"type": "invalid_request_error", "message": "broken"}}
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 400, "headers": headers})
            await send({"type": "http.response.body", "body": json.dumps(error).encode()})
            return
        parts: list[bytes] = []

        async def heard() -> Any:
            message = await receive()
            if message["type"] == "http.request":
                parts.append(message.get("body", b""))
                if not message.get("more_body"):
                    found.bodies.append(b"".join(parts))
            return message

        await provider(scope, heard, send)

    server = uvicorn.Server(uvicorn.Config(app, ws="none", lifespan="off", log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.should_exit = True
        thread.join(10)
