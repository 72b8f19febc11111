"""The scripted provider's OpenAI Chat Completions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from vestibule.boundary.models.scripted.talk import MARK, Offer, Reply, Talk, pieces, seed_of, size_of


class ChatRenderer:
    """`POST …/chat/completions`."""

    def serves(self, path: str) -> bool:
        return path.endswith("/chat/completions")

    def talk(self, path: str, request: dict[str, Any]) -> Talk:  # noqa: ARG002
        messages = request["messages"]
        own = [message for message in messages if message["role"] == "assistant"]
        # A content has all texts of its turn: each refused call's begins a paragraph.
        refused = sum(line.startswith(MARK) for message in own for line in _text(message.get("content")).split("\n"))
        last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
        tools = [tool.get(tool["type"], {}) for tool in request.get("tools") or ()]
        return Talk(
            model=request["model"],
            stream=bool(request.get("stream")),
            prompt=_prompt(messages),
            answers=len(own) + refused,
            last_result=_last_result(messages),
            offered=tuple(Offer(tool["name"]) for tool in tools if "name" in tool),
            seed=seed_of(messages),
            # This API caches by itself.
            cached=last >= 0,
            history_bytes=size_of([messages[:last], tools]) if last >= 0 else 0,
            total_bytes=size_of([messages, tools]),
        )

    def whole(self, reply: Reply) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None}
        if reply.calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": json.dumps(call.input)},
                }
                for call in reply.calls
            ]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _end(reply)}
        return {**_head(reply, "chat.completion"), "choices": [choice], "usage": _usage(reply)}

    def events(self, reply: Reply) -> Iterator[tuple[bytes, bool]]:
        for delta in _deltas(reply):
            yield _event(reply, [_choice(delta)]), "content" in delta or "tool_calls" in delta
        yield _event(reply, [_choice({}, _end(reply))]), False
        yield _event(reply, [], _usage(reply)), False
        yield b"data: [DONE]\n\n", False

    def error(self, status: int, message: str) -> bytes:
        kind = {401: "authentication_error", 404: "not_found_error"}.get(status, "invalid_request_error")
        return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}}).encode()


def _deltas(reply: Reply) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": "", "refusal": None}
    for piece in pieces(reply.text):
        yield {"content": piece}
    for index, call in enumerate(reply.calls):
        begin = {"index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
        yield {"tool_calls": [begin]}
        for piece in pieces(json.dumps(call.input)):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _choice(delta: dict[str, Any], end: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": end}


def _event(reply: Reply, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
    value = {**_head(reply, "chat.completion.chunk"), "choices": choices, "usage": usage}
    return f"data: {json.dumps(value)}\n\n".encode()


def _head(reply: Reply, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-scripted{reply.id}", "object": kind, "created": 0, "model": reply.talk.model}


def _end(reply: Reply) -> str:
    return "tool_calls" if reply.calls else "stop"


def _usage(reply: Reply) -> dict[str, Any]:
    """What was written to the cache is input like any other here."""
    found = reply.usage
    read = found.cache_read_input_tokens
    whole = found.input_tokens + read + found.cache_creation_input_tokens
    return {
        "prompt_tokens": whole,
        "completion_tokens": found.output_tokens,
        "total_tokens": whole + found.output_tokens,
        "prompt_tokens_details": {"cached_tokens": read, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _prompt(messages: list[dict[str, Any]]) -> str:
    prompt = ""
    for message in messages:
        if message["role"] == "assistant":
            break
        if message["role"] == "user":
            prompt += _text(message.get("content"))
    return prompt


def _last_result(messages: list[dict[str, Any]]) -> str:
    found: list[str] = []
    for message in reversed(messages):
        if message["role"] == "tool":
            found.append(_text(message.get("content")))
        elif found:
            break
    return "\n".join(reversed(found))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return ""
