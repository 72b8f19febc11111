"""Runs a program in a network namespace of its own, with a name server that answers every name and writes it down.

    python -m tests.agents.quiet_namespace SETUP.json

Started below `unshare --user --map-root-user --net --mount`. SETUP names argv, env, cwd, a scripted provider's
script and key, and words to listen for. Prints one JSON object: exit code, names asked for, paths requested, words
that stood in a request.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def main() -> None:
    setup = json.loads(Path(sys.argv[1]).read_text())
    _loopback_up()
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as resolv:
        resolv.write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        resolv.flush()
        subprocess.run(["mount", "--bind", resolv.name, "/etc/resolv.conf"], check=True)
        names: list[str] = []
        threading.Thread(target=_answer_names, args=(_udp(53), names), daemon=True).start()
        paths: list[str] = []
        heard: set[str] = set()
        _serve(setup, paths, heard)
        done = subprocess.run(
            setup["argv"],
            env=setup["env"],
            cwd=setup["cwd"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            # Programs that end their whole process group end only themselves.
            start_new_session=True,
        )
        found = {"code": done.returncode, "names": names, "paths": paths, "heard": sorted(heard)}
        print(json.dumps({**found, "out": done.stdout[-4000:], "err": done.stderr[-2000:]}))


async def _tool_server(scope: Any, receive: Any, send: Any) -> None:
    data = b""
    more = scope["method"] == "POST"
    while more:
        message = await receive()
        data += message.get("body", b"")
        more = message.get("more_body", False)
    asked = json.loads(data) if data else {}
    tool = {"name": "get_task", "description": "The task.", "inputSchema": {"type": "object", "properties": {}}}
    results = {
        "initialize": {
            "protocolVersion": asked.get("params", {}).get("protocolVersion", ""),
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "vestibule", "version": "1"},
        },
        "tools/list": {"tools": [tool]},
        "tools/call": {"content": [{"type": "text", "text": "Nothing to do."}]},
    }
    status, body = 202 if data else 405, b""
    if "id" in asked:
        status = 200
        result = {"result": results[asked["method"]]} if asked["method"] in results else {}
        error = {"error": {"code": -32601, "message": "no such method"}}
        body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], **(result or error)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _udp(port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.bind(("127.0.0.1", port))
    return found


def _answer_names(server: socket.socket, names: list[str]) -> None:
    """Every A question is answered with 127.0.0.1, every other with nothing (RFC 1035, section 4.1)."""
    while True:
        query, client = server.recvfrom(4096)
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode("latin-1"))
            at += 1 + query[at]
        question = query[12 : at + 5]
        is_address = question[-4:-2] == b"\0\1"
        names.append(".".join(labels).lower())
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\4\x7f\0\0\1" if is_address else b""
        server.sendto(
            query[:2] + b"\x81\x80\0\1" + struct.pack(">H", is_address) + b"\0\0\0\0" + question + answer, client
        )


def _serve(setup: dict[str, Any], paths: list[str], heard: set[str]) -> None:
    """Gateways as a program sees them, on port 80: the scripted provider below the prefixes of its formats, and a tool
    server that has one tool; every other path is unknown."""
    import uvicorn

    from vestibule.boundary.models.scripted.provider import build_scripted_app

    provider = build_scripted_app(json.dumps(setup["script"]).encode(), "script.json", setup["key"])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        body = b""

        async def listened() -> Any:
            nonlocal body
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                heard.update(word for word in setup["words"] if word.encode() in body)
            return message

        if scope["path"] == "/mcp":
            await _tool_server(scope, listened, send)
            return
        path = scope["path"]
        for prefix in ("/anthropic", "/openai", "/gemini"):
            path = path.removeprefix(prefix)
        await provider({**scope, "path": path}, listened, send)

    listener = socket.create_server(("127.0.0.1", 80))
    server = uvicorn.Server(uvicorn.Config(app, ws="none", lifespan="off", log_config=None))
    threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()


if __name__ == "__main__":
    main()
