"""The budget's notes within a conversation: said once, where the model reads them, and at the same place ever after."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from models_house import RUN, House, sdk

from vestibule.boundary.models.formats import FORMATS
from vestibule.boundary.models.formats.base import Asked, Format, Route
from vestibule.boundary.models.steer import MAX_CONVERSATIONS, Steering
from vestibule.core.model import Budget, Usage
from vestibule.core.money import NANO

BY_NAME: dict[str, Format] = {item.name: item for item in FORMATS}
BODIES: dict[str, dict[str, Any]] = {
    "anthropic": {
        "model": "m",
        "max_tokens": 10,
        "messages": [
            {"role": "user", "content": "Do it."},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "read", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "text"}]},
        ],
    },
    "chat": {
        "model": "m",
        "max_tokens": 10,
        "messages": [
            {"role": "user", "content": "Do it."},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "read", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "t1", "content": "text"},
        ],
    },
    "responses": {
        "model": "m",
        "max_output_tokens": 100,
        "store": False,
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Do it."}]},
            {"type": "function_call", "call_id": "t1", "name": "read", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "t1", "output": "text"},
        ],
    },
    "gemini": {
        "generationConfig": {"maxOutputTokens": 10},
        "contents": [
            {"role": "user", "parts": [{"text": "Do it."}]},
            {"role": "model", "parts": [{"functionCall": {"name": "read", "args": {}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "read", "response": {"out": "text"}}}]},
        ],
    },
}
MORE: dict[str, list[Any]] = {
    "anthropic": [{"role": "assistant", "content": "Well."}, {"role": "user", "content": "Go on."}],
    "chat": [{"role": "assistant", "content": "Well."}, {"role": "user", "content": "Go on."}],
    "responses": [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Well."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Go on."}]},
    ],
    "gemini": [{"role": "model", "parts": [{"text": "Well."}]}, {"role": "user", "parts": [{"text": "Go on."}]}],
}
KEY = {"anthropic": "messages", "chat": "messages", "responses": "input", "gemini": "contents"}
NAMES = ("anthropic", "chat", "responses", "gemini")


def read(name: str, body: dict[str, Any]) -> Asked:
    route = Route("generate", model="m" if name == "gemini" else "", stream=False)
    return BY_NAME[name].read(copy.deepcopy(body), route, run=RUN)


def grown(name: str, body: dict[str, Any]) -> dict[str, Any]:
    return {**body, KEY[name]: [*body[KEY[name]], *MORE[name]]}


def steering(spent: int = 0) -> Steering:
    return Steering(Budget(nano_usd=100), Usage(cost_nano_usd=spent))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_touched_before_the_first_threshold(name: str) -> None:
    asked = read(name, BODIES[name])
    assert steering(79).tell(asked) is asked


@pytest.mark.parametrize("name", NAMES)
def test_a_note_is_said_once_and_stays_where_it_was_said(name: str) -> None:
    found = steering(80)
    first = found.tell(read(name, BODIES[name]))
    assert first.changed
    assert json.dumps(first.body).count("[budget]") == 1
    longer = grown(name, BODIES[name])
    second = found.tell(read(name, longer))
    assert json.dumps(second.body).count("[budget]") == 1
    before, after = first.body[KEY[name]], second.body[KEY[name]]
    # Everything up to and with the note is the same prompt as before.
    assert after[: len(before)] == before
    assert after[len(before) :] == read(name, longer).body[KEY[name]][len(BODIES[name][KEY[name]]) :]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_told_passes_the_formats_own_field_rules(name: str) -> None:
    told = steering(96).tell(read(name, BODIES[name]))
    again = read(name, told.body)
    assert "[budget] 96%" in json.dumps(again.body)


@pytest.mark.parametrize("name", NAMES)
def test_the_second_threshold_comes_behind_the_first(name: str) -> None:
    found = steering(80)
    found.tell(read(name, BODIES[name]))
    found.note(Usage(cost_nano_usd=16))
    text = json.dumps(found.tell(read(name, grown(name, BODIES[name]))).body)
    assert text.count("[budget]") == 2
    assert text.index("80%") < text.index("96%")


@pytest.mark.parametrize("name", NAMES)
def test_another_conversation_is_told_for_itself_and_only_the_highest(name: str) -> None:
    found = steering(80)
    found.tell(read(name, BODIES[name]))
    found.note(Usage(cost_nano_usd=16))
    other = {**BODIES[name], KEY[name]: MORE[name][1:]}
    text = json.dumps(found.tell(read(name, other)).body)
    assert text.count("[budget]") == 1
    assert "96%" in text


def test_a_cache_mark_that_moves_does_not_unsay_it() -> None:
    found = steering(80)
    marked = copy.deepcopy(BODIES["anthropic"])
    marked["messages"][2]["content"][0]["cache_control"] = {"type": "ephemeral"}
    found.tell(read("anthropic", marked))
    later = found.tell(read("anthropic", grown("anthropic", BODIES["anthropic"])))
    assert "[budget]" in json.dumps(later.body["messages"][2])


def test_counting_tokens_is_told_nothing() -> None:
    asked = BY_NAME["anthropic"].read(
        {"model": "m", "messages": [{"role": "user", "content": "x"}]}, Route("count"), run=RUN
    )
    assert steering(99).tell(asked) is asked


def test_what_is_remembered_is_bounded() -> None:
    found = steering(99)
    for number in range(MAX_CONVERSATIONS + 50):
        body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": str(number)}]}
        found.tell(read("anthropic", body))
    assert len(found._said) == MAX_CONVERSATIONS


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    found = House(tmp_path, budget=Budget(nano_usd=NANO))
    yield found
    found.close()


def test_the_provider_is_sent_the_note_when_most_is_spent(house: House) -> None:
    seen: list[dict[str, Any]] = []

    async def provider(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        data = b""
        while True:
            message = await receive()
            data += message.get("body", b"")
            if not message.get("more_body"):
                break
        seen.append(json.loads(data))
        answer = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
            "stop_sequence": None, "content": [{"type": "text", "text": "ok"}],
            "usage": {"input_tokens": 110_000, "output_tokens": 10},
        }  # fmt: skip
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    client = sdk(house.token, house.open(provider))
    messages: list[Any] = [{"role": "user", "content": "Begin."}]
    for _ in range(5):
        answer = client.messages.create(model=house.model, max_tokens=10, messages=messages)
        messages = [*messages, {"role": "assistant", "content": answer.content[0].text}]
        messages = [*messages, {"role": "user", "content": "Go on."}]
    told = [json.dumps(body["messages"]).count("[budget]") for body in seen]
    assert told[0] == 0
    assert told[-1] >= 1
    assert sorted(told) == told
    assert all(json.dumps(body["messages"][:-1]).count("80%") <= 1 for body in seen)
