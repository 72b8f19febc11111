"""What an answer may cost the one who looks at it: calls, items and pieces are bounded, in every format."""

from __future__ import annotations

import json
import time
from typing import Any

import chat_wire
import pytest
import responses_wire
from anthropic_wire import AnthropicWire
from chat_wire import ChatWire, begin, call_piece, chunk, tail
from gemini_wire import GeminiWire
from hold_matrix import Scenario, call, machine, play
from models_house import MODEL
from responses_wire import ResponsesWire

from vestibule.boundary.models.hold.base import MAX_CALLS, Decided, Held
from vestibule.boundary.models.hold.chat import ChatStream
from vestibule.boundary.models.hold.responses import MAX_ITEMS
from vestibule.boundary.models.hold.responses_open import MAX_CLOSINGS
from vestibule.boundary.models.hold.responses_whole import ResponsesWhole
from vestibule.boundary.models.translate.anthropic_client import ChatStreamAsAnthropic
from vestibule.boundary.models.translate.names import Names
from vestibule.boundary.models.wire.sse import WireError

WIRES: dict[str, Any] = {wire.format: wire for wire in (AnthropicWire(), ChatWire(), ResponsesWire(), GeminiWire())}


def always(held: Held) -> Decided:
    return Decided(True)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("name", WIRES)
def test_an_answer_of_very_many_calls_is_no_answer(name: str, stream: bool) -> None:
    wire = WIRES[name]
    for number in (MAX_CALLS, MAX_CALLS + 1):
        scenario = Scenario("many", tuple(call("look", place) for place in range(number)))
        data = wire.stream(scenario) if stream else wire.whole(scenario)
        found = play(machine(wire, stream=stream), [data], always)
        assert (found.error is None) == (number == MAX_CALLS)
    assert isinstance(found.error, WireError)
    assert len(found.held) <= MAX_CALLS


def test_a_chunk_of_very_many_calls_costs_little() -> None:
    entries = [{"index": place, "function": {"name": "look", "arguments": "{}"}} for place in range(100_000)]
    begun = time.process_time()
    found = play(machine(WIRES["chat"], stream=True), [begin() + chunk({"tool_calls": entries})], always)
    assert isinstance(found.error, WireError)
    assert time.process_time() - begun < 5


def test_choices_are_numbered_as_the_api_does() -> None:
    for index in (-1, 128, 10**9):
        data = begin() + chunk({"content": "x"}, index=index)
        found = play(ChatStream(single=False), [data])
        assert isinstance(found.error, WireError)


def test_a_text_of_a_response_ends_a_bounded_number_of_times() -> None:
    start = list(responses_wire.message_events(0, "x"))[:2]
    done = [
        {
            "type": "response.output_text.done",
            "output_index": 0,
            "item_id": "m",
            "content_index": 0,
            "text": f"{number}",
        }
        for number in range(MAX_CLOSINGS + 1)
    ]
    data = responses_wire.streamed([], [*start, *done])
    found = play(machine(WIRES["responses"], stream=True), [data])
    assert "too often" in str(found.error)


def test_a_response_of_very_many_items_is_no_answer() -> None:
    middle = [event for place in range(MAX_ITEMS + 1) for event in responses_wire.message_events(place, "x")]
    found = play(machine(WIRES["responses"], stream=True), [responses_wire.streamed([], middle)])
    assert "too many items" in str(found.error)


@pytest.mark.parametrize("kind", ["status", "twice", "surrogate"])
def test_a_call_of_a_whole_response_that_is_not_whole_is_not_released_whatever_was_decided(kind: str) -> None:
    item = responses_wire.function_call(0, "look", '{"path": "mark"}')
    if kind == "status":
        item["status"] = "incomplete"
    if kind == "surrogate":
        item["arguments"] = '{"path": "mark\ud800"}'
    data = json.dumps(responses_wire.response([item]))
    if kind == "twice":
        data = data.replace('"name"', '"name": "other", "name"', 1)
    answer = ResponsesWhole()
    found = play(answer, [data.encode()], always)
    assert found.held[0].problem
    assert b"mark" not in found.out
    assert found.scanned.denied == 1


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_half_a_surrogate_pair_in_a_calls_arguments_is_no_whole_call(stream: bool) -> None:
    arguments = '{"path": "mark\ud800"}'
    if stream:
        piece = call_piece(0, arguments.replace("\ud800", "HALF")).replace(b"HALF", b"\\ud800")
        data = begin() + chat_wire.call_start(0, "look") + piece + tail("tool_calls")
    else:
        entry = {"id": "a", "type": "function", "function": {"name": "look", "arguments": arguments}}
        choice = {"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "tool_calls": [entry]}}
        data = json.dumps({"id": "x", "object": "chat.completion", "model": MODEL, "choices": [choice]}).encode()
    found = play(machine(WIRES["chat"], stream=stream), [data], always)
    assert found.held[0].problem == "json"
    assert b"mark" not in found.out


def test_an_event_that_the_official_client_reads_as_another_apis_is_none() -> None:
    piece = b"event: thread.x\n" + call_piece(0, "]}")
    data = begin() + chat_wire.call_start(0, "look") + piece + tail("tool_calls")
    found = play(machine(WIRES["chat"], stream=True), [data], always)
    assert isinstance(found.error, WireError)
    assert b"look" not in found.out


def test_a_translated_chunk_of_very_many_calls_costs_little() -> None:
    entries = [{"index": place, "function": {"name": "look", "arguments": "{}"}} for place in range(100_000)]
    begun = time.process_time()
    with pytest.raises(WireError, match="too many calls"):
        ChatStreamAsAnthropic(Names()).feed(begin() + chunk({"tool_calls": entries}))
    assert time.process_time() - begun < 5
