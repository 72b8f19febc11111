"""Where the texts of a request are, in each wire format. Pure; what is not changed stays the same object.

A request has parts: its system text, each message, each tool. `rewritten` gives a part with its texts edited. Only
what the model is told is edited: texts of people and of the agent's program, results of tools, descriptions of tools.
What the model itself said goes back as it was, since providers sign it.

Sources: Messages API (content blocks, `tool_result`); Responses API (input items, `*_call_output`); Chat Completions
API (message roles, content parts); Gemini API (`Content`, `Part`, `FunctionResponse`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from vestibule.boundary.models.formats.base import FormatName

Kind = Literal["system", "user", "tool", "result"]


class Result(NamedTuple):
    """A result of a tool: the call's id, the tool's name if the part says it, and its content as it stands."""

    call: str
    name: str
    content: Any


@dataclass(frozen=True, slots=True)
class Edit:
    """`text` edits one text. `mark` gives the words to put before a result, or nothing."""

    text: Callable[[str, Kind], str]
    mark: Callable[[Result], str]


_LISTS: dict[FormatName, tuple[str, ...]] = {
    "anthropic": ("system", "messages", "tools"),
    "responses": ("instructions", "input", "tools"),
    "chat": ("messages", "tools"),
    "gemini": ("systemInstruction", "system_instruction", "contents", "tools"),
}


class Part(NamedTuple):
    """`key` of the body; `place` in its list, -1 when it is no list."""

    key: str
    place: int
    value: Any


def parts(form: FormatName, body: dict[str, Any]) -> Iterator[Part]:
    """Every part, in order; what is in no part of its own comes last, together, under the key `""`."""
    named = _LISTS[form]
    for key in named:
        value = body.get(key)
        if isinstance(value, list):
            for place, item in enumerate(value):
                yield Part(key, place, item)
        elif value is not None:
            yield Part(key, -1, value)
    yield Part("", -1, {key: value for key, value in body.items() if key not in named})


def put_back(body: dict[str, Any], changed: list[Part]) -> dict[str, Any]:
    """The body with these parts in their places."""
    out = dict(body)
    copied: set[str] = set()
    for part in changed:
        if part.place < 0:
            out[part.key] = part.value
            continue
        if part.key not in copied:
            copied.add(part.key)
            out[part.key] = list(out[part.key])
        out[part.key][part.place] = part.value
    return out


def rewritten(form: FormatName, part: Part, edit: Edit) -> Any:
    """The part's value, edited; the same object when nothing changed."""
    if part.key in ("", "tool_choice"):
        return part.value
    if part.key == "tools":
        return _tool(part.value, edit)
    if part.key in ("system", "instructions"):
        return _blocks(part.value, edit, "system") if part.place < 0 else _block(part.value, edit, "system")
    if part.key in ("systemInstruction", "system_instruction"):
        return _gemini(part.value, edit, "system")
    return _MESSAGE[form](part.value, edit)


def call_names(form: FormatName, body: dict[str, Any]) -> dict[str, str]:
    """Id of each call in the request → its tool's name, as the model wrote it."""
    found: dict[str, str] = {}
    for key in ("messages", "input"):
        value = body.get(key)
        for item in value if isinstance(value, list) else ():
            if isinstance(item, dict):
                for call in _calls(form, item):
                    function = call.get("function") or call.get("custom")
                    name = call.get("name") or (function.get("name") if isinstance(function, dict) else None)
                    call_id = call.get("call_id") or call.get("id")
                    if isinstance(name, str) and isinstance(call_id, str):
                        found[call_id] = name
    return found


def _calls(form: FormatName, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if form == "responses":
        if str(item.get("type", "")).endswith("_call"):
            yield item
        return
    value = item.get("tool_calls" if form == "chat" else "content")
    for block in value if isinstance(value, list) else ():
        if isinstance(block, dict) and (form == "chat" or block.get("type") == "tool_use"):
            yield block


def _anthropic(message: Any, edit: Edit) -> Any:
    if not isinstance(message, dict) or message.get("role") == "assistant":
        return message
    return _with(message, "content", _blocks(message.get("content"), edit, "user"))


def _responses(item: Any, edit: Edit) -> Any:
    if isinstance(item, str):
        return edit.text(item, "user")
    if not isinstance(item, dict):
        return item
    kind = item.get("type", "message")
    if str(kind).endswith("_call_output"):
        return _result(item, "output", str(item.get("call_id") or ""), edit)
    role = item.get("role")
    if kind != "message" or role in (None, "assistant"):
        return item
    return _with(item, "content", _blocks(item.get("content"), edit, "user" if role == "user" else "system"))


def _chat(message: Any, edit: Edit) -> Any:
    role = message.get("role") if isinstance(message, dict) else None
    if role in (None, "assistant"):
        return message
    if role in ("tool", "function"):
        return _result(message, "content", str(message.get("tool_call_id") or ""), edit, str(message.get("name") or ""))
    return _with(message, "content", _blocks(message.get("content"), edit, "user" if role == "user" else "system"))


def _gemini(content: Any, edit: Edit, kind: Kind = "user") -> Any:
    if not isinstance(content, dict) or content.get("role") == "model":
        return content
    value = content.get("parts")
    if isinstance(value, dict):  # protobuf's JSON lets one stand for a list of one
        return _with(content, "parts", _gemini_part(value, edit, kind))
    if not isinstance(value, list):
        return content
    return _with(content, "parts", _each(value, lambda item: _gemini_part(item, edit, kind)))


def _gemini_part(part: Any, edit: Edit, kind: Kind) -> Any:
    if not isinstance(part, dict):
        return part
    if isinstance(part.get("text"), str):
        part = _with(part, "text", edit.text(part["text"], kind))
    for key in ("functionResponse", "function_response"):
        given = part.get(key)
        if isinstance(given, dict) and isinstance(given.get("response"), dict):
            response = given["response"]
            shown = _texts(response, edit)
            words = edit.mark(Result(str(given.get("id") or ""), str(given.get("name") or ""), response))
            if words:
                # An object has no first line: a field of its own says it.
                name = next(name for name in ("note", "vestibule_note", "vestibule note") if name not in response)
                shown = {name: words, **shown}
            part = _with(part, key, _with(given, "response", shown))
    return part


_MESSAGE: dict[FormatName, Callable[[Any, Edit], Any]] = {
    "anthropic": _anthropic,
    "responses": _responses,
    "chat": _chat,
    "gemini": _gemini,
}


def _blocks(value: Any, edit: Edit, kind: Kind) -> Any:
    if isinstance(value, str):
        return edit.text(value, kind)
    return _each(value, lambda item: _block(item, edit, kind)) if isinstance(value, list) else value


def _block(block: Any, edit: Edit, kind: Kind) -> Any:
    if not isinstance(block, dict):
        return block
    if block.get("type") == "tool_result":
        return _result(block, "content", str(block.get("tool_use_id") or ""), edit)
    if isinstance(block.get("text"), str):
        return _with(block, "text", edit.text(block["text"], kind))
    source = block.get("source")
    if isinstance(source, dict) and source.get("type") in ("text", "content"):
        key = "data" if source["type"] == "text" else "content"
        return _with(block, "source", _with(source, key, _blocks(source.get(key), edit, kind)))
    return block


def _result(holder: dict[str, Any], key: str, call: str, edit: Edit, name: str = "") -> Any:
    content = holder.get(key)
    shown = _blocks(content, edit, "result")
    words = edit.mark(Result(call, name, content)) if content else ""
    if words and isinstance(shown, str):
        shown = f"{words}\n{shown}"
    elif words and isinstance(shown, list):
        first = shown[0]
        if isinstance(first, dict) and isinstance(first.get("text"), str):
            shown = [{**first, "text": f"{words}\n{first['text']}"}, *shown[1:]]
        else:
            kind = "input_text" if key == "output" else "text"
            shown = [{"type": kind, "text": words}, *shown]
    elif words and isinstance(shown, dict):
        return holder
    return _with(holder, key, shown)


def _tool(tool: Any, edit: Edit) -> Any:
    """A tool's own description, wherever the format has it."""
    if not isinstance(tool, dict):
        return tool
    if isinstance(tool.get("description"), str):
        tool = _with(tool, "description", edit.text(tool["description"], "tool"))
    for key in ("function", "custom"):
        if isinstance(tool.get(key), dict):
            tool = _with(tool, key, _tool(tool[key], edit))
    for key in ("functionDeclarations", "function_declarations", "tools"):
        if isinstance(tool.get(key), list):
            tool = _with(tool, key, _each(tool[key], lambda item: _tool(item, edit)))
    return tool


def _texts(value: Any, edit: Edit) -> Any:
    """Every text of a result that is an object."""
    if isinstance(value, str):
        return edit.text(value, "result")
    if isinstance(value, list):
        return _each(value, lambda item: _texts(item, edit))
    if isinstance(value, dict):
        for key in value:
            value = _with(value, key, _texts(value[key], edit))
    return value


def _each(values: list[Any], change: Callable[[Any], Any]) -> list[Any]:
    out = [change(item) for item in values]
    return out if any(a is not b for a, b in zip(out, values, strict=True)) else values


def _with(holder: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    return holder if holder.get(key) is value else {**holder, key: value}
