"""A real browser in front of a real console: Debian's Chromium, driven by Playwright.

Without Chromium these tests are skipped with a sentence; with `CI=true` its absence is a failure.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "console"))
sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from console_fake import ALICE, NOW, FakeRuns, new_run, sample_view
from screenshots import CHROMIUM_ARGS, find_chromium

from vestibule.console.app import build_console_app
from vestibule.console.server import Server, serve_console
from vestibule.console.sessions import Sessions

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page


class Stage:
    """A console that is being served, and what it shows."""

    def __init__(self) -> None:
        self.run = new_run()
        self.runs = FakeRuns(sample_view(self.run))
        self.sessions = Sessions(ALICE)
        self.server: Server = serve_console(
            lambda origin: build_console_app(
                runs=self.runs,
                decide=self.runs.decide,
                sessions=self.sessions,
                origin=origin,
                clock=lambda: NOW,
                answer=self.runs.answer,
            )
        )

    @property
    def url(self) -> str:
        return self.server.url

    def sign_in(self, page: Page) -> None:
        page.goto(f"{self.url}/login?token={self.sessions.issue_login()}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for a file, not for the session: while Playwright lives, an event loop runs in this thread, and the tests of
    other files could not start theirs.
    """
    program = find_chromium()
    if program is None:
        message = "Chromium is not installed (apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=CHROMIUM_ARGS)
        yield found
        found.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    with made.server:
        yield made


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a page in a context of its own; messages of the browser's console are kept on `page.said`."""
    contexts: list[BrowserContext] = []

    def opened(**options: object) -> Page:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.said = said  # type: ignore[attr-defined]
        return page

    yield opened
    for context in contexts:
        context.close()
