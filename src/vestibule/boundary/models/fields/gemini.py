"""Which fields of a Gemini generateContent request may pass, and under which name they go on. Pure.

Rules it keeps:
1. Allow-lists only: a field, part or tool that is not named here is refused. New ones of the provider's arrive refused,
   and are added here after someone has looked.
2. The API reads each field under two names (`inlineData`, `inline_data`), and its official SDK sends both kinds. What
   goes on has the first one only; a field that stands in both is refused, for nobody knows which one counts.
3. What the provider would do for the model is egress, and refused: tools that it runs itself (search, URL context,
   code, maps, computer use) unless policy names them; stores of files and remote MCP servers always, for they name
   places of their own. Cached contents, file URIs and stored answers are refused: data stays in the request.
4. Options that change the price or the model (`serviceTier`, routing, other modalities) are refused: the hold would not
   cover them. The model is the path's; a body that names another one is refused.

The rule's name says the place (`model.field.tools.google_search`); the fact never repeats data of the request.
Source: Gemini API reference ("generateContent", "Caching", "Tokens"), requests captured from google-genai 3.4.0 and the
types of @google/genai, ProtoJSON ("field names", "null").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vestibule.boundary.models.fields.gemini_kit import (
    Fields,
    GeminiSeen,
    Read,
    a_flag,
    a_list,
    a_number,
    a_text,
    an_object,
    count_of,
    leaf,
    read_object,
    snake,
    some_texts,
)
from vestibule.boundary.models.fields.kit import FieldRefused, data, failed, one_of
from vestibule.boundary.models.wire.gemini import MAX_CANDIDATES

MOST_OUTPUT = 65_536
"""What one candidate can be billed at most when the request sets no bound: the largest output limit of its models."""
_MEDIA = re.compile(r"(image|audio|video|text)/[a-z0-9.+-]{1,60}\Z|application/(pdf|json)\Z")


def check_fields(
    body: Mapping[str, Any], model: str, provider_tools: frozenset[str] = frozenset(), *, counting: bool = False
) -> tuple[dict[str, Any], GeminiSeen]:
    """Walk the whole request. `model` is the path's; `provider_tools` are tools, in snake case, that policy names.

    Returns the request as it goes on (`changed` says whether it is another).

    Raises:
        FieldRefused: the first thing that may not pass.
    """
    seen = GeminiSeen(provider_tools=provider_tools)
    found: dict[str, Any] = read_object("", _COUNT if counting else _TOP, body, seen)
    inner = found.get("generateContentRequest")
    if counting and (inner is None) == ("contents" not in found):
        raise FieldRefused("contents", "a count asks about contents or about one request")
    request = inner if inner is not None else found
    if "contents" not in request:
        raise FieldRefused("contents", "this field is missing")
    if (named := request.pop("model", None)) is not None:
        seen.changed = True
        if named.removeprefix("models/") != model:
            raise FieldRefused("model", "the model is the path's, and the body names another one")
    if inner is not None:
        inner["model"] = f"models/{model}"
        seen.changed = True
    return found, seen


def _inline(value: Any, seen: GeminiSeen) -> Any:
    found = _INLINE(value, seen)
    kind = found["mimeType"].lower()
    if not _MEDIA.match(kind):
        raise FieldRefused("inline_data.mime_type", "this kind of media is not among those that may pass")
    seen.images += kind.startswith("image/")
    seen.documents += kind.startswith(("video/", "audio/", "application/pdf"))
    return found


_INLINE = an_object(
    "inline_data",
    {
        "mimeType": a_text("inline_data.mime_type"),
        "data": a_text("inline_data.data"),
        "displayName": leaf(data("inline_data.display_name", str)),
    },
    ("mimeType", "data"),
)


def _file(_value: Any, _seen: GeminiSeen) -> Any:
    raise FieldRefused("file_data", "a file may come as data only, never from a URL or a stored file")


def _of_code(inner: Read) -> Read:
    """What a provider's code execution leaves in a conversation; without the tool, nobody can have sent it."""

    def read(value: Any, seen: GeminiSeen) -> Any:
        if "code_execution" not in seen.provider_tools:
            raise FieldRefused("content.code_execution", "code is not executed by the provider")
        return inner(value, seen)

    return read


_CALL = an_object(
    "function_call",
    {
        "id": leaf(data("function_call.id", str)),
        "name": a_text("function_call.name"),
        "args": leaf(data("function_call.args")),
    },
)
_RESPONSE = an_object(
    "function_response",
    {
        "id": leaf(data("function_response.id", str)),
        "name": a_text("function_response.name"),
        "response": leaf(data("function_response.response")),
        "parts": a_list(
            "function_response.parts",
            an_object("function_response.parts", {"inlineData": _inline, "fileData": _file}),
        ),
    },
)
_PART = an_object(
    "content",
    {
        "text": a_text("content.text"),
        "thought": a_flag("content.thought"),
        "thoughtSignature": a_text("content.thought_signature"),
        "inlineData": _inline,
        "fileData": _file,
        "functionCall": _CALL,
        "functionResponse": _RESPONSE,
        "executableCode": _of_code(
            an_object(
                "executable_code",
                {
                    "id": a_text("executable_code.id"),
                    "language": a_text("executable_code.language"),
                    "code": a_text("executable_code.code"),
                },
            )
        ),
        "codeExecutionResult": _of_code(
            an_object(
                "code_execution_result",
                {
                    "id": a_text("code_execution_result.id"),
                    "outcome": a_text("code_execution_result.outcome"),
                    "output": a_text("code_execution_result.output"),
                },
            )
        ),
        "videoMetadata": an_object(
            "video_metadata",
            {
                "startOffset": a_text("video_metadata.start_offset"),
                "endOffset": a_text("video_metadata.end_offset"),
                "fps": a_number("video_metadata.fps"),
            },
        ),
        "mediaResolution": an_object("media_resolution", {"level": a_text("media_resolution.level")}),
    },
)
_CONTENT = an_object(
    "contents",
    {
        "role": leaf(one_of("contents.role", None, "user", "model", "function", "system")),
        "parts": a_list("contents.parts", _PART),
    },
)
_CONTENTS = a_list("contents", _CONTENT)


def _contents(value: Any, seen: GeminiSeen) -> Any:
    if not isinstance(value, list) or not value:
        raise failed("contents")
    return _CONTENTS(value, seen)


_DECLARATION = an_object(
    "tools",
    {
        "name": a_text("tools.name"),
        "description": leaf(data("tools.description", str)),
        "parameters": leaf(data("tools.parameters")),
        "parametersJsonSchema": leaf(data("tools.parameters_json_schema")),
        "response": leaf(data("tools.response")),
        "responseJsonSchema": leaf(data("tools.response_json_schema")),
        "behavior": leaf(one_of("tools.behavior", None, "UNSPECIFIED", "BLOCKING")),
    },
    ("name",),
)
_PROVIDER_TOOLS: dict[str, Read] = {
    # Named by policy. What each may be told is words and switches: no address, no store.
    "googleSearch": an_object("google_search", {"excludeDomains": some_texts("google_search.exclude_domains")}),
    "googleSearchRetrieval": an_object("google_search_retrieval", {}),
    "urlContext": an_object("url_context", {}),
    "codeExecution": an_object("code_execution", {}),
    "googleMaps": an_object("google_maps", {"enableWidget": a_flag("google_maps.enable_widget")}),
    "computerUse": an_object(
        "computer_use",
        {
            "environment": a_text("computer_use.environment"),
            "excludedPredefinedFunctions": some_texts("computer_use.excluded_predefined_functions"),
        },
    ),
}


def _provider_tool(name: str, inner: Read) -> Read:
    def read(value: Any, seen: GeminiSeen) -> Any:
        if value is not None and snake(name) not in seen.provider_tools:
            raise FieldRefused(
                f"tools.{snake(name)}", "a tool of this type is carried out by the provider, outside the walls"
            )
        return inner(value, seen)

    return read


def _never(name: str) -> Read:
    def read(value: Any, _seen: GeminiSeen) -> Any:
        if value is not None:
            raise FieldRefused(f"tools.{snake(name)}", "a tool of this type reaches places that the request names")
        return None

    return read


_TOOL = an_object(
    "tools",
    {
        "functionDeclarations": a_list("tools.function_declarations", _DECLARATION),
        **{name: _provider_tool(name, inner) for name, inner in _PROVIDER_TOOLS.items()},
        **{name: _never(name) for name in ("fileSearch", "mcpServers", "retrieval", "enterpriseWebSearch")},
    },
)
_GENERATION = an_object(
    "generation_config",
    {
        "candidateCount": count_of("generation_config.candidate_count", 1, MAX_CANDIDATES),
        "maxOutputTokens": count_of("generation_config.max_output_tokens", 1, 1_000_000),
        "stopSequences": some_texts("generation_config.stop_sequences"),
        "temperature": a_number("generation_config.temperature"),
        "topP": a_number("generation_config.top_p"),
        "topK": a_number("generation_config.top_k"),
        "seed": a_number("generation_config.seed"),
        "presencePenalty": a_number("generation_config.presence_penalty"),
        "frequencyPenalty": a_number("generation_config.frequency_penalty"),
        "responseLogprobs": a_flag("generation_config.response_logprobs"),
        "logprobs": a_number("generation_config.logprobs"),
        "responseMimeType": leaf(data("generation_config.response_mime_type", str)),
        "responseSchema": leaf(data("generation_config.response_schema")),
        "responseJsonSchema": leaf(data("generation_config.response_json_schema")),
        "responseModalities": a_list(
            "generation_config.response_modalities", leaf(one_of("generation_config.response_modalities", "TEXT"))
        ),
        "mediaResolution": leaf(data("generation_config.media_resolution", str)),
        "thinkingConfig": an_object(
            "thinking_config",
            {
                "includeThoughts": a_flag("thinking_config.include_thoughts"),
                # -1 leaves it to the model, within its output limit.
                "thinkingBudget": count_of("thinking_config.thinking_budget", -1, 1_000_000),
                "thinkingLevel": leaf(data("thinking_config.thinking_level", str)),
            },
        ),
    },
)
_REQUEST: dict[str, Read] = {
    "model": leaf(data("model", str)),
    "contents": _contents,
    "systemInstruction": _CONTENT,
    "tools": a_list("tools", _TOOL),
    "toolConfig": an_object(
        "tool_config",
        {
            "functionCallingConfig": an_object(
                "tool_config",
                {
                    "mode": leaf(
                        one_of("tool_config.mode", None, "MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED")
                    ),
                    "allowedFunctionNames": some_texts("tool_config.allowed_function_names"),
                },
            )
        },
    ),
    "safetySettings": a_list(
        "safety_settings",
        an_object(
            "safety_settings",
            {"category": a_text("safety_settings.category"), "threshold": a_text("safety_settings.threshold")},
        ),
    ),
    "generationConfig": _GENERATION,
}
_TOP = Fields(_REQUEST)
_COUNT = Fields(
    {
        "contents": _contents,
        "model": _REQUEST["model"],
        "generateContentRequest": an_object("generate_content_request", _REQUEST, ("contents",)),
    }
)


def most_output(body: Mapping[str, Any]) -> int:
    """The most tokens of output that can be billed: for each candidate its bound and its thoughts' budget."""
    config = body.get("generationConfig") or {}
    bound = config.get("maxOutputTokens")
    thoughts = (config.get("thinkingConfig") or {}).get("thinkingBudget") or 0
    # Without a bound of the request's own, the model's limit holds for both together.
    each = MOST_OUTPUT if bound is None else bound + max(0, thoughts)
    return int(each) * int(config.get("candidateCount") or 1)
