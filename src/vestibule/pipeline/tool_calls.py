"""What a run's model may call, wired: the agent's program, the context endpoint's tools, the task's scope."""

from __future__ import annotations

from collections.abc import Callable

from vestibule.agents.base import MCP_SERVER
from vestibule.agents.registry import adapter
from vestibule.boundary.context.catalogue import TOOLS
from vestibule.boundary.models.call_rules import House
from vestibule.core.model import Scope, Task
from vestibule.core.tool_names import Tool, ToolNames
from vestibule.pipeline.record import RunRecord


def house_of(record: RunRecord, task: Task, scope: Callable[[], Scope]) -> House:
    """What the tool calls of a run are judged against. `scope` is the task's, with what was granted so far."""
    cli = adapter(record.agent.adapter).about.cli
    if cli is None:
        return House(None, scope, native=True)
    names = ToolNames(cli, {MCP_SERVER: tuple(TOOLS)})
    servers = tuple(f"{use.server}__" for use in task.scope.upstreams)

    def normal(name: str, namespace: str) -> Tool:
        found = names.normal(name, namespace)
        if found.kind != "unknown" or not servers:
            return found
        # Tools of upstream servers come and go; which of them there are is decided where the call crosses.
        part = names.part_of(MCP_SERVER, name, namespace)
        if part is None or not part.startswith(servers):
            return found
        return Tool(kind="context", name=part, server=MCP_SERVER)

    return House(normal, scope, native=record.native)
