"""The console in a real browser."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from console_fake import ALICE, PATCH, patch_for, rebound, sample_view
from screenshots import photograph

from vestibule.core.model import Finding, Place
from vestibule.core.verdict import Ruling

PAYLOADS = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\"><svg onload=document.title='owned'>",
    "javascript:document.title='owned'",
    "</td></table><iframe srcdoc=\"<script>parent.document.title='owned'</script>\">",
)


@contextmanager
def foreign(page: str) -> Iterator[str]:
    """Another server on this host: another origin, but the same site for cookies."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page.encode()
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.mark.parametrize("script", [True, False])
def test_sign_in_look_and_decide_with_and_without_javascript(
    stage: Any, open_page: Callable[..., Any], script: bool
) -> None:
    page = open_page(java_script_enabled=script)
    stage.sign_in(page)
    assert "token" not in page.url
    page.get_by_role("link", name="Vouchers are ignored").click()
    assert page.get_by_role("heading", level=1).inner_text() == "Vouchers are ignored in the cart's total"
    page.get_by_role("link", name="Go to the decision").click()
    page.get_by_label("Approve").check()
    page.get_by_role("textbox", name="Reason").fill("The total is right now; I ran it.")
    page.get_by_role("button", name="Record decision as local:alice").click()
    assert page.url == f"{stage.url}/runs/{stage.run}"
    assert "Recorded: approve." in page.get_by_role("alert").inner_text()
    assert stage.runs.decided == [(stage.run, "approve", "The total is right now; I ran it.", ALICE)]
    assert page.get_by_role("button", name="Record decision").count() == 0
    page.get_by_role("button", name="Sign out").click()
    answer = page.goto(f"{stage.url}/runs/{stage.run}")
    assert answer.status == 401
    assert page.said == ["Failed to load resource: the server responded with a status of 401 (Unauthorized)"]


def test_a_used_link_does_not_sign_in_again(stage: Any, open_page: Callable[..., Any]) -> None:
    link = f"{stage.url}/login?token={stage.sessions.issue_login()}"
    open_page().goto(link)
    page = open_page()
    assert page.goto(link).status == 401
    assert "does not work any more" in page.get_by_role("alert").inner_text()
    assert page.goto(stage.url).status == 401


def test_scripts_of_an_agent_do_not_run(stage: Any, open_page: Callable[..., Any]) -> None:
    names = [payload.replace("/", "") for payload in PAYLOADS]
    patch = b"".join(patch_for(name, list(PAYLOADS)) for name in names)
    finding = Finding(
        rule="x", severity="error", verdict=Ruling.HOLD, message=PAYLOADS[0], place=Place(path=PAYLOADS[1])
    )
    stage.runs.views[stage.run] = sample_view(
        stage.run,
        title=PAYLOADS[0],
        message="\n".join(PAYLOADS),
        patch=patch,
        changed_files=tuple(names),
        findings=(finding,),
        branch=PAYLOADS[1],
        target=PAYLOADS[2],
    )
    page = open_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    stage.sign_in(page)
    page.goto(f"{stage.url}/runs/{stage.run}")
    page.wait_for_load_state("networkidle")
    assert "owned" not in page.title().replace(PAYLOADS[0], "")
    assert page.said == []
    assert page.frames == [page.main_frame]
    assert page.locator("main img, main svg, main script, main iframe").count() == 0
    assert all(url.startswith(stage.url + "/") for url in requests)
    assert PAYLOADS[1] in page.locator("#diff").inner_text()


def test_the_browser_itself_blocks_an_injected_script(stage: Any, open_page: Callable[..., Any]) -> None:
    page = open_page()
    stage.sign_in(page)
    page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = \"document.title='owned'\";"
        " document.body.append(s); const i = document.createElement('img'); i.src = 'data:image/gif;base64,R0lG';"
        " document.body.append(i); document.body.setAttribute('style', 'color: red') }"
    )
    assert page.title() == "Runs · Vestibule"
    assert sum("Content Security Policy" in line for line in page.said) >= 3, page.said


@pytest.mark.parametrize("element", ["iframe", "object data", "embed"])
def test_a_page_of_the_console_is_never_framed(stage: Any, open_page: Callable[..., Any], element: str) -> None:
    attribute = element if " " in element else f"{element} src"
    page = open_page()
    stage.sign_in(page)
    html = f"<{attribute}='{stage.url}/runs/{stage.run}' width=900 height=900></{element.split(maxsplit=1)[0]}>"
    with foreign(html) as other:
        page.goto(other)
        page.wait_for_load_state("networkidle")
        shown = [frame.locator("body").inner_text() for frame in page.frames[1:] if not frame.is_detached()]
    assert not any("Vouchers" in text or "Your decision" in text for text in shown)


def test_a_form_on_another_port_of_this_host_decides_nothing(stage: Any, open_page: Callable[..., Any]) -> None:
    page = open_page()
    stage.sign_in(page)
    page.goto(f"{stage.url}/runs/{stage.run}")
    token = page.locator("#decide input[name=form_token]").input_value()
    seen = page.locator("#decide input[name=seen]").input_value()
    html = (
        f"<form method=post action='{stage.url}/runs/{stage.run}/decision'>"
        f"<input name=form_token value='{token}'><input name=seen value='{seen}'>"
        "<input name=choice value=approve><input name=reason value='as agreed'><button>go</button></form>"
    )
    with foreign(html) as other:
        page.goto(other)
        with page.expect_response("**/decision") as waiting:
            page.get_by_role("button").click()
    answer = waiting.value
    # Another port is the same site: the cookie came along, and the server's own checks refused.
    assert "vestibule_session" in answer.request.all_headers().get("cookie", "")
    assert answer.status == 403
    assert stage.runs.decided == []


def test_another_sites_script_reads_nothing(stage: Any, open_page: Callable[..., Any]) -> None:
    page = open_page()
    stage.sign_in(page)
    with foreign("<title>x</title>") as other:
        page.goto(other)
        for mode in ("cors", "no-cors"):
            read = page.evaluate(
                "([url, mode]) => fetch(url, {mode, credentials: 'include'}).then(r => r.text(), e => 'failed')",
                [f"{stage.url}/runs/{stage.run}", mode],
            )
            assert read in ("failed", "")


def test_the_cookie_is_out_of_scripts_reach(stage: Any, open_page: Callable[..., Any]) -> None:
    page = open_page()
    stage.sign_in(page)
    assert page.evaluate("() => document.cookie") == ""
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")


def test_a_link_on_another_site_signs_in_with_one_click_more(stage: Any, open_page: Callable[..., Any]) -> None:
    page = open_page()
    link = f"{stage.url}/login?token={stage.sessions.issue_login()}"
    with foreign(f"<a href='{link.replace('127.0.0.1', 'localhost')}'>open</a>") as other:
        page.goto(other)
        page.get_by_role("link").click()
        page.get_by_role("link", name="Continue to the console").click()
        assert page.get_by_role("heading", level=1).inner_text() == "Runs"


def test_a_stale_page_decides_nothing_and_shows_the_new_change(stage: Any, open_page: Callable[..., Any]) -> None:
    page = open_page(java_script_enabled=False)
    stage.sign_in(page)
    page.goto(f"{stage.url}/runs/{stage.run}")
    stage.runs.views[stage.run] = rebound(stage.runs.views[stage.run], "d4" * 20)
    page.get_by_label("Approve").check()
    page.get_by_role("textbox", name="Reason").fill("Looks right.")
    page.get_by_role("button", name="Record decision").click()
    assert "moved on while you were looking" in page.get_by_role("alert").inner_text()
    assert page.get_by_role("textbox", name="Reason").input_value() == "Looks right."
    assert "d4" * 20 in page.locator("#binding").inner_text()
    assert stage.runs.decided == []


def test_what_is_not_shown_must_be_opened_first(stage: Any, open_page: Callable[..., Any]) -> None:
    patch = PATCH + patch_for("src/big.py", [f"line {number}" for number in range(2000)])
    files = ("src/shop/cart.py", "tests/test_cart.py", "src/big.py")
    stage.runs.views[stage.run] = sample_view(stage.run, patch=patch, changed_files=files)
    page = open_page(java_script_enabled=False)
    stage.sign_in(page)
    page.goto(f"{stage.url}/runs/{stage.run}")
    assert page.get_by_label("Approve").is_disabled()
    page.get_by_role("link", name="Open src/big.py").click()
    assert page.get_by_label("Approve").is_enabled()
    assert "line 1999" in page.locator("#file-2").inner_text()


def test_hidden_characters_are_seen(stage: Any, open_page: Callable[..., Any]) -> None:
    patch = patch_for("src/a.py", ["if role != 'user\u202e\u2066# admins only\u2069\u2066':"])
    stage.runs.views[stage.run] = sample_view(stage.run, patch=patch, changed_files=("src/a.py",))
    page = open_page()
    stage.sign_in(page)
    page.goto(f"{stage.url}/runs/{stage.run}")
    assert "'user⟦U+202E⟧⟦U+2066⟧# admins only⟦U+2069⟧⟦U+2066⟧':" in page.locator("#file-0").inner_text()
    assert page.locator("#file-0 mark.hidden").count() == 4


def test_every_control_is_reached_by_keyboard_and_shows_focus(stage: Any, open_page: Callable[..., Any]) -> None:
    page = open_page()
    stage.sign_in(page)
    page.goto(f"{stage.url}/runs/{stage.run}")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "() => { const e = document.activeElement; const s = getComputedStyle(e);"
            " return [e.tagName + (e.name || ''), s.outlineStyle, parseFloat(s.outlineWidth)] }"
        )
        if found[0] == "BODY":
            break
        assert found[1] != "none", found
        assert found[2] >= 2, found
        reached.add(found[0])
    assert {"A", "INPUTchoice", "TEXTAREAreason", "BUTTON"} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_schemes(stage: Any, open_page: Callable[..., Any], scheme: str) -> None:
    patch = PATCH + patch_for("src/a.py", ["x\u202ey", "раypal"])
    files = ("src/shop/cart.py", "tests/test_cart.py", "src/a.py", "deploy/x")
    stage.runs.views[stage.run] = sample_view(stage.run, patch=patch, changed_files=files, scripted_model=True)
    page = open_page(color_scheme=scheme)
    stage.sign_in(page)
    for path in ("/", f"/runs/{stage.run}"):
        page.goto(stage.url + path)
        poor = page.evaluate(_CONTRAST)
        assert poor == []


def test_a_narrow_window_does_not_scroll_sideways(stage: Any, open_page: Callable[..., Any]) -> None:
    page = open_page(viewport={"width": 400, "height": 800})
    stage.sign_in(page)
    for path in ("/", f"/runs/{stage.run}"):
        page.goto(stage.url + path)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 400


def test_pictures_are_taken_of_the_running_console(stage: Any, browser: Any, tmp_path: Path) -> None:
    del browser  # it decides whether there is a Chromium; the script starts its own
    result: list[Any] = []

    def work() -> None:  # Playwright allows one driver a thread
        result.extend(photograph(f"{stage.url}/login?token={stage.sessions.issue_login()}", stage.run, tmp_path))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    taken = [path.name.removeprefix("console-").removesuffix(".png") for path in result]
    assert taken == ["runs", "run", "who", "diff", "decide"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in result)


_CONTRAST = """() => {
  const parse = c => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const lin = v => v / 255 <= .03928 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map(lin)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const back = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c[3] > 0) return c; } return [255, 255, 255, 1]; };
  const poor = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !e.offsetParent || e.closest('.vh, .skip')) continue;
    const style = getComputedStyle(e), a = light(parse(style.color)), b = light(back(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) poor.add(`${e.tagName}.${e.className}: ${ratio.toFixed(2)}`);
  }
  return [...poor];
}"""
