"""Which fields of a Chat Completions request pass, and what is made of them before they leave."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.boundary.models.fields.chat import check_fields, split_data_url
from vestibule.boundary.models.fields.kit import FieldRefused
from vestibule.boundary.models.formats.base import Asked, Offered, Route
from vestibule.boundary.models.formats.chat import DEFAULT_OUTPUT, DOCUMENT_TOKENS, IMAGE_TOKENS, Chat

PNG = "data:image/png;base64,aGk="
PDF = "data:application/pdf;base64,aGk="
FUNCTION = {"type": "function", "function": {"name": "read", "description": "…", "parameters": {"type": "object"}}}
# The shape of what opencode 1.18 sends (by @ai-sdk/openai-compatible), its words shortened.
OPENCODE: dict[str, Any] = {
    "model": "m",
    "max_tokens": 32000,
    "temperature": 0,
    "messages": [
        {"role": "system", "content": "You are…"},
        {"role": "user", "content": [{"type": "text", "text": "read a.py"}]},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "read", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "print(1)"},
    ],
    "tools": [FUNCTION],
    "tool_choice": "auto",
    "stream": True,
    "stream_options": {"include_usage": True},
}


def small(**more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}


def part(value: Any, role: str = "user") -> dict[str, Any]:
    return small(messages=[{"role": role, "content": [value]}])


def asked(body: dict[str, Any]) -> Asked:
    return Chat().read(body, Route("generate"), run="r1")


def test_what_opencode_sends_passes_unchanged() -> None:
    found = asked(OPENCODE)
    assert found.body == OPENCODE
    assert not found.changed
    assert (found.stream, found.shows_usage, found.most_output) == (True, True, 32000)
    assert found.tools == (Offered("read", schema={"type": "object"}),)


@pytest.mark.parametrize(
    "body",
    [
        part({"type": "image_url", "image_url": {"url": PNG, "detail": "high"}}),
        part({"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}}),
        part({"type": "refusal", "refusal": "no"}, "assistant"),
        part({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}),
        small(
            messages=[
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": "call_1",
                            "type": "function",
                            "function": {"name": "read", "arguments": "{}"},
                            "cache_control": {"type": "ephemeral"},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "x"},
            ]
        ),
        part({"type": "text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}}, "developer"),
        small(tools=[{"type": "custom", "custom": {"name": "patch", "format": {"type": "text"}}}]),
        small(tool_choice={"type": "function", "function": {"name": "read"}}),
        small(
            tool_choice={
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "read"}}]},
            }
        ),
        small(tool_choice="required", parallel_tool_calls=False, seed=1, stop=["a"], logit_bias={"1": 5}),
        small(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"url": "x"}}}),
        small(reasoning_effort="xhigh", verbosity="low", modalities=["text"], service_tier="default", store=False),
        small(max_completion_tokens=None, stop=None, tools=None, logprobs=True, top_logprobs=3),
        small(messages=[{"role": "assistant", "content": None, "refusal": None, "function_call": None, "audio": None}]),
    ],
)
def test_ordinary_requests_pass(body: dict[str, Any]) -> None:
    check_fields(body)


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (small(web_search_options={}), "web_search_options"),
        (small(store=True), "store"),
        (small(prediction={"type": "content", "content": "x"}), "prediction"),
        (small(audio={"voice": "alloy", "format": "wav"}), "audio"),
        (small(moderation={"model": "m"}), "moderation"),
        (small(modalities=["text", "audio"]), "modalities"),
        (small(functions=[{"name": "a"}]), "functions"),
        (small(function_call="auto"), "function_call"),
        (small(service_tier="priority"), "service_tier"),
        (small(service_tier="flex"), "service_tier"),
        (small(prompt_cache_retention="24h"), "prompt_cache_retention"),
        (small(n=9), "n"),
        (small(n=0), "n"),
        (small(n=True), "n"),
        (small(max_tokens=0), "max_tokens"),
        (small(max_completion_tokens="9"), "max_completion_tokens"),
        (small(max_tokens=10**9), "max_tokens"),
        (small(chat_template="{{ evil }}"), "chat_template"),
        (small(chat_template_kwargs={}), "chat_template_kwargs"),
        (small(extra_body={}), "extra_body"),
        (small(**{"Weird\nField": 1}), "unknown"),
        (small(tools=[{"type": "web_search"}]), "tools.web_search"),
        (small(tools=[{"type": "mcp", "server_url": "https://evil.example.com"}]), "tools.mcp"),
        (small(tools=[{"type": "code_interpreter"}]), "tools.code_interpreter"),
        (small(tools=[{"type": ["function"]}]), "tools.unknown"),
        (small(tools=[{**FUNCTION, "url": "https://evil.example.com"}]), "tools.url"),
        (small(tool_choice={"type": "web_search"}), "tool_choice.type"),
        (part({"type": "image_url", "image_url": {"url": "https://evil.example.com/?q=x"}}), "source.url"),
        (part({"type": "image_url", "image_url": {"url": "data:image/png;base64,a b"}}), "source.url"),
        (part({"type": "image_url", "image_url": {"url": "data:text/html;base64,aGk="}}), "source.url"),
        (part({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}), "source.url"),
        (part({"type": "image_url", "image_url": {"url": f"\n{PNG}"}}), "source.url"),
        (part({"type": "image_url", "image_url": {"url": "https://x"}}, "tool"), "source.url"),
        (part({"type": "file", "file": {"file_id": "file-1"}}), "source.file"),
        (part({"type": "file", "file": {"file_data": "https://evil.example.com"}}), "source.file"),
        (part({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}), "content.input_audio"),
        (part({"type": "image_url", "image_url": {"url": PNG}}, "system"), "content.image_url"),
        (part({"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}), "cache_control.ttl"),
        (small(messages=[{"role": "function", "name": "a", "content": "x"}]), "messages.role"),
        (small(messages=[{"role": "assistant", "audio": {"id": "audio_1"}}]), "messages.audio"),
        (small(messages=[{"role": "assistant", "function_call": {"name": "a"}}]), "messages.function_call"),
        (small(messages=[]), "messages"),
        ({"model": "m"}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}]}, "model"),
        (small(stream="yes"), "stream"),
        (small(stream_options={"url": 1}), "stream_options.url"),
    ],
)
def test_what_the_provider_would_do_itself_or_nobody_looked_at_is_refused(body: dict[str, Any], rule: str) -> None:
    with pytest.raises(FieldRefused) as caught:
        check_fields(body)
    assert caught.value.rule == f"model.field.{rule}"


def test_every_nested_place_is_under_the_allow_list() -> None:
    """A key added anywhere but in the agent's own data (a schema) is refused."""
    body = {**OPENCODE, "tool_choice": {"type": "function", "function": {"name": "read"}}}
    body["messages"] = [*body["messages"], part({"type": "image_url", "image_url": {"url": PNG}})["messages"][0]]
    places: list[tuple[Any, ...]] = []

    def walk(value: Any, path: tuple[Any, ...]) -> None:
        if isinstance(value, dict):
            if "parameters" not in path:
                places.append(path)
            for key, item in value.items():
                walk(item, (*path, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                walk(item, (*path, index))

    walk(body, ())
    assert len(places) > 12
    for path in places:
        changed = copy.deepcopy(body)
        target: Any = changed
        for step in path:
            target = target[step]
        target["smuggled"] = "https://evil.example.com"
        with pytest.raises(FieldRefused):
            check_fields(changed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*sorted(OPENCODE), "n", "stop", "response_format", "tool_choice", "user"]), JSON)
def test_any_value_in_any_field_passes_or_is_a_field_refusal(field: str, value: Any) -> None:
    rule = "model.field.none"
    try:
        asked({**OPENCODE, field: value})
    except FieldRefused as error:
        rule = error.rule
    assert rule.startswith("model.field.")
    assert rule.isascii()


def test_usage_is_always_asked_for_and_shown_to_who_asked() -> None:
    plain = asked(small(stream=True, max_tokens=5))
    assert plain.body["stream_options"] == {"include_usage": True}
    assert not plain.shows_usage
    off = asked(small(stream=True, max_tokens=5, stream_options={"include_usage": False, "include_obfuscation": False}))
    assert off.body["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert not off.shows_usage
    assert "stream_options" not in asked(small(max_tokens=5)).body


def test_the_output_is_always_bounded_and_the_hold_covers_every_answer() -> None:
    found = asked(small())
    assert found.body["max_completion_tokens"] == found.most_output == DEFAULT_OUTPUT
    assert found.changed
    assert asked(small(max_tokens=7)).most_output == 7
    assert asked(small(max_completion_tokens=7, max_tokens=9)).most_output == 9
    assert asked(small(max_completion_tokens=7, n=3)).most_output == 21
    assert asked(small(n=3)).most_output == 3 * DEFAULT_OUTPUT


def test_who_asks_is_the_run_and_nothing_else_is_told() -> None:
    names = {"user": "alice", "safety_identifier": "h", "prompt_cache_key": "session", "metadata": {"a": "b"}}
    found = asked(small(max_tokens=5, **names))
    assert found.changed
    assert {key: found.body.get(key) for key in names} == {
        "user": "r1",
        "safety_identifier": "r1",
        "prompt_cache_key": "r1",
        "metadata": None,
    }


def test_images_and_documents_count_for_the_hold() -> None:
    parts = [{"type": "image_url", "image_url": {"url": PNG}}, {"type": "file", "file": {"file_data": PDF}}]
    found = asked(small(messages=[{"role": "user", "content": parts}]))
    assert found.fixed_tokens == IMAGE_TOKENS + DOCUMENT_TOKENS


@pytest.mark.parametrize(
    ("method", "path", "query", "served"),
    [
        ("POST", "/chat/completions", b"", True),
        ("POST", "/chat/completions", b"api-version=x", False),
        ("GET", "/chat/completions", b"", False),
        ("POST", "/completions", b"", False),
        ("POST", "/chat/completions/", b"", False),
        ("POST", "/files", b"", False),
    ],
)
def test_one_path_is_served(method: str, path: str, query: bytes, served: bool) -> None:
    assert (Chat().route(method, path, query) is not None) == served


def test_data_urls_are_read_strictly() -> None:
    assert split_data_url(PNG) == ("image/png", "aGk=")
    for bad in ("data:,x", "data:image/png,aGk=", "data:image/png;base64,aGk", "data:image/png;charset=x;base64,aGk="):
        assert split_data_url(bad) is None
