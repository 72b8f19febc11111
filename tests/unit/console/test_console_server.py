"""The console on a real socket."""

from __future__ import annotations

import http.client
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from console_fake import ALICE, FakeRuns, new_run, sample_view

from vestibule.console.app import build_console_app
from vestibule.console.guard import Origin
from vestibule.console.server import Server, serve_console
from vestibule.console.sessions import Sessions
from vestibule.core.errors import DependencyDown, UsageError


def console(host: str = "127.0.0.1") -> tuple[Server, Sessions]:
    runs = FakeRuns(sample_view(new_run()))
    sessions = Sessions(ALICE)

    def build(origin: Origin) -> Any:
        return build_console_app(runs=runs, decide=runs.decide, sessions=sessions, origin=origin)

    return serve_console(build, host), sessions


def ask(server: Server, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection(server.origin.host, server.origin.port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def test_it_serves_from_a_thread_signs_in_and_stops() -> None:
    server, sessions = console()
    with server:
        assert server.url == f"http://127.0.0.1:{server.origin.port}"
        assert ask(server, "/")[0] == 401
        status, headers, _ = ask(server, f"/login?token={sessions.issue_login()}")
        assert status == 303
        assert "server" not in headers
        status, headers, body = ask(server, "/", cookie=headers["set-cookie"].partition(";")[0])
        assert status == 200
        assert "Vouchers" in body
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert ask(server, "/", host="evil.example.com")[0] == 421
        port = server.origin.port
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2).close()


def test_it_serves_on_ipv6_loopback() -> None:
    if not _has_ipv6():
        with pytest.raises(UsageError, match="cannot listen"):
            console("::1")
        return
    server, sessions = console("::1")
    with server:
        assert server.url == f"http://[::1]:{server.origin.port}"
        assert ask(server, f"/login?token={sessions.issue_login()}")[0] == 303


def _has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
        return True


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "localhost", "127.0.0.2", "127.64.0.1", "192.0.2.1"])
def test_it_listens_on_loopback_or_not_at_all(host: str) -> None:
    with pytest.raises(UsageError, match="does not listen"):
        console(host)


def test_a_taken_port_is_said_plainly() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UsageError, match="cannot listen"):
            serve_console(lambda _: None, port=other.getsockname()[1])  # type: ignore[arg-type, return-value]
    with pytest.raises(UsageError, match="cannot listen"):
        serve_console(lambda _: None, port=70000)  # type: ignore[arg-type, return-value]


def test_an_application_that_cannot_be_built_leaves_no_socket() -> None:
    seen: list[Origin] = []

    def build(origin: Origin) -> Any:
        seen.append(origin)
        raise DependencyDown("database", "It is not there.")

    with pytest.raises(DependencyDown):
        serve_console(build)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", seen[0].port), timeout=2).close()


def test_a_server_that_does_not_come_up_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    server, _ = console()
    monkeypatch.setattr("uvicorn.Server.startup", _fails)
    with pytest.raises(DependencyDown, match="could not be started"):
        server.start()


async def _fails(*_: Any, **__: Any) -> None:
    raise OSError("no")


def test_one_link_redeemed_by_many_at_once_makes_one_session() -> None:
    server, sessions = console()
    with server, ThreadPoolExecutor(8) as pool:
        token = sessions.issue_login()
        answers = list(pool.map(lambda _: ask(server, f"/login?token={token}")[0], range(8)))
    assert answers.count(303) == 1
    assert set(answers) == {303, 401}


def test_login_links_never_reach_a_log(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    server, sessions = console()
    token = sessions.issue_login()
    with server:
        ask(server, f"/login?token={token}")
        ask(server, f"/login?token={token}")
    out, err = capfd.readouterr()
    assert token not in out + err + caplog.text
