"""Requests: Anthropic Messages to OpenAI Chat Completions. Pure.

Lost on the way (docs/explanation/translation.md): thoughts and how long to think, cache marks, `top_k`, clearing of old
blocks, the error mark of a tool's result (said in words instead), citations, the user's id.
"""

from __future__ import annotations

import json
from typing import Any

from vestibule.boundary.models.fields.chat import split_data_url
from vestibule.boundary.models.fields.kit import FieldRefused
from vestibule.boundary.models.translate.names import Names

FAILED = "The tool failed:\n"
"""What stands before the result of a tool that failed: Chat Completions have no mark for it."""
MAX_STOPS = 4


def to_chat(body: dict[str, Any], names: Names) -> dict[str, Any]:
    """The body in Chat Completions. Raises `FieldRefused`."""
    found: dict[str, Any] = {"model": body["model"], "messages": _messages(body, names)}
    found["max_completion_tokens"] = body["max_tokens"]
    for key in ("temperature", "top_p"):
        if body.get(key) is not None:
            found[key] = body[key]
    stops = body.get("stop_sequences")
    if stops:
        if len(stops) > MAX_STOPS:
            raise FieldRefused("stop_sequences", f"this model's provider takes {MAX_STOPS} stop sequences at most")
        found["stop"] = stops
    if body.get("stream"):
        found |= {"stream": True, "stream_options": {"include_usage": True}}
    _tools(body, found, names)
    schema = (body.get("output_config") or {}).get("format") or body.get("output_format")
    if schema is not None:
        found["response_format"] = _answer_schema(schema)
    return found


def _tools(body: dict[str, Any], found: dict[str, Any], names: Names) -> None:
    if not body.get("tools"):
        return
    found["tools"] = [_tool(tool, names) for tool in body["tools"]]
    choice = body.get("tool_choice") or {}
    kind = choice.get("type")
    if kind == "tool":
        found["tool_choice"] = {"type": "function", "function": {"name": names.short(choice.get("name") or "")}}
    elif kind:
        found["tool_choice"] = {"auto": "auto", "any": "required", "none": "none"}[kind]
    if choice.get("disable_parallel_tool_use"):
        found["parallel_tool_calls"] = False


def _tool(tool: dict[str, Any], names: Names) -> dict[str, Any]:
    if tool.get("type") not in (None, "custom"):
        raise FieldRefused("tools.type", "this model's provider knows functions with a schema only")
    function: dict[str, Any] = {"name": names.short(tool.get("name") or "")}
    if tool.get("description"):
        function["description"] = tool["description"]
    function["parameters"] = tool.get("input_schema") or {"type": "object", "properties": {}}
    if tool.get("strict") is not None:
        function["strict"] = tool["strict"]
    return {"type": "function", "function": function}


def _answer_schema(value: Any) -> dict[str, Any]:
    schema = value.get("schema") if isinstance(value, dict) else None
    if not isinstance(schema, dict) or value.get("type") != "json_schema":
        raise FieldRefused("output_config.format", "this form of an answer cannot be asked of this model's provider")
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def _messages(body: dict[str, Any], names: Names) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    system = words(body.get("system"))
    if system:
        found.append({"role": "system", "content": system})
    for message in body["messages"]:
        content = message["content"]
        if message["role"] == "assistant":
            found += _assistant(content, names)
        elif message["role"] == "system":
            found.append({"role": "system", "content": words(content)})
        elif isinstance(content, str):
            found.append({"role": "user", "content": content})
        else:
            found += _user(content)
    return found


def _assistant(content: Any, names: Names) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"role": "assistant", "content": content}] if content else []
    texts = [block["text"] for block in content if block["type"] == "text" and block.get("text")]
    calls = [
        {
            "id": block.get("id") or "",
            "type": "function",
            "function": {
                "name": names.short(block.get("name") or ""),
                "arguments": json.dumps(block.get("input") or {}, ensure_ascii=False),
            },
        }
        for block in content
        if block["type"] == "tool_use"
    ]
    if not texts and not calls:
        return []
    turn: dict[str, Any] = {"role": "assistant", "content": "\n\n".join(texts) or None}
    return [{**turn, "tool_calls": calls} if calls else turn]


def _user(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results come first, as they have to; images within them follow as the user's."""
    found: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for block in blocks:
        if block["type"] != "tool_result":
            parts += _parts(block)
            continue
        inner = block.get("content")
        inner = [{"type": "text", "text": inner}] if isinstance(inner, str) else inner or []
        said = [part for item in inner for part in _parts(item)]
        text = "\n".join(part["text"] for part in said if part["type"] == "text")
        shown = [part for part in said if part["type"] != "text"]
        if shown:
            text += ("\n" if text else "") + "(Its images and documents follow.)"
            parts += shown
        if block.get("is_error"):
            text = FAILED + text
        found.append({"role": "tool", "tool_call_id": block.get("tool_use_id") or "", "content": text})
    if parts:
        single = len(parts) == 1 and parts[0]["type"] == "text"
        found.append({"role": "user", "content": parts[0]["text"] if single else parts})
    return found


def _parts(block: dict[str, Any]) -> list[dict[str, Any]]:
    kind = block["type"]
    if kind == "text":
        return [{"type": "text", "text": block.get("text") or ""}]
    if kind == "image":
        return [{"type": "image_url", "image_url": {"url": _data_url(block["source"])}}]
    if kind == "document":
        return _document(block)
    if kind == "search_result":
        title = block.get("title") or ""
        return [{"type": "text", "text": f"{title}\n{words(block.get('content'))}".strip()}]
    if kind == "tool_reference":
        return [{"type": "text", "text": block.get("tool_name") or ""}]
    if kind in ("thinking", "redacted_thinking"):
        return []
    raise FieldRefused("content", "a block of this kind cannot be said to this model's provider")


def _document(block: dict[str, Any]) -> list[dict[str, Any]]:
    source = block["source"]
    notes = [block[key] for key in ("title", "context") if block.get(key)]
    found = [{"type": "text", "text": "\n".join(notes)}] if notes else []
    if source["type"] == "base64":
        return [*found, {"type": "file", "file": {"filename": "document.pdf", "file_data": _data_url(source)}}]
    if source["type"] == "text":
        return [*found, {"type": "text", "text": source.get("data") or ""}]
    content = source["content"]
    content = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [*found, *(part for item in content for part in _parts(item))]


def _data_url(source: dict[str, Any]) -> str:
    found = f"data:{source['media_type']};base64,{source['data']}"
    if split_data_url(found) is None:
        raise FieldRefused("source.data", "the data of an image or a document is no base64")
    return found


def words(content: Any) -> str:
    """All texts of a content, blocks as paragraphs."""
    if isinstance(content, str):
        return content
    return "\n\n".join(block.get("text") or "" for block in content or () if isinstance(block, dict))
