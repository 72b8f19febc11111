"""What reaches a page, and what every answer carries."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from console_fake import ORIGIN, Console

from vestibule.console.guard import HEADERS, MAX_BODY, Guard, Origin

EXPECTED = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cache-control": "no-store",
}


def answers(console: Console) -> dict[str, Any]:
    """One answer of every kind."""
    client, visitor = console.signed_in(raise_errors=False), console.visitor(raise_errors=False)
    page = client.get(f"/runs/{console.run}")
    found = {
        "queue": client.get("/"),
        "run": page,
        "stylesheet": visitor.get("/static/console.css"),
        "not signed in": visitor.get("/"),
        "bad login": visitor.get("/login?token=x"),
        "not found": client.get("/nothing"),
        "bad host": visitor.get("/", headers={"host": "evil.example.com"}),
        "bad method": client.request("TRACE", "/"),
        "wrong method": client.post("/", data={"a": "b"}, headers={"origin": ORIGIN.url}),
        "no origin": client.post(f"/runs/{console.run}/decision", data={}),
        "no form token": console.post(client, {"choice": "approve"}),
        "redirect": console.post(client, console.form(page.text)),
        "login": visitor.get("/login", params={"token": console.sessions.issue_login()}),
    }
    console.runs.broken = RuntimeError("boom <b>")
    return found | {"crash": client.get("/")}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_answer_carries_the_header(console: Console, name: str) -> None:
    for kind, answer in answers(console).items():
        assert answer.headers.get_list(name) == [EXPECTED[name]], kind
        assert not [key for key in answer.headers if key.startswith("access-control")], kind
        assert answer.headers["referrer-policy"] in ("same-origin", "no-referrer"), kind


def test_no_policy_allows_scripts_or_inline_styles() -> None:
    policy = dict(HEADERS)[b"content-security-policy"].decode()
    assert "unsafe" not in policy
    assert "script-src" not in policy
    assert policy.startswith("default-src 'none'")


def test_pages_contain_no_script_no_inline_style_and_no_foreign_address(console: Console) -> None:
    client = console.signed_in()
    for page in (client.get("/").text, client.get(f"/runs/{console.run}").text, console.visitor().get("/").text):
        lowered = page.lower()
        assert "<script" not in lowered
        assert " style=" not in lowered
        assert " onclick" not in lowered
        assert "http://" not in lowered.replace("http://www.w3.org", "")
        assert "https://" not in lowered


@pytest.mark.parametrize(
    "host",
    [
        "evil.example.com",
        "evil.example.com:8123",
        "127.0.0.1",
        "127.0.0.1:8124",
        "127.0.0.1:8123.evil.example.com",
        "127.0.0.2:8123",
        "0.0.0.0:8123",
        "127.1:8123",
        "localhost",
        "localhost.:8123",
        "[::1]:8123",
        "console.vestibule.internal",
        "context.vestibule.internal",
        "context.vestibule.internal:8123",
        "models.vestibule.internal:80",
        "127.0.0.1:8123@evil.example.com",
        "",
    ],
)
def test_another_host_name_gets_nothing(console: Console, host: str) -> None:
    answer = console.signed_in().get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "Vouchers" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1:8123", "localhost:8123", "LOCALHOST:8123"])
def test_the_consoles_own_names_work(console: Console, host: str) -> None:
    assert console.visitor().get("/static/console.css", headers={"host": host}).status_code == 200


def raw(app: Any, **changes: Any) -> tuple[int, bytes]:
    """One request given as an ASGI scope."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/static/console.css",
        "raw_path": b"/static/console.css",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:8123")],
        "server": ("127.0.0.1", 8123),
        "client": ("127.0.0.1", 40000),
        "scheme": "http",
        "root_path": "",
        **changes,
    }
    messages = changes.pop("messages", None) or [{"type": "http.request", "body": b"", "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0].get("status", sent[0].get("code")), b"".join(item.get("body", b"") for item in sent)


def test_two_host_headers_are_refused(console: Console) -> None:
    assert raw(console.app)[0] == 200
    assert raw(console.app, headers=[(b"host", b"127.0.0.1:8123"), (b"host", b"evil.example.com")])[0] == 421
    assert raw(console.app, headers=[])[0] == 421


@pytest.mark.parametrize("server", [("127.64.0.2", 80), ("127.0.0.1", 80), ("0.0.0.0", 8123), None])
def test_another_socket_serves_nothing_even_with_the_right_host(console: Console, server: Any) -> None:
    assert raw(console.app, server=server)[0] == 403


@pytest.mark.parametrize("client", [("10.0.0.5", 40000), ("testclient", 1), None])
def test_a_peer_that_is_not_loopback_gets_nothing(console: Console, client: Any) -> None:
    assert raw(console.app, client=client)[0] == 403


def test_websockets_are_closed_unanswered(console: Console) -> None:
    assert raw(console.app, type="websocket")[0] == 1008


def test_an_overlong_address_is_refused(console: Console) -> None:
    assert raw(console.app, query_string=b"a" * 5000)[0] == 414


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "http://evil.example.com",
        "http://127.0.0.1:9999",
        "http://localhost:8123",
        "https://127.0.0.1:8123",
        "http://127.0.0.1:8123.evil.example.com",
        "http://127.0.0.1",
    ],
)
def test_a_form_from_elsewhere_decides_nothing(console: Console, origin: str | None) -> None:
    client = console.signed_in()
    form = console.form(client.get(f"/runs/{console.run}").text)
    answer = client.post(f"/runs/{console.run}/decision", data=form, headers={"origin": origin} if origin else {})
    assert answer.status_code == 403
    assert console.runs.decided == []


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", "nonsense"])
def test_a_form_that_the_browser_calls_foreign_decides_nothing(console: Console, site: str) -> None:
    client = console.signed_in()
    form = console.form(client.get(f"/runs/{console.run}").text)
    assert console.post(client, form, **{"sec-fetch-site": site}).status_code == 403
    assert console.runs.decided == []


@pytest.mark.parametrize("dest", ["iframe", "frame", "embed", "object", "serviceworker", "fencedframe"])
def test_embedded_pages_are_refused_by_the_server_too(console: Console, dest: str) -> None:
    answer = console.signed_in().get(
        "/", headers={"sec-fetch-dest": dest, "sec-fetch-site": "same-origin", "sec-fetch-mode": "navigate"}
    )
    assert answer.status_code == 403
    assert "Vouchers" not in answer.text


def test_another_site_loads_nothing_as_a_resource(console: Console) -> None:
    headers = {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    assert console.signed_in().get("/static/icon.svg", headers=headers).status_code == 403


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data; boundary=x", ""])
def test_only_plain_forms_are_read(console: Console, kind: str) -> None:
    client = console.signed_in()
    answer = client.post(
        f"/runs/{console.run}/decision", content=b"{}", headers={"origin": ORIGIN.url, "content-type": kind}
    )
    assert answer.status_code == 415


def test_a_large_body_is_refused_with_and_without_a_length(console: Console) -> None:
    client = console.signed_in()
    form = console.form(client.get(f"/runs/{console.run}").text) | {"reason": "x" * (MAX_BODY + 1)}
    assert console.post(client, form).status_code == 413
    headers = [
        (b"host", b"127.0.0.1:8123"),
        (b"origin", b"http://127.0.0.1:8123"),
        (b"content-type", b"application/x-www-form-urlencoded"),
    ]
    piece = {"type": "http.request", "body": b"x" * 40_000, "more_body": True}
    assert raw(console.app, method="POST", path="/logout", headers=headers, messages=[piece, dict(piece)])[0] == 413
    assert console.runs.decided == []


def test_a_body_that_stops_arriving_is_given_up(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vestibule.console.guard.BODY_SECONDS", 0.05)
    headers = [
        (b"host", b"127.0.0.1:8123"),
        (b"origin", b"http://127.0.0.1:8123"),
        (b"content-type", b"application/x-www-form-urlencoded"),
    ]
    piece = {"type": "http.request", "body": b"choice=approve", "more_body": True}
    assert raw(console.app, method="POST", path="/logout", headers=headers, messages=[piece])[0] == 408


def test_headers_of_the_application_cannot_weaken_ours() -> None:
    async def careless(scope: Any, receive: Any, send: Any) -> None:
        headers = [
            (b"Content-Security-Policy", b"default-src *"),
            (b"Access-Control-Allow-Origin", b"*"),
            (b"Cache-Control", b"public"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    sent: list[Any] = []

    async def probe() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1:8123")],
            "server": ("127.0.0.1", 8123),
            "client": ("127.0.0.1", 1),
        }
        await Guard(careless, ORIGIN)(scope, receive, send)

    asyncio.run(probe())
    headers = sent[0]["headers"]
    assert [value for name, value in headers if name.lower() == b"content-security-policy"] == [
        dict(HEADERS)[b"content-security-policy"]
    ]
    assert not [name for name, _ in headers if name.lower().startswith(b"access-control")]


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.2", "localhost", "::", "example.com"])
def test_an_origin_is_loopback_or_an_error(host: str) -> None:
    with pytest.raises(ValueError, match="listens on"):
        Origin(host, 80)
