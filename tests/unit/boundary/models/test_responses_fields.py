"""Which fields of a Responses request pass, in which form it is sent, and what of it the tools are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule.boundary.models.fields.kit import FieldRefused
from vestibule.boundary.models.fields.responses import check_fields
from vestibule.boundary.models.formats.base import Asked, Offered, Route
from vestibule.boundary.models.formats.responses import DEFAULT_OUTPUT_TOKENS, DOCUMENT_TOKENS, IMAGE_TOKENS, Responses
from vestibule.boundary.models.wire.responses import error_body, is_error, read_usage
from vestibule.cost.prices import Tokens

FORM = Responses()
PNG = "data:image/png;base64,iVBORw0KGgo="
FUNCTION: dict[str, Any] = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: /x/"}
CUSTOM: dict[str, Any] = {"type": "custom", "name": "apply_patch", "description": "d", "format": GRAMMAR}
NAMESPACE: dict[str, Any] = {"type": "namespace", "name": "mcp__vestibule", "description": "", "tools": [FUNCTION]}


def body(**more: Any) -> dict[str, Any]:
    return {"model": "m", "input": "go", **more}


def read(asked: dict[str, Any], **more: Any) -> Asked:
    return FORM.read(asked, Route("generate"), run="r1", **more)


CODEX: dict[str, Any] = {
    # As Codex 0.169 sends it: its newer models get their tools in the input.
    "model": "m",
    "instructions": "You are Codex.",
    "stream": True,
    "input": [
        {
            "type": "additional_tools",
            "id": "at_1",
            "role": "developer",
            "tools": [{**NAMESPACE, "name": "functions", "tools": [CUSTOM, FUNCTION]}, NAMESPACE],
        },
        {"type": "message", "id": "msg_1", "role": "developer", "content": [{"type": "input_text", "text": "x"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": PNG, "detail": "high"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "encrypted_content": "gAAAA"},
        {
            "type": "message",
            "role": "assistant",
            "phase": "commentary",
            "content": [{"type": "output_text", "text": "y"}],
        },
        {
            "type": "function_call",
            "id": "fc",
            "name": "look",
            "namespace": "mcp__vestibule",
            "arguments": "{}",
            "call_id": "c",
        },
        {"type": "function_call_output", "id": "fco", "call_id": "c", "output": "done"},
        {"type": "custom_tool_call", "status": "completed", "call_id": "d", "name": "apply_patch", "input": "*** "},
        {"type": "custom_tool_call_output", "call_id": "d", "output": [{"type": "input_text", "text": "ok"}]},
        {"type": "local_shell_call", "call_id": "e", "status": "completed", "action": {"type": "exec", "command": []}},
        {"type": "tool_search_call", "call_id": "f", "execution": "client", "arguments": {"query": "q"}},
        {"type": "tool_search_output", "call_id": "f", "execution": "client", "status": "completed", "tools": [CUSTOM]},
    ],
    "tools": [
        FUNCTION,
        NAMESPACE,
        {"type": "tool_search", "execution": "client", "description": "d", "parameters": {}},
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"effort": "medium", "summary": "auto", "context": "all_turns"},
    "store": False,
    "stream_options": {"reasoning_summary_delivery": "sequential_cutoff"},
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "k",
    "text": {"verbosity": "low"},
    "client_metadata": {"x-codex-installation-id": "id"},
}


def test_what_codex_sends_passes_without_names_of_devices_and_with_a_bound() -> None:
    asked = read(CODEX)
    assert asked.changed
    assert asked.stream
    kept = {key: value for key, value in CODEX.items() if key != "client_metadata"}
    assert asked.body == {**kept, "max_output_tokens": DEFAULT_OUTPUT_TOKENS}
    assert asked.most_output == DEFAULT_OUTPUT_TOKENS
    assert asked.fixed_tokens == IMAGE_TOKENS
    schema = {"type": "object"}
    assert asked.tools == (
        Offered("look", schema=schema),
        Offered("look", "mcp__vestibule", schema),
        Offered("tool_search"),
        Offered("apply_patch", form="text"),
        Offered("look", schema=schema),
        Offered("look", "mcp__vestibule", schema),
        Offered("apply_patch", form="text"),
    )


def test_a_request_that_needs_nothing_is_sent_as_it_came() -> None:
    asked = read(body(store=False, max_output_tokens=50))
    assert not asked.changed
    assert asked.most_output == 50


def test_nothing_is_stored_unless_it_says_so_and_then_it_is_refused() -> None:
    assert read(body()).body["store"] is False
    assert read(body(store=None)).body["store"] is False
    with pytest.raises(FieldRefused) as found:
        read(body(store=True))
    assert found.value.rule == "model.field.store"


def test_the_run_stands_for_whom_the_agent_says_it_is() -> None:
    sent = read(body(user="alice", safety_identifier="alice", metadata={"a": "b"})).body
    assert sent["safety_identifier"] == "r1"
    assert "user" not in sent
    assert "metadata" not in sent


def item(kind: str, **more: Any) -> dict[str, Any]:
    return body(input=[{"type": kind, **more}])


def said(*content: Any) -> dict[str, Any]:
    return body(input=[{"role": "user", "content": list(content)}])


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"input": "x"}, "model"),
    ({"model": "m"}, "input"),
    (body(input=[]), "input"),
    (body(unheard_of=1), "unheard_of"),
    (body(previous_response_id="resp_1"), "previous_response_id"),
    (body(conversation="conv_1"), "conversation"),
    (body(prompt={"id": "pmpt_1"}), "prompt"),
    (body(background=True), "background"),
    (body(service_tier="priority"), "service_tier"),
    (body(service_tier="flex"), "service_tier"),
    (body(reasoning={"mode": "pro"}), "reasoning.mode"),
    (body(prompt_cache_retention="24h"), "prompt_cache_retention"),
    (body(prompt_cache_options={"ttl": "12h"}), "prompt_cache_options"),
    (body(context_management=[{"type": "compaction"}]), "context_management"),
    (body(moderation={"model": "x"}), "moderation"),
    (body(access_programs={"cyber": "daybreak_red"}), "access_programs.cyber"),
    (body(max_output_tokens=True), "max_output_tokens"),
    (body(max_output_tokens=2_000_000), "max_output_tokens"),
    (item("item_reference", id="msg_1"), "input.item_reference"),
    (body(input=[{"id": "msg_1"}]), "message.role"),
    (item("compaction", encrypted_content="x"), "input.compaction"),
    (item("computer_call_output", output={}), "input.computer_call_output"),
    (item("mcp_approval_response", approve=True), "input.mcp_approval_response"),
    (item("web_search_call", id="ws"), "input.web_search_call"),
    (item("image_generation_call", result="x"), "input.image_generation_call"),
    (item("function_call", name="a", arguments="{}", caller={"type": "program", "caller_id": "p"}), "caller"),
    (
        item("shell_call", action={}, environment={"type": "container_reference", "container_id": "c"}),
        "environment.type",
    ),
    (item("tool_search_output", tools=[], execution="server"), "tool_search.execution"),
    (item("tool_search_output", tools=[{"type": "mcp"}], execution="client"), "tools.mcp"),
    (item("additional_tools", role="developer", tools=[{"type": "web_search"}]), "tools.web_search"),
    (said({"type": "input_image", "image_url": "https://example.com/a.png"}), "input_image.image_url"),
    (said({"type": "input_image", "image_url": PNG, "file_id": "file-1"}), "input_image.file_id"),
    (said({"type": "input_image", "file_id": "file-1"}), "input_image.file_id"),
    (said({"type": "input_file", "file_url": "https://example.com/a.pdf"}), "input_file.file_url"),
    (said({"type": "input_file", "file_id": "file-1"}), "input_file.file_id"),
    (said({"type": "input_file", "file_data": "https://example.com/a.pdf"}), "input_file.file_data"),
    (said({"type": "input_audio", "input_audio": {}}), "content.input_audio"),
    (item("function_call_output", output=[{"type": "input_image", "image_url": "http://x"}]), "input_image.image_url"),
    (body(tools=[{"type": "web_search"}]), "tools.web_search"),
    (body(tools=[{"type": "web_search_2025_08_26"}]), "tools.web_search"),
    (body(tools=[{"type": "web_search_preview_2025_03_11"}]), "tools.web_search_preview"),
    (body(tools=[{"type": "file_search", "vector_store_ids": ["v"]}]), "tools.file_search"),
    (body(tools=[{"type": "code_interpreter", "container": {"type": "auto"}}]), "tools.code_interpreter"),
    (body(tools=[{"type": "computer_use_preview"}]), "tools.computer_use_preview"),
    (body(tools=[{"type": "computer"}]), "tools.computer"),
    (body(tools=[{"type": "image_generation"}]), "tools.image_generation"),
    (body(tools=[{"type": "programmatic_tool_calling"}]), "tools.programmatic_tool_calling"),
    (body(tools=[{"type": "mcp", "server_label": "x", "server_url": "https://example.com"}]), "tools.mcp"),
    (body(tools=[{"type": "shell"}]), "tools.environment"),
    (body(tools=[{"type": "shell", "environment": None}]), "environment"),
    (body(tools=[{"type": "shell", "environment": {"type": "container_auto"}}]), "environment.type"),
    (body(tools=[{"type": "tool_search"}]), "tools.execution"),
    (body(tools=[{"type": "tool_search", "execution": "server"}]), "tool_search.execution"),
    (body(tools=[{**FUNCTION, "allowed_callers": ["direct", "programmatic"]}]), "tools.allowed_callers"),
    (body(tools=[{**FUNCTION, "async": True}]), "tools.async"),
    (body(tools=[{**NAMESPACE, "tools": [{"type": "web_search"}]}]), "tools.web_search"),
    (body(tools=[{**NAMESPACE, "tools": [NAMESPACE]}]), "tools.namespace"),
    (body(tools=[{"name": "x"}]), "tools.unknown"),
    (body(tool_choice={"type": "web_search_preview"}), "tool_choice.web_search_preview"),
    (body(tool_choice={"type": "mcp", "server_label": "x"}), "tool_choice.mcp"),
]


@pytest.mark.parametrize(("asked", "place"), REFUSED, ids=[f"{n}-{place}" for n, (_, place) in enumerate(REFUSED)])
def test_what_is_not_named_is_refused(asked: dict[str, Any], place: str) -> None:
    with pytest.raises(FieldRefused) as found:
        read(asked)
    assert found.value.rule == f"model.field.{place}"


@pytest.mark.parametrize(
    "asked",
    [
        body(tools=[{"type": "local_shell"}, {"type": "apply_patch"}]),
        body(tools=[{"type": "shell", "environment": {"type": "local"}}], tool_choice={"type": "shell"}),
        body(tools=[CUSTOM], tool_choice={"type": "custom", "name": "apply_patch"}),
        body(tools=[FUNCTION], tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function"}]}),
        body(previous_response_id=None, conversation=None, prompt=None, background=False, service_tier="default"),
        body(text={"format": {"type": "json_schema", "name": "n", "schema": {}}}, truncation="auto", top_logprobs=2),
        said({"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}),
        item("shell_call_output", call_id="c", output=[{"stdout": "", "stderr": "", "outcome": {"type": "timeout"}}]),
        item("apply_patch_call_output", call_id="c", status="failed", output="no"),
    ],
)
def test_what_comes_back_inside_the_walls_passes(asked: dict[str, Any]) -> None:
    read(asked)


def test_a_document_counts_for_the_hold() -> None:
    asked = read(said({"type": "input_file", "file_data": "AA==", "filename": "a.pdf"}))
    assert asked.fixed_tokens == DOCUMENT_TOKENS


def test_policy_can_name_a_providers_tool_and_nothing_else_comes_with_it() -> None:
    named = frozenset(("web_search", "code_interpreter", "mcp:https://mcp.example.com"))
    found = read(body(tools=[{"type": "web_search_2025_08_26"}]), provider_tools=named)
    assert found.tools == (Offered("web_search", provider=True),)
    read(item("web_search_call", id="ws", status="completed", action={}), provider_tools=named)
    good = {"type": "mcp", "server_label": "x", "server_url": "https://mcp.example.com"}
    assert read(body(tools=[good]), provider_tools=named).tools[0].provider
    for tool in (
        {**good, "server_url": "https://evil.example.com"},
        {**good, "authorization": "token"},
        {**good, "headers": {"x": "y"}},
        {**good, "connector_id": "connector_gmail"},
        {"type": "code_interpreter", "container": "cntr_1"},
        {"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["f"]}},
        {"type": "file_search", "vector_store_ids": ["v"]},
        {**NAMESPACE, "tools": [{"type": "web_search"}]},
    ):
        with pytest.raises(FieldRefused):
            read(body(tools=[tool]), provider_tools=named)


@given(
    st.dictionaries(
        st.sampled_from(["input", "tools", "tool_choice", "text", "reasoning", "store", "include", "stream"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["type", "role", "content", "name", "tools", "output", "caller"])
                    | st.text(max_size=4),
                    inner | st.sampled_from(["message", "function", "namespace", "function_call_output", "user"]),
                    max_size=4,
                )
            ),
            max_leaves=12,
        ),
    )
)
def test_any_json_is_refused_or_read(found: dict[str, Any]) -> None:
    try:
        asked = read({"model": "m", "input": "x", **found})
    except FieldRefused:
        return
    assert asked.body["store"] is False
    assert asked.most_output > 0
    check_fields(asked.body)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"input_tokens": 100, "output_tokens": 7}, Tokens(input=100, output=7)),
        (
            {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 60}, "output_tokens": 7},
            Tokens(input=40, cache_read=60, output=7),
        ),
        (
            {
                "input_tokens": 100,
                "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
                "output_tokens": 9,
                "output_tokens_details": {"reasoning_tokens": 8},
            },
            Tokens(input=10, cache_read=60, cache_write_5m=30, output=9),
        ),
        ({"input_tokens": 10, "input_tokens_details": {"cached_tokens": 60}}, Tokens(cache_read=10)),
        ({"input_tokens": -1, "input_tokens_details": None, "output_tokens": "x"}, Tokens()),
    ],
)
def test_kinds_of_tokens_do_not_overlap(usage: dict[str, Any], tokens: Tokens) -> None:
    assert read_usage(usage) == tokens
    assert read_usage(usage).all_input <= max(0, usage["input_tokens"])


def test_errors_have_the_apis_shape() -> None:
    assert is_error(error_body("server_error", "x"))
    for data in (b"", b"[]", b"{}", b'{"error": "x"}', b'{"error": {"message": 1}}'):
        assert not is_error(data)


@pytest.mark.parametrize(
    ("method", "path", "query", "operation"),
    [
        ("POST", "/responses", b"", "generate"),
        ("GET", "/models", b"", "models"),
        ("GET", "/models", b"client_version=0.169.0", "models"),
        ("POST", "/responses", b"x=1", ""),
        ("GET", "/responses/resp_1", b"", ""),
        ("POST", "/responses/compact", b"", ""),
        ("POST", "/conversations", b"", ""),
        ("POST", "/files", b"", ""),
    ],
)
def test_only_answers_and_the_list_of_models_are_served(method: str, path: str, query: bytes, operation: str) -> None:
    found = FORM.route(method, path, query)
    assert (found.operation if found else "") == operation
