"""The tools, resources and prompts that the official conformance suite asks for by name, as a role is offered them.

`Plain` are tools as a run has them: planned, decided, carried out in a thread, answered as every other. `Everything`
is a surface: what needs the SDK's sessions, streams and requests to the client. Both only plan and carry out; what of
it is allowed is the shipped policy's to say, by the names in the role.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vestibule.boundary.context.catalogue import Tool
from vestibule.boundary.context.extension import ToolSource
from vestibule.boundary.context.file_errors import NotDone
from vestibule.boundary.context.rules import Call
from vestibule.boundary.context.tools import Answer
from vestibule.core.crossing import Step

DENIED_TOOL, DENIED_URI, DENIED_PROMPT = "test_denied", "test://denied", "test_denied_prompt"
"""Offered, and in no role: the policy that the suite passes under refuses something."""

SCHEMA_2020_12: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
_REGION = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
_NONE = {"type": "object", "properties": {}}

_PLAIN = {
    "test_simple_text": ("Tests simple text content.", _NONE),
    "test_error_handling": ("Tests error responses.", _NONE),
    "test_logging_tool": ("Tests that nothing is logged for whoever asked for no logs.", _NONE),
    "test_streaming_elicitation": ("Tests that a response carries no request of the server's.", _NONE),
    "test_x_mcp_header": ("Tests arguments mirrored in headers.", _REGION),
    "json_schema_2020_12_tool": ("Tests that a schema's words are kept.", SCHEMA_2020_12),
    DENIED_TOOL: ("Tests that policy refuses.", _NONE),
}
_TEXTS = {
    "test_simple_text": "This is a simple text response for testing.",
    "test_logging_tool": "Nothing was logged.",
    "test_streaming_elicitation": "Nothing was asked.",
    "json_schema_2020_12_tool": "The schema is in tools/list.",
}


class Role:
    """What the policy is told of a name: whether it exists, and whether the role has it."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)

    def call(self, name: str, arguments: Mapping[str, Any], source: ToolSource, *, shown: str = "") -> Call:
        """The call `name`, decided as `shown` (or by its name)."""
        shown = shown or name
        resource = {"id": shown, "tool": shown}
        facts = {"tool_known": True, "tool_allowed": shown in self._names}
        return Call(name, dict(arguments), (Step("context.call", resource, facts),), source=source)


PLAIN = tuple(_PLAIN)


class Plain:
    """Tools that answer with text. A `ToolSource`."""

    def __init__(self, role: Role) -> None:
        self._role = role

    def tools(self) -> Sequence[Tool]:
        return [Tool(name, text, schema, read_only=True) for name, (text, schema) in _PLAIN.items()]

    def plan(self, name: str, arguments: Mapping[str, Any]) -> Call | None:
        return self._role.call(name, arguments, self) if name in _PLAIN else None

    def carry_out(self, call: Call) -> Answer:
        if call.tool == "test_error_handling":
            raise NotDone("fixture", "This tool intentionally returns an error for testing")
        if call.tool == "test_x_mcp_header":
            return Answer((f"region={call.arguments.get('region', '<none>')}",))
        return Answer((_TEXTS[call.tool],))
