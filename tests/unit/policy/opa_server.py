"""A real OPA server for tests: `build/tools/bin/opa`, or `opa` on the PATH."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

BUILT = Path(__file__).parents[3] / "build" / "tools" / "bin" / "opa"


def opa_program() -> str:
    """The program; skips where there is none, fails in CI."""
    found = str(BUILT) if BUILT.is_file() else shutil.which("opa")
    if found is None:
        reason = "no OPA: `make build/tools/.opa` builds it (it needs Go)"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@contextmanager
def opa_server() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Its address and its process."""
    program = opa_program()
    for _ in range(5):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen(
            [program, "run", "--server", "--addr", f"127.0.0.1:{port}", "--log-level", "info", "--disable-telemetry"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={"HOME": "/nonexistent", "PATH": "/usr/bin:/bin"},
            text=True,
        )
        assert process.stderr is not None
        started = any("Initializing server" in line for line in iter(process.stderr.readline, ""))
        if started and _answers(port, process):
            # It writes a line for each request, and would wait for a reader.
            threading.Thread(target=_drain, args=(process.stderr,), daemon=True).start()
            break
        process.kill()
        process.wait()
    else:
        raise AssertionError("the OPA server does not start")
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()


def _drain(stream: IO[str]) -> None:
    with stream:
        for _ in stream:
            pass


def _answers(port: int, process: subprocess.Popen[str]) -> bool:
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except ConnectionRefusedError:
            continue
        return True
    return False
