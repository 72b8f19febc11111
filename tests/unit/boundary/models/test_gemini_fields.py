"""Which fields of a Gemini request pass, under which name: what gemini-cli and the SDK send does, egress does not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.boundary.models.fields.gemini import MOST_OUTPUT, check_fields, most_output
from vestibule.boundary.models.fields.kit import FieldRefused
from vestibule.boundary.models.formats.base import Asked, Route
from vestibule.boundary.models.formats.gemini import Gemini

MODEL = "gemini-2.5-pro"
# The shape of what gemini-cli sends, its words shortened.
GEMINI_CLI: dict[str, Any] = {
    "contents": [
        {"role": "user", "parts": [{"text": "<session_context>…"}]},
        {"role": "user", "parts": [{"text": "read a.py"}]},
        {
            "role": "model",
            "parts": [
                {"text": "I look.", "thought": True},
                {
                    "functionCall": {"id": "read_file__1", "name": "read_file", "args": {"absolute_path": "/a.py"}},
                    "thoughtSignature": "c2lnbmVk",
                },
            ],
        },
        {
            "role": "user",
            "parts": [
                {
                    "functionResponse": {
                        "id": "read_file__1",
                        "name": "read_file",
                        "response": {"output": "print(1)"},
                        "parts": [{"inlineData": {"mimeType": "image/png", "data": "eA=="}}],
                    }
                }
            ],
        },
    ],
    "systemInstruction": {"role": "user", "parts": [{"text": "You are…"}]},
    "tools": [
        {
            "functionDeclarations": [
                {
                    "name": "read_file",
                    "description": "Reads.",
                    "parametersJsonSchema": {"type": "object", "properties": {"absolute_path": {"type": "string"}}},
                }
            ]
        }
    ],
    "generationConfig": {
        "temperature": 1,
        "topP": 0.95,
        "topK": 64,
        "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 8192},
    },
}
# As google-genai 3.4.0 wrote it: both kinds of names in one request.
SDK: dict[str, Any] = {
    "contents": [
        {"parts": [{"text": "hi"}, {"inlineData": {"data": "eA==", "mime_type": "image/png"}}], "role": "user"}
    ],
    "systemInstruction": {"parts": [{"text": "sys"}], "role": "user"},
    "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    "tools": [
        {
            "functionDeclarations": [
                {"description": "d", "name": "read_file", "parameters_json_schema": {"type": "object"}},
                {"name": "w", "parameters": {"properties": {"p": {"any_of": [{"type": "STRING"}]}}, "type": "OBJECT"}},
            ]
        }
    ],
    "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}},
    "generationConfig": {
        "maxOutputTokens": 5,
        "responseSchema": {"type": "OBJECT"},
        "thinkingConfig": {"include_thoughts": True, "thinking_budget": 10},
    },
}


def read(body: dict[str, Any], **more: Any) -> Asked:
    return Gemini().read(body, Route("generate", MODEL, False), run="r", **more)


def refused(body: dict[str, Any], **more: Any) -> str:
    with pytest.raises(FieldRefused) as caught:
        read(body, **more)
    return caught.value.rule.removeprefix("model.field.")


def test_what_gemini_cli_sends_passes_unchanged() -> None:
    asked = read(GEMINI_CLI)
    assert not asked.changed
    assert asked.body is GEMINI_CLI
    assert (asked.model, asked.messages, asked.tools[0].name) == (MODEL, 4, "read_file")
    assert asked.tools[0].schema is not None
    assert asked.fixed_tokens > 0


def test_both_names_of_a_field_are_read_and_one_goes_on() -> None:
    asked = read(SDK)
    assert asked.changed
    parts = asked.body["contents"][0]["parts"]
    assert parts[1] == {"inlineData": {"data": "eA==", "mimeType": "image/png"}}
    declared = asked.body["tools"][0]["functionDeclarations"]
    assert declared[0] == {"description": "d", "name": "read_file", "parametersJsonSchema": {"type": "object"}}
    # A schema is the agent's own data: not touched.
    assert declared[1]["parameters"]["properties"]["p"] == {"any_of": [{"type": "STRING"}]}
    assert asked.body["generationConfig"]["thinkingConfig"] == {"includeThoughts": True, "thinkingBudget": 10}
    assert asked.most_output == 15
    assert "_" not in "".join(_keys({**asked.body, "tools": None}))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("contents", 0, "parts", 0, "inline_data"), {"mimeType": "image/png", "data": "eA=="}),
        (("generation_config",), {"candidateCount": 8}),
        (("system_instruction",), {"parts": []}),
        (("tools", 0, "function_declarations"), []),
        (("generationConfig", "thinkingConfig", "thinking_budget"), 24_000),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_field_under_both_names_is_refused(place: tuple[Any, ...], value: Any) -> None:
    body = copy.deepcopy(GEMINI_CLI)
    body["contents"][0]["parts"][0]["inlineData"] = {"mimeType": "image/png", "data": "eQ=="}
    read(body)
    assert refused(_with(body, place, value)).endswith(place[-1])


@pytest.mark.parametrize(
    ("place", "value", "rule"),
    [
        (("cachedContent",), "cachedContents/1", "cached_content"),
        (("cached_content",), "cachedContents/1", "cached_content"),
        (("labels",), {"team": "a"}, "labels"),
        (("serviceTier",), "priority", "service_tier"),
        (("store",), True, "store"),
        (("continuationToken",), "x", "continuation_token"),
        (("extraBody",), {}, "extra_body"),
        (("generateContentRequest",), {}, "generate_content_request"),
        (("model",), "models/gemini-3-ultra", "model"),
        (("contents", 0, "parts", 0, "fileData"), {"fileUri": "https://evil.example.com/x"}, "file_data"),
        (("contents", 0, "parts", 0, "file_data"), {"file_uri": "gs://b/o"}, "file_data"),
        (("contents", 0, "parts", 0, "partMetadata"), {}, "content.part_metadata"),
        (("contents", 0, "parts", 0, "executableCode"), {"code": "x"}, "content.code_execution"),
        (("contents", 0, "parts", 0, "toolCall"), {"toolType": "GOOGLE_SEARCH_WEB"}, "content.tool_call"),
        (
            ("contents", 0, "parts", 0, "inlineData"),
            {"mimeType": "text/uri-list;x", "data": ""},
            "inline_data.mime_type",
        ),
        (("contents", 0, "parts"), {"text": "a lone part"}, "contents.parts"),
        (("contents", 0), "text", "contents"),
        (("contents", 0), None, "contents"),
        (("contents",), [], "contents"),
        (("contents",), {"parts": []}, "contents"),
        (("tools", 0, "functionDeclarations"), {"name": "x"}, "tools.function_declarations"),
        (("tools", 0, "functionDeclarations", 0, "behavior"), "NON_BLOCKING", "tools.behavior"),
        (
            ("toolConfig",),
            {"includeServerSideToolInvocations": True},
            "tool_config.include_server_side_tool_invocations",
        ),
        (("toolConfig",), {"retrievalConfig": {}}, "tool_config.retrieval_config"),
        (
            ("toolConfig",),
            {"functionCallingConfig": {"streamFunctionCallArguments": True}},
            "tool_config.stream_function_call_arguments",
        ),
        (("generationConfig", "responseModalities"), ["TEXT", "IMAGE"], "generation_config.response_modalities"),
        (("generationConfig", "speechConfig"), {}, "generation_config.speech_config"),
        (("generationConfig", "modelSelectionConfig"), {}, "generation_config.model_selection_config"),
        (("generationConfig", "routingConfig"), {}, "generation_config.routing_config"),
        (("generationConfig", "candidateCount"), 9, "generation_config.candidate_count"),
        (("generationConfig", "candidateCount"), "2", "generation_config.candidate_count"),
        (("generationConfig", "maxOutputTokens"), 100.5, "generation_config.max_output_tokens"),
        (("generationConfig", "maxOutputTokens"), 0, "generation_config.max_output_tokens"),
        (("generationConfig", "thinkingConfig", "thinkingBudget"), -2, "thinking_config.thinking_budget"),
    ],
    ids=lambda value: str(value)[:48],
)
def test_what_may_not_pass(place: tuple[Any, ...], value: Any, rule: str) -> None:
    assert refused(_with(GEMINI_CLI, place, value)) == rule


@pytest.mark.parametrize("spelled", ["camel", "snake"])
@pytest.mark.parametrize(
    ("camel", "snake"),
    [
        ("googleSearch", "google_search"),
        ("googleSearchRetrieval", "google_search_retrieval"),
        ("urlContext", "url_context"),
        ("codeExecution", "code_execution"),
        ("googleMaps", "google_maps"),
        ("computerUse", "computer_use"),
    ],
)
def test_a_providers_tool_passes_only_when_policy_names_it(camel: str, snake: str, spelled: str) -> None:
    body = {**GEMINI_CLI, "tools": [{camel if spelled == "camel" else snake: {}}]}
    assert refused(body) == f"tools.{snake}"
    asked = read(body, provider_tools=frozenset((snake,)))
    assert asked.body["tools"] == [{camel: {}}]
    assert asked.tools[0].provider
    assert refused(body, provider_tools=frozenset(("web_search",))) == f"tools.{snake}"


@pytest.mark.parametrize("name", ["fileSearch", "mcpServers", "mcp_servers", "retrieval", "enterpriseWebSearch"])
def test_tools_that_name_places_of_their_own_never_pass(name: str) -> None:
    every = frozenset(("file_search", "mcp_servers", "retrieval", "enterprise_web_search"))
    assert refused({**GEMINI_CLI, "tools": [{name: {}}]}, provider_tools=every).startswith("tools.")
    assert refused({**GEMINI_CLI, "tools": [{"exaAiSearch": {}}]}, provider_tools=every) == "tools.exa_ai_search"


def test_limits_of_a_named_tool_are_words_and_switches() -> None:
    body = {**GEMINI_CLI, "tools": [{"googleSearch": {"timeRangeFilter": {}}}]}
    assert refused(body, provider_tools=frozenset(("google_search",))) == "google_search.time_range_filter"


def test_the_models_name_is_the_paths() -> None:
    asked = read({**GEMINI_CLI, "model": f"models/{MODEL}"})
    assert asked.changed
    assert "model" not in asked.body
    assert asked.body["contents"] == GEMINI_CLI["contents"]


def test_counting_checks_the_request_within() -> None:
    route = Route("count", MODEL, False)
    form = Gemini()
    asked = form.read({"contents": GEMINI_CLI["contents"]}, route, run="r")
    assert (asked.operation, asked.most_output, asked.changed) == ("count", 0, False)
    inner = {"generateContentRequest": {"model": f"models/{MODEL}", **GEMINI_CLI}}
    asked = form.read(inner, route, run="r")
    assert form.for_model(asked.body, "other")["generateContentRequest"]["model"] == "models/other"
    assert len(asked.tools) == 1
    for bad in (
        {},
        {"contents": GEMINI_CLI["contents"], **inner},
        {"generateContentRequest": {**GEMINI_CLI, "cachedContent": "x"}},
        {"generateContentRequest": {**GEMINI_CLI, "model": "models/other"}},
        {"contents": GEMINI_CLI["contents"], "tools": []},
    ):
        with pytest.raises(FieldRefused):
            form.read(bad, route, run="r")


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({}, MOST_OUTPUT),
        ({"maxOutputTokens": 100}, 100),
        ({"maxOutputTokens": 100, "candidateCount": 3}, 300),
        ({"maxOutputTokens": 100, "thinkingConfig": {"thinkingBudget": 50}, "candidateCount": 2}, 300),
        ({"maxOutputTokens": 100, "thinkingConfig": {"thinkingBudget": -1}}, 100),
        ({"candidateCount": 2, "thinkingConfig": {"thinkingBudget": 50}}, 2 * MOST_OUTPUT),
    ],
    ids=str,
)
def test_the_most_output_counts_candidates_and_thoughts(config: dict[str, Any], most: int) -> None:
    assert read({**GEMINI_CLI, "generationConfig": config}).most_output == most
    assert most_output({"generationConfig": config}) == most


_NAMES = (
    *("contents", "parts", "text", "role", "tools", "functionDeclarations", "function_declarations", "name"),
    *("inlineData", "inline_data", "mimeType", "mime_type", "data", "fileData", "file_uri", "generationConfig"),
    *("generation_config", "candidateCount", "googleSearch", "google_search", "cachedContent", "model"),
    *("functionCall", "args", "_text", "Text"),
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 70_000) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(body=st.dictionaries(st.sampled_from(["contents", "tools", "generationConfig", "model", "toolConfig"]), _JSON))
@settings(max_examples=300, deadline=None)
def test_any_request_is_refused_or_goes_on_under_known_names_only(body: dict[str, Any]) -> None:
    try:
        found, seen = check_fields(body, MODEL)
    except FieldRefused:
        return
    assert seen.changed or found == body
    again, once = check_fields(found, MODEL)
    assert again == found
    assert not once.changed
    assert not {"googleSearch", "fileData", "cachedContent"} & set(_keys({**found, "tools": _unnulled(found)}))


def _unnulled(found: dict[str, Any]) -> list[Any]:
    return [{k: v for k, v in tool.items() if v is not None} for tool in found.get("tools") or ()]


def _keys(value: Any) -> list[str]:
    """Names of fields, without the agent's own data."""
    if isinstance(value, dict):
        own = ("args", "response", "responseSchema", "parameters", "parametersJsonSchema")
        return list(value) + [key for name, item in value.items() if name not in own for key in _keys(item)]
    return [key for item in value for key in _keys(item)] if isinstance(value, list) else []


def _with(body: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    found: Any = copy.deepcopy(body)
    at = found
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    return found  # type: ignore[no-any-return]
