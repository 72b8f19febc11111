"""The proof that the context endpoint is live: one forbidden call through the real path, before the agent starts.

Rules this module keeps:
1. The call is made on the connection that the agent would use, with a token that marks it as a probe.
2. Only a 403 with our typed refusal, of the rule that was provoked, counts. Anything else, a 200 most of
   all, is no proof, and the run does not start.
"""

from __future__ import annotations

import json
import socket

from vestibule.core.refusal import Refusal

PATH = "../vestibule-canary"
RULE = "path.traversal"

_MAX_ANSWER = 64 << 10


def forbidden_call(sock: socket.socket, token: str, *, host: str = "context.vestibule.internal") -> Refusal | None:
    """Asks over a connected socket to read above the workspace; the refusal, or None when there was none.

    The socket's time-out applies to each step; the connection is of no use afterwards.
    """
    body = json.dumps(
        {
            "jsonrpc": "2.0",
            "id": "canary",
            "method": "tools/call",
            "params": {"name": "read_file", "arguments": {"path": PATH}},
        }
    ).encode()
    head = (
        f"POST /mcp HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        f"Accept: application/json, text/event-stream\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    try:
        sock.sendall(head.encode("ascii") + body)
        return _refusal(_read(sock))
    except (OSError, ValueError):
        return None


def _read(sock: socket.socket) -> bytes:
    data = b""
    while len(data) <= _MAX_ANSWER and (part := sock.recv(65536)):
        data += part
        head, end, rest = data.partition(b"\r\n\r\n")
        if end and len(rest) >= _length(head):
            break
    return data


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            return int(value)
    return _MAX_ANSWER


def _refusal(answer: bytes) -> Refusal | None:
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 403 "):
        return None
    message = json.loads(body)
    if not isinstance(message, dict) or message.get("id") != "canary" or not isinstance(message.get("error"), dict):
        return None
    found = Refusal.model_validate(message["error"].get("data"))
    return found if found.rule == RULE else None
