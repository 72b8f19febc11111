"""What governing a tool call costs: beside the bare SDK server, and beside a gateway that proxies the same tool.

Every server is a process of its own on loopback, under uvicorn. Processor time is the process's own, user and system, so it
holds the audit log's writer too; latency is the client's, beside the disk's price for one durable record.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.bench

ROOT = Path(__file__).resolve().parents[2]
CALLS = int(os.environ.get("VESTIBULE_BENCH_CALLS", "1200"))
ROUNDS = 3
FILES = 40
CONNECTIONS = 16
TEXT = "def f():\n    return 1\n" * 40
MODERN, HANDSHAKE = "2026-07-28", "2025-11-25"


@dataclass(frozen=True, slots=True)
class Server:
    """A server under test. `path` is where it is asked, `tool` what the tool is called there."""

    pid: int
    port: int
    token: str = ""
    path: str = "/mcp"
    tool: str = "read_file"

    def cpu_seconds(self) -> float:
        """User and system time of the process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def request(self, number: int, version: str) -> bytes:
        """One tool call as it goes over the wire."""
        params: dict[str, Any] = {"name": self.tool, "arguments": {"path": f"src/m{number % FILES}.py"}}
        routing = ""
        if version == MODERN:
            prefix = "io.modelcontextprotocol/"
            params["_meta"] = {f"{prefix}protocolVersion": version, f"{prefix}clientCapabilities": {}}
            routing = f"Mcp-Method: tools/call\r\nMcp-Name: {self.tool}\r\n"
        body = json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
        token = f"Authorization: Bearer {self.token}\r\n" if self.token else ""
        return (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: application/json\r\n"
            f"Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: {version}\r\n{routing}{token}"
            f"Content-Length: {len(body.encode())}\r\n\r\n{body}"
        ).encode()


@contextlib.contextmanager
def started(kind: str, folder: Path) -> Iterator[Server]:
    """One of our servers, until the block ends."""
    argv = [sys.executable, "-m", "tests.bench.context_servers", kind, str(folder)]
    process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        yield Server(process.pid, said["port"], said["token"])
    finally:
        process.stdin.close()  # type: ignore[union-attr]
        process.wait(30)


class Connection:
    """A kept-alive connection that sends prepared requests. As little as HTTP allows, so that the server is measured."""

    async def open(self, port: int) -> Connection:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        self.writer.write(request)
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        if b"transfer-encoding: chunked" in head:
            body = b""
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
        else:
            length = next((line for line in head.split(b"\r\n") if line.startswith(b"content-length:")), b":0")
            body = await self.reader.readexactly(int(length.partition(b":")[2]))
        return int(head[9:12]), body


async def one_by_one(server: Server, version: str) -> tuple[float, float]:
    """Milliseconds of processor time a call (the best round), and the median of a call's milliseconds."""
    connection = await Connection().open(server.port)
    best, walls = float("inf"), []
    for number in range(100):
        await connection.ask(server.request(number, version))
    for _ in range(ROUNDS):
        cpu = server.cpu_seconds()
        for number in range(CALLS):
            request = server.request(number, version)
            begin = time.perf_counter()
            status, body = await connection.ask(request)
            walls.append(time.perf_counter() - begin)
            assert status == 200, body
            assert b"return 1" in body
        best = min(best, (server.cpu_seconds() - cpu) / CALLS)
    connection.writer.close()
    return best * 1000, statistics.median(walls) * 1000


async def at_once(server: Server, version: str, calls: int) -> tuple[float, float]:
    """Requests a second over all connections, and the median of a call's milliseconds."""
    walls: list[float] = []
    left = iter(range(calls))

    async def work() -> None:
        connection = await Connection().open(server.port)
        for number in left:
            begin = time.perf_counter()
            status, body = await connection.ask(server.request(number, version))
            walls.append(time.perf_counter() - begin)
            assert status == 200, body
            assert b"return 1" in body
        connection.writer.close()

    begin = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    return calls / (time.perf_counter() - begin), statistics.median(walls) * 1000


def fsync_ms(folder: Path) -> float:
    """The disk's price for making one record durable, median."""
    walls = []
    descriptor = os.open(folder / "durable", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for _ in range(300):
        begin = time.perf_counter()
        os.write(descriptor, b"x" * 1024)
        os.fdatasync(descriptor)
        walls.append(time.perf_counter() - begin)
    os.close(descriptor)
    return statistics.median(walls) * 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "workspace/src").mkdir(parents=True)
    for number in range(FILES):
        (tmp_path / f"workspace/src/m{number}.py").write_text(TEXT)
    return tmp_path


@pytest.mark.parametrize("version", [MODERN, HANDSHAKE])
def test_a_governed_call_beside_the_bare_sdk(folder: Path, version: str) -> None:
    found = {}
    with contextlib.ExitStack() as stack:
        servers = {kind: stack.enter_context(started(kind, folder)) for kind in ("lowlevel", "mcpserver", "governed")}
        for kind, server in servers.items():
            found[kind] = asyncio.run(one_by_one(server, version))
        disk = fsync_ms(folder)
    ours, bare, usual = found["governed"], found["lowlevel"], found["mcpserver"]
    print(
        f"\ncontext read_file ({version}), one connection: governed {ours[0]:.2f} ms CPU, p50 {ours[1]:.2f} ms beside an "
        f"fsync of {disk:.2f} ms; bare SDK, low-level {bare[0]:.2f} ms CPU, p50 {bare[1]:.2f} ms; bare SDK, MCPServer "
        f"{usual[0]:.2f} ms CPU, p50 {usual[1]:.2f} ms; ratio CPU {ours[0] / bare[0]:.2f} and {ours[0] / usual[0]:.2f}"
    )
