"""Pictures of the running console, for the documentation.

    python tools/screenshots.py [--out docs/img]

Takes the sample the way `make run` does, in a temporary folder and with the scripted provider, answers the agent's
question in the console as a person would (with Chromium, without JavaScript), and photographs the pages on the way.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent))
import main_job

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTH = 1200
TALLEST = 720
"""Pixels; what is below is cut off."""


def find_chromium() -> str | None:
    """The path of an installed Chromium, else None."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Camera:
    """Writes `console-NAME.png` files of one page."""

    def __init__(self, page: Page, out: Path) -> None:
        self._page = page
        self._out = out
        self.written: list[Path] = []

    def take(self, name: str, place: str = "body") -> None:
        """The element `place`, at most TALLEST high."""
        box = self._page.locator(place).first.bounding_box()
        if box is None:
            raise RuntimeError(f"the console shows no {place}")
        top = max(0.0, box["y"] - 12) if place != "body" else 0.0
        tall = min(box["height"] + (24 if place != "body" else 0), TALLEST)
        target = self._out / f"console-{name}.png"
        self._page.screenshot(path=target, full_page=True, clip={"x": 0, "y": top, "width": WIDTH, "height": tall})
        self.written.append(target)


def photograph(link: str, run: str, out: Path) -> list[Path]:
    """Signs in by `link`, answers what `run` asks, and takes pictures up to the decision. Returns the files written."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGS)
        context = browser.new_context(
            viewport={"width": WIDTH, "height": TALLEST}, java_script_enabled=False, color_scheme="light"
        )
        page = context.new_page()
        camera = Camera(page, out)
        page.goto(link)
        page.goto(link.partition("login?")[0])
        camera.take("runs")
        here = f"{page.url}runs/{run}"
        page.goto(here)
        if page.locator("#questions input[value=grant]").count():
            camera.take("question", "#questions")
            page.locator("#questions input[value=grant]").check()
            page.locator("#questions textarea").fill("The rules for addresses are no secret.")
            page.locator("#questions button").click()
        for _ in range(60):
            page.goto(here)
            if page.locator("#decide input[value=approve]").count():
                break
            page.wait_for_timeout(1000)
        else:
            raise RuntimeError("the run did not come to its review gate")
        for name, place in (("run", "body"), ("who", "#identity"), ("diff", "#diff"), ("decide", "#decide")):
            camera.take(name, place)
        browser.close()
    return camera.written


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=main_job.ROOT / "docs" / "img")
    out: Path = parser.parse_args().out
    if find_chromium() is None:
        raise SystemExit("Chromium is not installed: apt-get install chromium")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vestibule-pictures-") as folder:
        main_job.STATE = Path(folder)
        operator = main_job.write_operator_config(scripted=True)
        env = {**os.environ, "VESTIBULE_HOME": f"{folder}/home", "VESTIBULE_CONFIG": str(operator)}
        env.pop("ANTHROPIC_API_KEY", None)
        ticket = str(main_job.ROOT / "examples" / "ticket.md")
        _, run = main_job.vestibule(env, "run", ticket, "--repo", str(main_job.make_sample()), "--json")
        argv = [main_job.vestibule_path(), "console"]
        console = subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True)
        try:
            assert console.stderr is not None
            link = next(found for line in console.stderr if (found := re.search(r"http://\S+/login\?token=\S+", line)))
            for path in photograph(link.group(), str(run["run"]), out):
                sys.stdout.write(f"{path}\n")
        finally:
            console.terminate()
            console.wait(30)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
