"""The scripted provider: speaks the APIs of model providers and answers from a script. It is no model.

It exists so that the whole way can be shown and tested without a key: the gateway talks to it over a real socket
like to any provider. Every answer carries `x-vestibule-scripted: 1`.

Rules it keeps:
1. Turns are counted by the assistant messages of the conversation, not by arrival: side calls of an agent program
   (titles, summaries), repeats and parallel calls use up nothing.
2. It answers only who knows its key: it listens on loopback, where other programs live.
"""

from __future__ import annotations

import asyncio
import hmac
import json

from vestibule.boundary.models import asgi
from vestibule.boundary.models.scripted.anthropic import AnthropicRenderer
from vestibule.boundary.models.scripted.chat import ChatRenderer
from vestibule.boundary.models.scripted.gemini import GeminiRenderer
from vestibule.boundary.models.scripted.responses import ResponsesRenderer
from vestibule.boundary.models.scripted.script import Script, load_script
from vestibule.boundary.models.scripted.talk import Renderer, Reply, reply_to

RENDERERS: tuple[Renderer, ...] = (AnthropicRenderer(), ChatRenderer(), ResponsesRenderer(), GeminiRenderer())


class ScriptedProvider:
    """An ASGI application. `requests` counts what reached it, side calls included."""

    def __init__(self, script: Script, key: str) -> None:
        self._script = script
        self._key = key.encode()
        self.requests = 0

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        shown = (
            asgi.header(scope, b"x-api-key")
            or asgi.header(scope, b"x-goog-api-key")
            or asgi.header(scope, b"authorization").removeprefix(b"Bearer ")
        )
        if not hmac.compare_digest(shown, self._key):
            await asgi.answer(send, 401, RENDERERS[0].error(401, "wrong key"))
            return
        renderer = next((item for item in RENDERERS if item.serves(scope["path"])), None)
        if scope["method"] != "POST" or renderer is None:
            await asgi.answer(send, 404, RENDERERS[0].error(404, "no endpoint of a model"))
            return
        data = await asgi.read_body(receive, 64 << 20, 60)
        try:
            reply = reply_to(self._script, renderer.talk(scope["path"], json.loads(data)))
        except (ValueError, KeyError, TypeError, AttributeError):
            await asgi.answer(send, 400, renderer.error(400, "no request of this API"))
            return
        self.requests += 1
        await asyncio.sleep((self._script.latency_ms if reply.latency_ms is None else reply.latency_ms) / 1000)
        if reply.talk.stream:
            await self._stream(send, renderer, reply)
        else:
            body = json.dumps(renderer.whole(reply)).encode()
            await asgi.answer(send, 200, body, ((b"x-vestibule-scripted", b"1"),))

    async def _stream(self, send: asgi.Send, renderer: Renderer, reply: Reply) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-vestibule-scripted", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        delay = self._script.token_delay_ms / 1000
        for data, piece in renderer.events(reply):
            await send({"type": "http.response.body", "body": data, "more_body": True})
            if delay and piece:
                await asyncio.sleep(delay)
        await send({"type": "http.response.body", "body": b""})


def build_scripted_app(data: bytes, name: str, key: str) -> ScriptedProvider:
    """The provider of one script file, which answers requests that carry `key` as `x-api-key`.

    Raises:
        ConfigError: the script is not valid.
    """
    return ScriptedProvider(load_script(data, name), key)


async def _lifespan(receive: asgi.Receive, send: asgi.Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
