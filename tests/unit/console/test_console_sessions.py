"""Login links and sessions."""

from __future__ import annotations

import re

import pytest
from console_fake import ALICE, ORIGIN, Clock, Console

from vestibule.console.sessions import (
    FAILURES,
    IDLE_SECONDS,
    LOGIN_SECONDS,
    MAX_LIVE,
    SESSION_SECONDS,
    WINDOW_SECONDS,
    Sessions,
)
from vestibule.core.errors import Refused


def test_without_a_session_no_page_shows_data(console: Console) -> None:
    visitor = console.visitor()
    for path in ("/", f"/runs/{console.run}"):
        answer = visitor.get(path)
        assert answer.status_code == 401
        assert "www-authenticate" in answer.headers
        assert "Vouchers" not in answer.text
        assert console.run not in answer.text
        assert "local:" not in answer.text


def test_without_a_session_nothing_is_decided(console: Console) -> None:
    client = console.signed_in()
    form = console.form(client.get(f"/runs/{console.run}").text)
    assert console.post(console.visitor(), form).status_code == 401
    assert console.runs.decided == []


def test_a_login_link_leads_to_the_console_and_its_cookie_is_strict(console: Console) -> None:
    answer = console.visitor().get("/login", params={"token": console.sessions.issue_login()})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    assert answer.headers["referrer-policy"] == "no-referrer"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("vestibule_session_8123=")
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


def test_a_login_link_leads_to_a_run_but_never_elsewhere(console: Console) -> None:
    for run, place in (
        (console.run, f"/runs/{console.run}"),
        ("//evil.example.com", "/"),
        ("../logout", "/"),
        (console.run + "\r\nx: y", "/"),
    ):
        token = console.sessions.issue_login()
        answer = console.visitor().get("/login", params={"token": token, "run": run})
        assert answer.headers["location"] == place
        assert "x" not in answer.headers


def test_a_login_link_works_once(console: Console) -> None:
    token = console.sessions.issue_login()
    assert console.visitor().get("/login", params={"token": token}).status_code == 303
    again = console.visitor().get("/login", params={"token": token})
    assert again.status_code == 401
    assert "set-cookie" not in again.headers
    assert token not in again.text


def test_a_login_link_expires(console: Console) -> None:
    token = console.sessions.issue_login()
    console.clock.seconds += LOGIN_SECONDS
    assert console.visitor().get("/login", params={"token": token}).status_code == 401


@pytest.mark.parametrize(
    "headers", [{"sec-purpose": "prefetch;prerender"}, {"purpose": "prefetch"}, {"sec-fetch-dest": "iframe"}]
)
def test_a_preview_does_not_use_the_link_up(console: Console, headers: dict[str, str]) -> None:
    token = console.sessions.issue_login()
    assert console.visitor().get("/login", params={"token": token}, headers=headers).status_code == 403
    assert console.visitor().head("/login", params={"token": token}).status_code == 405
    assert console.visitor().get("/login", params={"token": token}).status_code == 303


def test_a_link_followed_from_another_site_needs_one_click_more(console: Console) -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    answer = console.visitor().get("/login", params={"token": console.sessions.issue_login()}, headers=headers)
    assert answer.status_code == 200
    assert 'href="/"' in answer.text
    assert "Vouchers" not in answer.text


def test_a_session_that_a_visitor_chose_is_never_adopted(console: Console) -> None:
    visitor = console.visitor()
    visitor.cookies.set(ORIGIN.cookie, "chosen-by-an-attacker")
    answer = visitor.get("/login", params={"token": console.sessions.issue_login()})
    assert "chosen-by-an-attacker" not in answer.headers["set-cookie"]
    attacker = console.visitor()
    attacker.cookies.set(ORIGIN.cookie, "chosen-by-an-attacker")
    assert attacker.get("/").status_code == 401


def test_a_new_login_ends_the_session_that_the_browser_had(console: Console) -> None:
    client = console.signed_in()
    before = client.cookies[ORIGIN.cookie]
    client.get("/login", params={"token": console.sessions.issue_login()})
    assert client.cookies[ORIGIN.cookie] != before
    assert console.sessions.get(before) is None


def test_two_session_cookies_are_none(console: Console) -> None:
    good = console.signed_in().cookies[ORIGIN.cookie]
    for header in (f"{ORIGIN.cookie}={good}; {ORIGIN.cookie}=other", f"{ORIGIN.cookie}=other; {ORIGIN.cookie}={good}"):
        assert console.visitor().get("/", headers={"cookie": header}).status_code == 401
    assert console.visitor().get("/", headers={"cookie": f"a=b; {ORIGIN.cookie}={good}"}).status_code == 200


def test_sessions_end_when_idle_and_after_a_working_day() -> None:
    clock = Clock()
    sessions = Sessions(ALICE, clock=clock)
    idle = sessions.redeem(sessions.issue_login())
    clock.seconds += IDLE_SECONDS + 1
    assert sessions.get(idle) is None
    busy = sessions.redeem(sessions.issue_login())
    for _ in range(SESSION_SECONDS // 1800):
        clock.seconds += 1800
        assert sessions.get(busy) is not None
    clock.seconds += 1800
    assert sessions.get(busy) is None


def test_signing_out_ends_the_session_on_the_server(console: Console) -> None:
    client = console.signed_in()
    secret = client.cookies[ORIGIN.cookie]
    token = console.form(client.get(f"/runs/{console.run}").text)["form_token"]
    assert client.post("/logout", data={"form_token": "x"}, headers={"origin": ORIGIN.url}).status_code == 403
    assert console.sessions.get(secret) is not None
    assert client.post("/logout", data={"form_token": token}, headers={"origin": ORIGIN.url}).status_code == 200
    assert console.sessions.get(secret) is None


def test_guessing_is_stopped_and_the_right_link_waits_for_the_window(console: Console) -> None:
    visitor = console.visitor()
    for _ in range(FAILURES):
        assert visitor.get("/login?token=guess").status_code == 401
    token = console.sessions.issue_login()
    answer = visitor.get("/login", params={"token": token})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == str(WINDOW_SECONDS)
    console.clock.seconds += WINDOW_SECONDS + 1
    assert visitor.get("/login", params={"token": token}).status_code == 303


def test_secrets_have_256_bits_and_only_hashes_are_kept() -> None:
    sessions = Sessions(ALICE)
    token = sessions.issue_login()
    secret = sessions.redeem(token)
    other = sessions.issue_login()
    assert len({token, secret, other}) == 3
    for text in (token, secret, other):
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", text)
        assert text not in repr(vars(sessions))


def test_numbers_of_links_and_sessions_are_bounded() -> None:
    sessions = Sessions(ALICE)
    first = sessions.issue_login()
    tokens = [sessions.issue_login() for _ in range(MAX_LIVE)]
    with pytest.raises(Refused):
        sessions.redeem(first)
    secrets = [sessions.redeem(token) for token in tokens]
    assert all(sessions.get(secret) for secret in secrets)
    sessions.redeem(sessions.issue_login())
    assert sessions.get(secrets[0]) is None


def test_form_tokens_belong_to_one_session(console: Console) -> None:
    one, two = console.signed_in(), console.signed_in()
    form = console.form(one.get(f"/runs/{console.run}").text)
    two.get(f"/runs/{console.run}")
    answer = console.post(two, form)
    assert answer.status_code == 403
    assert "not from your present session" in answer.text
    assert console.runs.decided == []
