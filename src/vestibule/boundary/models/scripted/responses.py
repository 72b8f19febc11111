"""The scripted provider's OpenAI Responses.

A turn of the model is a run of its items (thoughts, texts, calls) between items of the program. Calls of one turn
share the front of their ids, so that a program that puts each result behind its call makes no further turns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vestibule.boundary.models.fields.responses_tools import all_tools, tool_type
from vestibule.boundary.models.scripted.talk import (
    Call,
    Offer,
    Reply,
    Talk,
    pieces,
    refused_within,
    seed_of,
    size_of,
)
from vestibule.boundary.models.wire.responses import error_body, said, text_events, text_item

_OWN = frozenset(
    ("reasoning", "function_call", "custom_tool_call", "local_shell_call", "shell_call", "apply_patch_call")
)
_OUTPUTS = "_output"
_FRONT = 21
"""`call_` and the 16 signs that say the turn."""


@dataclass(frozen=True, slots=True)
class ResponsesTalk(Talk):
    """`custom`: offered tools whose argument is free text, as (namespace, name)."""

    custom: frozenset[tuple[str, str]] = frozenset()


class ResponsesRenderer:
    """`POST /v1/responses`, and `/responses` for a base URL that has its `/v1` already."""

    def serves(self, path: str) -> bool:
        return path in ("/v1/responses", "/responses")

    def talk(self, path: str, request: dict[str, Any]) -> Talk:  # noqa: ARG002
        given = request["input"]
        items = [{"role": "user", "content": given}] if isinstance(given, str) else given
        own = [_own(item) for item in items]
        last = max((place for place, mine in enumerate(own) if mine), default=-1)
        first = next((place for place, mine in enumerate(own) if mine), len(items))
        tools = list(all_tools({**request, "input": items}))
        texts = (text for item, mine in zip(items, own, strict=True) if mine for text in said(_listed(item)))
        around = [request.get("instructions"), request.get("tools")]
        return ResponsesTalk(
            model=request["model"],
            stream=bool(request.get("stream")),
            prompt="".join(text for item in items[:first] for text in said(_listed(item))),
            answers=_turns(items, own) + refused_within(texts),
            last_result=_last_result(items, own),
            offered=tuple(Offer(tool["name"], namespace) for namespace, tool in tools if "name" in tool),
            seed=seed_of(items),
            cached="prompt_cache_key" in request,
            history_bytes=size_of([items[:last], *around]) if last >= 0 else 0,
            total_bytes=size_of([items, *around]),
            custom=frozenset((space, tool["name"]) for space, tool in tools if tool_type(tool) == "custom"),
        )

    def whole(self, reply: Reply) -> dict[str, Any]:
        return _response(reply, _items(reply), "completed")

    def events(self, reply: Reply) -> Iterator[tuple[bytes, bool]]:
        for number, event in enumerate(_events(reply)):
            data = json.dumps({**event, "sequence_number": number})
            yield f"event: {event['type']}\ndata: {data}\n\n".encode(), event["type"].endswith(".delta")

    def error(self, status: int, message: str) -> bytes:
        return error_body("authentication_error" if status == 401 else "invalid_request_error", message)


def _events(reply: Reply) -> Iterator[dict[str, Any]]:
    begun = _response(reply, [], "in_progress")
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    items = _items(reply)
    for index, item in enumerate(items):
        yield from _text(index, item) if item["type"] == "message" else _call(index, item)
    yield {"type": "response.completed", "response": _response(reply, items, "completed")}


def _text(index: int, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for event in text_events(index, item):
        if event["type"] != "response.output_text.delta":
            yield event
            continue
        for piece in pieces(event["delta"]):
            yield {**event, "delta": piece}


def _call(index: int, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    custom = item["type"] == "custom_tool_call"
    key, event = ("input", "custom_tool_call_input") if custom else ("arguments", "function_call_arguments")
    place = {"item_id": item["id"], "output_index": index}
    begun = {**item, "status": "in_progress", key: ""}
    yield {"type": "response.output_item.added", "output_index": index, "item": begun}
    for piece in pieces(item[key]):
        yield {"type": f"response.{event}.delta", **place, "delta": piece}
    yield {"type": f"response.{event}.done", **place, key: item[key]}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _items(reply: Reply) -> list[dict[str, Any]]:
    found = [text_item(reply.text, f"msg_scripted_{reply.id}")] if reply.text else []
    return [*found, *(_item(reply.talk, call) for call in reply.calls)]


def _item(talk: Talk, call: Call) -> dict[str, Any]:
    item: dict[str, Any] = {"status": "completed", "call_id": call.id, "name": call.name}
    if call.namespace:
        item["namespace"] = call.namespace
    if isinstance(talk, ResponsesTalk) and (call.namespace, call.name) in talk.custom:
        # Free text: a script gives it as the only argument, whatever that is called.
        text = next(iter(call.input.values()), "") if len(call.input) == 1 else json.dumps(call.input)
        return {"id": f"ctc_{call.id[5:]}", "type": "custom_tool_call", **item, "input": str(text)}
    return {"id": f"fc_{call.id[5:]}", "type": "function_call", **item, "arguments": json.dumps(call.input)}


def _response(reply: Reply, items: list[dict[str, Any]], status: str) -> dict[str, Any]:
    used = reply.usage
    read, write = used.cache_read_input_tokens, used.cache_creation_input_tokens
    taken = used.input_tokens + read + write
    usage = {
        "input_tokens": taken,
        "input_tokens_details": {"cached_tokens": read, "cache_write_tokens": write},
        "output_tokens": used.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": taken + used.output_tokens,
    }
    return {
        "id": f"resp_scripted_{reply.id}",
        "object": "response",
        "created_at": 0,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": reply.talk.model,
        "output": items,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "store": False,
        "usage": usage if status == "completed" else None,
    }


def _own(item: dict[str, Any]) -> bool:
    return item.get("type") in _OWN or item.get("role") == "assistant"


def _turns(items: list[dict[str, Any]], own: list[bool]) -> int:
    found, before = 0, False
    seen: set[str] = set()
    for item, mine in zip(items, own, strict=True):
        front = _front(item)
        if mine and not before and front not in seen:
            found += 1
        if mine and front:
            seen.add(front)
        before = mine
    return found


def _last_result(items: list[dict[str, Any]], own: list[bool]) -> str:
    """Texts of the newest results: of one turn's calls, wherever their results stand."""
    found: list[str] = []
    fronts: set[str] = set()
    for item, mine in zip(reversed(items), reversed(own), strict=True):
        if mine and found and _front(item) not in fronts:
            break
        if str(item.get("type", "")).endswith(_OUTPUTS):
            output = item.get("output")
            texts = said({"content": output}) if isinstance(output, list) else [str(output)]
            found.insert(0, "\n".join(texts))
            fronts.add(_front(item))
    return "\n".join(found)


def _front(item: dict[str, Any]) -> str:
    return str(item.get("call_id") or "")[:_FRONT]


def _listed(item: dict[str, Any]) -> dict[str, Any]:
    content = item.get("content")
    return {"content": [{"text": content}]} if isinstance(content, str) else item
