"""Which fields of an OpenAI Chat Completions request may pass. Pure.

Rules it keeps:
1. Allow-lists only: a field, message role, content part or tool type that is not named here is refused. New ones of
   the provider's arrive refused, and are added here after someone has looked.
2. What the provider would do for the model is egress, and refused: web search, stored answers (`store`), stored files
   and audio (by id), moderation, images by URL (a provider would load it: data only). Tools are functions and custom
   tools: both come back inside the walls.
3. What changes the price is refused (`service_tier` but the standard ones), and so is what bills more output than
   `max_completion_tokens` says (`prediction`, audio). Several answers (`n`) pass up to 8; the hold covers all.
4. The old form of calls (`functions`, `function_call`) is refused in requests: every program of today has `tools`.

Source: API reference and the request types of the official SDK 3.52; `reasoning_content` and `reasoning` of a turn
are what vLLM and DeepSeek want back, `cache_control` what programs send for models that know it.
"""

from __future__ import annotations

import base64
import binascii
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
    text,
    texts,
)

MOST_ANSWERS = 8
"""The most answers (`n`) that one request may ask for."""
_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_DATA_URL = re.compile(r"data:([a-z]+/[a-z0-9.+-]+);base64,", re.ASCII)


def check_fields(body: Mapping[str, Any]) -> Seen:
    """Walk the whole request.

    Raises:
        FieldRefused: the first thing that may not pass.
    """
    seen = Seen()
    for key, value in body.items():
        check = _TOP.get(key)
        if check is None:
            raise FieldRefused(safe_name(key), _WHY.get(key, "this field is not among those that may pass"))
        check(value, seen)
    for key in ("model", "messages"):
        if key not in body:
            raise FieldRefused(key, "this field is missing")
    return seen


def split_data_url(url: str) -> tuple[str, str] | None:
    """Media type and base64 text of a data URL; None: it is no such thing."""
    match = _DATA_URL.match(url)
    if match is None:
        return None
    found = url[match.end() :]
    try:
        base64.b64decode(found, validate=True)
    except (binascii.Error, ValueError):
        return None
    return match.group(1), found


def _nullable(check: Check) -> Check:
    def inner(value: Any, seen: Seen) -> None:
        if value is not None:
            check(value, seen)

    return inner


_CACHE = {
    "cache_control": fields_of(
        "cache_control",
        {"type": one_of("cache_control.type", "ephemeral"), "ttl": one_of("cache_control.ttl", None, "5m")},
    ),
    "prompt_cache_breakpoint": fields_of(
        "prompt_cache_breakpoint",
        {
            "mode": one_of("prompt_cache_breakpoint.mode", "explicit"),
            "ttl": one_of("prompt_cache_breakpoint.ttl", None, "30m"),
        },
    ),
}
_TEXT = fields_of("text", {"type": anything, "text": text("text.text"), **_CACHE}, ("text",))
_REFUSAL = fields_of("refusal", {"type": anything, "refusal": text("refusal.refusal")}, ("refusal",))


def _url(value: Any, _seen: Seen) -> None:
    found = split_data_url(value) if isinstance(value, str) else None
    if found is None or found[0] not in _IMAGES:
        raise FieldRefused("source.url", "an image may come as data only (a data: URL), never from a URL or a file")


_IMAGE_URL = fields_of(
    "image_url",
    {"url": _url, "detail": one_of("image_url.detail", None, "auto", "low", "high", "original")},
    ("url",),
)


def _image(value: Any, seen: Seen) -> None:
    seen.images += 1
    fields_of("image_url", {"type": anything, "image_url": _IMAGE_URL, **_CACHE}, ("image_url",))(value, seen)


def _file_data(value: Any, _seen: Seen) -> None:
    found = split_data_url(value) if isinstance(value, str) else None
    if found is None or found[0] != "application/pdf":
        raise FieldRefused("source.file", "a document may come as data only, as a PDF in a data: URL")


def _file(value: Any, seen: Seen) -> None:
    seen.documents += 1
    inner = value.get("file")
    if isinstance(inner, dict) and "file_id" in inner:
        raise FieldRefused("source.file", "a document may come as data only, never as a stored file")
    fields = fields_of("file", {"file_data": _file_data, "filename": data("file.filename", str)}, ("file_data",))
    fields_of("file", {"type": anything, "file": fields, **_CACHE}, ("file",))(value, seen)


def _content(place: str, *kinds: str) -> Check:
    return _nullable(blocks_of(place, {kind: _PARTS[kind] for kind in kinds}))


_PARTS: dict[str, Check] = {
    "text": _TEXT,
    "refusal": _REFUSAL,
    "image_url": _image,
    "file": _file,
}
_FUNCTION_CALL = fields_of(
    "tool_calls.function",
    {"name": text("tool_calls.function.name"), "arguments": text("tool_calls.function.arguments")},
    ("name", "arguments"),
)
_CUSTOM_CALL = fields_of(
    "tool_calls.custom",
    {"name": text("tool_calls.custom.name"), "input": text("tool_calls.custom.input")},
    ("name", "input"),
)
_CALL = fields_of(
    "tool_calls",
    {
        "id": text("tool_calls.id"),
        "type": one_of("tool_calls.type", "function", "custom"),
        "index": number("tool_calls.index"),
        "cache_control": _CACHE["cache_control"],
        "function": _FUNCTION_CALL,
        "custom": _CUSTOM_CALL,
    },
    ("id",),
)


def _calls(value: Any, seen: Seen) -> None:
    if not isinstance(value, list):
        raise failed("tool_calls")
    for item in value:
        _CALL(item, seen)


def _never(place: str, why: str) -> Check:
    def check(value: Any, _seen: Seen) -> None:
        if value is not None:
            raise FieldRefused(place, why)

    return check


_NAME = {"name": text("messages.name"), "cache_control": _CACHE["cache_control"]}
_MESSAGES: dict[str, Check] = {
    role: fields_of("messages", {"role": anything, "content": check, **_NAME, **more}, ("role",))
    for role, check, more in (
        ("system", _content("a system message", "text"), {}),
        ("developer", _content("a developer message", "text"), {}),
        ("user", _content("a message", "text", "image_url", "file"), {}),
        (
            "tool",
            _content("a tool message", "text", "image_url"),
            {"tool_call_id": text("messages.tool_call_id")},
        ),
        (
            "assistant",
            _content("an assistant message", "text", "refusal"),
            {
                "tool_calls": _nullable(_calls),
                "refusal": data("messages.refusal", str),
                "reasoning_content": data("messages.reasoning_content", str),
                "reasoning": data("messages.reasoning", str),
                "audio": _never("messages.audio", "stored audio may not pass"),
                "function_call": _never("messages.function_call", "calls stand in tool_calls"),
            },
        ),
    )
}


def _messages(value: Any, seen: Seen) -> None:
    if not isinstance(value, list) or not value:
        raise failed("messages")
    for item in value:
        role = item.get("role") if isinstance(item, dict) else None
        check = _MESSAGES.get(role) if isinstance(role, str) else None
        if check is None:
            raise FieldRefused("messages.role", "a message of this role may not pass")
        check(item, seen)


_FUNCTION = fields_of(
    "tools.function",
    {
        "name": text("tools.function.name"),
        "description": data("tools.function.description", str),
        "parameters": data("tools.function.parameters"),
        "strict": flag("tools.function.strict"),
    },
    ("name",),
)
_CUSTOM = fields_of(
    "tools.custom",
    {
        "name": text("tools.custom.name"),
        "description": data("tools.custom.description", str),
        "format": data("tools.custom.format"),
    },
    ("name",),
)
_TOOLS: dict[str, Check] = {
    "function": fields_of(
        "tools",
        {"type": anything, "function": _FUNCTION, "cache_control": _CACHE["cache_control"]},
        ("function",),
    ),
    "custom": fields_of("tools", {"type": anything, "custom": _CUSTOM}, ("custom",)),
}


def _tools(value: Any, seen: Seen) -> None:
    if value is None:
        return
    if not isinstance(value, list):
        raise failed("tools")
    for item in value:
        kind = item.get("type") if isinstance(item, dict) else None
        check = _TOOLS.get(kind) if isinstance(kind, str) else None
        if check is None:
            raise FieldRefused(
                f"tools.{safe_name(kind)}", "a tool of this type is carried out by the provider, outside the walls"
            )
        check(item, seen)


_NAMED = {
    "type": one_of("tool_choice.type", "function", "custom", "allowed_tools"),
    "function": fields_of("tool_choice.function", {"name": text("tool_choice.function.name")}, ("name",)),
    "custom": fields_of("tool_choice.custom", {"name": text("tool_choice.custom.name")}, ("name",)),
}


def _allowed_tools(value: Any, seen: Seen) -> None:
    fields_of(
        "tool_choice.allowed_tools",
        {"mode": one_of("tool_choice.mode", "auto", "required"), "tools": data("tool_choice.tools", list)},
        ("mode", "tools"),
    )(value, seen)
    for item in value["tools"]:
        fields_of("tool_choice.tools", _NAMED, ("type",))(item, seen)


def _tool_choice(value: Any, seen: Seen) -> None:
    if isinstance(value, str) or value is None:
        one_of("tool_choice", None, "auto", "none", "required")(value, seen)
    else:
        fields_of("tool_choice", {**_NAMED, "allowed_tools": _allowed_tools}, ("type",))(value, seen)


def _stop(value: Any, seen: Seen) -> None:
    if not isinstance(value, str):
        texts("stop")(value, seen)


def _count(place: str, most: int = 1_000_000) -> Check:
    def check(value: Any, _seen: Seen) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise failed(place)

    return _nullable(check)


def _modalities(value: Any, _seen: Seen) -> None:
    if value not in (None, ["text"]):
        raise FieldRefused("modalities", "answers are text")


def _off(place: str, why: str) -> Check:
    def check(value: Any, _seen: Seen) -> None:
        if value is not None and value is not False:
            raise FieldRefused(place, why)

    return check


_WHY = {
    "web_search_options": "a search is carried out by the provider, outside the walls",
    "prediction": "predicted output is billed beyond the bound that the budget holds",
    "audio": "audio may not pass",
    "moderation": "moderation is another request of the provider's own",
    "functions": "tools stand in `tools`",
    "function_call": "the choice of a tool stands in `tool_choice`",
}
_TOP: dict[str, Check] = {
    "model": text("model"),
    "messages": _messages,
    "max_completion_tokens": _count("max_completion_tokens"),
    "max_tokens": _count("max_tokens"),
    "n": _count("n", MOST_ANSWERS),
    "stream": flag("stream"),
    "stream_options": fields_of(
        "stream_options",
        {
            "include_usage": flag("stream_options.include_usage"),
            "include_obfuscation": flag("stream_options.include_obfuscation"),
        },
    ),
    "temperature": number("temperature"),
    "top_p": number("top_p"),
    "top_k": number("top_k"),
    "min_p": number("min_p"),
    "frequency_penalty": number("frequency_penalty"),
    "presence_penalty": number("presence_penalty"),
    "repetition_penalty": number("repetition_penalty"),
    "logit_bias": data("logit_bias"),
    "logprobs": flag("logprobs"),
    "top_logprobs": number("top_logprobs"),
    "seed": number("seed"),
    "stop": _stop,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "parallel_tool_calls": flag("parallel_tool_calls"),
    "response_format": fields_of(
        "response_format",
        {
            "type": one_of("response_format.type", "text", "json_object", "json_schema"),
            "json_schema": data("response_format.json_schema"),
        },
    ),
    "reasoning_effort": one_of("reasoning_effort", None, "none", "minimal", "low", "medium", "high", "xhigh", "max"),
    "verbosity": one_of("verbosity", None, "low", "medium", "high"),
    "modalities": _modalities,
    "service_tier": one_of("service_tier", None, "auto", "default"),
    "store": _off("store", "stored answers may not pass"),
    # Who asks and which cache: replaced by the run's id, so that neither a device nor data leaves in them.
    "user": data("user", str),
    "safety_identifier": data("safety_identifier", str),
    "prompt_cache_key": data("prompt_cache_key", str),
    "metadata": data("metadata"),
    "prompt_cache_retention": one_of("prompt_cache_retention", None, "in_memory"),
    "prompt_cache_options": fields_of(
        "prompt_cache_options",
        {
            "mode": one_of("prompt_cache_options.mode", "implicit", "explicit"),
            "ttl": one_of("prompt_cache_options.ttl", None, "30m"),
        },
    ),
}
