"""JSON-RPC 2.0 as a client reads it from an untrusted server: strict, bounded, one meaning for each byte.

Rules this module keeps:
1. Read by the rules of our own endpoint (UTF-8, no duplicate keys, no NaN, bounded depth), one object a message, and at
   most `MAX_NODES` values: a second parser cannot read it differently, and nobody goes through it for minutes.
2. A message is exactly one of response, request, notification; anything else is a broken server.
3. A response has a result or an error, never both; an id is our own kind of id: an integer.

Source: JSON-RPC 2.0 sections 4 and 5; RFC 8259 section 4; MCP 2025-11-25 and 2026-07-28.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vestibule.boundary.context.wire.jsonrpc import BadMessage, strict_json

MAX_NODES = 200_000
METHOD_NOT_FOUND = -32601


class ServerFailed(Exception):
    """A server that cannot be used now. The text is ours and holds nothing that the server said."""


class BadServer(ServerFailed):
    """It broke the protocol."""


class Gone(ServerFailed):
    """It ended, or cannot be reached."""


class Slow(ServerFailed):
    """It did not answer in time."""


class Rejected(ServerFailed):
    """It answered with an HTTP status that is no answer."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"it answered with status {status}")


@dataclass(frozen=True, slots=True)
class Response:
    """`error` is `(code, message)`; the message is untrusted."""

    id: int
    result: dict[str, Any] | None = None
    error: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of the server's to us. All are refused."""

    id: str | int


@dataclass(frozen=True, slots=True)
class Told:
    """A notification."""

    method: str


Message = Response | Asked | Told


def read(data: bytes) -> Message:
    """Raises `BadServer`."""
    value = _value(data)
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise BadServer("a message is no JSON-RPC 2.0 object")
    if "method" in value:
        if not isinstance(value["method"], str) or "result" in value or "error" in value:
            raise BadServer("a message is a request and a response at once")
        if "id" not in value:
            return Told(value["method"][:128])
        if isinstance(value["id"], bool) or not isinstance(value["id"], (str, int)) or len(str(value["id"])) > 256:
            raise BadServer("a request has no usable id")
        return Asked(value["id"])
    found = value.get("id")
    if isinstance(found, bool) or not isinstance(found, int):
        raise BadServer("a response has an id that we never gave")
    if ("result" in value) == ("error" in value):
        raise BadServer("a response has a result and an error, or neither")
    if "error" in value:
        return Response(found, error=_error(value["error"]))
    if not isinstance(value["result"], dict):
        raise BadServer("a result is no object")
    return Response(found, result=value["result"])


def _error(value: Any) -> tuple[int, str]:
    if not isinstance(value, dict):
        raise BadServer("an error is no object")
    code, message = value.get("code"), value.get("message", "")
    if isinstance(code, bool) or not isinstance(code, int) or not isinstance(message, str):
        raise BadServer("an error has no code or message")
    return code, message


def _value(data: bytes) -> Any:
    try:
        value = strict_json(data)
    except BadMessage as error:
        raise BadServer(f"a message is not JSON as it should be: {error}") from None
    level, count = [value], 0
    while level:
        level = [inner for item in level for inner in _inner(item)]
        count += len(level)
        if count > MAX_NODES:
            raise BadServer("a message holds too many values")
    return value


def _inner(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def request(number: int, method: str, params: Mapping[str, Any]) -> bytes:
    return _dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": dict(params)})


def notification(method: str, params: Mapping[str, Any] | None = None) -> bytes:
    return _dumps({"jsonrpc": "2.0", "method": method, **({"params": dict(params)} if params else {})})


def refused(asked: Asked) -> bytes:
    """Our answer to whatever a server asks of us: sampling, elicitation, roots, anything."""
    error = {"code": METHOD_NOT_FOUND, "message": "not available"}
    return _dumps({"jsonrpc": "2.0", "id": asked.id, "error": error})


def _dumps(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")
