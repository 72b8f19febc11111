"""Tool calls of the plain kind answered here, in the bytes the SDK would send, without the way through its transport.

A decided `tools/call` passes, in the SDK, a session manager, a transport and a request of their own, which cost several
times what the decision costs. What that way does to a plain call is four checks and one envelope. The checks are the
SDK's own functions, called here; the envelope is written here. Everything else goes to the SDK (docs/adr/0012).

Rules this module keeps:
1. Only `tools/call` of the revisions 2026-07-28 and 2025-11-25, with routing headers that come once each, that the
   SDK's own validators accept. In doubt, or when they refuse: the SDK, which says what is wrong.
2. The answer is the SDK's answer byte by byte; the tests have the SDK as oracle.
3. Nothing here decides, and no tool runs: a `Cleared` carries the call out, here as there.

Importing this module imports the SDK; `sdk` does so.
Source: MCP 2026-07-28 and 2025-11-25, "Streamable HTTP"; `mcp.server._streamable_http_modern` of the SDK.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any, Final

from mcp.shared.inbound import InboundModernRoute, classify_inbound_request
from mcp_types import CallToolRequestParams
from mcp_types.methods import validate_client_request

from vestibule.boundary.context.catalogue import Tool
from vestibule.boundary.context.protocol import ROUTING, Reply
from vestibule.boundary.context.tools import Answer
from vestibule.boundary.context.wire.jsonrpc import Message, RequestId

MODERN: Final = "2026-07-28"
HANDSHAKE: Final = "2025-11-25"
_HEADERS = ((b"content-type", b"application/json"),)


class Direct:
    """The plain calls of one endpoint. `server_info` is what the SDK stamps on answers of the modern revision."""

    def __init__(self, tools: Sequence[Tool], server_info: dict[str, Any]) -> None:
        # The SDK compares headers with the arguments of such tools.
        self._mirrored = frozenset(tool.name for tool in tools if "x-mcp-header" in json.dumps(tool.schema))
        meta = json.dumps({"io.modelcontextprotocol/serverInfo": server_info}, separators=(",", ":"))
        self._modern_end = b',"resultType":"complete","_meta":%b}}' % meta.encode()

    def revision(self, message: Message, params: dict[str, Any], headers: Sequence[tuple[bytes, bytes]]) -> str | None:
        """The revision in which a call can be answered here; None when it is the SDK's to answer.

        `params` are those of the decided call; `headers` are the request's, names in lower case.
        """
        routing = [(name, value) for name, value in headers if name in ROUTING]
        found = {name.decode(): value.decode("latin-1") for name, value in routing}
        version = found.get("mcp-protocol-version")
        if len(found) != len(routing) or message.method != "tools/call" or version not in (MODERN, HANDSHAKE):
            return None
        if version == MODERN:
            if params.get("name") in self._mirrored:
                return None
            route = classify_inbound_request({"method": message.method, "params": params}, headers=found)
            if not isinstance(route, InboundModernRoute):
                return None
        try:
            validate_client_request(message.method, version, params)
            CallToolRequestParams.model_validate(params, by_name=False)
        except (ValueError, KeyError):  # pydantic's error is a ValueError; a KeyError is a method of another revision
            return None
        return version

    def reply(self, revision: str, request_id: RequestId | None, answer: Answer) -> Reply:
        """The answer as the SDK writes it: ASCII for the modern revision, UTF-8 for the other.

        Raises:
            UnicodeEncodeError: a text holds a lone surrogate, which no JSON text can carry.
        """
        text = encode_basestring_ascii if revision == MODERN else encode_basestring
        blocks = ",".join(f'{{"text":{text(_sound(item))},"type":"text"}}' for item in answer.texts)
        failed = "false" if answer.ok else "true"
        number = text(request_id) if isinstance(request_id, str) else str(request_id)
        body = f'{{"jsonrpc":"2.0","id":{number},"result":{{"content":[{blocks}],"isError":{failed}'.encode()
        return Reply(200, body + (self._modern_end if revision == MODERN else b"}}"), _HEADERS)


def _sound(text: str) -> str:
    if not text.isascii():
        text.encode("utf-8")
    return text
