"""Scenarios of the hold matrix as Anthropic Messages, read with the official SDK."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import models_house
from hold_matrix import INPUT_TOKENS, OUTPUT_TOKENS, TOOLS, Part, Reading, Scenario, fragments
from models_house import MODEL, House

from vestibule.boundary.models.formats.base import FormatName

ASK: Any = [{"role": "user", "content": "go"}]
OFFERED: Any = [{"name": name, "description": name, "input_schema": schema} for name, schema in TOOLS.items()]


def event(value: dict[str, Any]) -> bytes:
    return b"event: " + value["type"].encode() + b"\ndata: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def start(**usage: int) -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": []}
    found = {"input_tokens": INPUT_TOKENS, "output_tokens": 1, **usage}
    return event(
        {"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None, "usage": found}}
    )


def block(index: int, begin: dict[str, Any], *deltas: dict[str, Any], stop: bool = True) -> bytes:
    """One block, whole."""
    found = event({"type": "content_block_start", "index": index, "content_block": begin})
    for delta in deltas:
        found += event({"type": "content_block_delta", "index": index, "delta": delta})
    return found + (event({"type": "content_block_stop", "index": index}) if stop else b"")


def text(index: int, *words: str) -> bytes:
    deltas = ({"type": "text_delta", "text": word} for word in words)
    return block(index, {"type": "text", "text": ""}, *deltas)


def tool(index: int, name: str, *arguments: str, stop: bool = True, kind: str = "tool_use") -> bytes:
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in arguments]
    begin = {"type": kind, "id": f"toolu_{index}", "name": name, "input": {}}
    return block(index, begin, {"type": "input_json_delta", "partial_json": ""}, *deltas, stop=stop)


def end(reason: str, output: int = OUTPUT_TOKENS) -> bytes:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return event({"type": "message_delta", "delta": delta, "usage": {"output_tokens": output}}) + event(
        {"type": "message_stop"}
    )


def reason_of(scenario: Scenario) -> str:
    return "max_tokens" if scenario.ending == "cut" else "tool_use" if scenario.calls else "end_turn"


class AnthropicWire:
    """The format `anthropic`, for the matrix."""

    format: FormatName = "anthropic"
    prefix = "/anthropic"

    def stream(self, scenario: Scenario) -> bytes | None:
        if scenario.interleaved:
            return None  # blocks come one after the other
        data = start() + event({"type": "ping"})
        last = len(scenario.parts) - 1
        for index, part in enumerate(scenario.parts):
            if part.kind == "text":
                data += text(index, part.text[: len(part.text) // 2], part.text[len(part.text) // 2 :])
                continue
            dies = scenario.ending == "dies" and index == last
            data += tool(index, part.name, *fragments(part), stop=not dies)
        return data if scenario.ending == "dies" else data + end(reason_of(scenario))

    def whole(self, scenario: Scenario) -> bytes | None:
        if scenario.interleaved or scenario.ending == "cut":
            return None  # arguments are an object: they cannot be half
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL}
        tail = {
            "stop_reason": reason_of(scenario),
            "stop_sequence": None,
            "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS},
        }
        content = ", ".join(_content(index, part) for index, part in enumerate(scenario.parts))
        return f'{json.dumps(message)[:-1]}, "content": [{content}], {json.dumps(tail)[1:]}'.encode()

    def read(self, house: House, url: str, *, stream: bool) -> Reading:
        client: anthropic.Anthropic = models_house.sdk(house.token, url)
        final = None
        try:
            if stream:
                with client.messages.stream(model=MODEL, max_tokens=100, messages=ASK, tools=OFFERED) as found:
                    for _ in found:
                        final = found.current_message_snapshot
                    final = found.get_final_message()
            else:
                final = client.messages.create(model=MODEL, max_tokens=100, messages=ASK, tools=OFFERED)
        except (anthropic.AnthropicError, ValueError) as error:
            return reading(final, error)
        return reading(final, None)

    def stops(self, reading: Reading, scenario: Scenario) -> bool:
        if scenario.ending == "cut":
            return reading.stop == "max_tokens"
        return reading.stop == ("tool_use" if scenario.released else "end_turn")


def reading(message: Any, error: BaseException | None) -> Reading:
    if message is None:
        return Reading("", (), error=error)
    assert all(found.type != "text" or found.text for found in message.content) or error
    words = "".join(found.text for found in message.content if found.type == "text")
    calls = tuple((found.name, found.input) for found in message.content if found.type == "tool_use")
    return Reading(words, calls, message.stop_reason or "", error, message.usage.output_tokens)


def _content(index: int, part: Part) -> str:
    if part.kind == "text":
        return json.dumps({"type": "text", "text": part.text})
    return f'{{"type": "tool_use", "id": "toolu_{index}", "name": "{part.name}", "input": {part.arguments}}}'
