"""OpenAI Chat Completions on the wire: usage, errors, which keys of an answer may carry what. Pure.

Rules it keeps:
1. `prompt_tokens` holds what came from and went into the cache; billed kinds do not overlap, so it is taken off. An
   explicit 0 is 0. Reasoning is part of `completion_tokens`.
2. Providers add keys of their own (`reasoning_content`, filters): plain words flow, but whatever could be read as a
   call by some program is none of the answer's known places, and refused (`WireError`).

Source: API reference, "Chat Completions", types of the official SDK; servers that are compatible with it (vLLM,
Ollama, Azure) where they add something.
"""

from __future__ import annotations

import json
from typing import Any

from vestibule.boundary.models.wire.sse import WireError, count, has_twice, is_count, loads, loads_marked
from vestibule.cost.prices import Tokens

DONE = b"data: [DONE]\n\n"
MAX_CHOICES = 128
"""Answers to one request, as the API bounds them."""
TEXTS = ("content", "refusal")
"""What a message says to people. Held with `hold_text`."""
THOUGHTS = ("reasoning_content", "reasoning", "reasoning_text")
"""Thoughts in the spelling of several servers; they flow."""
CALL_ENDS = ("tool_calls", "function_call", "stop")
"""Ends after which a message's calls are whole. Ollama and vLLM say `stop` behind calls too."""
_STRUCTURED = ("reasoning_details", "annotations")
_LIKE_A_CALL = ("tool", "call", "function", "arguments", "message")
_PLAIN = frozenset(
    (
        *("id", "object", "created", "model", "system_fingerprint", "service_tier", "usage", "obfuscation", "choices"),
        *("index", "finish_reason", "logprobs", "stop_reason"),
    )
)
"""Keys of an answer and of a choice that the official types have, and that nobody reads calls from."""
_PLAIN_CHOICE = _PLAIN | {"delta"}
_CONTENT = {"content"}


def read_usage(usage: dict[str, Any]) -> Tokens:
    """Tokens by billed kind."""
    details = usage.get("prompt_tokens_details")
    details = details if isinstance(details, dict) else {}
    whole = count(usage.get("prompt_tokens"))
    read = min(whole, count(details.get("cached_tokens")))
    write = min(whole - read, count(details.get("cache_write_tokens")))
    return Tokens(
        input=whole - read - write, cache_read=read, cache_write_5m=write, output=count(usage.get("completion_tokens"))
    )


def usage_of(tokens: Tokens) -> dict[str, Any]:
    """The same as the API writes it."""
    return {
        "prompt_tokens": tokens.all_input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.all_input + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cache_read, "cache_write_tokens": tokens.cache_write},
    }


def reported(usage: Any) -> bool:
    """Whether a report holds the final counts."""
    return isinstance(usage, dict) and all(is_count(usage.get(key)) for key in ("prompt_tokens", "completion_tokens"))


def read_chunk(data: bytes) -> tuple[dict[str, Any], bool]:
    """An event's object, and whether a key stands in it twice (looked for where a call could be).

    Raises:
        WireError: it is no JSON object.
    """
    # A key may be written with escapes, and hide from a search of the bytes.
    if b"_call" in data or b"\\u" in data:
        value = loads_marked(data)
        return value, has_twice(value)
    return loads(data), False


def more_words(value: dict[str, Any]) -> str | None:
    """The words of an event that holds nothing but more words of the first choice: most of a stream's are such."""
    choices = value.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not value.keys() <= _PLAIN or value.get("usage"):
        return None
    choice = choices[0]
    if not isinstance(choice, dict) or choice.get("finish_reason") is not None or choice.get("index") != 0:
        return None
    delta = choice.get("delta")
    if not isinstance(delta, dict) or delta.keys() != _CONTENT or not choice.keys() <= _PLAIN_CHOICE:
        return None
    said = delta["content"]
    return said if isinstance(said, str) and said else None


def choices_of(value: dict[str, Any]) -> list[dict[str, Any]]:
    """The choices of a chunk or an answer.

    Raises:
        WireError: they have another shape, or something beside them could be read as a call.
    """
    choices = value.get("choices")
    if not isinstance(choices, list) or not all(isinstance(item, dict) for item in choices):
        raise WireError("its answer holds no choices")
    _no_calls(value, "choices")
    for item in choices:
        index = item.get("index", 0)
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < MAX_CHOICES:
            raise WireError("a choice of its answer has no number")
    return choices


def parts_of(choice: dict[str, Any], key: str) -> dict[str, Any]:
    """A choice's `delta` or `message`, checked.

    Raises:
        WireError: it holds something that could be a call in a place where none is known, or of an unknown kind.
    """
    parts = choice.get(key)
    if parts is None:
        parts = {}
    if not isinstance(parts, dict):
        raise WireError("a part of its answer is no object")
    _no_calls(choice, key)
    for name, value in parts.items():
        if value is None or name in ("role", "tool_calls", "function_call"):
            continue
        if name in TEXTS or name in THOUGHTS:
            if not isinstance(value, str):
                raise WireError("a text of its answer is no text")
        elif value in ("", [], {}):
            continue
        elif any(word in name.lower() for word in _LIKE_A_CALL):
            raise WireError("its answer holds something like a call in an unknown place")
        elif name in _STRUCTURED:
            if _call_like(value):
                raise WireError("its answer holds something like a call in an unknown place")
        elif not isinstance(value, (str, bool, int, float)):
            raise WireError("its answer holds a part of an unknown kind")
    calls, legacy = parts.get("tool_calls"), parts.get("function_call")
    if calls is not None and not (isinstance(calls, list) and all(isinstance(item, dict) for item in calls)):
        raise WireError("calls of its answer are no list of objects")
    if legacy is not None and not isinstance(legacy, dict):
        raise WireError("a call of its answer is no object")
    return parts


def words_of(parts: dict[str, Any]) -> str:
    """Everything that a part says, thoughts included, for matching known secrets."""
    found = [value for key, value in parts.items() if isinstance(value, str) and key not in ("role", "tool_calls")]
    found += [json.dumps(parts[key], ensure_ascii=False) for key in _STRUCTURED if parts.get(key)]
    return "".join(found)


def _no_calls(value: dict[str, Any], but: str) -> None:
    if value.keys() - _PLAIN <= {but}:
        return
    for key, item in value.items():
        if key == but or not isinstance(item, (dict, list)) or not item or key in ("usage", "logprobs"):
            continue
        if key in ("message", "delta", "output") or _call_like({key: item}):
            raise WireError("its answer holds something like a call in an unknown place")


def _call_like(value: Any) -> bool:
    """Whether any key within speaks of calls."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if any(word in str(key).lower() for key in item for word in ("tool_", "function", "_call", "arguments")):
                return True
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return False


def is_error(body: bytes) -> bool:
    """Whether it is an error object of the API, or of a server that is compatible with it."""
    try:
        value = loads(body)
    except WireError:
        return False
    if value.get("choices"):
        return False
    error = value.get("error")
    return (
        (isinstance(error, dict) and isinstance(error.get("message"), str))
        or (isinstance(error, str) and bool(error))
        or value.get("object") == "error"
        or (isinstance(value.get("errors"), list) and bool(value["errors"]))
    )


def error_text(body: bytes) -> str:
    """The message of such an error; empty when it has none."""
    try:
        value = loads(body)
    except WireError:
        return ""
    error = value.get("error")
    if isinstance(error, str):
        return error
    first = value["errors"][0] if isinstance(value.get("errors"), list) and value["errors"] else None
    holder = next((item for item in (error, first, value) if isinstance(item, dict)), {})
    message = holder.get("message")
    return message if isinstance(message, str) else ""


def error_body(kind: str, message: str, refusal: dict[str, Any] | None = None, code: str | None = None) -> bytes:
    """An error in the API's shape; `vestibule` carries the typed refusal."""
    value: dict[str, Any] = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    if refusal is not None:
        value["vestibule"] = refusal
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def error_event(kind: str, message: str, refusal: dict[str, Any] | None = None) -> bytes:
    """The same as the last event of a stream."""
    return b"data: " + error_body(kind, message, refusal) + b"\n\n"
