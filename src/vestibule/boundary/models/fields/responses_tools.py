"""Which tools an OpenAI Responses request may offer. Pure.

Rules it keeps (with those of `fields.responses`):
1. A tool that the provider carries out is refused unless policy names its type, and then only with options that name
   no URL, no stored file, no container and no credential of the agent's choice.
2. A remote MCP server is named by policy with its address: the type alone would let the agent choose where to.
3. `shell` and `tool_search` come in two kinds. Only the one whose calls come back may be offered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from vestibule.boundary.models.fields.kit import (
    Check,
    FieldRefused,
    Seen,
    anything,
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

LOCAL = fields_of("environment", {"type": one_of("environment.type", "local")}, ("type",))
CLIENT = one_of("tool_search.execution", "client")


def all_tools(body: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every tool that a checked request offers, with its namespace: at the top, and within its input."""
    yield from _unfolded(body.get("tools"))
    items = body.get("input")
    for item in items if isinstance(items, list) else ():
        if item.get("type") in ("additional_tools", "tool_search_output"):
            yield from _unfolded(item.get("tools"))


def _unfolded(tools: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for tool in tools or ():
        if tool.get("type") == "namespace":
            yield from ((str(tool.get("name")), inner) for inner in tool.get("tools") or ())
        else:
            yield "", tool


def tool_type(tool: Mapping[str, Any]) -> str:
    """The type without its date."""
    return re.sub(r"_\d{4}_\d{2}_\d{2}\Z", "", str(tool.get("type") or ""))


def _callers(value: Any, _seen: Seen) -> None:
    if value is not None and value != ["direct"]:
        raise FieldRefused("tools.allowed_callers", "tools are called by the model only, never by the provider's code")


_NAMED: dict[str, Check] = {
    "type": anything,
    "name": text("tools.name"),
    "description": data("tools.description", str),
    "defer_loading": flag("tools.defer_loading"),
    "allowed_callers": _callers,
}
_FUNCTION = fields_of(
    "tools",
    {
        **_NAMED,
        "parameters": data("tools.parameters"),
        "output_schema": data("tools.output_schema"),
        "strict": flag("tools.strict"),
    },
    ("name",),
)
_CUSTOM = fields_of("tools", {**_NAMED, "format": data("tools.format")}, ("name",))
_IN_NAMESPACE: dict[str, Check] = {"function": _FUNCTION, "custom": _CUSTOM}
_NAMESPACE = fields_of(
    "tools",
    {
        "type": anything,
        "name": text("tools.name"),
        "description": data("tools.description", str),
        "tools": lambda value, seen: _tools_among(value, seen, _IN_NAMESPACE),
    },
    ("name", "tools"),
)
_OURS: dict[str, Check] = {
    **_IN_NAMESPACE,
    "namespace": _NAMESPACE,
    "local_shell": fields_of("tools", {"type": anything}),
    "shell": fields_of(
        "tools", {"type": anything, "environment": LOCAL, "allowed_callers": _callers}, ("environment",)
    ),
    "apply_patch": fields_of("tools", {"type": anything, "allowed_callers": _callers}),
    "tool_search": fields_of(
        "tools",
        {
            "type": anything,
            "execution": CLIENT,
            "description": data("tools.description", str),
            "parameters": data("tools.parameters"),
        },
        ("execution",),
    ),
}
_SEARCH = {
    "type": anything,
    "filters": data("tools.filters"),
    "user_location": data("tools.user_location"),
    "search_context_size": one_of("tools.search_context_size", "low", "medium", "high"),
    "external_web_access": flag("tools.external_web_access"),
}
_AUTO = fields_of(
    "tools.container",
    {"type": one_of("tools.container.type", "auto"), "memory_limit": one_of("tools.container.memory_limit", "1g")},
    ("type",),
)
_PROVIDER_TOOLS: dict[str, Check] = {
    # Named by policy. Nothing that the agent wrote here is a URL, a stored file or a container of its choice.
    "web_search": fields_of("tools", _SEARCH),
    "web_search_preview": fields_of("tools", _SEARCH),
    "file_search": fields_of(
        "tools",
        {
            "type": anything,
            "vector_store_ids": texts("tools.vector_store_ids"),
            "filters": data("tools.filters"),
            "max_num_results": number("tools.max_num_results"),
            "ranking_options": data("tools.ranking_options"),
        },
    ),
    "code_interpreter": fields_of("tools", {"type": anything, "container": _AUTO}, ("container",)),
    "image_generation": fields_of(
        "tools",
        {
            "type": anything,
            "output_format": data("tools.output_format", str),
            "quality": data("tools.quality", str),
            "size": data("tools.size", str),
            "background": data("tools.background", str),
        },
    ),
}
_MCP = fields_of(
    "tools",
    {
        "type": anything,
        "server_label": text("tools.server_label"),
        "server_url": text("tools.server_url"),
        "server_description": data("tools.server_description", str),
        "allowed_tools": data("tools.allowed_tools", (list, dict)),
        "require_approval": data("tools.require_approval", (str, dict)),
    },
    ("server_label", "server_url"),
)


def check_tools(value: Any, seen: Seen) -> None:
    _tools_among(value, seen, _OURS)


def _tools_among(value: Any, seen: Seen, ours: Mapping[str, Check]) -> None:
    if not isinstance(value, list):
        raise failed("tools")
    for item in value:
        if not isinstance(item, dict):
            raise failed("tools")
        kind = tool_type(item)
        if (check := ours.get(str(item.get("type")))) is not None:
            check(item, seen)
        elif kind in seen.provider_tools and kind in _PROVIDER_TOOLS and ours is _OURS:
            _PROVIDER_TOOLS[kind](item, seen)
        elif kind == "mcp" and f"mcp:{item.get('server_url')}" in seen.provider_tools and ours is _OURS:
            _MCP(item, seen)
        else:
            raise FieldRefused(
                f"tools.{safe_name(kind)}", "a tool of this type is carried out by the provider, outside the walls"
            )


def check_tool_choice(value: Any, seen: Seen) -> None:
    if isinstance(value, str):
        one_of("tool_choice", "auto", "none", "required")(value, seen)
        return
    if value is None:
        return
    kind = tool_type(value) if isinstance(value, dict) else ""
    if kind not in ("function", "custom", "apply_patch", "shell", "allowed_tools") and kind not in seen.provider_tools:
        raise FieldRefused(f"tool_choice.{safe_name(kind)}", "this tool may not be chosen")
    _CHOICE(value, seen)


_CHOICE = fields_of(
    "tool_choice",
    {
        "type": anything,
        "name": text("tool_choice.name"),
        "namespace": data("tool_choice.namespace", str),
        "mode": one_of("tool_choice.mode", "auto", "required"),
        # Names of tools of this very request, which are checked where they stand.
        "tools": data("tool_choice.tools", list),
    },
)
