"""How tools beside the built-in ones take part: upstream MCP servers, and the fixtures of the conformance profile.

Rule it keeps: a source plans and carries out; it never decides. Its calls pass the same crossing as every other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from vestibule.boundary.context.catalogue import Tool
    from vestibule.boundary.context.rules import Call
    from vestibule.boundary.context.tools import Answer


class ToolSource(Protocol):
    """Tools that one role is offered. Thread-safe."""

    def tools(self) -> Sequence[Tool]:
        """What is offered. Names must not be taken by another source or a built-in tool."""
        ...

    def plan(self, name: str, arguments: Mapping[str, Any]) -> Call | None:
        """The call as decisions, with `source` set to this; None when the name is not one of its own."""
        ...

    def carry_out(self, call: Call) -> Answer:
        """Does what was decided and recorded. Blocking; runs in a tool thread. Raises `Refused`, `NotDone`."""
        ...
