"""The official SDK's own client against the endpoint, over a real socket: both eras of the protocol."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from context_fake import Endpoint, make_endpoint
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from vestibule.boundary.context.canary import forbidden_call

HOST = {"host": "context.vestibule.internal"}


@pytest.fixture
def served(folder: Path, loop: asyncio.AbstractEventLoop) -> Iterator[tuple[Endpoint, tuple[str, int]]]:
    """The endpoint behind uvicorn, as the pipeline serves it."""
    endpoint = make_endpoint(folder, loop)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(endpoint.app, http="httptools", ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield endpoint, listener.getsockname()
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])
def test_sdk_client_drives_every_tool(served: tuple[Endpoint, tuple[str, int]], mode: str) -> None:
    endpoint, (host, port) = served

    async def work() -> dict[str, Any]:
        headers = {**HOST, "authorization": f"Bearer {endpoint.token.decode()}"}
        async with (
            httpx2.AsyncClient(headers=headers) as http,
            Client(streamable_http_client(f"http://{host}:{port}/mcp", http_client=http), mode=mode) as client,
        ):
            seen: dict[str, Any] = {"tools": [tool.name for tool in (await client.list_tools()).tools]}
            patch = "--- a/src/new.py\n+++ b/src/new.py\n@@ -1 +1 @@\n-a\n+b\n"
            for name, arguments in (
                ("get_task", {}),
                ("list_files", {"glob": "*.md"}),
                ("read_file", {"path": "src/greet.py"}),
                ("search_files", {"query": "Hello"}),
                ("write_file", {"path": "src/new.py", "content": "a\n"}),
                ("apply_patch", {"patch": patch}),
                ("run_command", {"argv": ["pytest"]}),
            ):
                result = await client.call_tool(name, arguments)
                assert not result.is_error, result
                seen[name] = result.content[0].text  # type: ignore[union-attr]
            return seen

    seen = asyncio.run(work())
    assert seen["tools"] == [name for name in seen if name != "tools"]
    assert seen["run_command"] == "exit code 0\n--- stdout\n3 passed\n"
    assert (endpoint.folder / "src/new.py").read_text() == "b\n"
    assert len(endpoint.log.intents()) == len(endpoint.log.outcomes()) == 7


def test_calls_in_parallel_are_each_decided_and_answered(served: tuple[Endpoint, tuple[str, int]]) -> None:
    endpoint, (host, port) = served

    async def work() -> list[int]:
        headers = {**HOST, "authorization": f"Bearer {endpoint.token.decode()}"}
        async with httpx2.AsyncClient(headers=headers, timeout=30) as http:

            async def one(number: int) -> int:
                path = f"src/p{number}.py" if number % 2 else f"../p{number}.py"
                params = {"name": "write_file", "arguments": {"path": path, "content": str(number)}}
                body = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
                answer = await http.post(f"http://{host}:{port}/mcp", json=body)
                assert answer.json()["id"] == number
                return int(answer.status_code)

            return list(await asyncio.gather(*(one(number) for number in range(40))))

    assert asyncio.run(work()) == [403, 200] * 20
    assert sorted(path.name for path in (endpoint.folder / "src").glob("p*.py")) == sorted(
        f"p{number}.py" for number in range(1, 40, 2)
    )


def test_canary_comes_back_refused_and_marked(served: tuple[Endpoint, tuple[str, int]]) -> None:
    endpoint, address = served
    with socket.create_connection(address, timeout=10) as sock:
        found = forbidden_call(sock, endpoint.probe.decode())
    assert found is not None
    assert found.rule == "path.traversal"
    assert [(event.subject, event.reasons[0]) for event in endpoint.log.events] == [("probe", "path.traversal")]


@pytest.mark.parametrize("broken", ["token", "policy", "log", "open"])
def test_canary_is_no_proof_when_a_guard_is_down(
    served: tuple[Endpoint, tuple[str, int]], broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, address = served
    token = "wrong" if broken == "token" else endpoint.probe.decode()
    if broken == "policy":
        endpoint.policy.broken = RuntimeError("down")
    if broken == "log":
        endpoint.log.fails = OSError("disk full")
    if broken == "open":
        from vestibule.core.verdict import Ruling, Verdict

        monkeypatch.setattr(endpoint.policy, "decide", lambda _: Verdict(ruling=Ruling.ALLOW, reasons=()))
    with socket.create_connection(address, timeout=10) as sock:
        assert forbidden_call(sock, token) is None


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 403 Forbidden\r\ncontent-length: 9\r\n\r\nforbidden",
        b"HTTP/1.1 403 Forbidden\r\n\r\n" + b"\xff" * 70_000,
        b"HTTP/1.1 403 Forbidden\r\n\r\n"
        + json.dumps({"id": "canary", "error": {"data": {"rule": "path.traversal"}}}).encode(),
        b"HTTP/1.1 403 Forbidden\r\n\r\n[]",
    ],
)
def test_canary_accepts_nothing_but_our_typed_refusal(answer: bytes) -> None:
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs:
            theirs.recv(65536)
            theirs.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    with ours:
        ours.settimeout(10)
        assert forbidden_call(ours, "token") is None
    thread.join()
