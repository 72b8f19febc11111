"""Items and small tools that the tests of Responses answers share."""

from __future__ import annotations

import json
from typing import Any

from hold_matrix import WHY, Played, by_rule, machine, play
from responses_wire import ResponsesWire, function_call, item_events, streamed

from vestibule.boundary.models.hold.base import Decided, Held

WIRE = ResponsesWire()
THOUGHT: dict[str, Any] = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "I think."}],
    "encrypted_content": "Z0FBQUFB+/=",
}
CUSTOM: dict[str, Any] = {
    "id": "ctc_1",
    "type": "custom_tool_call",
    "status": "completed",
    "call_id": "call_c",
    "name": "apply_patch",
    "input": "*** Begin Patch\n*** Add File: mark-a.py\n+x\n*** End Patch",
}
SHELL: dict[str, Any] = {
    "id": "sh_1",
    "type": "shell_call",
    "status": "completed",
    "call_id": "call_s",
    "action": {"commands": ["ls", "rm -rf mark"]},
}
PATCH: dict[str, Any] = {
    "id": "apc_1",
    "type": "apply_patch_call",
    "status": "completed",
    "call_id": "call_p",
    "operation": {"type": "update_file", "path": "mark.py", "diff": "@@\n+x"},
}
LOCAL: dict[str, Any] = {
    "id": "lsh_1",
    "type": "local_shell_call",
    "status": "completed",
    "call_id": "call_l",
    "action": {"type": "exec", "command": ["cat", "mark"], "env": {}},
}
SEARCH: dict[str, Any] = {
    "id": "tsc_1",
    "type": "tool_search_call",
    "status": "completed",
    "call_id": "call_t",
    "execution": "client",
    "arguments": {"query": "mark"},
}
MCP: dict[str, Any] = {
    "id": "mcp_1",
    "type": "mcp_call",
    "status": "completed",
    "server_label": "far",
    "name": "mark",
    "arguments": "{}",
    "output": "secret",
}
APPROVAL: dict[str, Any] = {
    "id": "mcpr_1",
    "type": "mcp_approval_request",
    "server_label": "far",
    "name": "mark",
    "arguments": "{}",
}
KINDS = (CUSTOM, SHELL, PATCH, LOCAL, SEARCH, APPROVAL)


def deny(held: Held) -> Decided:
    return Decided(held.kind == "text", WHY)


def allow(_held: Held) -> Decided:
    return Decided(True)


def run(data: bytes, rule: Any = by_rule, **more: Any) -> Played:
    return play(machine(WIRE, stream=True, **more), [data], rule)


def values(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(frame.partition(b"data: ")[2]) for frame in data.split(b"\n\n") if b"data: " in frame]


def ended(found: Played) -> dict[str, Any]:
    last = values(found.out)[-1]
    assert last["type"] == "response.completed"
    return last["response"]


def call_stream(item: dict[str, Any]) -> bytes:
    return streamed([item], list(item_events(0, item)))


LOOK = function_call(0, "look", '{"path":"a"}')
