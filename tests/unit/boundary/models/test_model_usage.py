"""Usage that is no usage settles nothing: a request whose provider reports nonsense is charged at its hold."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vestibule.boundary.models.formats import by_name
from vestibule.boundary.models.formats.base import Asked, FormatName
from vestibule.boundary.models.hold.base import Told
from vestibule.boundary.models.wire.sse import WireError

KEYS: dict[FormatName, tuple[str, str, str]] = {
    "anthropic": ("usage", "input_tokens", "output_tokens"),
    "responses": ("usage", "input_tokens", "output_tokens"),
    "chat": ("usage", "prompt_tokens", "completion_tokens"),
    "gemini": ("usageMetadata", "promptTokenCount", "candidatesTokenCount"),
}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
ANSWERS: dict[FormatName, dict[str, Any]] = {
    "anthropic": {"type": "message", "role": "assistant", "content": [], "stop_reason": "end_turn"},
    "responses": {"object": "response", "status": "completed", "output": []},
    "chat": {"choices": [CHOICE]},
    "gemini": {"candidates": [{"index": 0, "content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}]},
}
NONSENSE = [-1, -(10**18), True, 1.5, "7", [], {}]


def told(form: FormatName, usage: dict[str, Any]) -> Told:
    asked = Asked(
        format=form, operation="generate", model="m", body={}, stream=False, most_output=9, messages=1, tools=()
    )
    answer = by_name(form).whole(asked)
    answer.feed(json.dumps({**ANSWERS[form], KEYS[form][0]: usage}).encode())
    answer.end()
    assert answer.told.stopped
    return answer.told


@pytest.mark.parametrize("form", list(KEYS))
def test_counts_are_a_report(form: FormatName) -> None:
    _, taken, given = KEYS[form]
    found = told(form, {taken: 10, given: 5})
    assert found.reported
    assert (found.tokens.all_input, found.tokens.output) == (10, 5)


@pytest.mark.parametrize("place", [1, 2], ids=["input", "output"])
@pytest.mark.parametrize("form", list(KEYS))
def test_what_is_no_count_is_no_report(form: FormatName, place: int) -> None:
    _, taken, given = KEYS[form]
    for value in NONSENSE:
        assert not told(form, {taken: 10, given: 5, KEYS[form][place]: value}).reported, value


@pytest.mark.parametrize("form", list(KEYS))
def test_a_report_without_its_input_is_none(form: FormatName) -> None:
    assert not told(form, {KEYS[form][2]: 5}).reported


def test_an_anthropic_stream_reports_once_input_and_output_are_known() -> None:
    def streamed(begin: dict[str, Any], end: dict[str, Any]) -> Told:
        asked = Asked(
            format="anthropic",
            operation="generate",
            model="m",
            body={},
            stream=True,
            most_output=9,
            messages=1,
            tools=(),
        )
        answer = by_name("anthropic").stream(asked)
        for event in (
            {"type": "message_start", "message": {"role": "assistant", "content": [], "usage": begin}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": end},
            {"type": "message_stop"},
        ):
            answer.feed(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        assert answer.told.stopped
        return answer.told

    assert streamed({"input_tokens": 10, "output_tokens": 1}, {"output_tokens": 5}).reported
    assert streamed({"input_tokens": 0, "output_tokens": 0}, {"input_tokens": 10, "output_tokens": 5}).reported
    assert not streamed({"input_tokens": -10}, {"output_tokens": 5}).reported
    assert not streamed({"input_tokens": 10}, {"output_tokens": -5}).reported


def test_an_event_whose_only_name_cannot_be_written_is_no_answer() -> None:
    asked = Asked(
        format="anthropic", operation="generate", model="m", body={}, stream=True, most_output=9, messages=1, tools=()
    )
    with pytest.raises(WireError):
        by_name("anthropic").stream(asked).feed(b'data: {"type": "\\ud83d"}\n\n')
