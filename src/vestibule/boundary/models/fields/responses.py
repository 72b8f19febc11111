"""Which fields of an OpenAI Responses request may pass. Pure.

Rules it keeps:
1. Allow-lists only: a field, item type, content type or tool type that is not named here is refused. New ones of the
   provider's arrive refused, and are added here after someone has looked.
2. Nothing is stored: `store` is false, and nothing that was stored is named (earlier responses, conversations, prompts,
   files, item references). A request in the background would outlive its answer, and is refused.
3. What the provider would do itself is egress, and refused unless policy names the tool: search, file search, code,
   images, remote MCP, programs that call tools. A remote MCP server is named with its address (`mcp:https://…`).
   Functions, custom tools, local shells and patches come back inside the walls.
4. Images and files come as data, never from a URL.
5. Options that change the price (`service_tier`, `reasoning.mode`, cache lifetimes) or add billed work (compaction,
   moderation) are refused: the hold would not cover them.

Source: Responses API reference and the request types of the official SDK; request and item types of openai/codex
(`codex-api/src/common.rs`, `tools/src/tool_spec.rs`, `protocol/src/models.rs`).
"""

from __future__ import annotations

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
    text,
    texts,
)
from vestibule.boundary.models.fields.responses_tools import CLIENT, LOCAL, check_tool_choice, check_tools


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
    for key in ("model", "input"):
        if key not in body:
            raise FieldRefused(key, "this field is missing")
    return seen


_BREAKPOINT = fields_of("prompt_cache_breakpoint", {"mode": one_of("prompt_cache_breakpoint.mode", "explicit")})
_DETAIL = one_of("detail", None, "auto", "low", "high", "original")


def _only_null(what: str) -> Check:
    def check(value: Any, _seen: Seen) -> None:
        if value is not None:
            raise FieldRefused(what, "images and files may come as data only, never from a URL or a stored file")

    return check


def _data_url(place: str) -> Check:
    def check(value: Any, _seen: Seen) -> None:
        if not isinstance(value, str) or not value.startswith("data:"):
            raise FieldRefused(place, "images and files may come as data only, never from a URL or a stored file")

    return check


def _file_data(value: Any, _seen: Seen) -> None:
    # A data URL, or plain base64, which has no colon.
    if not isinstance(value, str) or not (value.startswith("data:") or ":" not in value[:200]):
        raise FieldRefused("input_file.file_data", "files may come as data only, never from a URL or a stored file")


def _image(value: Any, seen: Seen) -> None:
    seen.images += 1
    _IMAGE(value, seen)


def _file(value: Any, seen: Seen) -> None:
    seen.documents += 1
    _FILE(value, seen)


_IMAGE = fields_of(
    "input_image",
    {
        "type": anything,
        "image_url": _data_url("input_image.image_url"),
        "file_id": _only_null("input_image.file_id"),
        "detail": _DETAIL,
        "prompt_cache_breakpoint": _BREAKPOINT,
    },
    ("image_url",),
)
_FILE = fields_of(
    "input_file",
    {
        "type": anything,
        "file_data": _file_data,
        "file_id": _only_null("input_file.file_id"),
        "file_url": _only_null("input_file.file_url"),
        "filename": data("input_file.filename", str),
        "detail": _DETAIL,
        "prompt_cache_breakpoint": _BREAKPOINT,
    },
    ("file_data",),
)
_INPUT_TEXT = fields_of(
    "input_text", {"type": anything, "text": text("input_text.text"), "prompt_cache_breakpoint": _BREAKPOINT}, ("text",)
)
_INPUTS: dict[str, Check] = {"input_text": _INPUT_TEXT, "input_image": _image, "input_file": _file}
_SAID: dict[str, Check] = {
    **_INPUTS,
    "output_text": fields_of(
        "output_text",
        {
            "type": anything,
            "text": text("output_text.text"),
            "annotations": data("output_text.annotations", list),
            "logprobs": data("output_text.logprobs", list),
        },
        ("text",),
    ),
    "refusal": fields_of("refusal", {"type": anything, "refusal": text("refusal.refusal")}),
}
_THOUGHT = fields_of("reasoning", {"type": anything, "text": text("reasoning.text")}, ("text",))

_STATUS = one_of("status", None, "in_progress", "completed", "incomplete", "failed")


def _direct(value: Any, _seen: Seen) -> None:
    if value is not None and value != {"type": "direct"}:
        raise FieldRefused("caller", "tools are called by the model only, never by the provider's code")


def _item(place: str, fields: Mapping[str, Check], required: tuple[str, ...]) -> Check:
    common = {"type": anything, "id": data(f"{place}.id", str), "status": _STATUS, "caller": _direct}
    return fields_of(place, {**common, "call_id": data(f"{place}.call_id", str), **fields}, required)


def _output(place: str) -> Check:
    return _item(
        place,
        {
            "output": blocks_of("a tool's output", _INPUTS),
            "name": data(f"{place}.name", str),
            "namespace": data(f"{place}.namespace", str),
        },
        ("output",),
    )


_MESSAGE = _item(
    "message",
    {
        "role": one_of("message.role", "user", "assistant", "system", "developer"),
        "content": blocks_of("a message", _SAID),
        "phase": one_of("message.phase", None, "commentary", "final_answer"),
    },
    ("role", "content"),
)
_SHELL_OUTPUT = fields_of(
    "shell_call_output",
    {
        "stdout": text("shell_call_output.stdout"),
        "stderr": text("shell_call_output.stderr"),
        "outcome": data("shell_call_output.outcome"),
    },
)


def _list_of(place: str, check: Check) -> Check:
    def each(value: Any, seen: Seen) -> None:
        if not isinstance(value, list):
            raise failed(place)
        for item in value:
            check(item, seen)

    return each


def _maybe(check: Check) -> Check:
    return lambda value, seen: None if value is None else check(value, seen)


_THOUGHTS = _maybe(blocks_of("reasoning", dict.fromkeys(("summary_text", "reasoning_text", "text"), _THOUGHT)))
_ITEMS: dict[str, Check] = {
    "message": _MESSAGE,
    "reasoning": _item(
        "reasoning",
        {"summary": _THOUGHTS, "content": _THOUGHTS, "encrypted_content": data("reasoning.encrypted_content", str)},
        (),
    ),
    "function_call": _item(
        "function_call",
        {
            "name": text("function_call.name"),
            "namespace": data("function_call.namespace", str),
            "arguments": text("function_call.arguments"),
        },
        ("name", "arguments"),
    ),
    "function_call_output": _output("function_call_output"),
    "custom_tool_call": _item(
        "custom_tool_call",
        {
            "name": text("custom_tool_call.name"),
            "namespace": data("custom_tool_call.namespace", str),
            "input": text("custom_tool_call.input"),
        },
        ("name", "input"),
    ),
    "custom_tool_call_output": _output("custom_tool_call_output"),
    "local_shell_call": _item("local_shell_call", {"action": data("local_shell_call.action")}, ("action",)),
    "local_shell_call_output": _output("local_shell_call_output"),
    "shell_call": _item(
        "shell_call",
        {
            "action": data("shell_call.action"),
            "environment": _maybe(LOCAL),
            "created_by": data("shell_call.created_by", str),
        },
        ("action",),
    ),
    "shell_call_output": _item(
        "shell_call_output",
        {
            "output": _list_of("shell_call_output.output", _SHELL_OUTPUT),
            "max_output_length": number("max_output_length"),
        },
        ("output",),
    ),
    "apply_patch_call": _item(
        "apply_patch_call",
        {"operation": data("apply_patch_call.operation"), "created_by": data("apply_patch_call.created_by", str)},
        ("operation",),
    ),
    "apply_patch_call_output": _item("apply_patch_call_output", {"output": data("apply_patch_call.output", str)}, ()),
    "tool_search_call": _item(
        "tool_search_call",
        {"arguments": anything, "execution": CLIENT, "created_by": data("tool_search_call.created_by", str)},
        ("execution",),
    ),
    "tool_search_output": _item(
        "tool_search_output",
        {"tools": check_tools, "execution": CLIENT},
        ("tools", "execution"),
    ),
    # Codex puts the tools of its newer models here.
    "additional_tools": _item(
        "additional_tools",
        {"role": one_of("additional_tools.role", "developer"), "tools": check_tools},
        ("role", "tools"),
    ),
}
_OF_PROVIDER = {
    # What a provider's own tool left in the conversation: data, when policy names the tool.
    "web_search_call": ("web_search", "web_search_preview"),
    "file_search_call": ("file_search",),
    "code_interpreter_call": ("code_interpreter",),
    "image_generation_call": ("image_generation",),
}


def _input(value: Any, seen: Seen) -> None:
    if isinstance(value, str):
        return
    if not isinstance(value, list) or not value:
        raise failed("input")
    for item in value:
        if not isinstance(item, dict):
            raise failed("input")
        kind = item.get("type", "message")
        check = _ITEMS.get(kind) if isinstance(kind, str) else None
        if check is not None:
            check(item, seen)
        elif not isinstance(kind, str) or not seen.provider_tools.intersection(_OF_PROVIDER.get(kind, ())):
            raise FieldRefused(f"input.{safe_name(kind)}", "this kind of item may not stand in the input")


def _absent(place: str, what: str) -> Check:
    def check(value: Any, _seen: Seen) -> None:
        if value is not None and value is not False:
            raise FieldRefused(place, what)

    return check


def _positive(place: str) -> Check:
    def check(value: Any, _seen: Seen) -> None:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000):
            raise failed(place)

    return check


_STORED = "answers are not stored at the provider, and none that is can be named"
_PLAIN_DATA = data("metadata")
_TOP: dict[str, Check] = {
    "model": text("model"),
    "input": _input,
    "instructions": data("instructions", str),
    "tools": check_tools,
    "tool_choice": check_tool_choice,
    "parallel_tool_calls": flag("parallel_tool_calls"),
    "max_output_tokens": _positive("max_output_tokens"),
    "max_tool_calls": _positive("max_tool_calls"),
    "stream": flag("stream"),
    "stream_options": fields_of(
        "stream_options",
        {
            "include_obfuscation": flag("stream_options.include_obfuscation"),
            # Codex: in which order summaries of thoughts are delivered.
            "reasoning_summary_delivery": data("stream_options.reasoning_summary_delivery", str),
        },
    ),
    "temperature": number("temperature"),
    "top_p": number("top_p"),
    "top_logprobs": number("top_logprobs"),
    "truncation": one_of("truncation", None, "auto", "disabled"),
    "text": fields_of(
        "text",
        {"format": data("text.format"), "verbosity": one_of("text.verbosity", None, "low", "medium", "high")},
    ),
    "reasoning": fields_of(
        "reasoning",
        {
            "effort": one_of("reasoning.effort", None, "none", "minimal", "low", "medium", "high", "xhigh", "max"),
            "summary": one_of("reasoning.summary", None, "auto", "concise", "detailed", "none"),
            "generate_summary": one_of("reasoning.generate_summary", None, "auto", "concise", "detailed"),
            "context": one_of("reasoning.context", None, "auto", "current_turn", "all_turns"),
            "mode": one_of("reasoning.mode", None, "standard"),
        },
    ),
    "include": texts("include"),
    "store": _absent("store", _STORED),
    "previous_response_id": _absent("previous_response_id", _STORED),
    "conversation": _absent("conversation", _STORED),
    "prompt": _absent("prompt", _STORED),
    "background": _absent("background", "an answer in the background would be nobody's"),
    "service_tier": one_of("service_tier", None, "auto", "default"),
    "prompt_cache_key": data("prompt_cache_key", str),
    "prompt_cache_retention": one_of("prompt_cache_retention", None, "in_memory"),
    "access_programs": fields_of("access_programs", {"cyber": one_of("access_programs.cyber", "standard")}),
    # Taken out before the request is sent.
    "metadata": _PLAIN_DATA,
    "client_metadata": _PLAIN_DATA,
    "user": data("user", str),
    "safety_identifier": data("safety_identifier", str),
}
TAKEN_OUT = ("metadata", "client_metadata", "user", "safety_identifier")
"""Names and data of the agent's that no provider needs: neither a device nor a person leaves in them."""
