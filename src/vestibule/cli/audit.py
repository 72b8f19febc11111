"""`vestibule audit`: verify, show and export the audit log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vestibule.cli.output import emit_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vestibule.audit.entry import Entry
    from vestibule.audit.report import Verification

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_RUN = click.option("--run", "run", metavar="RUN", help="Only this run's entries.")
_DIR = click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))


@click.group()
def command() -> None:
    """Verify, show and export the audit log.

    The log is append-only: every decision is in it before its effect. Verification is offline and complete.
    """


@command.command()
@_DIR
@click.option(
    "--repo", metavar="DIR", type=click.Path(path_type=Path), help="Also check the checkpoints in its merge commits."
)
@click.option(
    "--key", "keys", metavar="VKEY", multiple=True, help="The log's verifying key, instead of the pinned one."
)
@click.option("--no-remember", is_flag=True, help="Do not remember the verified head for the next time.")
@_JSON
def verify(folder: Path | None, repo: Path | None, keys: tuple[str, ...], no_remember: bool, as_json: bool) -> int:
    """Verify the log in DIR, or an export, offline and completely.

    DIR is an audit folder, a state folder, or a file made by `export`; without it, this installation's log. The key is
    the pinned one or --key, never one found in the log. Exit code 0, or 6 when something does not hold.
    """
    import os

    from vestibule.audit.verify import verify as verify_log
    from vestibule.config.load import config_dir

    trust = config_dir(os.environ) / "trust"
    target = folder if folder is not None else _state()
    if target.is_file():
        result = _verify_file(target, trust, keys)
    else:
        result = verify_log(target, trust, keys=keys, repo=repo, remember=not no_remember)
    if as_json:
        emit_json(result.as_json())
    else:
        _print_result(result)
    return 0 if result.ok else 6


@command.command()
@_DIR
@_RUN
@click.option("--after", metavar="SEQ", type=click.IntRange(min=0), default=0, help="Only entries after this one.")
@_JSON
def show(folder: Path | None, run: str | None, after: int, as_json: bool) -> None:
    """Show entries in order. What an agent wrote is made visible, never interpreted."""
    from vestibule.audit.log import read_entries

    entries = read_entries(_audit_folder(folder), run, after)
    if as_json:
        emit_json({"events": [entry.as_json() for entry in entries]})
    else:
        _print_entries(entries)


@command.command()
@_DIR
@_RUN
def export(folder: Path | None, run: str | None) -> None:
    """Write entries with their proofs to stdout, as JSON Lines under one signed checkpoint.

    `vestibule audit verify FILE` checks them anywhere.
    """
    import sys

    from vestibule.audit.export import export as lines

    for line in lines(_audit_folder(folder), run):
        sys.stdout.buffer.write(line.encode("utf-8"))
    sys.stdout.buffer.flush()


def _state() -> Path:
    from vestibule.config.load import state_dir

    return state_dir()


def _audit_folder(folder: Path | None) -> Path:
    import os

    from vestibule.audit.trust import Trust
    from vestibule.audit.verify import find_log
    from vestibule.config.load import config_dir

    return find_log(folder if folder is not None else _state(), Trust(config_dir(os.environ) / "trust"))


def _verify_file(path: Path, trust: Path, keys: tuple[str, ...]) -> Verification:
    from vestibule.audit.export import verify_export
    from vestibule.audit.verify import given_keys

    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        return verify_export(file, trust, keys=given_keys(keys))


def _print_result(result: Verification) -> None:
    from rich.text import Text

    from vestibule.cli.terminal import Page, styled

    page = Page()
    if result.ok:
        page.line(Text("✓ The audit log holds.", style="bold green"))
    else:
        page.line(Text("✗ The audit log does not hold.", style="bold red"))
    if result.size:
        page.line(f"  {result.size:,} entries signed by ", styled(result.origin), hang=2)
        page.whole(Text(f"  root {result.root}", style="dim"))
    for title, items, style in (("Problems", result.problems, "red"), ("Notices", result.notices, "yellow")):
        if items:
            page.title(title)
        for item in items:
            page.line(Text(f"  {item.rule}  ", style=style), styled(item.message, limit=400), hang=4)
            if item.next:
                page.line("    next: ", styled(item.next, "dim", limit=400), hang=10)
    for title, lines in (("It would have seen", result.detects), ("It cannot see", result.does_not_detect)):
        if lines:
            page.title(title)
        for line in lines:
            page.line(Text(f"  · {line}", style="dim"), hang=4)


def _print_entries(entries: Iterable[Entry]) -> None:
    from rich.text import Text

    from vestibule.cli.terminal import Page
    from vestibule.core.text.sanitize import one_line

    page = Page()
    run = None
    for entry in entries:
        event = entry.event
        if event.run != run:
            run = event.run
            page.whole(Text(f"run {one_line(run, 80)}" if run else "no run", style="bold"))
        if event.phase == "intent":
            word = event.verdict.value if event.verdict else "note"
        else:
            word = f"→ {event.result}"
        style = _STYLES.get(word, "")
        line = Text(f"{entry.seq:>7}  {entry.time[11:23]}  ", style="dim")
        line.append(f"{word:<9}", style=style)
        line.append(f" {event.subject:<7} {one_line(event.action, 40):<16} ", style="default")
        line.append(one_line(event.resource, 100), style="cyan" if event.phase == "intent" else "dim")
        if event.phase == "outcome":
            line.append(f"  of {event.intent}", style="dim")
        elif event.reasons and word != "allow":
            line.append(f"  {one_line(', '.join(event.reasons), 120)}", style=style)
        page.whole(line)


_STYLES = {
    "allow": "green",
    "hold": "yellow",
    "deny": "bold red",
    "→ ok": "green",
    "→ failed": "red",
    "→ unknown": "yellow",
}
