"""The scripted provider: speaks the Anthropic Messages API and answers from a script. It is no model.

It exists so that the whole way can be shown and tested without a key: the gateway talks to it over a real socket
like to any provider. Every answer carries `x-vestibule-scripted: 1`.

Rules it keeps:
1. Turns are counted by the assistant messages of the conversation, not by arrival: side calls of an agent program
   (titles, summaries), repeats and parallel calls use up nothing.
2. It answers only who knows its key: it listens on loopback, where other programs live.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

from vestibule.boundary.models import asgi
from vestibule.boundary.models.script import Script, ScriptedTool, ScriptedUsage, Turn, load_script

_SIDE_TEXT = "Scripted side answer"
_PIECE = 48


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
        shown = asgi.header(scope, b"x-api-key") or asgi.header(scope, b"authorization").removeprefix(b"Bearer ")
        if not hmac.compare_digest(shown, self._key):
            await asgi.answer(send, 401, _error("authentication_error", "wrong key"))
            return
        if scope["method"] != "POST" or scope["path"] != "/v1/messages":
            await asgi.answer(send, 404, _error("not_found_error", "only POST /v1/messages"))
            return
        data = await asgi.read_body(receive, 64 << 20, 60)
        try:
            request = json.loads(data)
            reply = answer_to(self._script, request)
        except (ValueError, KeyError, TypeError, AttributeError):
            await asgi.answer(send, 400, _error("invalid_request_error", "no messages request"))
            return
        self.requests += 1
        turn_latency = reply.pop("latency_ms")
        await asyncio.sleep((self._script.latency_ms if turn_latency is None else turn_latency) / 1000)
        if request.get("stream"):
            await self._stream(send, reply)
        else:
            await asgi.answer(send, 200, json.dumps(reply).encode(), ((b"x-vestibule-scripted", b"1"),))

    async def _stream(self, send: asgi.Send, reply: dict[str, Any]) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-vestibule-scripted", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        delay = self._script.token_delay_ms / 1000
        for event in events(reply):
            data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
            await send({"type": "http.response.body", "body": data, "more_body": True})
            if delay and event["type"] == "content_block_delta":
                await asyncio.sleep(delay)
        await send({"type": "http.response.body", "body": b""})


def build_scripted_app(data: bytes, name: str, key: str) -> ScriptedProvider:
    """The provider of one script file, which answers requests that carry `key` as `x-api-key`.

    Raises:
        ConfigError: the script is not valid.
    """
    return ScriptedProvider(load_script(data, name), key)


def answer_to(script: Script, request: dict[str, Any]) -> dict[str, Any]:
    """The whole message for a request, with `latency_ms` beside it. Pure."""
    messages = request["messages"]
    offered = [tool["name"] for tool in request.get("tools") or () if "name" in tool]
    number = sum(1 for message in messages if message["role"] == "assistant")
    turns = _turns(script, messages)
    turn = turns[number] if number < len(turns) else Turn(text=script.ended)
    turn = _choose(turn, messages)
    if turn.tools and not offered:
        # An agent program's own side call: it offers no tools, and the script's turn is not meant for it.
        turn = Turn(text=_SIDE_TEXT, latency_ms=turn.latency_ms)
    content: list[dict[str, Any]] = [{"type": "text", "text": turn.text}] if turn.text else []
    seed = hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()
    content += [
        {
            "type": "tool_use",
            "id": f"toolu_{seed[:16]}{index:02d}",
            "name": _tool_name(tool, offered, script.tool_prefix),
            "input": tool.input,
        }
        for index, tool in enumerate(turn.tools)
    ]
    return {
        "id": f"msg_scripted_{seed[:20]}",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": content or [{"type": "text", "text": script.ended}],
        "stop_reason": "tool_use" if turn.tools else "end_turn",
        "stop_sequence": None,
        "usage": (turn.usage or _estimate(request, content)).model_dump(),
        "latency_ms": turn.latency_ms,
    }


def events(reply: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The message as the events of a stream."""
    usage = reply["usage"]
    start = {**reply, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield {"type": "message_start", "message": start}
    for index, block in enumerate(reply["content"]):
        if block["type"] == "text":
            yield {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
            for piece in _pieces(block["text"]):
                delta = {"type": "text_delta", "text": piece}
                yield {"type": "content_block_delta", "index": index, "delta": delta}
        else:
            yield {"type": "content_block_start", "index": index, "content_block": {**block, "input": {}}}
            for piece in _pieces(json.dumps(block["input"])):
                delta = {"type": "input_json_delta", "partial_json": piece}
                yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": reply["stop_reason"], "stop_sequence": None},
        "usage": {"output_tokens": usage["output_tokens"]},
    }
    yield {"type": "message_stop"}


def _turns(script: Script, messages: list[dict[str, Any]]) -> tuple[Turn, ...]:
    # All messages up to the first answer: agent programs put reminders before and after the prompt.
    prompt = ""
    for message in messages:
        if message["role"] == "assistant":
            break
        prompt += _text(message["content"])
    for conversation in script.conversations:
        if conversation.when.prompt_contains in prompt:
            return conversation.turns
    return script.turns


def _choose(turn: Turn, messages: list[dict[str, Any]]) -> Turn:
    while turn.when is not None and turn.when.last_result_contains not in _last_result(messages):
        turn = turn.otherwise or Turn(text="The script has no answer to this.")
    return turn


def _last_result(messages: list[dict[str, Any]]) -> str:
    for message in reversed(messages):
        blocks = message["content"] if isinstance(message["content"], list) else []
        found = [_text(block.get("content", "")) for block in blocks if block.get("type") == "tool_result"]
        if found:
            return "\n".join(found)
    return ""


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(_text(item.get("text", item.get("content", ""))) for item in content if isinstance(item, dict))
    return ""


def _tool_name(tool: ScriptedTool, offered: list[str], prefix: str) -> str:
    if tool.name in offered:
        return tool.name
    for name in offered:
        if name.endswith(f"__{tool.name}"):
            return name
    return prefix + tool.name


def _pieces(text: str) -> Iterator[str]:
    for begin in range(0, len(text), _PIECE):
        yield text[begin : begin + _PIECE]


def _estimate(request: dict[str, Any], content: list[dict[str, Any]]) -> ScriptedUsage:
    """Four bytes a token; with cache marks, what stood before the last answer counts as read from the cache."""

    def tokens(value: Any) -> int:
        return -(-len(json.dumps(value, ensure_ascii=False).encode()) // 4)

    messages = request["messages"]
    total = tokens([messages, request.get("system"), request.get("tools")])
    output = max(1, tokens(content))
    if '"cache_control"' not in json.dumps(request):
        return ScriptedUsage(input_tokens=total, output_tokens=output)
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    read = tokens([messages[:last], request.get("system"), request.get("tools")]) if last >= 0 else 0
    return ScriptedUsage(
        input_tokens=1,
        output_tokens=output,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=max(0, total - read - 1),
    )


async def _lifespan(receive: asgi.Receive, send: asgi.Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _error(kind: str, message: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
