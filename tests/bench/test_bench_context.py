"""What governing a tool call costs: beside the bare SDK server, and beside a gateway that proxies the same tool.

Every server is a process of its own on loopback, under uvicorn. Processor time is the process's own, user and system,
so it holds the audit log's writer too; latency is the client's, beside the disk's price for one durable record.
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
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.bench

ROOT = Path(__file__).resolve().parents[2]
CALLS = int(os.environ.get("VESTIBULE_BENCH_CALLS", "400"))
TURNS = 8
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

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def cpu_seconds(self) -> float:
        """User and system time of the process's threads so far."""
        # clock_getcpuclockid(3) for another process; threads that have ended count.
        return time.clock_gettime((~self.pid << 3) | 2)

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
    """A kept-alive connection that sends prepared requests: as little as HTTP allows, for the server is measured."""

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


async def one_by_one(servers: dict[str, Server], version: str) -> dict[str, tuple[float, float]]:
    """By server: milliseconds of processor time a call (the best round), and the median of a call's milliseconds.

    Rounds take turns, so that what else the machine does meets all of them.
    """
    connections = {kind: await Connection().open(server.port) for kind, server in servers.items()}
    best = dict.fromkeys(servers, float("inf"))
    walls: dict[str, list[float]] = {kind: [] for kind in servers}
    for turn in range(TURNS + 1):
        for kind, server in servers.items():
            cpu, took = server.cpu_seconds(), []
            for number in range(CALLS // TURNS):
                request = server.request(number, version)
                begin = time.perf_counter()
                status, body = await connections[kind].ask(request)
                took.append(time.perf_counter() - begin)
                assert status == 200, body
                assert b"return 1" in body
            if turn:  # the first one warms up
                best[kind] = min(best[kind], (server.cpu_seconds() - cpu) / len(took))
                walls[kind].extend(took)
    for connection in connections.values():
        connection.writer.close()
    return {kind: (best[kind] * 1000, statistics.median(walls[kind]) * 1000) for kind in servers}


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
    with contextlib.ExitStack() as stack:
        servers = {kind: stack.enter_context(started(kind, folder)) for kind in ("lowlevel", "mcpserver", "governed")}
        found = asyncio.run(one_by_one(servers, version))
        disk = fsync_ms(folder)
    ours, bare, usual = found["governed"], found["lowlevel"], found["mcpserver"]
    print(
        f"\ncontext read_file ({version}), one connection: governed {ours[0]:.2f} ms CPU, p50 {ours[1]:.2f} ms beside "
        f"an fsync of {disk:.2f} ms; bare SDK low-level {bare[0]:.2f} ms CPU, p50 {bare[1]:.2f} ms, bare SDK MCPServer "
        f"{usual[0]:.2f} ms CPU, p50 {usual[1]:.2f} ms; ratio CPU {ours[0] / bare[0]:.2f} and {ours[0] / usual[0]:.2f}"
    )


CONTEXTFORGE = ROOT / "build" / "contextforge" / "bin"
"""The programs of the peer, in an environment of its own; `make bench` brings it."""


class ContextForge:
    """The peer on SQLite with its default plugins, error log only, its limit of 100 requests a minute off."""

    def __init__(self, programs: Path, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        key = secrets.token_hex(32)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "DATABASE_URL": f"sqlite:///{folder}/contextforge.db",
            "LOG_LEVEL": "ERROR",
            "RATE_LIMITING_ENABLED": "false",
            "MCPGATEWAY_UI_ENABLED": "false",
            "AUTH_REQUIRED": "true",
            "JWT_SECRET_KEY": key,
            "AUTH_ENCRYPTION_SECRET": secrets.token_hex(32),
            "PLATFORM_ADMIN_EMAIL": "admin@example.com",
            "PLATFORM_ADMIN_PASSWORD": f"Aa1!{secrets.token_hex(8)}",
            "SSRF_ALLOW_LOCALHOST": "true",
        }
        argv = [str(programs / "mcpgateway"), "--host", "127.0.0.1", "--port", str(self.port)]
        quiet = {"cwd": folder, "env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(argv, **quiet)  # type: ignore[call-overload]
        name = ["--username", "admin@example.com", "--exp", "60", "--secret", key]
        argv = [str(programs / "python"), "-m", "mcpgateway.utils.create_jwt_token", *name]
        said = subprocess.run(
            argv, cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=120
        )
        self.token = said.stdout.split()[-1]

    def wait(self, seconds: float) -> bool:
        """Whether it answers within the time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError):
                self.ask("GET", "/health")
                return True
            time.sleep(0.2)
        return False

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.token}"}
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def proxy(self, upstream: Server) -> Server:
        """Its endpoint that proxies the upstream's tool."""
        self.ask("POST", "/gateways", {"name": "bare", "url": upstream.url, "transport": "STREAMABLEHTTP"})
        tool = self.ask("GET", "/tools")[0]
        server = self.ask("POST", "/servers", {"server": {"name": "bench", "associated_tools": [tool["id"]]}})
        return Server(self.process.pid, self.port, self.token, f"/servers/{server['id']}/mcp/", tool["name"])


@pytest.mark.timeout(600)
def test_a_governed_tool_beside_contextforge_proxying_it(folder: Path) -> None:
    if not os.environ.get("VESTIBULE_BENCH_PEERS") or not (CONTEXTFORGE / "mcpgateway").exists():
        print("\ncontext beside ContextForge: it is not asked for or could not be installed, so this line is left out")
        return
    with started("governed", folder) as server:
        asyncio.run(at_once(server, HANDSHAKE, 200))
        ours = max(asyncio.run(at_once(server, HANDSHAKE, CALLS)) for _ in range(ROUNDS))
    peer = ContextForge(CONTEXTFORGE, folder)
    try:
        assert peer.wait(180), "ContextForge did not start"
        with started("mcpserver", folder) as upstream:
            proxied = peer.proxy(upstream)
            asyncio.run(at_once(proxied, HANDSHAKE, 32))
            theirs = max(asyncio.run(at_once(proxied, HANDSHAKE, 96)) for _ in range(ROUNDS))
            direct = max(asyncio.run(at_once(upstream, HANDSHAKE, CALLS)) for _ in range(ROUNDS))
    finally:
        peer.process.terminate()
        peer.process.wait(30)
    print(
        f"\ncontext read_file ({HANDSHAKE}), {CONNECTIONS} connections: governed {ours[0]:.0f} requests/s, p50 "
        f"{ours[1]:.1f} ms; ContextForge proxying the same tool {theirs[0]:.1f} requests/s, p50 {theirs[1]:.0f} ms "
        f"(its upstream, asked without it, {direct[0]:.0f}); ratio {ours[0] / theirs[0]:.0f}"
    )
