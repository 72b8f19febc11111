"""Scenarios of the hold matrix as OpenAI Responses, read with the official SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
from hold_matrix import INPUT_TOKENS, OUTPUT_TOKENS, TOOLS, Part, Reading, Scenario, fragments
from models_house import MODEL, House

from vestibule.boundary.models.formats.base import FormatName
from vestibule.boundary.models.wire.sse import written

OFFERED: Any = [
    {"type": "function", "name": name, "description": name, "parameters": schema, "strict": False}
    for name, schema in TOOLS.items()
]
_HTTP: list[Any] = []


def sdk(token: str, url: str) -> openai.OpenAI:
    """The official client, without retries. One pool for all tests: making one costs a tenth of a second."""
    if not _HTTP:
        _HTTP.append(openai.DefaultHttpxClient())
    return openai.OpenAI(base_url=url, api_key=token, max_retries=0, timeout=20, http_client=_HTTP[0])


def response(items: list[Any], status: str = "completed", *, number: int = 1, **more: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": INPUT_TOKENS,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": OUTPUT_TOKENS,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    }
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": MODEL,
        "output": items,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        **({} if status == "in_progress" else {"usage": usage}),
        **({"incomplete_details": {"reason": "max_output_tokens"}} if status == "incomplete" else {}),
        **more,
    }


def message(index: int, text: str, number: int = 1) -> dict[str, Any]:
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    return {
        "id": f"msg_{number}_{index}",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [part],
    }


def function_call(index: int, name: str, arguments: str, status: str = "completed", **more: Any) -> dict[str, Any]:
    head = {"id": f"fc_{index}", "type": "function_call", "status": status}
    return {**head, "arguments": arguments, "call_id": f"call_{index}", "name": name, **more}


def message_events(index: int, text: str, *, item: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    whole = item or message(index, text)
    part = whole["content"][0]
    place = {"item_id": whole["id"], "output_index": index, "content_index": 0}
    begun = {**whole, "status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": index, "item": begun}
    yield {"type": "response.content_part.added", **place, "part": {**part, "text": ""}}
    half = len(text) // 2
    for piece in (text[:half], text[half:]):
        yield {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": text, "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": part}
    yield {"type": "response.output_item.done", "output_index": index, "item": whole}


def call_events(index: int, whole: dict[str, Any], pieces: list[str]) -> Iterator[dict[str, Any]]:
    custom = whole["type"] == "custom_tool_call"
    key, event = ("input", "custom_tool_call_input") if custom else ("arguments", "function_call_arguments")
    place = {"item_id": whole["id"], "output_index": index}
    begun = {**whole, "status": "in_progress", key: ""}
    yield {"type": "response.output_item.added", "output_index": index, "item": begun}
    for piece in pieces:
        yield {"type": f"response.{event}.delta", **place, "delta": piece}
    yield {"type": f"response.{event}.done", **place, key: whole[key]}
    yield {"type": "response.output_item.done", "output_index": index, "item": whole}


def item_events(index: int, whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """An item of another kind, without pieces."""
    yield {"type": "response.output_item.added", "output_index": index, "item": {**whole, "status": "in_progress"}}
    yield {"type": "response.output_item.done", "output_index": index, "item": whole}


def framed(events: list[dict[str, Any]], first: int = 0) -> bytes:
    out = b""
    for number, value in enumerate(events, first):
        out += written({**value, "sequence_number": number}, value["type"])
    return out


def streamed(items: list[Any], middle: list[dict[str, Any]], status: str = "completed", **more: Any) -> bytes:
    """A whole stream around the events of its items."""
    begun = response([], "in_progress", **more)
    end = {"type": f"response.{status}", "response": response(items, status, **more)}
    head = [{"type": "response.created", "response": begun}, {"type": "response.in_progress", "response": begun}]
    return framed([*head, *middle, end])


class ResponsesWire:
    """The format `responses`, for the matrix."""

    format: FormatName = "responses"
    prefix = "/openai/v1"

    def stream(self, scenario: Scenario) -> bytes | None:
        number = 2 if scenario.name == "final" else 1
        items = [_item(index, part, number) for index, part in enumerate(scenario.parts)]
        runs = [list(self._events(index, part, items[index])) for index, part in enumerate(scenario.parts)]
        if scenario.ending == "dies":
            middle = [event for run in (*runs[:-1], runs[-1][:-2]) for event in run]
            begun = response([], "in_progress", number=number)
            return framed([{"type": "response.created", "response": begun}, *middle])
        middle = [event for run in runs for event in run]
        if scenario.interleaved:
            longest = max(len(run) for run in runs)
            middle = [run[turn] for turn in range(longest) for run in runs if turn < len(run)]
        status = "incomplete" if scenario.ending == "cut" else "completed"
        return streamed(items, middle, status, number=number)

    def _events(self, index: int, part: Part, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if part.kind == "text":
            return message_events(index, part.text, item=item)
        return call_events(index, item, fragments(part))

    def whole(self, scenario: Scenario) -> bytes | None:
        if scenario.interleaved:
            return None  # one piece has no turns
        number = 2 if scenario.name == "final" else 1
        items = [_item(index, part, number) for index, part in enumerate(scenario.parts)]
        status = "incomplete" if scenario.ending == "cut" else "completed"
        return json.dumps(response(items, status, number=number), ensure_ascii=False).encode()

    def read(self, house: House, url: str, *, stream: bool) -> Reading:
        client = sdk(house.token, url)
        final: Any = None
        done: list[Any] = []
        try:
            if stream:
                with client.responses.stream(model=MODEL, input="go", tools=OFFERED) as found:
                    for event in found:
                        if event.type == "response.output_item.done":
                            done.append(event.item)
                        elif event.type in ("response.completed", "response.incomplete"):
                            final = event.response
                # What came item by item is what the last event repeats.
                assert {item.id for item in done} == {item.id for item in final.output}
            else:
                final = client.responses.create(model=MODEL, input="go", tools=OFFERED)
        except (openai.OpenAIError, ValueError) as error:
            return reading(final, done, error)
        return reading(final, done, None)

    def stops(self, reading: Reading, scenario: Scenario) -> bool:
        return reading.stop == ("incomplete" if scenario.ending == "cut" else "completed")


def reading(final: Any, done: list[Any], error: BaseException | None) -> Reading:
    items = final.output if final is not None else done
    words = "".join(part.text for item in items if item.type == "message" for part in item.content)
    calls = tuple((item.name, json.loads(item.arguments)) for item in items if item.type == "function_call")
    if final is None:
        return Reading(words, calls, error=error)
    return Reading(words, calls, final.status, error, final.usage.output_tokens)


def _item(index: int, part: Part, number: int) -> dict[str, Any]:
    if part.kind == "text":
        return message(index, part.text, number)
    return function_call(index, part.name, part.arguments, "incomplete" if part.problem == "cut" else "completed")
