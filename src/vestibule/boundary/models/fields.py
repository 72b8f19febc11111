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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Check = Callable[[Any, "Seen"], None]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")


class FieldRefused(Exception):
    """`rule` is `model.field.<place>`, `what` a sentence's end."""

    def __init__(self, place: str, what: str) -> None:
        self.rule = f"model.field.{place}"
        self.what = what
        super().__init__(what)


@dataclass(slots=True)
class Seen:
    """What a walk through a request notes for its price ceiling."""

    images: int = 0
    documents: int = 0
    hour_cache: bool = False
    depth: int = 0


def safe_name(value: Any) -> str:
    """A name of the request as part of a rule's name; anything unusual is `unknown`."""
    return value if isinstance(value, str) and _NAME.match(value) else "unknown"


def check_fields(body: Mapping[str, Any]) -> Seen:
    """Walk the whole request.

    Raises:
        FieldRefused: the first thing that may not pass.
    """
    seen = Seen()
    for key, value in body.items():
        check = _TOP.get(key)
        if check is None:
            raise FieldRefused(safe_name(key), "this field is not among those that may pass")
        check(value, seen)
    for key in ("model", "messages", "max_tokens"):
        if key not in body:
            raise FieldRefused(key, "this field is missing")
    return seen


def _fail(place: str, what: str = "its value is not of an allowed kind") -> FieldRefused:
    return FieldRefused(place, what)


def _text(place: str) -> Check:
    def check(value: Any, _seen: Seen) -> None:
        if not isinstance(value, str):
            raise _fail(place)

    return check


def _flag(place: str) -> Check:
    def check(value: Any, _seen: Seen) -> None:
        if value is not None and not isinstance(value, bool):
            raise _fail(place)

    return check


def _number(place: str) -> Check:
    def check(value: Any, _seen: Seen) -> None:
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise _fail(place)

    return check


def _one_of(place: str, *allowed: str | None) -> Check:
    def check(value: Any, _seen: Seen) -> None:
        if not (value is None or isinstance(value, str)) or value not in allowed:
            raise _fail(place, "this value is not among those that may pass")

    return check


def _texts(place: str) -> Check:
    def check(value: Any, _seen: Seen) -> None:
        if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise _fail(place)

    return check


def _data(place: str, kind: type | tuple[type, ...] = dict) -> Check:
    """Free data of the agent's own (a schema, a tool's input): never interpreted by the provider as a request."""

    def check(value: Any, _seen: Seen) -> None:
        if value is not None and not isinstance(value, kind):
            raise _fail(place)

    return check


def _any(_value: Any, _seen: Seen) -> None:
    return


def _object(place: str, fields: Mapping[str, Check], required: tuple[str, ...] = ()) -> Check:
    def check(value: Any, seen: Seen) -> None:
        if value is None and not required:
            return
        if not isinstance(value, dict):
            raise _fail(place)
        for key, item in value.items():
            inner = fields.get(key)
            if inner is None:
                raise FieldRefused(f"{place}.{safe_name(key)}", "this field is not among those that may pass")
            inner(item, seen)
        for key in required:
            if key not in value:
                raise FieldRefused(f"{place}.{key}", "this field is missing")

    return check


def _cache_control(value: Any, seen: Seen) -> None:
    _CACHE_CONTROL(value, seen)
    if isinstance(value, dict) and value.get("ttl") == "1h":
        seen.hour_cache = True


_CACHE_CONTROL = _object(
    "cache_control",
    {
        "type": _one_of("cache_control.type", "ephemeral"),
        "ttl": _one_of("cache_control.ttl", "5m", "1h"),
        # Claude Code's prompt-caching-scope beta: how widely within the operator's organisation a prefix is shared.
        "scope": _one_of("cache_control.scope", "global", "organization", "workspace", "session"),
    },
)
_CITATIONS = _data("citations", (dict, list))


def _blocks(place: str, kinds: Mapping[str, Check]) -> Check:
    """Text, or a list of blocks of the given kinds."""

    def check(value: Any, seen: Seen) -> None:
        if isinstance(value, str):
            return
        if not isinstance(value, list):
            raise _fail(place)
        seen.depth += 1
        if seen.depth > 5:
            raise _fail(place, "blocks are nested too deeply")
        for item in value:
            kind = item.get("type") if isinstance(item, dict) else None
            inner = kinds.get(kind) if isinstance(kind, str) else None
            if inner is None:
                raise FieldRefused(f"content.{safe_name(kind)}", f"this kind of block may not stand in {place}")
            inner(item, seen)
        seen.depth -= 1

    return check


def _source(place: str, kinds: Mapping[str, Check]) -> Check:
    def check(value: Any, seen: Seen) -> None:
        kind = value.get("type") if isinstance(value, dict) else None
        inner = kinds.get(kind) if isinstance(kind, str) else None
        if inner is None:
            raise FieldRefused(
                f"source.{safe_name(kind)}", f"a {place} may come as data only, never from a URL or a stored file"
            )
        inner(value, seen)

    return check


def _base64_source(place: str, media: tuple[str, ...]) -> Check:
    return _object(
        place,
        {"type": _any, "media_type": _one_of(f"{place}.media_type", *media), "data": _text(f"{place}.data")},
        ("media_type", "data"),
    )


def _text_block(value: Any, seen: Seen) -> None:
    _TEXT(value, seen)


_TEXT = _object(
    "text", {"type": _any, "text": _text("text.text"), "cache_control": _cache_control, "citations": _CITATIONS}
)


def _image(value: Any, seen: Seen) -> None:
    seen.images += 1
    _IMAGE(value, seen)


_IMAGE = _object(
    "image",
    {
        "type": _any,
        "cache_control": _cache_control,
        "source": _source(
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
_DOCUMENT = _object(
    "document",
    {
        "type": _any,
        "cache_control": _cache_control,
        "citations": _CITATIONS,
        "context": _data("document.context", str),
        "title": _data("document.title", str),
        "source": _source(
            "document",
            {
                "base64": _base64_source("document.source", ("application/pdf",)),
                "text": _object(
                    "document.source",
                    {"type": _any, "media_type": _one_of("media_type", "text/plain"), "data": _text("data")},
                ),
                "content": _object(
                    "document.source", {"type": _any, "content": _blocks("a document", _PLAIN)}, ("content",)
                ),
            },
        ),
    },
    ("source",),
)
_SEARCH_RESULT = _object(
    # The agent's own material with a name for citations; the provider loads nothing for it.
    "search_result",
    {
        "type": _any,
        "cache_control": _cache_control,
        "citations": _CITATIONS,
        "source": _text("search_result.source"),
        "title": _text("search_result.title"),
        "content": _blocks("a search result", {"text": _text_block}),
    },
)
_CALLER = _object("caller", {"type": _one_of("caller.type", "direct")})
_TOOL_USE = _object(
    "tool_use",
    {
        "type": _any,
        "id": _text("tool_use.id"),
        "name": _text("tool_use.name"),
        "input": _data("tool_use.input"),
        "cache_control": _cache_control,
        "caller": _CALLER,
    },
)
_TOOL_RESULT = _object(
    "tool_result",
    {
        "type": _any,
        "tool_use_id": _text("tool_result.tool_use_id"),
        "is_error": _flag("tool_result.is_error"),
        "cache_control": _cache_control,
        "content": _blocks(
            "a tool result",
            {
                **_PLAIN,
                "document": _document,
                "search_result": _SEARCH_RESULT,
                # Points at a tool of this very request, which is checked where it stands.
                "tool_reference": _object(
                    "tool_reference",
                    {"type": _any, "tool_name": _text("tool_reference.tool_name"), "cache_control": _cache_control},
                ),
            },
        ),
    },
)
_MESSAGE_BLOCKS: dict[str, Check] = {
    **_PLAIN,
    "document": _document,
    "search_result": _SEARCH_RESULT,
    "tool_use": _TOOL_USE,
    "tool_result": _TOOL_RESULT,
    "thinking": _object(
        "thinking", {"type": _any, "thinking": _text("thinking.thinking"), "signature": _text("thinking.signature")}
    ),
    "redacted_thinking": _object("redacted_thinking", {"type": _any, "data": _text("redacted_thinking.data")}),
}
_OUTPUT_CONFIG = _object(
    "output_config",
    {
        "effort": _one_of("output_config.effort", None, "low", "medium", "high", "xhigh", "max"),
        "format": _data("output_config.format"),
        "task_budget": _data("output_config.task_budget"),
    },
)
_MESSAGE = _object(
    "messages",
    {
        # Claude Code puts operator words in the middle of a conversation as `system`.
        "role": _one_of("messages.role", "user", "assistant", "system"),
        "content": _blocks("a message", _MESSAGE_BLOCKS),
        "clear_at": _one_of("messages.clear_at", None, "next_user_message", "never"),
        "output_config": _OUTPUT_CONFIG,
    },
    ("role", "content"),
)


def _messages(value: Any, seen: Seen) -> None:
    if not isinstance(value, list) or not value:
        raise _fail("messages")
    for item in value:
        _MESSAGE(item, seen)


_CLIENT_TOOLS = re.compile(r"(bash|text_editor|memory)_\d{8}\Z")
_TOOL = _object(
    "tools",
    {
        "type": _any,
        "name": _text("tools.name"),
        "description": _text("tools.description"),
        "input_schema": _data("tools.input_schema"),
        "input_examples": _data("tools.input_examples", list),
        "cache_control": _cache_control,
        "strict": _flag("tools.strict"),
        "eager_input_streaming": _flag("tools.eager_input_streaming"),
        "defer_loading": _flag("tools.defer_loading"),
        "max_characters": _number("tools.max_characters"),
        "allowed_callers": lambda value, _seen: _only_direct(value),
    },
)


def _only_direct(value: Any) -> None:
    # Any other caller is code that the provider runs.
    if value != ["direct"]:
        raise FieldRefused("tools.allowed_callers", "tools are called by the model only, never by the provider's code")


def _tools(value: Any, seen: Seen) -> None:
    if not isinstance(value, list):
        raise _fail("tools")
    for item in value:
        if not isinstance(item, dict):
            raise _fail("tools")
        kind = item.get("type")
        if kind is not None and kind != "custom" and not (isinstance(kind, str) and _CLIENT_TOOLS.match(kind)):
            name = re.sub(r"_\d{8}\Z", "", kind) if isinstance(kind, str) else kind
            raise FieldRefused(
                f"tools.{safe_name(name)}", "a tool of this type is carried out by the provider, outside the walls"
            )
        _TOOL(item, seen)


def _context_management(value: Any, _seen: Seen) -> None:
    # Clearing old blocks happens before the model reads, and is free; compaction is another, separately billed request.
    if value is None:
        return
    if not isinstance(value, dict) or set(value) - {"edits"} or not isinstance(value.get("edits", []), list):
        raise _fail("context_management")
    for edit in value.get("edits", []):
        kind = edit.get("type") if isinstance(edit, dict) else None
        if not isinstance(kind, str) or not re.match(r"clear_(thinking|tool_uses)_\d{8}\Z", kind):
            raise FieldRefused(
                f"context_management.{safe_name(kind)}", "only clearing old thinking and tool results may pass"
            )


_TOP: dict[str, Check] = {
    "model": _text("model"),
    "messages": _messages,
    "system": _blocks("system", {"text": _text_block}),
    "max_tokens": lambda value, _seen: _positive(value),
    "stream": _flag("stream"),
    "temperature": _number("temperature"),
    "top_p": _number("top_p"),
    "top_k": _number("top_k"),
    "stop_sequences": _texts("stop_sequences"),
    "tools": _tools,
    "tool_choice": _object(
        "tool_choice",
        {
            "type": _one_of("tool_choice.type", "auto", "any", "tool", "none"),
            "name": _text("tool_choice.name"),
            "disable_parallel_tool_use": _flag("tool_choice.disable_parallel_tool_use"),
        },
    ),
    "thinking": _object(
        "thinking",
        {
            "type": _one_of("thinking.type", "enabled", "disabled", "adaptive"),
            "budget_tokens": _number("thinking.budget_tokens"),
            "display": _one_of("thinking.display", None, "summarized", "omitted", "updates"),
            "block_binding": _data("thinking.block_binding"),
        },
    ),
    "metadata": _object("metadata", {"user_id": _data("metadata.user_id", str)}),
    "output_config": _OUTPUT_CONFIG,
    "output_format": _data("output_format"),
    "context_management": _context_management,
    "cache_control": _cache_control,
    "service_tier": _one_of("service_tier", None, "auto", "standard_only"),
    "speed": _one_of("speed", None, "standard"),
    "diagnostics": _object("diagnostics", {"previous_message_id": _data("diagnostics.previous_message_id", str)}),
}


def _positive(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
        raise _fail("max_tokens")


_BETA = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_REFUSED_BETAS = (
    # Each switches on what the field lists above refuse anyway: refused here too, so that the message says it early.
    "advisor-tool",
    "agent-memory",
    "ce-",
    "code-execution",
    "compact-",
    "computer-use",
    "dreaming",
    "experimental-",
    "fallback-credit",
    "fast-mode",
    "files-api",
    "inline-tools",
    "managed-agents",
    "mcp-client",
    "mcp-tunnels",
    "message-batches",
    "message-threads",
    "server-side-",
    "skills-",
    "spend-limit",
    "telemetry-",
    "user-profiles",
    "web-fetch",
    "web-search",
    "webhooks",
)


def check_betas(header: str) -> str:
    """The `anthropic-beta` list to send on. Unknown betas pass: without their fields they are words.

    Raises:
        FieldRefused: a beta that enables what the provider would do itself, or no beta's name.
    """
    names = [name.strip() for name in header.split(",") if name.strip()]
    if len(names) > 64 or not all(_BETA.match(name) for name in names):
        raise FieldRefused("betas", "the anthropic-beta header is no list of beta names")
    for name in names:
        if name.lower().startswith(_REFUSED_BETAS):
            raise FieldRefused("betas", "a beta in the anthropic-beta header enables what the provider would do itself")
    return ",".join(names)
