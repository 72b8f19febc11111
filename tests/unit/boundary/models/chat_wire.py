"""Scenarios of the hold matrix as OpenAI Chat Completions, read with the official SDK."""

from __future__ import annotations

import json
from typing import Any

from hold_matrix import INPUT_TOKENS, OUTPUT_TOKENS, TOOLS, Part, Reading, Scenario, fragments
from models_house import MODEL, House

from vestibule.boundary.models.formats.base import FormatName

ASK: Any = [{"role": "user", "content": "go"}]
OFFERED: Any = [
    {"type": "function", "function": {"name": name, "description": name, "parameters": schema}}
    for name, schema in TOOLS.items()
]
USAGE = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS, "total_tokens": 49}
DONE = b"data: [DONE]\n\n"
_HTTP: list[Any] = []


def event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def chunk(delta: dict[str, Any], end: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": end}
    return event({**head("chat.completion.chunk"), "choices": [choice], "usage": None, **more})


def head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": MODEL, "system_fingerprint": "fp"}


def usage_event(usage: dict[str, Any] = USAGE) -> bytes:
    return event({**head("chat.completion.chunk"), "choices": [], "usage": usage})


def begin() -> bytes:
    return chunk({"role": "assistant", "content": "", "refusal": None})


def tail(reason: str) -> bytes:
    return chunk({}, reason) + usage_event() + DONE


def call_start(index: int, name: str) -> bytes:
    entry = {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
    return chunk({"tool_calls": [entry]})


def call_piece(index: int, words: str) -> bytes:
    return chunk({"tool_calls": [{"index": index, "function": {"arguments": words}}]})


def reason_of(scenario: Scenario) -> str:
    return "length" if scenario.ending == "cut" else "tool_calls" if scenario.calls else "stop"


def calls_of(scenario: Scenario) -> bytes:
    """The calls' events: one call after the other, or in turn."""
    lists = []
    for index, part in enumerate(scenario.calls):
        lists.append([call_start(index, part.name), *(call_piece(index, words) for words in fragments(part))])
    if not scenario.interleaved:
        return b"".join(b"".join(events) for events in lists)
    longest = max(len(events) for events in lists)
    return b"".join(events[turn] for turn in range(longest) for events in lists if turn < len(events))


class ChatWire:
    """The format `chat`, for the matrix."""

    format: FormatName = "chat"
    prefix = "/openai/v1"

    def stream(self, scenario: Scenario) -> bytes | None:
        data = begin()
        for part in scenario.parts:
            if part.kind == "text":
                half = len(part.text) // 2
                data += chunk({"content": part.text[:half]}) + chunk({"content": part.text[half:]})
        data += calls_of(scenario)
        return data if scenario.ending == "dies" else data + tail(reason_of(scenario))

    def whole(self, scenario: Scenario) -> bytes | None:
        words = "".join(part.text for part in scenario.parts if part.kind == "text")
        message: dict[str, Any] = {"role": "assistant", "content": words or None, "refusal": None}
        if scenario.calls:
            message["tool_calls"] = [_entry(index, part) for index, part in enumerate(scenario.calls)]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason_of(scenario)}
        value = {**head("chat.completion"), "choices": [choice], "usage": USAGE}
        return json.dumps(value, ensure_ascii=False).encode()

    def read(self, house: House, url: str, *, stream: bool) -> Reading:
        return read(house, url, stream=stream)

    def stops(self, reading: Reading, scenario: Scenario) -> bool:
        if scenario.ending == "cut":
            return reading.stop == "length"
        return reading.stop == ("tool_calls" if scenario.released else "stop")


def read(house: House, url: str, *, stream: bool) -> Reading:
    """Ask with the official SDK and put the answer together with its own accumulator."""
    import openai
    from openai.lib.streaming.chat import ChatCompletionStreamState

    client = sdk(house.token, url)
    try:
        if not stream:
            found = client.chat.completions.create(model=MODEL, messages=ASK, tools=OFFERED, max_tokens=100)
            return reading(found, None)
        state: Any = ChatCompletionStreamState()
        got = False
        try:
            for item in client.chat.completions.create(
                model=MODEL,
                messages=ASK,
                tools=OFFERED,
                max_tokens=100,
                stream=True,
                stream_options={"include_usage": True},
            ):
                state.handle_chunk(item)
                got = True
        except openai.OpenAIError as error:
            return reading(state.current_completion_snapshot if got else None, error)
        return reading(state.current_completion_snapshot, None)
    except openai.OpenAIError as error:
        return Reading("", (), error=error)


def sdk(token: str, url: str, **more: Any) -> Any:
    """The official client, without retries. One pool for all tests: making one costs a tenth of a second."""
    import openai

    if not _HTTP:
        _HTTP.append(openai.DefaultHttpxClient())
    return openai.OpenAI(base_url=url, api_key=token, max_retries=0, timeout=20, http_client=_HTTP[0], **more)


def reading(found: Any, error: BaseException | None) -> Reading:
    if found is None:
        return Reading("", (), error=error)
    choice = found.choices[0]
    calls = tuple(
        (item.function.name, _parsed(item.function.arguments, error)) for item in choice.message.tool_calls or ()
    )
    output = found.usage.completion_tokens if found.usage else 0
    return Reading(choice.message.content or "", calls, choice.finish_reason or "", error, output)


def _parsed(arguments: str, error: BaseException | None) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        if error is None:
            raise
        return None


def _entry(index: int, part: Part) -> dict[str, Any]:
    return {"id": f"call_{index}", "type": "function", "function": {"name": part.name, "arguments": part.arguments}}
