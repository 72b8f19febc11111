"""Which fields of an Anthropic Messages request may pass. Pure.

Rules it keeps:
1. Allow-lists only: a field, block type, source type or tool type that is not named here is refused. New ones
   of the provider's arrive refused, and are added here after someone has looked.
2. What the provider would do for the model is egress, and refused: tools it runs itself (search, fetch, code,
   remote MCP, advisors), stored files, containers, URLs it would load, fallbacks to other models.
   Tools that the agent's program carries out are functions, `bash_*`, `text_editor_*` and `memory_*`: their calls
   come back inside the walls. `computer_*` and browsers have no place there and are refused.
3. Options that change the price (`speed`, `inference_geo`) or add billed work that the usage leaves out
   (compaction) are refused: the hold would not cover them.

The rule's name says the place (`model.field.tools.web_search`); the fact never repeats data of the request.
Source: Messages API reference and the request types of the official SDK; requests captured from Claude Code
2.1.197 in its MCP-only and native modes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vestibule.boundary.models.fields.kit import (
    Check,
    FieldRefused,
    Seen,
    anything,
    blocks_of,
    data,
    failed,
    fields_of,
    flag,
    number,
    one_of,
    safe_name,
    source_of,
    text,
    texts,
)


def check_fields(body: Mapping[str, Any], provider_tools: frozenset[str] = frozenset()) -> Seen:
    """Walk the whole request. `provider_tools`: types of tools, without their date, that policy names.

    Raises:
        FieldRefused: the first thing that may not pass.
    """
    seen = Seen(provider_tools=provider_tools)
    for key, value in body.items():
        check = _TOP.get(key)
        if check is None:
            raise FieldRefused(safe_name(key), "this field is not among those that may pass")
        check(value, seen)
    for key in ("model", "messages", "max_tokens"):
        if key not in body:
            raise FieldRefused(key, "this field is missing")
    return seen


def _cache_control(value: Any, seen: Seen) -> None:
    _CACHE_CONTROL(value, seen)
    if isinstance(value, dict) and value.get("ttl") == "1h":
        seen.hour_cache = True


_CACHE_CONTROL = fields_of(
    "cache_control",
    {
        "type": one_of("cache_control.type", "ephemeral"),
        "ttl": one_of("cache_control.ttl", "5m", "1h"),
        # Claude Code's prompt-caching-scope beta: how widely within the operator's organisation a prefix is shared.
        "scope": one_of("cache_control.scope", "global", "organization", "workspace", "session"),
    },
)
_CITATIONS = data("citations", (dict, list))


def _base64_source(place: str, media: tuple[str, ...]) -> Check:
    return fields_of(
        place,
        {"type": anything, "media_type": one_of(f"{place}.media_type", *media), "data": text(f"{place}.data")},
        ("media_type", "data"),
    )


def _text_block(value: Any, seen: Seen) -> None:
    _TEXT(value, seen)


_TEXT = fields_of(
    "text", {"type": anything, "text": text("text.text"), "cache_control": _cache_control, "citations": _CITATIONS}
)


def _image(value: Any, seen: Seen) -> None:
    seen.images += 1
    _IMAGE(value, seen)


_IMAGE = fields_of(
    "image",
    {
        "type": anything,
        "cache_control": _cache_control,
        "source": source_of(
            "image",
            {"base64": _base64_source("image.source", ("image/jpeg", "image/png", "image/gif", "image/webp"))},
        ),
    },
    ("source",),
)


def _document(value: Any, seen: Seen) -> None:
    seen.documents += 1
    _DOCUMENT(value, seen)


_PLAIN: dict[str, Check] = {"text": _text_block, "image": _image}
_DOCUMENT = fields_of(
    "document",
    {
        "type": anything,
        "cache_control": _cache_control,
        "citations": _CITATIONS,
        "context": data("document.context", str),
        "title": data("document.title", str),
        "source": source_of(
            "document",
            {
                "base64": _base64_source("document.source", ("application/pdf",)),
                "text": fields_of(
                    "document.source",
                    {"type": anything, "media_type": one_of("media_type", "text/plain"), "data": text("data")},
                ),
                "content": fields_of(
                    "document.source", {"type": anything, "content": blocks_of("a document", _PLAIN)}, ("content",)
                ),
            },
        ),
    },
    ("source",),
)
_SEARCH_RESULT = fields_of(
    # The agent's own material with a name for citations; the provider loads nothing for it.
    "search_result",
    {
        "type": anything,
        "cache_control": _cache_control,
        "citations": _CITATIONS,
        "source": text("search_result.source"),
        "title": text("search_result.title"),
        "content": blocks_of("a search result", {"text": _text_block}),
    },
)
_CALLER = fields_of("caller", {"type": one_of("caller.type", "direct")})
_TOOL_USE = fields_of(
    "tool_use",
    {
        "type": anything,
        "id": text("tool_use.id"),
        "name": text("tool_use.name"),
        "input": data("tool_use.input"),
        "cache_control": _cache_control,
        "caller": _CALLER,
    },
)
_TOOL_RESULT = fields_of(
    "tool_result",
    {
        "type": anything,
        "tool_use_id": text("tool_result.tool_use_id"),
        "is_error": flag("tool_result.is_error"),
        "cache_control": _cache_control,
        "content": blocks_of(
            "a tool result",
            {
                **_PLAIN,
                "document": _document,
                "search_result": _SEARCH_RESULT,
                # Points at a tool of this very request, which is checked where it stands.
                "tool_reference": fields_of(
                    "tool_reference",
                    {"type": anything, "tool_name": text("tool_reference.tool_name"), "cache_control": _cache_control},
                ),
            },
        ),
    },
)


def _of_provider(tools: tuple[str, ...], check: Check) -> Check:
    """A block about a tool that the provider carried out in an earlier turn: only where policy names that tool."""

    def checked(value: Any, seen: Seen) -> None:
        if not seen.provider_tools.intersection(tools):
            raise FieldRefused(
                f"content.{safe_name(value.get('type'))}", "this kind of block may not stand in a message"
            )
        check(value, seen)

    return checked


def _result_of(kind: str, content: Check) -> Check:
    return fields_of(
        kind,
        {
            "type": anything,
            "tool_use_id": text(f"{kind}.tool_use_id"),
            "content": content,
            "cache_control": _cache_control,
            "caller": _CALLER,
        },
        ("tool_use_id", "content"),
    )


def _server_tool_use(value: Any, seen: Seen) -> None:
    name = value.get("name")
    if not isinstance(name, str) or name not in seen.provider_tools:
        raise FieldRefused(
            "content.server_tool_use", "a tool that the provider carries out, and that policy does not name"
        )
    _TOOL_USE(value, seen)


_CODE_RESULTS = ("code_execution", "bash_code_execution", "text_editor_code_execution")
_MESSAGE_BLOCKS: dict[str, Check] = {
    **_PLAIN,
    "document": _document,
    "search_result": _SEARCH_RESULT,
    "tool_use": _TOOL_USE,
    "tool_result": _TOOL_RESULT,
    "thinking": fields_of(
        "thinking", {"type": anything, "thinking": text("thinking.thinking"), "signature": text("thinking.signature")}
    ),
    "redacted_thinking": fields_of("redacted_thinking", {"type": anything, "data": text("redacted_thinking.data")}),
    # What the provider itself gave in an earlier turn comes back as it was: it loads nothing for it again.
    "server_tool_use": _server_tool_use,
    "web_search_tool_result": _of_provider(
        ("web_search",), _result_of("web_search_tool_result", data("web_search_tool_result.content", (dict, list)))
    ),
    "web_fetch_tool_result": _of_provider(
        ("web_fetch",), _result_of("web_fetch_tool_result", data("web_fetch_tool_result.content"))
    ),
    **{
        f"{name}_tool_result": _of_provider(
            ("code_execution",), _result_of(f"{name}_tool_result", data(f"{name}_tool_result.content"))
        )
        for name in _CODE_RESULTS
    },
}
_OUTPUT_CONFIG = fields_of(
    "output_config",
    {
        "effort": one_of("output_config.effort", None, "low", "medium", "high", "xhigh", "max"),
        "format": data("output_config.format"),
        "task_budget": data("output_config.task_budget"),
    },
)
_MESSAGE = fields_of(
    "messages",
    {
        # Claude Code puts operator words in the middle of a conversation as `system`.
        "role": one_of("messages.role", "user", "assistant", "system"),
        "content": blocks_of("a message", _MESSAGE_BLOCKS),
        "clear_at": one_of("messages.clear_at", None, "next_user_message", "never"),
        "output_config": _OUTPUT_CONFIG,
    },
    ("role", "content"),
)


def _messages(value: Any, seen: Seen) -> None:
    if not isinstance(value, list) or not value:
        raise failed("messages")
    for item in value:
        _MESSAGE(item, seen)


_CLIENT_TOOLS = re.compile(r"(bash|text_editor|memory)_\d{8}\Z")
_TOOL = fields_of(
    "tools",
    {
        "type": anything,
        "name": text("tools.name"),
        "description": text("tools.description"),
        "input_schema": data("tools.input_schema"),
        "input_examples": data("tools.input_examples", list),
        "cache_control": _cache_control,
        "strict": flag("tools.strict"),
        "eager_input_streaming": flag("tools.eager_input_streaming"),
        "defer_loading": flag("tools.defer_loading"),
        "max_characters": number("tools.max_characters"),
        "allowed_callers": lambda value, _seen: _only_direct(value),
    },
)


_PROVIDER_TOOL = fields_of(
    # Named by policy: the provider loads what the tool's own limits say, and nothing that the agent wrote is a URL.
    "tools",
    {
        "type": anything,
        "name": text("tools.name"),
        "max_uses": number("tools.max_uses"),
        "allowed_domains": texts("tools.allowed_domains"),
        "blocked_domains": texts("tools.blocked_domains"),
        "cache_control": _cache_control,
    },
    ("type", "name"),
)


def _only_direct(value: Any) -> None:
    # Any other caller is code that the provider runs.
    if value != ["direct"]:
        raise FieldRefused("tools.allowed_callers", "tools are called by the model only, never by the provider's code")


def _tools(value: Any, seen: Seen) -> None:
    if not isinstance(value, list):
        raise failed("tools")
    for item in value:
        if not isinstance(item, dict):
            raise failed("tools")
        kind = item.get("type")
        if kind is not None and kind != "custom" and not (isinstance(kind, str) and _CLIENT_TOOLS.match(kind)):
            name = re.sub(r"_\d{8}\Z", "", kind) if isinstance(kind, str) else kind
            if isinstance(name, str) and name in seen.provider_tools:
                _PROVIDER_TOOL(item, seen)
                if item["name"] != name:
                    raise FieldRefused("tools.name", "a tool that the provider carries out has its own name")
                continue
            raise FieldRefused(
                f"tools.{safe_name(name)}", "a tool of this type is carried out by the provider, outside the walls"
            )
        _TOOL(item, seen)


def _context_management(value: Any, _seen: Seen) -> None:
    # Clearing old blocks happens before the model reads, and is free; compaction is another, separately billed request.
    if value is None:
        return
    if not isinstance(value, dict) or set(value) - {"edits"} or not isinstance(value.get("edits", []), list):
        raise failed("context_management")
    for edit in value.get("edits", []):
        kind = edit.get("type") if isinstance(edit, dict) else None
        if not isinstance(kind, str) or not re.match(r"clear_(thinking|tool_uses)_\d{8}\Z", kind):
            raise FieldRefused(
                f"context_management.{safe_name(kind)}", "only clearing old thinking and tool results may pass"
            )


_TOP: dict[str, Check] = {
    "model": text("model"),
    "messages": _messages,
    "system": blocks_of("system", {"text": _text_block}),
    "max_tokens": lambda value, _seen: _positive(value, "max_tokens"),
    "stream": flag("stream"),
    "temperature": number("temperature"),
    "top_p": number("top_p"),
    "top_k": number("top_k"),
    "stop_sequences": texts("stop_sequences"),
    "tools": _tools,
    "tool_choice": fields_of(
        "tool_choice",
        {
            "type": one_of("tool_choice.type", "auto", "any", "tool", "none"),
            "name": text("tool_choice.name"),
            "disable_parallel_tool_use": flag("tool_choice.disable_parallel_tool_use"),
        },
    ),
    "thinking": fields_of(
        "thinking",
        {
            "type": one_of("thinking.type", "enabled", "disabled", "adaptive"),
            "budget_tokens": lambda value, _seen: None if value is None else _positive(value, "thinking.budget_tokens"),
            "display": one_of("thinking.display", None, "summarized", "omitted", "updates"),
            "block_binding": data("thinking.block_binding"),
        },
    ),
    "metadata": fields_of("metadata", {"user_id": data("metadata.user_id", str)}),
    "output_config": _OUTPUT_CONFIG,
    "output_format": data("output_format"),
    "context_management": _context_management,
    "cache_control": _cache_control,
    "service_tier": one_of("service_tier", None, "auto", "standard_only"),
    "speed": one_of("speed", None, "standard"),
    "diagnostics": fields_of("diagnostics", {"previous_message_id": data("diagnostics.previous_message_id", str)}),
}


def _positive(value: Any, place: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
        raise failed(place)
