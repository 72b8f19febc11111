"""What governance adds to a call of an upstream server: the same program over the same pipes, with and without us."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.upstream_fake import FakeServer, config, running, tool

from vestibule.boundary.context.upstream.session import Session
from vestibule.boundary.context.upstream.stdio import StdioConnection

CALLS = 200
PROGRAM = """
import json, sys
tool = json.loads(sys.argv[1])
for line in sys.stdin:
    said = json.loads(line)
    if "id" in said:
        found = {
            "initialize": {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s"}},
            "tools/list": {"tools": [tool]},
            "tools/call": {"content": [{"type": "text", "text": "x" * 1000}]},
        }[said["method"]]
        print(json.dumps({"jsonrpc": "2.0", "id": said["id"], "result": found}), flush=True)
"""


class Program:
    """A server in a process of its own, without a sandbox."""

    def __init__(self, offered: dict[str, Any]) -> None:
        import json
        import os

        argv = [sys.executable, "-c", PROGRAM, json.dumps(offered)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.stdin, self.stdout = os.dup(self._process.stdin.fileno()), os.dup(self._process.stdout.fileno())
        self._process.stdin.close()
        self._process.stdout.close()

    def kill(self) -> str:
        self._process.kill()
        self._process.wait()
        return ""


@pytest.mark.bench
def test_a_governed_upstream_call_beside_the_bare_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = tool("find_page")
    fake = FakeServer([offered])
    monkeypatch.setattr(fake, "start", lambda: Program(offered))
    session = Session(StdioConnection(Program(offered)))
    session.open(time.monotonic() + 10)
    bare, governed = [], []
    for number in range(CALLS):
        began = time.perf_counter()
        session.call("find_page", {"text": str(number)}, time.monotonic() + 5)
        bare.append(time.perf_counter() - began)
    session.connection.close()
    with running(tmp_path, {"docs": (fake, config(start_seconds=10))}) as run:
        run.said("docs__find_page", text="first")
        for number in range(CALLS):
            began = time.perf_counter()
            assert run.said("docs__find_page", text=str(number))["ok"] is True
            governed.append(time.perf_counter() - began)
    one, other = statistics.median(bare) * 1000, statistics.median(governed) * 1000
    print(
        f"\nupstream call p50: bare {one:.2f} ms; governed, with the log's fsync, {other:.2f} ms ({other / one:.1f}x)"
    )
