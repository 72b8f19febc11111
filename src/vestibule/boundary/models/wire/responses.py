"""OpenAI Responses on the wire: usage, errors, the kinds of items and events. Pure.

Rule it keeps: kinds of tokens do not overlap. `input_tokens` includes what was read from and written to a cache, and
`output_tokens` includes reasoning (litellm #9812: cached tokens charged twice).

Source: Responses API reference ("The response object", "Streaming events") and the types of the official SDK.
"""

from __future__ import annotations

import json
from typing import Any

from vestibule.boundary.models.wire.sse import WireError, count, loads, written
from vestibule.cost.prices import Tokens

CALLS = frozenset(
    (
        "function_call",
        "custom_tool_call",
        "local_shell_call",
        "shell_call",
        "apply_patch_call",
        "tool_search_call",
        "mcp_call",
        "mcp_approval_request",
    )
)
"""Items that ask for something to be done: held until judged."""
AWAITED = CALLS - {"mcp_call"}
"""Calls whose result the model waits for. An `mcp_call` was carried out by the provider already."""
FLOWING = frozenset(("message", "reasoning"))
OF_PROVIDER = frozenset(
    (
        "web_search_call",
        "file_search_call",
        "code_interpreter_call",
        "image_generation_call",
        "mcp_list_tools",
        "tool_search_output",
    )
)
"""What a provider's own tools leave behind. Only there when policy names the tool; else no such item can come."""

ENDS = frozenset(("response.completed", "response.incomplete", "response.failed"))
BEGINNINGS = frozenset(("response.created", "response.in_progress", "response.queued"))
_PARTS = (
    "content_part.added",
    "content_part.done",
    "output_text.delta",
    "output_text.done",
    "output_text.annotation.added",
    "refusal.delta",
    "refusal.done",
    "reasoning_part.added",
    "reasoning_part.done",
    "reasoning_text.delta",
    "reasoning_text.done",
    "reasoning_summary_part.added",
    "reasoning_summary_part.done",
    "reasoning_summary_text.delta",
    "reasoning_summary_text.done",
    "function_call_arguments.delta",
    "function_call_arguments.done",
    "custom_tool_call_input.delta",
    "custom_tool_call_input.done",
    "shell_call_command.added",
    "shell_call_command.delta",
    "shell_call_command.done",
    "apply_patch_call_operation_diff.delta",
    "apply_patch_call_operation_diff.done",
    "mcp_call_arguments.delta",
    "mcp_call_arguments.done",
    "mcp_call.in_progress",
    "mcp_call.completed",
    "mcp_call.failed",
    "mcp_list_tools.in_progress",
    "mcp_list_tools.completed",
    "mcp_list_tools.failed",
    "web_search_call.in_progress",
    "web_search_call.searching",
    "web_search_call.completed",
    "file_search_call.in_progress",
    "file_search_call.searching",
    "file_search_call.completed",
    "code_interpreter_call.in_progress",
    "code_interpreter_call.interpreting",
    "code_interpreter_call.completed",
    "code_interpreter_call_code.delta",
    "code_interpreter_call_code.done",
    "image_generation_call.in_progress",
    "image_generation_call.generating",
    "image_generation_call.partial_image",
    "image_generation_call.completed",
)
PARTS = frozenset(f"response.{name}" for name in _PARTS)
"""Events that belong to one item, by `output_index`."""


def read_usage(usage: dict[str, Any]) -> Tokens:
    """Tokens by billed kind. A cache write of OpenAI's lives half a day at most: the shorter kind of two."""
    details = usage.get("input_tokens_details")
    details = details if isinstance(details, dict) else {}
    everything = count(usage.get("input_tokens"))
    read = min(count(details.get("cached_tokens")), everything)
    write = min(count(details.get("cache_write_tokens")), everything - read)
    return Tokens(
        input=everything - read - write,
        cache_read=read,
        cache_write_5m=write,
        output=count(usage.get("output_tokens")),
    )


def is_error(body: bytes) -> bool:
    """Whether it is the API's own error object: then the provider says that it did not answer, or bill."""
    try:
        value = loads(body)
    except WireError:
        return False
    error = value.get("error")
    return isinstance(error, dict) and isinstance(error.get("message"), str)


def error_body(kind: str, message: str, refusal: dict[str, Any] | None = None) -> bytes:
    """An error in the API's shape; `vestibule` carries the typed refusal."""
    code = refusal.get("rule") if refusal else None
    value: dict[str, Any] = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    if refusal is not None:
        value["vestibule"] = refusal
    return json.dumps(value, ensure_ascii=False).encode("utf-8")


def error_event(kind: str, message: str, refusal: dict[str, Any] | None = None) -> bytes:
    """The same as the last events of a stream. Two, for programs heed one each: the SDKs raise when they meet `error`;
    Codex passes over that, shows `response.failed`, and does not try again what was an `invalid_prompt`."""
    code = str(refusal.get("rule") or "") if refusal else ""
    value: dict[str, Any] = {
        "type": "error",
        "code": code or None,
        "message": message,
        "param": None,
        "sequence_number": 0,
        "error": {"message": message, "type": kind, "param": None, "code": code or None},
    }
    if refusal is not None:
        value["vestibule"] = refusal
    again = not code or code.startswith("dependency.")
    response = {
        "id": "",
        "object": "response",
        "created_at": 0,
        "status": "failed",
        "error": {"code": "server_error" if again else "invalid_prompt", "message": message},
        "output": [],
    }
    failed = {"type": "response.failed", "sequence_number": 1, "response": response}
    return written(value, "error") + written(failed, "response.failed")


def text_item(text: str, item_id: str) -> dict[str, Any]:
    """A message of one text, whole. Never empty: programs send it back as history."""
    part = {"type": "output_text", "text": text or "…", "annotations": [], "logprobs": []}
    return {"id": item_id, "type": "message", "status": "completed", "role": "assistant", "content": [part]}


def text_events(index: int, item: dict[str, Any]) -> list[dict[str, Any]]:
    """The events that stream a message of one text, without their sequence numbers."""
    part = item["content"][0]
    empty = {**part, "text": ""}
    place = {"item_id": item["id"], "output_index": index, "content_index": 0}
    begun = {**item, "status": "in_progress", "content": []}
    return [
        {"type": "response.output_item.added", "output_index": index, "item": begun},
        {"type": "response.content_part.added", **place, "part": empty},
        {"type": "response.output_text.delta", **place, "delta": part["text"], "logprobs": []},
        {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]


def said(item: dict[str, Any]) -> list[str]:
    """The texts of a message or of thoughts."""
    found: list[str] = []
    for key in ("content", "summary"):
        parts = item.get(key)
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                found += [value for name in ("text", "refusal") if isinstance(value := part.get(name), str) and value]
    return found
