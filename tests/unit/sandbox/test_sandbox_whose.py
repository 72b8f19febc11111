"""Which program holds a connection is found out from outside, or not known."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from sandbox_helpers import PYTHON, python, specification

from vestibule.sandbox.local import LocalSandbox, whose

NAME = "docs.example.com:443"


def _asked(backend: LocalSandbox, workspace: Path, code: str) -> tuple[str, ...]:
    """The programs that hold the first connection, asked when its client sent a byte."""
    sandbox = backend.create(specification(python(code), workspace, endpoints=(("docs.example.com", 443),)))
    try:
        sandbox.go()
        listener = sandbox.listeners[NAME]
        listener.settimeout(20)
        client, peer = listener.accept()
        with client:
            client.settimeout(20)
            assert client.recv(1) == b"x"
            return sandbox.programs_of(peer, client.getsockname())
    finally:
        sandbox.kill()


CONNECT = "import socket, subprocess, os, time\ns = socket.create_connection(('docs.example.com', 443))\n"


FORKED = "import os, time\nif os.fork(): time.sleep(60)\nos.setsid()\nif os.fork(): os._exit(0)\n"
SLEEPS = "if os.fork() == 0: os.execv('/usr/bin/sleep', ['git', '60'])\n"
MAPPED = "import socket\ns = socket.socket(socket.AF_INET6)\ns.connect(('::ffff:127.64.0.1', 443))\n"
SAYS = "s.send(b'x'); s.recv(1)"


@pytest.mark.parametrize(
    ("code", "programs"),
    [
        (CONNECT + SAYS, {PYTHON}),
        (CONNECT + "os.fork(); " + SAYS, {PYTHON}),
        (
            CONNECT + "os.set_inheritable(s.fileno(), True)\n" + SLEEPS + "time.sleep(0.5); " + SAYS,
            {PYTHON, "/usr/bin/sleep"},
        ),
        (FORKED + CONNECT + SAYS, {PYTHON}),
        (MAPPED + SAYS, {PYTHON}),
    ],
    ids=["itself", "forked", "under another name", "an orphan", "by IPv6"],
)
def test_every_holder_is_named_by_the_file_that_it_executes(
    backend: LocalSandbox, workspace: Path, code: str, programs: set[str]
) -> None:
    assert set(_asked(backend, workspace, code)) == programs


def test_a_connection_that_is_gone_is_not_known(backend: LocalSandbox, workspace: Path) -> None:
    code = CONNECT + "s.send(b'x'); s.close(); time.sleep(60)"
    sandbox = backend.create(specification(python(code), workspace, endpoints=(("docs.example.com", 443),)))
    try:
        sandbox.go()
        listener = sandbox.listeners[NAME]
        listener.settimeout(20)
        client, peer = listener.accept()
        with client:
            assert client.recv(1) == b"x"
            assert client.recv(1) == b""
            assert sandbox.programs_of(peer, client.getsockname()) == ()
    finally:
        sandbox.kill()


def test_more_processes_than_are_looked_at_are_not_known(
    backend: LocalSandbox, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whose, "MAX_PROCESSES", 1)
    assert _asked(backend, workspace, CONNECT + "os.fork(); s.send(b'x'); s.recv(1)") == ()


def test_a_process_that_cannot_be_looked_at_makes_it_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        monkeypatch.setattr(whose, "processes", lambda first: [first])

        def refused(_: str) -> str:
            raise PermissionError

        import os

        assert whose.programs_of(os.getpid(), client.getsockname(), server.getsockname())
        monkeypatch.setattr(whose, "processes", lambda _: [os.getpid()])
        monkeypatch.setattr(whose, "_link", refused)
        assert whose.programs_of(1, client.getsockname(), server.getsockname()) == ()
