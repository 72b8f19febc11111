"""A person decides in the console, over a real run: sign in once, read, approve, and the change is merged."""

from __future__ import annotations

import contextlib
import http.cookiejar
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.conftest import House


@contextlib.contextmanager
def console(house: House) -> Iterator[str]:
    """The sign-in link of a console over the house's state."""
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("vestibule")), "console"],
        env=house.env,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stderr is not None
        yield process.stderr.readline().strip()
    finally:
        process.terminate()
        process.wait(10)


def sign_in(link: str) -> urllib.request.OpenerDirector:
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    with opener.open(link) as page:
        assert page.status == 200
    return opener


def decide(opener: urllib.request.OpenerDirector, origin: str, run: str, choice: str, reason: str) -> str:
    """Send the decision form as a browser would, with every hidden field the page gave."""
    with opener.open(f"{origin}/runs/{run}?show=all") as page:
        text = page.read().decode()
    form = re.search(rf'<form[^>]*action="/runs/{run}/decision".*?</form>', text, re.DOTALL)
    assert form, text[:2000]
    fields = dict(re.findall(r'<input[^>]*type="hidden"[^>]*name="([^"]+)"[^>]*value="([^"]*)"', form.group(0)))
    data = urllib.parse.urlencode({**fields, "choice": choice, "reason": reason}).encode()
    request = urllib.request.Request(
        f"{origin}/runs/{run}/decision", data, {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
    )
    with opener.open(request) as page:
        found: str = page.read().decode()
    return found


def wait_for(house: House, run: str, state: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = house.vestibule("show", run, "--json").json
        if found["state"] == state:
            return
        time.sleep(0.2)
    raise AssertionError(f"still {found['state']}: {found['note']}")


def test_an_approval_in_the_console_merges_the_change(house: House) -> None:
    run = house.change().json["run"]
    with console(house) as link:
        origin = link.partition("/login")[0]
        opener = sign_in(link)
        page = decide(opener, origin, run, "approve", "Read in the console.")
        assert run in page
        wait_for(house, run, "merged")
    shown = house.vestibule("show", run, "--json").json
    assert [(item["channel"], item["choice"]) for item in shown["reviews"]] == [("console", "approve")]
    assert "print(1)" in (house.repo / "src/app.py").read_text()
    assert house.vestibule("audit", "verify", "--repo", str(house.repo), "--json").code == 0


def test_the_link_signs_in_once_and_nothing_shows_without_it(house: House) -> None:
    run = house.change().json["run"]
    with console(house) as link:
        origin = link.partition("/login")[0]
        sign_in(link)
        for address in (link, f"{origin}/", f"{origin}/runs/{run}"):
            try:
                with urllib.request.urlopen(address) as page:
                    status, text = page.status, page.read().decode()
            except urllib.error.HTTPError as error:
                status, text = error.code, error.read().decode()
            assert status in (401, 403), address
            assert run not in text
            assert "src/app.py" not in text


def test_a_stale_page_decides_nothing(house: House) -> None:
    run = house.change().json
    with console(house) as link:
        origin = link.partition("/login")[0]
        opener = sign_in(link)
        with opener.open(f"{origin}/runs/{run['run']}?show=all") as page:
            text = page.read().decode()
        done = house.vestibule("review", run["run"], "--reject", "--reason", "No.", "--json")
        assert done.json["state"] == "rejected"
        fields = dict(re.findall(r'<input[^>]*type="hidden"[^>]*name="([^"]+)"[^>]*value="([^"]*)"', text))
        data = urllib.parse.urlencode({**fields, "choice": "approve", "reason": "Late."}).encode()
        request = urllib.request.Request(f"{origin}/runs/{run['run']}/decision", data, {"Origin": origin})
        with contextlib.suppress(urllib.error.HTTPError), opener.open(request) as page:
            page.read()
    assert house.vestibule("show", run["run"], "--json").json["state"] == "rejected"
    assert house.git("rev-parse", "main") == run["base_commit"]
