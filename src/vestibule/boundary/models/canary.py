"""The guard proven live: one forbidden model request over the run's own listener, before the agent starts."""

from __future__ import annotations

import json
import socket

from pydantic import ValidationError

from vestibule.core.refusal import Refusal

_LIMIT = 64 * 1024


def forbidden_call(sock: socket.socket, token: str, *, seconds: float = 10) -> Refusal | None:
    """Send a request for a tool that the provider would run itself; the refusal that came back.

    `sock` is connected to the gateway's listener from inside the sandbox; it is closed here. None: the request was
    not refused as it must be (the guard is down), whatever came instead. The request names no model, so that no
    provider could carry it out even then.
    """
    body = json.dumps(
        {
            "model": "",
            "max_tokens": 1,
            "messages": [{"role": "user", "content": "probe"}],
            "tools": [{"type": "web_search_20250305", "name": "web_search"}],
        }
    ).encode()
    head = (
        "POST /anthropic/v1/messages HTTP/1.1\r\nhost: models.vestibule.internal\r\n"
        f"authorization: Bearer {token}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    answer = bytearray()
    try:
        with sock:
            sock.settimeout(seconds)
            sock.sendall(head.encode("ascii") + body)
            while len(answer) < _LIMIT and (chunk := sock.recv(_LIMIT)):
                answer += chunk
    except OSError:
        return None
    head_bytes, _, rest = bytes(answer).partition(b"\r\n\r\n")
    if head_bytes.split(b" ", 2)[1:2] != [b"403"]:
        return None
    try:
        found = Refusal.model_validate(json.loads(rest)["vestibule"])
    except (ValueError, KeyError, TypeError, ValidationError):
        return None
    return found if found.rule.startswith("model.field.tools.") else None
