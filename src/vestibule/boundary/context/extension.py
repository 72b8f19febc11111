"""How tools beside the built-in ones take part: upstream MCP servers, and the fixtures of the conformance profile.

Rule it keeps: a source plans and carries out; it never decides. Its calls pass the same crossing as every other.
The same holds for a surface, which serves whole methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from vestibule.boundary.context.catalogue import Tool
    from vestibule.boundary.context.protocol import Server
    from vestibule.boundary.context.rules import Call
    from vestibule.boundary.context.tools import Answer


class ToolSource(Protocol):
    """Tools that one role is offered. Thread-safe."""

    def tools(self) -> Sequence[Tool]:
        """What is offered. Names must not be taken by another source or a built-in tool."""
        ...

    def plan(self, name: str, arguments: Mapping[str, Any]) -> Call | None:
        """The call as decisions, with `source` set to this; None when the name is not one of its own.

        Runs in a tool thread, and may block.
        """
        ...

    def carry_out(self, call: Call) -> Answer:
        """Does what was decided and recorded. Blocking; runs in a tool thread. Raises `Refused`, `NotDone`."""
        ...


class Surface(ToolSource, Protocol):
    """Methods beside `tools/*`: resources, prompts, completion, and requests of the server to the client.

    A run's endpoint has none, so all of that is refused and recorded there. The conformance profile of the tests has
    one, to show that the same endpoint keeps the protocol when it serves all of it under policy.
    """

    def plan_method(self, method: str, params: Mapping[str, Any]) -> Call | None:
        """The request as decisions; None when the method is not served. `client/answer` is the client's answer to a
        request of the server's."""
        ...

    def server(self, tools: tuple[Tool, ...], *, body_bytes: int) -> Server:
        """The protocol's server, with sessions and streams. Runs nothing without a `Cleared` (see `cleared`)."""
        ...
