"""Pictures of the running console, for the documentation.

    python tools/screenshots.py --url http://127.0.0.1:PORT --token LOGIN_TOKEN --out docs/img
    python tools/screenshots.py --build MODULE:FUNCTION --out docs/img

`--url` with `--token` (a fresh login token) photographs a console that is already up. `--build` names a function
without arguments that returns `(runs, decide, person)` over a given state; this script then serves the console itself.
Each page is taken in light and dark: `console-runs-light.png`, `console-run-light.png` and so on.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium() -> str | None:
    """The path of an installed Chromium, else None."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def take(
    url: str,
    token: str,
    out: Path,
    *,
    runs: Sequence[str] = (),
    schemes: Sequence[str] = ("light", "dark"),
    width: int = 1280,
    height: int = 900,
    full_page: bool = True,
) -> list[Path]:
    """Signs in once and photographs the queue and each of `runs` (without any: the first one listed).

    Returns the files written. Raises RuntimeError when there is no Chromium or the login does not work.
    """
    program = find_chromium()
    if program is None:
        raise RuntimeError("Chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_ARGS)
        context = browser.new_context(viewport={"width": width, "height": height}, java_script_enabled=False)
        page = context.new_page()
        page.goto(f"{url}/login?token={token}")
        links = page.locator("table.queue tbody th a")
        pages = {"runs": "/"}
        wanted = list(runs)
        if not wanted and links.count():
            wanted = [str(links.first.get_attribute("href")).rpartition("/")[2]]
        for number, run in enumerate(wanted):
            pages["run" if number == 0 else f"run-{number + 1}"] = f"/runs/{run}"
        for scheme in schemes:
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            for name, path in pages.items():
                answer = page.goto(url + path)
                if answer is None or answer.status != 200:
                    raise RuntimeError(f"{path} answered {answer.status if answer else 'nothing'}")
                target = out / f"console-{name}-{scheme}.png"
                page.screenshot(path=target, full_page=full_page)
                written.append(target)
        browser.close()
    return written


@contextlib.contextmanager
def served(build: str) -> Iterator[tuple[str, str]]:
    """Serves the console over what `MODULE:FUNCTION` returns; gives its address and a login token."""
    from vestibule.console.app import build_console_app
    from vestibule.console.server import serve_console
    from vestibule.console.sessions import Sessions

    module, _, function = build.partition(":")
    runs, decide, person = getattr(importlib.import_module(module), function)()
    sessions = Sessions(person)
    server = serve_console(lambda origin: build_console_app(runs=runs, decide=decide, sessions=sessions, origin=origin))
    with server:
        yield server.url, sessions.issue_login()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a console that is up")
    parser.add_argument("--token", help="a fresh login token of it")
    parser.add_argument("--build", help="MODULE:FUNCTION that returns (runs, decide, person)")
    parser.add_argument("--run", action="append", default=[], help="a run's id; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("docs/img"))
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--viewport", action="store_true", help="only what fits the window, not the whole page")
    chosen = parser.parse_args()
    if bool(chosen.build) == bool(chosen.url and chosen.token):
        parser.error("give either --build, or --url with --token")
    where = served(chosen.build) if chosen.build else contextlib.nullcontext((chosen.url.rstrip("/"), chosen.token))
    with where as (url, token):
        for path in take(
            url,
            token,
            chosen.out,
            runs=chosen.run,
            width=chosen.width,
            height=chosen.height,
            full_page=not chosen.viewport,
        ):
            sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
