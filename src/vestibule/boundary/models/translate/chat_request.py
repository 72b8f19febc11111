"""Requests: OpenAI Chat Completions to Anthropic Messages. Pure.

Lost on the way (docs/explanation/translation.md): thoughts and how hard to think, penalties, `logit_bias`, `seed`,
`verbosity`, JSON without a schema, the place of system messages behind the first.
"""

from __future__ import annotations

import json
from typing import Any

from vestibule.boundary.models.fields.chat import split_data_url
from vestibule.boundary.models.fields.kit import FieldRefused

_CACHED = {"type": "ephemeral"}


def to_messages(body: dict[str, Any]) -> dict[str, Any]:
    """The body in Anthropic Messages. Raises `FieldRefused`."""
    if (body.get("n") or 1) != 1:
        raise FieldRefused("n", "this model's provider gives one answer")
    if body.get("logprobs"):
        raise FieldRefused("logprobs", "this model's provider tells no probabilities")
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    found: dict[str, Any] = {"model": body["model"], "max_tokens": most, "messages": _messages(body["messages"])}
    system = [text for item in body["messages"] if item["role"] in ("system", "developer") for text in _texts(item)]
    if system:
        found["system"] = [{"type": "text", "text": text} for text in system]
    if body.get("temperature") is not None:
        found["temperature"] = min(body["temperature"], 1)
    elif body.get("top_p") is not None:
        found["top_p"] = body["top_p"]
    if body.get("top_k") is not None:
        found["top_k"] = body["top_k"]
    stops = body.get("stop")
    stops = [stops] if isinstance(stops, str) else stops or []
    if any(stop.strip() for stop in stops):
        found["stop_sequences"] = [stop for stop in stops if stop.strip()]
    if body.get("stream"):
        found["stream"] = True
    _tools(body, found)
    schema = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema")
    if isinstance(schema, dict):
        found["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    return found


def _tools(body: dict[str, Any], found: dict[str, Any]) -> None:
    tools = body.get("tools") or ()
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        wanted = {(item.get(item["type"]) or {}).get("name") for item in choice["allowed_tools"]["tools"]}
        tools = [tool for tool in tools if (tool.get(tool["type"]) or {}).get("name") in wanted]
        choice = choice["allowed_tools"]["mode"]
    if not tools:
        return
    found["tools"] = [_tool(tool) for tool in tools]
    # Agents send the same beginning again and again; here it is cached only if asked for.
    found["cache_control"] = dict(_CACHED)
    if isinstance(choice, dict):
        name = (choice.get("function") or {}).get("name")
        if not name:
            raise FieldRefused("tool_choice", "this model's provider knows functions only")
        chosen: dict[str, Any] = {"type": "tool", "name": name}
    else:
        chosen = {"type": {"required": "any", "none": "none"}.get(choice or "auto", "auto")}
    if body.get("parallel_tool_calls") is False and chosen["type"] != "none":
        chosen["disable_parallel_tool_use"] = True
    if chosen != {"type": "auto"}:
        found["tool_choice"] = chosen


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool["type"] != "function":
        raise FieldRefused("tools.custom", "this model's provider knows functions with a schema only")
    function = tool["function"]
    found: dict[str, Any] = {"name": function["name"]}
    if function.get("description"):
        found["description"] = function["description"]
    schema = function.get("parameters") or {}
    found["input_schema"] = {"type": "object", "properties": {}, **schema}
    if function.get("strict"):
        found["strict"] = True
    return found


def _messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for message in messages:
        role = message["role"]
        if role in ("system", "developer"):
            continue
        blocks = _assistant(message) if role == "assistant" else _result(message) if role == "tool" else _user(message)
        kind = "assistant" if role == "assistant" else "user"
        if not blocks:
            continue
        if found and found[-1]["role"] == kind:
            # Results of one turn stand in one message.
            found[-1]["content"] += blocks
        else:
            found.append({"role": kind, "content": blocks})
    return found


def _texts(message: dict[str, Any]) -> list[str]:
    content = message.get("content")
    if isinstance(content, str):
        return [content] if content else []
    return [text for part in content or () if (text := part.get("text") or part.get("refusal"))]


def _user(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [block for part in content or () if (block := _part(part)) is not None]


def _part(part: dict[str, Any]) -> dict[str, Any] | None:
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]} if part["text"] else None
    place = ("image_url", "url") if part["type"] == "image_url" else ("file", "file_data")
    split = split_data_url(part[place[0]][place[1]])
    if split is None:
        raise FieldRefused("source.url", "it may come as data only")
    kind = "image" if place[0] == "image_url" else "document"
    return {"type": kind, "source": {"type": "base64", "media_type": split[0], "data": split[1]}}


def _result(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "tool_result", "tool_use_id": message.get("tool_call_id") or "", "content": _user(message)}]


def _assistant(message: dict[str, Any]) -> list[dict[str, Any]]:
    texts = _texts(message) + ([message["refusal"]] if message.get("refusal") else [])
    found: list[dict[str, Any]] = [{"type": "text", "text": text} for text in texts]
    for call in message.get("tool_calls") or ():
        custom = call.get("custom")
        inner = custom or call.get("function") or {}
        value = {"input": custom["input"]} if custom else _arguments(inner.get("arguments") or "")
        found.append({"type": "tool_use", "id": call["id"], "name": inner.get("name") or "", "input": value})
    return found


def _arguments(text: str) -> dict[str, Any]:
    """Arguments of an earlier call; what is no object was never carried out."""
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
