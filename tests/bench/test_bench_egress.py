"""What named egress adds to a TLS fetch, and what it leaves of throughput, beside the same client going directly.

The server is a process of its own, the log a real one on disk, the policy the shipped one. Rounds alternate, so that a
machine that is busy for a while is busy for both.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.egress.world import PREFIX, PYTHON, World, build_world

from vestibule.audit.log import AuditLog
from vestibule.sandbox.local import LocalSandbox

ROUNDS, FETCHES, SIZE = 5, 40, 100 << 20
NAME = "docs.example.com"

_SERVER = """
import os, socket, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(sys.argv[1]); context.num_tickets = 0
listener = socket.create_server(("127.0.0.1", 0), backlog=64); print(listener.getsockname()[1], flush=True)
block = os.urandom(1 << 20)
def serve(raw):
    try:
        with context.wrap_socket(raw, server_side=True) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            left = int.from_bytes(client.recv(8), "big")
            while left:
                left -= client.send(block[:left])
            client.recv(1)
    except OSError:
        pass
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""

_CLIENT = """
import json, socket, ssl, sys, time
host, port, name, ca, fetches, size = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], *map(int, sys.argv[5:])
context = ssl.create_default_context(cafile=ca)
def fetch(count):
    began = time.perf_counter()
    raw = socket.create_connection((host, port)); raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with context.wrap_socket(raw, server_hostname=name) as tls:
        tls.sendall(count.to_bytes(8, "big"))
        left, buffer = count, bytearray(1 << 20)
        while left:
            left -= tls.recv_into(buffer)
    return time.perf_counter() - began
fetch(1000)
print(json.dumps({"times": [fetch(1000) for _ in range(fetches)], "big": fetch(size)}))
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    backend = LocalSandbox(tools=() if PREFIX.is_relative_to("/usr") else (PREFIX,), state=tmp_path / "state")
    yield build_world(backend, tmp_path)
    backend.release("r0egress")
    backend.close()


@pytest.mark.bench
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_a_tls_fetch_through_the_gateway_beside_a_direct_one(world: World, tmp_path: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-I", "-c", _SERVER, str(world.authority.chain)], stdout=subprocess.PIPE, text=True
    )
    log = AuditLog.open(tmp_path / "audit", tmp_path / "trust", trust_domain="example.com")
    ways: dict[str, dict[str, list[float]]] = {
        name: {"times": [], "big": []} for name in ("direct", "gateway", "log in memory")
    }
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        for _ in range(ROUNDS):
            argv = (NAME, str(world.authority.certificate), str(FETCHES), str(SIZE))
            done = subprocess.run(
                [PYTHON, "-I", "-c", _CLIENT, "127.0.0.1", str(port), *argv],
                capture_output=True,
                text=True,
                check=True,
                env={"PATH": os.environ["PATH"]},
            )
            _add(ways["direct"], done.stdout)
            inside = ("443", NAME, "/workspace/authority.pem", str(FETCHES), str(SIZE))
            for name, sink in (("gateway", log), ("log in memory", None)):
                ended = world.run((PYTHON, "-I", "-c", _CLIENT, NAME, *inside), {f"{NAME}:443": port}, sink=sink)
                _add(ways[name], ended.out)
                assert ended.report.connections[0].count == FETCHES + 2
                assert ended.report.connections[0].received > SIZE
    finally:
        server.kill()
        server.wait()
        log.close()
    fetch = {name: statistics.median(found["times"]) * 1000 for name, found in ways.items()}
    speed = {name: SIZE / statistics.median(found["big"]) / 1e6 for name, found in ways.items()}
    added = {name: value - fetch["direct"] for name, value in fetch.items()}
    print(
        f"\nTLS fetch of 1 kB, new connection, median of {ROUNDS * FETCHES}: direct {fetch['direct']:.2f} ms, through "
        f"the gateway {fetch['gateway']:.2f} ms: {added['gateway']:+.2f} ms ({fetch['gateway'] / fetch['direct']:.2f} "
        f"times), {added['log in memory']:+.2f} ms without the wait for the disk of the log"
        f"\n100 MB in one connection: direct {speed['direct']:.0f} MB/s, through the gateway "
        f"{speed['gateway']:.0f} MB/s: "
        f"{speed['gateway'] / speed['direct']:.0%}"
    )


def _add(found: dict[str, list[float]], text: str) -> None:
    values = json.loads(text)
    found["times"] += values["times"]
    found["big"].append(values["big"])
