"""The few words of MCP that an upstream server is spoken to in: a greeting, the list of tools, a call.

Rules this module keeps:
1. Both revisions are spoken: 2025-11-25 by its handshake first, for nearly every server knows it, and 2026-07-28 where
   a server refuses that. A server of another revision is not used.
2. No capability is offered: no sampling, no roots, no elicitation. What a server says of itself (name, instructions) is
   not kept; a call that comes back with a wish for more input has failed.
3. Lists are bounded in pages and tools.

Source: MCP 2025-11-25 "Lifecycle", MCP 2026-07-28 "Discovery" and "Versioning".
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Event
from typing import Any, Protocol

from vestibule import __version__
from vestibule.boundary.context.upstream import pins, wire

HANDSHAKE = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""Revisions with a handshake whose tools are the same to us, newest first."""
MODERN = "2026-07-28"
MAX_PAGES = 32
_META = "io.modelcontextprotocol/"


class Connection(Protocol):
    """A transport. Thread-safe."""

    changed: Event

    @property
    def alive(self) -> bool: ...

    def request(self, method: str, params: Mapping[str, Any], deadline: float, *, name: str = "") -> wire.Response: ...

    def notify(self, method: str) -> None: ...

    def speak(self, version: str, *, modern: bool) -> None: ...

    def close(self) -> str: ...


class Session:
    """A server that has been greeted."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._meta: dict[str, Any] = {}

    def open(self, deadline: float) -> None:
        """Raises `ServerFailed`."""
        client = {"name": "vestibule", "version": __version__}
        try:
            answer = self.connection.request(
                "initialize",
                {"protocolVersion": HANDSHAKE[0], "capabilities": {}, "clientInfo": client},
                deadline,
            )
        except wire.Rejected as rejected:
            if rejected.status != 400:
                raise
            answer = wire.Response(0, error=(-32600, ""))
        if answer.result is not None:
            version = answer.result.get("protocolVersion")
            if version not in HANDSHAKE:
                raise wire.BadServer("it speaks no revision of the protocol that we know")
            self.connection.speak(str(version), modern=False)
            self.connection.notify("notifications/initialized")
            return
        self._meta = {
            f"{_META}protocolVersion": MODERN,
            f"{_META}clientInfo": client,
            f"{_META}clientCapabilities": {},
        }
        self.connection.speak(MODERN, modern=True)
        found = self._result("server/discover", {}, deadline)
        if MODERN not in _list(found.get("supportedVersions")):
            raise wire.BadServer("it speaks no revision of the protocol that we know")

    def tools(self, deadline: float) -> dict[str, dict[str, Any] | None]:
        """What the server offers now, as `pins.catalogue` has it. Raises `ServerFailed`."""
        found: list[Mapping[str, Any]] = []
        params: dict[str, Any] = {}
        for _ in range(MAX_PAGES):
            page = self._result("tools/list", params, deadline)
            tools = page.get("tools")
            if not isinstance(tools, list) or not all(isinstance(item, dict) for item in tools):
                raise wire.BadServer("its list of tools is none")
            found += tools
            if len(found) > 2 * pins.MAX_TOOLS:
                break
            cursor = page.get("nextCursor")
            if cursor is None:
                try:
                    return pins.catalogue(found)
                except ValueError as error:
                    raise wire.BadServer(f"its list of tools cannot be used: {error}") from None
            if not isinstance(cursor, str):
                break
            params = {"cursor": cursor}
        raise wire.BadServer("its list of tools does not end")

    def call(self, tool: str, arguments: Mapping[str, Any], deadline: float) -> wire.Response:
        """A `CallToolResult`, or the error that the server gave. Raises `ServerFailed`."""
        answer = self._ask("tools/call", {"name": tool, "arguments": dict(arguments)}, deadline, tool)
        if answer.result is not None and answer.result.get("resultType", "complete") != "complete":
            return wire.Response(answer.id, error=(-32000, "the tool asks for more input, and there is none"))
        return answer

    def _result(self, method: str, params: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        answer = self._ask(method, params, deadline)
        if answer.result is None:
            raise wire.BadServer("it answers with an error where it may not")
        return answer.result

    def _ask(self, method: str, params: Mapping[str, Any], deadline: float, name: str = "") -> wire.Response:
        given = {**params, "_meta": self._meta} if self._meta else params
        return self.connection.request(method, given, deadline, name=name)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
