"""Which request fields pass: what Claude Code sends does, what the provider would do itself does not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.boundary.models.fields.anthropic import check_fields
from vestibule.boundary.models.fields.anthropic_betas import check_betas
from vestibule.boundary.models.fields.kit import FieldRefused
from vestibule.boundary.models.formats.anthropic import Anthropic
from vestibule.boundary.models.formats.base import Asked, Route
from vestibule.boundary.models.rules import (
    Facts,
    field_refusal,
    input_tokens,
    joined,
    model_refusal,
    next_ratio,
    seen_ratio,
)
from vestibule.boundary.models.wire.strict_json import BadJson, dump, parse
from vestibule.core.verdict import Ruling, Verdict

# The shape of what Claude Code 2.1.197 sends (captured), its words shortened.
CLAUDE_CODE: dict[str, Any] = {
    "model": "claude-sonnet-5",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "<system-reminder>…"},
                {"type": "text", "text": "read a.py", "cache_control": {"type": "ephemeral"}},
            ],
        },
        {"role": "system", "content": "Available agent types…"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "", "signature": "c2ln"},
                {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"file_path": "/workspace/a.py"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "tool_use_id": "toolu_1",
                    "type": "tool_result",
                    "content": [{"type": "text", "text": "print(1)"}],
                    "is_error": False,
                    "cache_control": {"type": "ephemeral", "ttl": "1h"},
                }
            ],
        },
    ],
    "system": [{"type": "text", "text": "You are…", "cache_control": {"type": "ephemeral"}}],
    "tools": [
        {"name": "mcp__vestibule__read_file", "description": "…", "input_schema": {"type": "object", "properties": {}}}
    ],
    "metadata": {"user_id": '{"device_id":"d","account_uuid":"","session_id":"s"}'},
    "max_tokens": 64000,
    "thinking": {"type": "adaptive"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "high"},
    "stream": True,
}
CLAUDE_CODE_BETAS = (
    "claude-code-20250219,interleaved-thinking-2025-05-14,thinking-token-count-2026-05-13,"
    "context-management-2025-06-27,prompt-caching-scope-2026-01-05,mid-conversation-system-2026-04-07,effort-2025-11-24"
)


def small(**more: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}], **more}


def block(value: Any) -> dict[str, Any]:
    return small(messages=[{"role": "user", "content": [value]}])


def test_what_claude_code_sends_passes() -> None:
    seen = check_fields(CLAUDE_CODE)
    assert seen.hour_cache
    assert check_betas(CLAUDE_CODE_BETAS) == CLAUDE_CODE_BETAS


@pytest.mark.parametrize(
    "body",
    [
        block({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}),
        block({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="}}),
        block({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}}),
        block({"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "hi"}]}}),
        block({"type": "redacted_thinking", "data": "x"}),
        block({"type": "tool_result", "tool_use_id": "t", "content": "plain"}),
        block({"type": "tool_result", "tool_use_id": "t"}),
        small(tools=[{"type": "custom", "name": "a", "input_schema": {"url": {"type": "file"}}}]),
        small(tools=[{"type": "bash_20250124", "name": "bash"}]),
        small(tools=[{"type": "text_editor_20250728", "name": "str_replace_based_edit_tool", "max_characters": 9}]),
        small(tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
        small(temperature=0.5, top_p=1, top_k=5, stop_sequences=["x"], system="s", stream=False),
        small(service_tier="standard_only", thinking={"type": "enabled", "budget_tokens": 1024}),
    ],
)
def test_ordinary_requests_pass(body: dict[str, Any]) -> None:
    check_fields(body)


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (small(mcp_servers=[{"type": "url", "url": "https://evil.example.com", "name": "x"}]), "mcp_servers"),
        (small(container="c"), "container"),
        (small(fallbacks=[{"model": "other"}]), "fallbacks"),
        (small(compaction={}), "compaction"),
        (small(inference_geo="us"), "inference_geo"),
        (small(speed="fast"), "speed"),
        (small(brand_new_field=1), "brand_new_field"),
        (small(**{"Weird\nField": 1}), "unknown"),
        (small(tools=[{"type": "web_search_20250305", "name": "web_search"}]), "tools.web_search"),
        (small(tools=[{"type": "web_fetch_20260318", "name": "web_fetch"}]), "tools.web_fetch"),
        (small(tools=[{"type": "code_execution_20260120", "name": "code_execution"}]), "tools.code_execution"),
        (small(tools=[{"type": "mcp_toolset", "mcp_server_name": "x"}]), "tools.mcp_toolset"),
        (small(tools=[{"type": "tool_search_tool_regex_20251119", "name": "t"}]), "tools.tool_search_tool_regex"),
        (small(tools=[{"type": "computer_20251124", "name": "computer"}]), "tools.computer"),
        (small(tools=[{"type": "advisor_20260301", "name": "advisor", "model": "m"}]), "tools.advisor"),
        (small(tools=[{"type": "bash_20250124\n", "name": "bash"}]), "tools.unknown"),
        (small(tools=[{"type": ["custom"], "name": "a"}]), "tools.unknown"),
        (
            small(tools=[{"name": "a", "input_schema": {}, "allowed_callers": ["code_execution_20260120"]}]),
            "tools.allowed_callers",
        ),
        (small(tools=[{"name": "a", "input_schema": {}, "url": "https://evil.example.com"}]), "tools.url"),
        (block({"type": "image", "source": {"type": "url", "url": "https://evil.example.com/?q=x"}}), "source.url"),
        (block({"type": "image", "source": {"type": "file", "file_id": "f"}}), "source.file"),
        (block({"type": "document", "source": {"type": "url", "url": "https://evil.example.com"}}), "source.url"),
        (block({"type": "document", "source": {"type": "file", "file_id": "f"}}), "source.file"),
        (
            block(
                {
                    "type": "tool_result",
                    "tool_use_id": "t",
                    "content": [{"type": "image", "source": {"type": "url", "url": "https://evil.example.com"}}],
                }
            ),
            "source.url",
        ),
        (
            block(
                {
                    "type": "document",
                    "source": {
                        "type": "content",
                        "content": [{"type": "image", "source": {"type": "url", "url": "https://evil.example.com"}}],
                    },
                }
            ),
            "source.url",
        ),
        (block({"type": "container_upload", "file_id": "f"}), "content.container_upload"),
        (block({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}), "content.server_tool_use"),
        (block({"type": "mcp_tool_use", "id": "s", "name": "n", "input": {}}), "content.mcp_tool_use"),
        (block({"type": "tool_addition", "tool": {"type": "web_search_20250305"}}), "content.tool_addition"),
        (block({"type": "compaction", "content": "x"}), "content.compaction"),
        (block({"type": "text", "text": "x", "url": "y"}), "text.url"),
        (small(system=[{"type": "image", "source": {"type": "url", "url": "x"}}]), "content.image"),
        (small(context_management={"edits": [{"type": "compact_20260112"}]}), "context_management.compact_20260112"),
        (small(metadata={"user_id": "a", "leak": "b"}), "metadata.leak"),
        (small(max_tokens=0), "max_tokens"),
        (small(max_tokens=True), "max_tokens"),
        (small(max_tokens="9"), "max_tokens"),
        (small(max_tokens=10**9), "max_tokens"),
        (small(messages=[]), "messages"),
        ({"model": "m", "max_tokens": 1}, "messages"),
        (small(messages=[{"role": "tool", "content": "x"}]), "messages.role"),
        (small(stream="yes"), "stream"),
    ],
)
def test_what_the_provider_would_do_itself_or_nobody_looked_at_is_refused(body: dict[str, Any], rule: str) -> None:
    with pytest.raises(FieldRefused) as caught:
        check_fields(body)
    assert caught.value.rule == f"model.field.{rule}"


@pytest.mark.parametrize(
    "beta",
    [
        "files-api-2025-04-14",
        "mcp-client-2025-11-20",
        "code-execution-2025-05-22",
        "skills-2025-10-02",
        "computer-use-2025-11-24",
        "server-side-fallback-2026-07-01",
        "FILES-API-2025-04-14",
        "a b",
        "x\r\ny",
        "é",
    ],
)
def test_betas_that_enable_provider_side_work_are_refused(beta: str) -> None:
    with pytest.raises(FieldRefused):
        check_betas(f"claude-code-20250219,{beta}")


SEARCHED = [
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
    {
        "type": "web_search_tool_result",
        "tool_use_id": "srvtoolu_1",
        "content": [{"type": "web_search_result", "url": "https://docs.example.com/", "encrypted_content": "x"}],
    },
    {"type": "text", "text": "found"},
]
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2, "allowed_domains": ["docs.example.com"]}


def test_provider_tool_and_its_blocks_pass_only_when_policy_names_it() -> None:
    talk = [{"role": "user", "content": "go"}, {"role": "assistant", "content": SEARCHED}]
    body = small(messages=talk, tools=[SEARCH])
    check_fields(body, frozenset(("web_search",)))
    for named in (frozenset[str](), frozenset(("web_fetch", "code_execution"))):
        with pytest.raises(FieldRefused):
            check_fields(small(tools=[SEARCH]), named)
        for found in SEARCHED[:2]:
            with pytest.raises(FieldRefused):
                check_fields(small(messages=[{"role": "assistant", "content": [found]}]), named)


@pytest.mark.parametrize(
    ("found", "rule"),
    [
        ({**SEARCHED[0], "name": "web_fetch"}, "model.field.content.server_tool_use"),
        ({**SEARCHED[0], "name": ["web_search"]}, "model.field.content.server_tool_use"),
        ({**SEARCHED[0], "url": "x"}, "model.field.tool_use.url"),
        ({**SEARCHED[1], "url": "x"}, "model.field.web_search_tool_result.url"),
        ({**SEARCHED[1], "content": "x"}, "model.field.web_search_tool_result.content"),
        ({**SEARCHED[1], "type": "web_fetch_tool_result"}, "model.field.content.web_fetch_tool_result"),
        (
            {**SEARCHED[1], "type": "bash_code_execution_tool_result"},
            "model.field.content.bash_code_execution_tool_result",
        ),
    ],
)
def test_blocks_of_provider_tools_are_checked_like_all_others(found: dict[str, Any], rule: str) -> None:
    body = small(messages=[{"role": "user", "content": "go"}, {"role": "assistant", "content": [found]}])
    with pytest.raises(FieldRefused) as caught:
        check_fields(body, frozenset(("web_search",)))
    assert caught.value.rule == rule


def test_provider_tool_cannot_take_the_name_of_another() -> None:
    with pytest.raises(FieldRefused):
        check_fields(small(tools=[{**SEARCH, "name": "Bash"}]), frozenset(("web_search",)))


def test_every_nested_place_is_under_the_allow_list() -> None:
    """A key added anywhere but in the agent's own data (tool input, schema) is refused."""
    free = {"input", "input_schema", "keep", "edits"}
    places: list[tuple[Any, ...]] = []

    def walk(value: Any, path: tuple[Any, ...]) -> None:
        if isinstance(value, dict):
            if not (set(path) & free):
                places.append(path)
            for key, item in value.items():
                walk(item, (*path, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                walk(item, (*path, index))

    walk(CLAUDE_CODE, ())
    assert len(places) > 15
    for path in places:
        body = copy.deepcopy(CLAUDE_CODE)
        target: Any = body
        for step in path:
            target = target[step]
        target["smuggled"] = "https://evil.example.com"
        with pytest.raises(FieldRefused):
            check_fields(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(CLAUDE_CODE)), JSON)
def test_any_value_in_any_field_passes_or_is_a_field_refusal(field: str, value: Any) -> None:
    rule = "model.field.none"
    try:
        check_fields({**CLAUDE_CODE, field: value})
    except FieldRefused as error:
        rule = error.rule
    assert rule.startswith("model.field.")
    assert rule.isascii()


def asked(body: dict[str, Any]) -> Asked:
    return Anthropic().read(body, Route("generate"), run="r1")


def test_what_is_sent_is_what_was_checked_with_the_runs_id_for_the_users() -> None:
    request = asked(CLAUDE_CODE)
    assert request.body == {**CLAUDE_CODE, "metadata": {"user_id": "r1"}}
    assert request.changed
    assert request.stream
    assert request.most_output == 64000


def test_lone_surrogates_do_not_pass() -> None:
    with pytest.raises(BadJson):
        parse(b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"\\ud800"}]}')
    assert parse(b'{"a":"\\ud83d\\ude00"}') == {"a": "\U0001f600"}


@pytest.mark.parametrize(
    "data", [b'{"a":1,"a":2}', b'{"b":{"a":1,"\\u0061":2}}', b"NaN", b'{"a":1e999}', b"", b"\xef\xbb\xbf{}", b"{} {}"]
)
def test_json_that_two_parsers_could_read_differently_is_refused(data: bytes) -> None:
    with pytest.raises(BadJson):
        parse(data)


def test_json_bombs_are_refused_before_memory_is_spent() -> None:
    with pytest.raises(BadJson, match="too many"):
        parse(b"[" + b"[]," * 2_000_000 + b"[]]")
    with pytest.raises(BadJson, match="larger"):
        parse(b" " * (33 << 20))


@given(JSON)
def test_json_round_trips(value: Any) -> None:
    assert parse(dump(value)) == value


def test_own_refusal_stands_even_if_policy_would_allow() -> None:
    facts = Facts(model_allowed=False, refusal=model_refusal("x", "y"))
    verdict = joined(Verdict(ruling=Ruling.ALLOW, reasons=()), facts)
    assert verdict.ruling is Ruling.DENY
    assert verdict.reasons == ("model.not_allowed",)


def test_policy_refusal_stands_when_we_would_allow() -> None:
    policy = Verdict(ruling=Ruling.HOLD, reasons=("org.ask",))
    assert joined(policy, Facts()) is policy


def test_refusals_repeat_no_data_of_the_request() -> None:
    with pytest.raises(FieldRefused) as caught:
        check_fields(small(**{"SECRET token\x1b[31m": 1}))
    assert "SECRET" not in field_refusal(caught.value).sentence()
    assert "\x1b" not in model_refusal("\x1b[31mclaude", "claude").sentence()


def test_estimate_follows_the_largest_ratio_seen_and_never_falls_below_the_floor() -> None:
    request = asked(small(messages=[{"role": "user", "content": "x" * 3000}]))
    assert next_ratio(0) == 500
    assert next_ratio(1) == 300
    assert next_ratio(5000) == 1000
    assert input_tokens(request, 3000, 1000) >= 3000
    assert next_ratio(seen_ratio(1000, request, 3000)) > 333


@pytest.mark.parametrize(("budget", "most"), [(5, 10), (10, 10), (11, 21), (200_000, 200_010)])
def test_hold_covers_a_thinking_budget_beyond_max_tokens(budget: int, most: int) -> None:
    """Interleaved thinking lets a request think for more tokens than its `max_tokens` says."""
    body = small(thinking={"type": "enabled", "budget_tokens": budget})
    assert asked(body).most_output == most


@pytest.mark.parametrize("budget", [0, -1, 1.5, True, "9", 10**9])
def test_a_thinking_budget_is_a_number_of_tokens(budget: Any) -> None:
    with pytest.raises(FieldRefused) as caught:
        check_fields(small(thinking={"type": "enabled", "budget_tokens": budget}))
    assert caught.value.rule == "model.field.thinking.budget_tokens"
