"""Requests in the other format: what is said, what is refused, and that every checked request comes out checked."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.boundary.models.fields import anthropic as anthropic_fields
from vestibule.boundary.models.fields import chat as chat_fields
from vestibule.boundary.models.fields.kit import FieldRefused
from vestibule.boundary.models.translate import translate
from vestibule.boundary.models.translate.names import Names
from vestibule.boundary.models.wire.strict_json import dump

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}


def to_chat(body: dict[str, Any]) -> dict[str, Any]:
    found = translate("anthropic", "chat")
    assert found is not None
    return found.request(body)


def to_anthropic(body: dict[str, Any]) -> dict[str, Any]:
    found = translate("chat", "anthropic")
    assert found is not None
    return found.request(body)


MESSAGES: dict[str, Any] = {
    "model": "granite",
    "max_tokens": 100,
    "system": [{"type": "text", "text": "You are…", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "look"}, IMAGE]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "I read two."},
                {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {"path": "ü.py"}},
                {"type": "tool_use", "id": "toolu_2", "name": "read", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "print(1)"},
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_2",
                    "is_error": True,
                    "content": [{"type": "text", "text": "none"}, IMAGE],
                },
                {"type": "text", "text": "go on"},
            ],
        },
        {"role": "system", "content": "Be quick."},
    ],
    "tools": [{"name": "read", "description": "reads", "input_schema": {"type": "object"}, "strict": True}],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    "stop_sequences": ["END"],
    "temperature": 0.5,
    "top_k": 5,
    "thinking": {"type": "adaptive"},
    "metadata": {"user_id": "r1"},
    "stream": True,
}


def test_messages_become_chat_completions() -> None:
    call = {"type": "function", "function": {"name": "read", "arguments": '{"path": "ü.py"}'}}
    assert to_chat(MESSAGES) == {
        "model": "granite",
        "messages": [
            {"role": "system", "content": "You are…"},
            {"role": "user", "content": [{"type": "text", "text": "look"}, PICTURE]},
            {
                "role": "assistant",
                "content": "I read two.",
                "tool_calls": [
                    {"id": "toolu_1", **call},
                    {"id": "toolu_2", "type": "function", "function": {"name": "read", "arguments": "{}"}},
                ],
            },
            {"role": "tool", "tool_call_id": "toolu_1", "content": "print(1)"},
            {
                "role": "tool",
                "tool_call_id": "toolu_2",
                "content": "The tool failed:\nnone\n(Its images and documents follow.)",
            },
            {"role": "user", "content": [PICTURE, {"type": "text", "text": "go on"}]},
            {"role": "system", "content": "Be quick."},
        ],
        "max_completion_tokens": 100,
        "temperature": 0.5,
        "stop": ["END"],
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "read",
                    "description": "reads",
                    "parameters": {"type": "object"},
                    "strict": True,
                },
            }
        ],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }


CHAT: dict[str, Any] = {
    "model": "claude",
    "max_completion_tokens": 100,
    "messages": [
        {"role": "system", "content": "You are…"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "look"}, PICTURE],
        },
        {
            "role": "assistant",
            "content": "I read two.",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "read", "arguments": '{"path": "ü.py"}'}},
                {"id": "c2", "type": "function", "function": {"name": "read", "arguments": "{nonsense"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "print(1)"},
        {"role": "tool", "tool_call_id": "c2", "content": ""},
        {"role": "user", "content": "go on"},
        {"role": "developer", "content": "Be quick."},
    ],
    "tools": [{"type": "function", "function": {"name": "read", "parameters": {"properties": {"path": {}}}}}],
    "tool_choice": {"type": "function", "function": {"name": "read"}},
    "parallel_tool_calls": False,
    "stop": "END",
    "temperature": 1.5,
    "top_p": 0.9,
    "seed": 4,
    "reasoning_effort": "high",
    "stream": True,
    "stream_options": {"include_usage": True},
    "user": "r1",
}


def test_chat_completions_become_messages() -> None:
    assert to_anthropic(CHAT) == {
        "model": "claude",
        "max_tokens": 100,
        "system": [{"type": "text", "text": "You are…"}, {"type": "text", "text": "Be quick."}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "look"}, IMAGE]},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "I read two."},
                    {"type": "tool_use", "id": "c1", "name": "read", "input": {"path": "ü.py"}},
                    {"type": "tool_use", "id": "c2", "name": "read", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "c1",
                        "content": [{"type": "text", "text": "print(1)"}],
                    },
                    {"type": "tool_result", "tool_use_id": "c2", "content": []},
                    {"type": "text", "text": "go on"},
                ],
            },
        ],
        "tools": [{"name": "read", "input_schema": {"type": "object", "properties": {"path": {}}}}],
        "cache_control": {"type": "ephemeral"},
        "tool_choice": {"type": "tool", "name": "read", "disable_parallel_tool_use": True},
        "stop_sequences": ["END"],
        "temperature": 1,
        "stream": True,
    }


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("auto", "auto"), ("any", "required"), ("none", "none")],
)
def test_choices_of_tools_fit_both_ways(choice: str, expected: str) -> None:
    there = to_chat({**MESSAGES, "tool_choice": {"type": choice}})
    assert there["tool_choice"] == expected
    back = to_anthropic({**there, "max_tokens": 5})
    assert back.get("tool_choice", {"type": "auto"}) == {"type": choice}


def test_schemas_of_answers_go_both_ways() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    there = to_chat({**MESSAGES, "output_config": {"format": {"type": "json_schema", "schema": schema}}})
    assert there["response_format"]["json_schema"]["schema"] == schema
    assert to_anthropic(there)["output_config"] == {"format": {"type": "json_schema", "schema": schema}}


def test_a_choice_among_some_tools_offers_those_only() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("read", "write")]
    named = [{"type": "function", "function": {"name": "read"}}]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": named}}
    found = to_anthropic({**CHAT, "tools": tools, "tool_choice": choice, "parallel_tool_calls": True})
    assert [tool["name"] for tool in found["tools"]] == ["read"]
    assert found["tool_choice"] == {"type": "any"}


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({**MESSAGES, "stop_sequences": list("abcde")}, "stop_sequences"),
        ({**MESSAGES, "tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools.type"),
        ({**MESSAGES, "output_config": {"format": {"type": "grammar"}}}, "output_config.format"),
    ],
)
def test_what_chat_completions_cannot_say_is_refused(body: dict[str, Any], rule: str) -> None:
    with pytest.raises(FieldRefused) as caught:
        to_chat(body)
    assert caught.value.rule == f"model.field.{rule}"


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({**CHAT, "n": 2}, "n"),
        ({**CHAT, "logprobs": True}, "logprobs"),
        ({**CHAT, "tools": [{"type": "custom", "custom": {"name": "a"}}]}, "tools.custom"),
        ({**CHAT, "tool_choice": {"type": "custom", "custom": {"name": "a"}}}, "tool_choice"),
    ],
)
def test_what_messages_cannot_say_is_refused(body: dict[str, Any], rule: str) -> None:
    with pytest.raises(FieldRefused) as caught:
        to_anthropic(body)
    assert caught.value.rule == f"model.field.{rule}"


def test_names_that_are_too_long_come_back_whole() -> None:
    names, long, other = Names(), "mcp__" + "a" * 90, "mcp__" + "a" * 91
    assert names.short("read") == "read"
    assert len(names.short(long)) == len(names.short(other)) == 64
    assert names.short(long) != names.short(other)
    assert names.long(names.short(long)) == long
    assert names.long("read") == "read"


# --- every request that passed the rules of its format passes those of the other ---------------------------------


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in items for found in places(item, (*path, key)))]


KEYS = st.sampled_from(["type", "text", "a"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 9)
    | st.sampled_from(["", "a", "auto", "text", "user", "assistant", " "]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "text", "a"]), inner, max_size=2)
    ),
    max_leaves=5,
)
DROP = object()


@st.composite
def changed(draw: Any, body: dict[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(body)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([path for path in places(found) if path]))
        target: Any = found
        for step in path[:-1]:
            target = target[step]
        new = draw(st.just(DROP) | JSON)
        if new is DROP:
            del target[path[-1]]
        else:
            target[path[-1]] = new
    return found


@settings(max_examples=600, deadline=None)
@given(changed(MESSAGES))
def test_checked_messages_become_checked_chat_completions(body: dict[str, Any]) -> None:
    try:
        anthropic_fields.check_fields(body)
    except FieldRefused:
        return
    try:
        found = to_chat(body)
    except FieldRefused:
        return
    chat_fields.check_fields(found)
    assert json.loads(dump(found)) == found


@settings(max_examples=600, deadline=None)
@given(changed(CHAT))
def test_checked_chat_completions_become_checked_messages(body: dict[str, Any]) -> None:
    try:
        chat_fields.check_fields(body)
    except FieldRefused:
        return
    try:
        found = to_anthropic({"max_completion_tokens": 100, **body})
    except FieldRefused:
        return
    if found["messages"] and found["max_tokens"]:
        anthropic_fields.check_fields(found)
    assert json.loads(dump(found)) == found


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(MESSAGES["messages"][:3]), min_size=1, max_size=6))
def test_words_and_calls_survive_there_and_back(messages: list[dict[str, Any]]) -> None:
    there = to_chat({**MESSAGES, "messages": messages})
    back = to_anthropic(there)
    assert said(back["messages"]) == said(messages)


def said(messages: list[dict[str, Any]]) -> list[Any]:
    """Texts of the model, calls, and results by their call, in their order."""
    found: list[Any] = []
    for message in messages:
        for block in message["content"]:
            if block["type"] == "tool_use":
                found.append((block["id"], block["name"], block["input"]))
            elif block["type"] == "tool_result":
                found.append(block["tool_use_id"])
            elif block["type"] == "text" and message["role"] == "assistant":
                found.append(block["text"])
    return found
