"""/metrics on its own loopback socket: for who has the token, and never a stale page."""

from __future__ import annotations

import http.client
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vestibule.console import metrics as module
from vestibule.console.metrics import build_metrics_app, scrape_token
from vestibule.console.server import Server, serve_console
from vestibule.core.errors import DependencyDown

TOKEN = "t" * 43


def serving(page: Callable[[], str]) -> Server:
    return serve_console(lambda origin: build_metrics_app(page, TOKEN, origin))


def ask(server: Server, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection(server.origin.host, server.origin.port, timeout=10)
    sent = {"authorization": f"Bearer {TOKEN}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    connection.request(method, path, headers={name: value for name, value in sent.items() if value})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def test_it_answers_with_the_page_and_only_that() -> None:
    with serving(lambda: "vestibule_x 1\n") as server:
        status, headers, body = ask(server)
        assert (status, body) == (200, "vestibule_x 1\n")
        assert headers["content-type"].startswith("text/plain; version=0.0.4")
        assert headers["cache-control"] == "no-store"
        assert ask(server, method="HEAD")[2] == ""
        assert ask(server, "/")[0] == 404
        assert ask(server, "/metrics/x")[0] == 404
        assert ask(server, method="DELETE")[0] == 405


@pytest.mark.parametrize(
    "shown", ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"bearer {TOKEN}", f"Basic {TOKEN}"]
)
def test_without_the_token_nothing_is_read(shown: str) -> None:
    def page() -> str:
        raise AssertionError("read before the token was checked")

    with serving(page) as server:
        status, headers, body = ask(server, authorization=shown)
        assert status == 401
        assert headers["www-authenticate"].startswith("Bearer")
        assert TOKEN not in body


def test_the_consoles_wall_stands_before_it() -> None:
    with serving(lambda: "vestibule_x 1\n") as server:
        assert ask(server, host="evil.example.com")[0] == 421
        assert ask(server, sec_fetch_site="cross-site", sec_fetch_mode="cors")[0] == 403


def test_a_page_that_cannot_be_made_is_an_error_and_the_next_one_is_not_stale() -> None:
    answers: list[str | DependencyDown] = [
        "vestibule_x 1\n",
        DependencyDown("database", "It is gone."),
        "vestibule_x 3\n",
    ]

    def page() -> str:
        found = answers.pop(0)
        if isinstance(found, str):
            return found
        raise found

    with serving(page) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FRESH_SECONDS", 0.0)
        assert ask(server)[2] == "vestibule_x 1\n"
        status, _, body = ask(server)
        assert (status, body) == (503, "It is gone.\n")
        assert ask(server)[2] == "vestibule_x 3\n"


def test_pages_are_made_one_at_a_time_and_one_is_good_for_a_second() -> None:
    made, at_once, most = 0, 0, 0
    lock = threading.Lock()

    def page() -> str:
        nonlocal made, at_once, most
        with lock:
            made, at_once = made + 1, at_once + 1
            most = max(most, at_once)
        threading.Event().wait(0.1)
        with lock:
            at_once -= 1
        return "vestibule_x 1\n"

    with serving(page) as server, ThreadPoolExecutor(8) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FRESH_SECONDS", 60.0)
        assert {status for status, _, _ in pool.map(lambda _: ask(server), range(16))} == {200}
        assert made == 1
        patch.setattr(module, "FRESH_SECONDS", 0.0)
        assert {status for status, _, _ in pool.map(lambda _: ask(server), range(8))} == {200}
        assert made > 1
        assert most == 1


def test_the_token_is_made_once_and_for_this_user_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        (token,) = set(pool.map(lambda _: scrape_token(tmp_path), range(16)))
    assert len(token) >= 40
    file = tmp_path / "metrics.token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]
    file.chmod(0o644)
    with pytest.raises(DependencyDown, match="Others can read"):
        scrape_token(tmp_path)


def test_a_token_that_could_be_guessed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "metrics.token"
    file.touch(0o600)
    with pytest.raises(DependencyDown, match="too short"):
        scrape_token(tmp_path)
