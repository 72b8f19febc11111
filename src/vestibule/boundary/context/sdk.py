"""The official MCP SDK as this endpoint uses it: protocol in and out, no decisions.

Importing this module imports the SDK, which takes most of a second; `protocol` does so in a thread.
Rules it keeps:
1. Stateless: every request stands alone, with plain JSON answers, for the revisions 2026-07-28 and 2025-11-25
   (and the older ones that the SDK still serves by handshake).
2. Tools only: no resources, prompts, completions, sampling or subscriptions exist, unless a surface adds them.
3. A tool body runs with a `Cleared` for exactly this call, or not at all.
"""

from __future__ import annotations

from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from starlette.types import Receive, Scope, Send

from vestibule import __version__
from vestibule.boundary.context import catalogue
from vestibule.boundary.context.cleared import take_from
from vestibule.boundary.context.direct import Direct

INSTRUCTIONS = (
    "Tools of one task on one workspace. Begin with get_task. A call beyond the task's scope is refused with "
    "HTTP 403; the message says why and what to do instead."
)


class Endpoint:
    """The SDK's server with the tools of one role."""

    def __init__(self, tools: tuple[catalogue.Tool, ...], *, body_bytes: int) -> None:
        listed = ListToolsResult(
            tools=[
                Tool(
                    name=tool.name,
                    description=tool.description,
                    input_schema=tool.schema,
                    annotations=ToolAnnotations(
                        read_only_hint=tool.read_only, destructive_hint=not tool.read_only, open_world_hint=False
                    ),
                )
                for tool in tools
            ],
            ttl_ms=0,
            cache_scope="private",
        )

        async def on_list_tools(_: Any, __: PaginatedRequestParams | None) -> ListToolsResult:
            return listed

        schemas = {tool.name: tool.schema for tool in tools}
        self.body_bytes = body_bytes
        self.server: Server[Any] = Server(
            "vestibule",
            version=__version__,
            instructions=INSTRUCTIONS,
            on_list_tools=on_list_tools,
            on_call_tool=_call_tool,
            get_tool_input_schema=schemas.get,
        )
        # The SDK's tracing middleware reports arguments to whatever exporter the process has; ours is the audit log.
        self.server.middleware.clear()
        self.direct = Direct(tools, self.server.server_info_stamp)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. The manager lives as long as it, so nothing of one request outlasts it."""
        manager = StreamableHTTPSessionManager(
            self.server, json_response=True, stateless=True, max_request_body_size=self.body_bytes
        )
        async with manager.run():
            await manager.handle_request(scope, receive, send)


async def _call_tool(context: Any, params: CallToolRequestParams) -> CallToolResult:
    cleared = take_from(context.request.scope)
    answer = await cleared.take(params.name, params.arguments or {})
    return CallToolResult(
        content=[TextContent(type="text", text=text) for text in answer.texts], is_error=not answer.ok
    )
