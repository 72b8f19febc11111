"""`vestibule trust`: what each agent version has earned, and a person's applying of the next step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vestibule.pipeline.trust import Standing, TrustBook

_REPO = click.option(
    "--repo", type=click.Path(path_type=Path), default=Path(), show_default=True, help="The repository."
)
_BASE = click.option("--base", default="", metavar="REF", help="Read the configuration from REF.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


@click.group(invoke_without_command=True, short_help="The record of each agent, and the step it proposes.")
@_REPO
@_BASE
@_JSON
@click.pass_context
def command(ctx: click.Context, repo: Path, base: str, as_json: bool) -> None:
    """The record of each agent version per role, and the step up or back that it proposes.

    The record comes from the audit log. Nothing is applied by itself: `vestibule trust apply` writes the step into
    .vestibule/trust.yaml, and it counts once a person has committed that on the base branch.
    """
    if ctx.invoked_subcommand is not None:
        return
    from vestibule.cli.output import emit_json

    book = _book(repo, base)
    records = book.records()
    standings = book.standings(records)
    if as_json:
        emit_json(
            {
                "records": [item.model_dump(mode="json") for item in records],
                "standings": [item.model_dump(mode="json") for item in standings],
                "terms": book.terms.model_dump(mode="json"),
            }
        )
        return
    if not records:
        click.echo("No agent has worked in this repository yet.")
        return
    _show(book, standings)


@command.command(name="apply", short_help="Write a step for a person to commit.")
@click.argument("agent")
@click.argument("ladder")
@click.argument("role")
@click.option("--version", default="", help="The agent version, where several have worked.")
@click.option("--reason", required=True, help="Why; it stands in the file and in the log.")
@click.option("--anyway", is_flag=True, help="Although the record does not propose it.")
@_REPO
@_BASE
@_JSON
def apply(
    agent: str, ladder: str, role: str, version: str, reason: str, anyway: bool, repo: Path, base: str, as_json: bool
) -> None:
    """Put AGENT on the rung ROLE of LADDER: writes .vestibule/trust.yaml, for you to look at and commit."""
    from vestibule.cli.output import emit_json

    book = _book(repo, base)
    path, before = book.apply(agent, ladder, role, version=version, reason=reason, anyway=anyway)
    book.services.remember_head()
    if as_json:
        emit_json({"file": str(path), "before": before.model_dump(mode="json"), "role": role})
        return
    click.echo(f"Wrote {path}. It counts once it is committed on the base branch; look at it with `git diff`.")


def _book(repo: Path, base: str) -> TrustBook:
    from vestibule.git import Git
    from vestibule.pipeline.prepare import resolve_base
    from vestibule.pipeline.services import Services
    from vestibule.pipeline.trust import TrustBook

    git = Git.open(repo)
    target, commit = resolve_base(git, base)
    return TrustBook(Services(), git, commit, target)


def _show(book: TrustBook, standings: list[Standing]) -> None:
    from rich.table import Table
    from rich.text import Text

    from vestibule.cli.terminal import Page, styled
    from vestibule.core.text.sanitize import one_line

    page = Page()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("agent version", overflow="fold")
    table.add_column("role")
    names = ["runs", "clean", "in a row", "rework", "rejected", "refused", "denied", "held", "rolled back"]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for item in book.records():
        figures = [
            item.runs,
            item.clean,
            item.streak,
            item.rework,
            item.rejected,
            item.refused,
            item.denials,
            item.holds,
            item.rollbacks,
        ]
        table.add_row(
            styled(f"{item.agent} {item.version}", limit=100),
            styled(item.role, limit=24),
            *(str(value or "") for value in figures),
        )
    page.table(table)
    if any(item.scripted for item in book.records()):
        page.line(Text("Runs whose model was a script are not counted.", "dim"))
    for standing in standings:
        next_ = standing.proposal
        words = {"up": "up to", "back": "back to", "stay": "stays on"}[next_.step]
        name = one_line(standing.agent, 64)
        where = f"rung {standing.rung + 1} of {standing.rungs} ({standing.role})"
        page.line(Text(f"{name}, ladder {standing.ladder}: {where}; {words} {next_.role}: {next_.why}"))
        if next_.step != "stay":
            page.line(Text(f"  vestibule trust apply {name} {standing.ladder} {next_.role} --reason …", "bold"))
