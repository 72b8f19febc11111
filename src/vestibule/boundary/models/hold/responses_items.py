"""Items of a Responses answer: what a call asks for, whether its parts agree, and the turn that follows it. Pure.

Rules it keeps:
1. A call is read from its finished item, which is what programs act upon. Its beginning and the pieces that were
   streamed say the same, or the call is no whole call (`shape`): another program could act upon those.
2. Arguments that only the provider can read (`encrypted_function_args`) cannot be judged: `shape`.
3. A call that another program of the provider's made (`caller`), or that would run in a container of theirs, is none
   that the agent's program carries out: `shape`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

from vestibule.boundary.models.hold.base import MAX_HELD, Held, Problem, Told
from vestibule.boundary.models.wire.responses import CALLS, FLOWING, OF_PROVIDER, read_usage, said, text_item
from vestibule.boundary.models.wire.sse import WireError, count, has_twice, is_count, word
from vestibule.boundary.models.wire.strict_json import BadJson, dump, parse

MAX_SHOWN = 65_536
"""Bytes of a refused call that its model is shown again."""
DEFAULT_NAMESPACE = "functions"
"""Where Codex's newer requests put tools that stand alone elsewhere: the same tools by the same names."""
_TEXTS = {"function_call": "arguments", "custom_tool_call": "input", "mcp_call": "arguments"}
_TEXTS["mcp_approval_request"] = "arguments"
_DATA = {
    # item: the tool that is meant, and where its arguments are
    "local_shell_call": ("local_shell", "action"),
    "shell_call": ("shell", "action"),
    "apply_patch_call": ("apply_patch", "operation"),
    "tool_search_call": ("tool_search", "arguments"),
}


def call_id(item: dict[str, Any]) -> str:
    found = item.get("call_id") or item.get("id")
    return found if isinstance(found, str) else ""


def plain_namespace(value: Any) -> str:
    return value if isinstance(value, str) and value != DEFAULT_NAMESPACE else ""


def held_call(item: dict[str, Any], problem: Problem = "") -> Held:
    """What a finished call item asks for."""
    kind = str(item.get("type"))
    name, namespace, form = item.get("name"), plain_namespace(item.get("namespace")), "json"
    if kind in _TEXTS:
        given: Any = item.get(_TEXTS[kind])
        form = "text" if kind == "custom_tool_call" else "json"
        whole = isinstance(given, str)
    else:
        name, key = _DATA[kind]
        given = item.get(key)
        whole = isinstance(given, dict)
    if kind.startswith("mcp_"):
        namespace = f"mcp:{item.get('server_label')}"
    if not problem:
        problem = _problem(item, given) if whole else "shape"
    text = (given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)) if whole else ""
    arguments = text.encode("utf-8", "replace")
    if len(arguments) > MAX_HELD:
        problem, arguments = "oversized", b""
    return Held(
        "call",
        name if isinstance(name, str) else "",
        namespace,
        arguments,
        "text" if form == "text" else "json",
        problem,
        call_id(item),
    )


def _problem(item: dict[str, Any], given: Any) -> Problem:
    if item.get("status") == "incomplete":
        return "cut"
    if has_twice(item):
        return "json"
    caller, environment, namespace = item.get("caller"), item.get("environment"), item.get("namespace")
    elsewhere = (
        (caller is not None and (not isinstance(caller, dict) or caller.get("type") != "direct"))
        or (environment is not None and (not isinstance(environment, dict) or environment.get("type") != "local"))
        or (item.get("type") == "tool_search_call" and item.get("execution", "server") != "client")
    )
    strange = (namespace is not None and not isinstance(namespace, str)) or item.get("encrypted_function_args")
    # A lone surrogate has no bytes: what is judged would not be what is read.
    return "shape" if elsewhere or strange or (isinstance(given, str) and not _encodes(given)) else ""


def _encodes(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def meaning(item: dict[str, Any]) -> bytes:
    """A digest of what a call asks for: the same for two items that ask for the same."""
    found = held_call(item)
    parts = (item.get("type"), found.name, found.namespace, found.arguments.hex())
    return hashlib.sha256(json.dumps(parts).encode()).digest()


def agrees(start: dict[str, Any], pieces: dict[int, str], whole: dict[int, str], item: dict[str, Any]) -> bool:
    """Whether a call's beginning, its streamed `pieces` and the `whole` values that ended them say what `item` says.

    Both by number: of the command for `shell_call`, else 0.
    """
    kind = item.get("type")
    same = ("type", "id", "call_id", "name", "namespace", "server_label")
    if any(start.get(key) is not None and start.get(key) != item.get(key) for key in same):
        return False
    if kind in _TEXTS:
        texts = {0: item.get(_TEXTS[kind])}
        if start.get(_TEXTS[kind]) not in (None, "", texts[0]):
            return False
    elif kind == "shell_call":
        action = item.get("action")
        commands = action.get("commands") if isinstance(action, dict) else None
        texts = dict(enumerate(commands)) if isinstance(commands, list) else {}
    elif kind == "apply_patch_call":
        operation, begun = item.get("operation"), start.get("operation")
        if not isinstance(operation, dict):
            return False
        if isinstance(begun, dict) and any(
            begun.get(key) not in (None, operation.get(key)) for key in ("type", "path")
        ):
            return False
        texts = {0: operation.get("diff")}
    else:
        texts = {}
    return all(texts.get(number) == text for found in (pieces, whole) for number, text in found.items())


class Earlier(NamedTuple):
    """What provider answers before the last one put out, where an answer was continued."""

    output: int = 0
    reasoning: int = 0

    def plus(self, response: dict[str, Any]) -> Earlier:
        usage = response.get("usage")
        if not isinstance(usage, dict):
            return self
        details = usage.get("output_tokens_details")
        reasoning = count(details.get("reasoning_tokens")) if isinstance(details, dict) else 0
        return Earlier(self.output + count(usage.get("output_tokens")), self.reasoning + reasoning)

    def added_to(self, response: dict[str, Any]) -> dict[str, Any]:
        """`usage` of the response with all of them in it; nothing if it has none."""
        usage, details = response.get("usage"), None
        if not isinstance(usage, dict) or not self.output:
            return {}
        details = usage.get("output_tokens_details")
        found = {**usage, "output_tokens": count(usage.get("output_tokens")) + self.output}
        found["total_tokens"] = count(usage.get("input_tokens")) + found["output_tokens"]
        if isinstance(details, dict):
            reasoning = count(details.get("reasoning_tokens")) + self.reasoning
            found["output_tokens_details"] = {**details, "reasoning_tokens": reasoning}
        return {"usage": found}


def tell(told: Told, response: dict[str, Any]) -> None:
    """Usage and end of a response, noted."""
    usage, details = response.get("usage"), response.get("incomplete_details")
    if isinstance(usage, dict):
        told.tokens = read_usage(usage)
        told.reported = all(is_count(usage.get(key)) for key in ("input_tokens", "output_tokens"))
    reason = details.get("reason") if isinstance(details, dict) else None
    told.stop_reason = word(reason) or word(response.get("status"))


class Ruling(NamedTuple):
    """A judged item, and the item that stands in its place if it was not allowed."""

    item: dict[str, Any]
    allowed: bool
    other: dict[str, Any]


def known_kind(kind: Any, provider_tools: bool) -> TypeGuard[str]:
    """Whether a machine knows items of this kind. A provider's own tools: only if policy names one."""
    if not isinstance(kind, str):
        return False
    return kind in CALLS or kind in FLOWING or (provider_tools and kind in OF_PROVIDER)


def replaced(
    items: Sequence[Any], rulings: Sequence[Ruling], *, texts: bool, provider_tools: bool = False
) -> list[dict[str, Any]]:
    """The items that an answer's last event repeats, with what was denied replaced. `texts`: these were judged too.

    Raises:
        WireError: among them is a call that was not judged, or that says something else than the judged one.
    """
    waiting = list(rulings)
    found: list[dict[str, Any]] = []
    for item in items:
        kind = item.get("type") if isinstance(item, dict) else None
        if not known_kind(kind, provider_tools):
            raise WireError("its last event holds an item of an unknown kind")
        if kind not in CALLS and not (texts and kind == "message"):
            found.append(item)
            continue
        same = [i for i, ruling in enumerate(waiting) if ruling.item.get("type") == kind]
        # Some servers give new ids here: then what stands in the same order is meant, if it says the same.
        place = next((i for i in same if _id(waiting[i].item) == _id(item)), same[0] if same else None)
        if place is None:
            raise WireError("its last event holds what never came")
        ruling = waiting.pop(place)
        if not ruling.allowed:
            found.append(ruling.other)
        elif has_twice(item) or _said_otherwise(ruling.item, item):
            raise WireError("its last event repeats an item otherwise than it came")
        else:
            found.append(item)
    return found


def _said_otherwise(judged: dict[str, Any], item: dict[str, Any]) -> bool:
    return said(judged) != said(item) if item.get("type") == "message" else meaning(judged) != meaning(item)


def _id(item: dict[str, Any]) -> Any:
    return item.get("id") if item.get("type") == "message" else call_id(item)


def our_item(text: str, response: str, index: int) -> dict[str, Any]:
    """The message that stands where a call stood. Its id is unique, for programs send it back with the history."""
    digest = hashlib.sha256(f"{response}/{index}".encode()).hexdigest()
    return text_item(text, f"msg_{digest[:40]}")


def continued(
    body: dict[str, Any], items: Sequence[dict[str, Any]], denied: Sequence[tuple[dict[str, Any], str]]
) -> dict[str, Any]:
    """The request that shows the model why its calls were refused.

    Thoughts go back as they came when they can: nothing is stored, so only with their encrypted content. When some
    cannot, items lose the ids that tie them to these thoughts.
    """
    before = body.get("input")
    turns: list[Any] = [{"role": "user", "content": before}] if isinstance(before, str) else list(before or ())
    refused = {id(item): text for item, text in denied}
    lost = any(item.get("type") == "reasoning" and not item.get("encrypted_content") for item in items)
    results: list[Any] = []
    for item in items:
        text = refused.get(id(item))
        shown = _shown(item, MAX_SHOWN if text is not None else MAX_HELD)
        if shown is None:
            # The call itself is not repeated; that it was refused is.
            results += [{"role": "developer", "content": text}] if text is not None else []
            continue
        if text is not None:
            results += _results(item, text)
        if not lost:
            turns.append(shown)
        elif item.get("type") != "reasoning":
            turns.append({key: value for key, value in shown.items() if key != "id"})
    return {**body, "input": [*turns, *results]}


def _shown(item: dict[str, Any], most: int) -> dict[str, Any] | None:
    """The item as it may be sent back: halves of surrogate pairs replaced. None: it is too large, or no plain JSON."""
    try:
        data = dump(item)
    except BadJson:
        data = json.dumps(item, ensure_ascii=False).encode("utf-8", "replace")
        try:
            item = parse(data)
        except BadJson:
            return None
    return item if len(data) <= most else None


def _results(item: dict[str, Any], text: str) -> list[dict[str, Any]]:
    kind, call = item.get("type"), call_id(item)
    if kind == "custom_tool_call":
        return [{"type": "custom_tool_call_output", "call_id": call, "output": text}]
    if kind == "shell_call":
        output = [{"stdout": "", "stderr": text, "outcome": {"type": "exit", "exit_code": 1}}]
        return [{"type": "shell_call_output", "call_id": call, "output": output}]
    if kind == "apply_patch_call":
        return [{"type": "apply_patch_call_output", "call_id": call, "status": "failed", "output": text}]
    if kind == "mcp_approval_request":
        approval = item.get("id")
        return [{"type": "mcp_approval_response", "approval_request_id": approval, "approve": False, "reason": text}]
    if kind == "tool_search_call":
        # Its result holds tools only; the reason comes beside it.
        empty = {"type": "tool_search_output", "call_id": call, "execution": "client", "tools": []}
        return [empty, {"role": "developer", "content": text}]
    # Of a local shell call as well: what programs send for it.
    return [{"type": "function_call_output", "call_id": call, "output": text}]
