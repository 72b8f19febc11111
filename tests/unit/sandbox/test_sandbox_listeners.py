"""Names inside: reachable by every program, served from outside, and nothing beside them."""

from __future__ import annotations

import shutil
import socket
import threading
from pathlib import Path

import pytest
from sandbox_helpers import python, specification

from vestibule.core.errors import DependencyDown, UsageError
from vestibule.sandbox.local import LocalSandbox

NAMES = ("context.vestibule.internal", "models.vestibule.internal")


def _serve(listener: socket.socket, text: bytes) -> None:
    def loop() -> None:
        try:
            while True:
                client, _ = listener.accept()
                with client:
                    client.recv(4096)
                    client.sendall(b"HTTP/1.0 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))
        except OSError:
            return

    threading.Thread(target=loop, daemon=True).start()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_reaches_each_name_and_only_them(backend: LocalSandbox, workspace: Path) -> None:
    script = "".join(
        f"curl -sS -m 5 http://{name}/; echo; " for name in (*NAMES, "other.vestibule.internal", "127.64.0.3")
    )
    sandbox = backend.create(specification(script, workspace, names=NAMES))
    for name, listener in sandbox.listeners.items():
        _serve(listener, name.encode())
    sandbox.go()
    result = sandbox.wait()
    assert result.stdout.decode().split() == list(NAMES)
    assert result.stderr.count(b"curl: (") == 2


def test_a_program_that_resolves_for_itself_gets_the_same_addresses(backend: LocalSandbox, workspace: Path) -> None:
    code = (
        "import socket\n"
        f"for n in {NAMES!r}:\n"
        "  s = socket.create_connection((n, 80)); s.sendall(b'x'); print(s.getpeername()[0], s.recv(99)[-5:])\n"
    )
    sandbox = backend.create(specification(python(code), workspace, names=NAMES))
    for name, listener in sandbox.listeners.items():
        _serve(listener, name[:5].encode())
    sandbox.go()
    result = sandbox.wait()
    assert result.stdout.decode().splitlines() == ["127.64.0.1 b'conte'", "127.64.0.2 b'model'"], result.stderr


def test_no_other_port_answers_at_a_name(backend: LocalSandbox, workspace: Path) -> None:
    code = (
        "import socket\nopened = []\n"
        "for p in range(1, 3000):\n"
        "  with socket.socket() as s:\n"
        "    if s.connect_ex(('127.64.0.1', p)) == 0: opened.append(p)\n"
        "print(opened)"
    )
    sandbox = backend.create(specification(python(code), workspace, names=NAMES))
    sandbox.go()
    assert sandbox.wait().stdout.strip() == b"[80]"


def test_a_probe_from_inside_is_heard_before_the_program_starts(backend: LocalSandbox, workspace: Path) -> None:
    sandbox = backend.create(specification("true", workspace, names=NAMES))
    with sandbox.connect(NAMES[1]) as client:
        client.sendall(b"probe")
        server, _ = sandbox.listeners[NAMES[1]].accept()
        with server:
            assert server.recv(16) == b"probe"
            server.sendall(b"refused")
        assert client.recv(16) == b"refused"
    assert not (workspace / "started").exists()
    sandbox.kill()


def test_the_probe_of_egress_finds_no_way_out(backend: LocalSandbox, workspace: Path) -> None:
    sandbox = backend.create(specification("true", workspace, names=NAMES))
    found = sandbox.probe_egress()
    sandbox.kill()
    assert len(found) >= 8
    assert "connected" not in found.values()


def test_the_probe_of_egress_finds_a_way_out_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from vestibule.sandbox.local import listeners

    with socket.create_server(("127.0.0.1", 0)) as server:
        probe = ("tcp here", socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", server.getsockname()[1])
        monkeypatch.setattr(listeners, "PROBES", (probe,))
        assert listeners.probe_egress()["tcp here"] == "connected"


def test_the_program_cannot_take_a_name_from_its_listener(backend: LocalSandbox, workspace: Path) -> None:
    code = (
        "import socket\n"
        "for a in ('127.64.0.1', '0.0.0.0', '::'):\n"
        "  s = socket.socket(socket.AF_INET6 if ':' in a else socket.AF_INET)\n"
        "  s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.setsockopt(socket.SOL_SOCKET, 15, 1)\n"
        "  try: s.bind((a, 80)); s.listen(); print('took')\n"
        "  except OSError as e: print(type(e).__name__)\n"
    )
    sandbox = backend.create(specification(python(code), workspace, names=NAMES))
    sandbox.go()
    assert b"took" not in sandbox.wait().stdout


def test_two_sandboxes_do_not_see_each_other(backend: LocalSandbox, workspace: Path) -> None:
    code = "import socket; s = socket.create_server(('127.0.0.1', 8000)); open('/workspace/up', 'w'); s.accept()"
    one = backend.create(specification(python(code), workspace))
    one.go()
    other = backend.create(
        specification(
            python(
                "import os,socket,time\n"
                "while not os.path.exists('/workspace/up'): time.sleep(0.01)\n"
                "print(socket.socket().connect_ex(('127.0.0.1', 8000)))"
            ),
            workspace,
        )
    )
    other.go()
    assert other.wait().stdout.strip() != b"0"
    one.kill()


def test_a_sandbox_without_names_has_none(backend: LocalSandbox, workspace: Path) -> None:
    sandbox = backend.create(specification("cat /etc/hosts", workspace))
    assert sandbox.listeners == {}
    with pytest.raises(KeyError):
        sandbox.connect(NAMES[0])
    sandbox.go()
    assert b"internal" not in sandbox.wait().stdout


@pytest.mark.parametrize(
    "name", ["", "a b", "10.0.0.1", "0x7f000001", "x\n127.0.0.1 y", "ä.example.com", "a.example.com."]
)
def test_a_name_that_is_no_host_name_is_refused(backend: LocalSandbox, workspace: Path, name: str) -> None:
    with pytest.raises(UsageError):
        backend.create(specification("true", workspace, names=(name,)))


def test_connect_after_the_end_is_a_refusal(backend: LocalSandbox, workspace: Path) -> None:
    sandbox = backend.create(specification("true", workspace, names=NAMES))
    sandbox.kill()
    with pytest.raises(DependencyDown):
        sandbox.connect(NAMES[0])


def test_many_names_each_have_an_address(backend: LocalSandbox, workspace: Path) -> None:
    names = tuple(f"h{number}.example.com" for number in range(40))
    sandbox = backend.create(specification("getent hosts h39.example.com", workspace, names=names))
    sandbox.go()
    assert sandbox.wait().stdout.split()[0] == b"127.64.0.40"
