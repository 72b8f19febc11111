"""The scripted provider's Anthropic Messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from vestibule.boundary.models.scripted.talk import Offer, Reply, Talk, pieces, refused_within, seed_of, size_of


class AnthropicRenderer:
    """`POST /v1/messages`."""

    def serves(self, path: str) -> bool:
        return path == "/v1/messages"

    def talk(self, path: str, request: dict[str, Any]) -> Talk:  # noqa: ARG002
        messages = request["messages"]
        own = [message for message in messages if message["role"] == "assistant"]
        texts = (block.get("text", "") for message in own for block in _blocks(message["content"]))
        last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
        around = [request.get("system"), request.get("tools")]
        return Talk(
            model=request["model"],
            stream=bool(request.get("stream")),
            prompt=_prompt(messages),
            answers=len(own) + refused_within(texts),
            last_result=_last_result(messages),
            offered=tuple(Offer(tool["name"]) for tool in request.get("tools") or () if "name" in tool),
            seed=seed_of(messages),
            cached='"cache_control"' in json.dumps(request),
            history_bytes=size_of([messages[:last], *around]) if last >= 0 else 0,
            total_bytes=size_of([messages, *around]),
        )

    def whole(self, reply: Reply) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
        content += [
            {"type": "tool_use", "id": f"toolu_{call.id[5:]}", "name": call.name, "input": call.input}
            for call in reply.calls
        ]
        return {
            "id": f"msg_scripted_{reply.id}",
            "type": "message",
            "role": "assistant",
            "model": reply.talk.model,
            "content": content,
            "stop_reason": "tool_use" if reply.calls else "end_turn",
            "stop_sequence": None,
            "usage": reply.usage.model_dump(),
        }

    def events(self, reply: Reply) -> Iterator[tuple[bytes, bool]]:
        for event in _events(self.whole(reply)):
            data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
            yield data, event["type"] == "content_block_delta"

    def error(self, status: int, message: str) -> bytes:
        kind = {401: "authentication_error", 404: "not_found_error"}.get(status, "invalid_request_error")
        return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()


def _events(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    usage = message["usage"]
    start = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield {"type": "message_start", "message": start}
    for index, block in enumerate(message["content"]):
        if block["type"] == "text":
            yield {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
            for piece in pieces(block["text"]):
                delta = {"type": "text_delta", "text": piece}
                yield {"type": "content_block_delta", "index": index, "delta": delta}
        else:
            yield {"type": "content_block_start", "index": index, "content_block": {**block, "input": {}}}
            for piece in pieces(json.dumps(block["input"])):
                delta = {"type": "input_json_delta", "partial_json": piece}
                yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": message["stop_reason"], "stop_sequence": None},
        "usage": {"output_tokens": usage["output_tokens"]},
    }
    yield {"type": "message_stop"}


def _prompt(messages: list[dict[str, Any]]) -> str:
    # All messages up to the first answer: agent programs put reminders before and after the prompt.
    prompt = ""
    for message in messages:
        if message["role"] == "assistant":
            break
        prompt += _text(message["content"])
    return prompt


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


def _blocks(content: Any) -> list[dict[str, Any]]:
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
