"""`vestibule agents pause|release|paused`: new work of an agent version, stopped and let go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from vestibule.pipeline.pause import PauseBook
    from vestibule.pipeline.pause_rules import Standing

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
_REASON = click.option("--reason", required=True, help="Why; it stands in the log.")


@click.command(
    short_help="Let an agent version start no new work.",
    epilog="Exit codes: 0 paused · 2 no such version, or paused already · 4 policy refuses.",
)
@click.argument("version")
@_REASON
@_JSON
def pause(version: str, reason: str, *, as_json: bool) -> None:
    """Pause VERSION: no new run or round of it starts, its open changes are held, its roles go back to their last
    good version. `vestibule agents release` undoes all of it.
    """
    from vestibule.cli.output import emit_json

    book = _book()
    standing = book.pause(version, reason)
    told = _told(book, standing)
    book.services.close()
    if as_json:
        emit_json(told)
        return
    click.echo(f"New work of {told['version']} is paused.")
    _show(told)


@click.command(
    short_help="Undo a pause: new work, held changes, returned roles.",
    epilog="Exit codes: 0 released · 2 it is not paused · 4 policy refuses.",
)
@click.argument("version")
@_REASON
@_JSON
def release(version: str, reason: str, *, as_json: bool) -> None:
    """Let VERSION work again, whoever paused it. Its changes wait for their review as before, and its roles use it.

    What it spent so far is not held against it again.
    """
    from vestibule.cli.output import emit_json

    book = _book()
    released, changes = book.release(version, reason)
    book.services.close()
    if as_json:
        emit_json(
            {"version": version, "paused": False, "release": released.model_dump(mode="json"), "changes": changes}
        )
        return
    click.echo("New work of it may start again.")
    for run in changes:
        click.echo(f"  The change of run {run} is held no more.")


@click.command(
    short_help="Which agent versions are paused, and why.",
    epilog="Exit codes: 0 listed · 4 log or database is down.",
)
@_JSON
def paused(*, as_json: bool) -> None:
    """Each agent version whose new work is paused: since when, by whom, on what evidence, and which changes wait."""
    from vestibule.cli.output import emit_json

    book = _book()
    told = [_told(book, item) for item in book.paused()]
    book.services.close()
    if as_json:
        emit_json({"paused": told})
        return
    if not told:
        click.echo("No agent version is paused.")
    for item in told:
        click.echo(item["version"])
        _show(item)


def _book() -> PauseBook:
    from vestibule.pipeline.pause import PauseBook
    from vestibule.pipeline.services import Services

    return PauseBook(Services())


def _told(book: PauseBook, standing: Standing) -> dict[str, Any]:
    found = standing.pause
    return {
        "version": standing.version,
        "paused": standing.paused,
        "problem": standing.problem,
        "pause": found.model_dump(mode="json") if found else None,
        "changes": [record.id for record in book.open_changes(standing.version)],
    }


def _show(told: dict[str, Any]) -> None:
    from vestibule.core.text.sanitize import show_hidden

    if told["problem"]:
        click.echo(f"  Log and database do not agree: {told['problem']}.")
    found = told["pause"]
    if found:
        click.echo(show_hidden(f"  since {found['time']} by {found['by']}: {found['reason']}"))
        for good in found["returns"]:
            where = f"{good['role']} in {good['repo']}"
            back = f"goes back to {good['version']}" if good["version"] else "has no last good version"
            click.echo(show_hidden(f"  The role {where} {back}."))
    for run in told["changes"]:
        click.echo(f"  The change of run {run} is held.")
