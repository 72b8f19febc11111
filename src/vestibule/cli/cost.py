"""`vestibule cost`: what was spent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vestibule.cost.report import CostLine


@click.command()
@click.option(
    "--by",
    type=click.Choice(["agent", "agent-version", "role", "model", "run"]),
    default="run",
    show_default=True,
    help="One line for each of these.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object; money in nano-USD.")
def command(by: str, as_json: bool) -> None:
    """What was spent on models, as the gateway counted it."""
    from vestibule.cli.output import emit_json
    from vestibule.config.load import state_dir
    from vestibule.core.model import Usage
    from vestibule.cost.report import DIMENSIONS, CostLine, cost_lines
    from vestibule.store.database import Database

    dimension = next(item for item in DIMENSIONS if item == by)
    db = Database.open(state_dir())
    try:
        lines = cost_lines(db, dimension)
    finally:
        db.close()
    total = Usage()
    for line in lines:
        total = total.plus(line.usage)
    if as_json:
        emit_json(
            {
                "by": by,
                "lines": [line.model_dump(mode="json") for line in lines],
                "total": total.model_dump(mode="json"),
                "held_nano_usd": sum(line.held_nano_usd for line in lines),
            }
        )
        return
    if not lines:
        click.echo("Nothing was spent yet.")
        return
    _table(by, [*lines, CostLine(name="total", runs=sum(line.runs for line in lines), usage=total)])


def _table(by: str, lines: list[CostLine]) -> None:
    from rich.table import Table

    from vestibule.cli.terminal import Page, styled
    from vestibule.core.money import format_usd

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(by, overflow="fold")
    reserved = any(line.held_nano_usd for line in lines)
    names = ["cost", *(["reserved"] if reserved else []), "requests", "input", "output", "cache read", "cache write"]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        usage = line.usage
        cells = {
            "cost": format_usd(usage.cost_nano_usd) + (" at most" if line.charged_holds else ""),
            "reserved": format_usd(line.held_nano_usd) if line.held_nano_usd else "",
            "requests": f"{usage.requests:,}",
            "input": f"{usage.input_tokens:,}",
            "output": f"{usage.output_tokens:,}",
            "cache read": f"{usage.cache_read_tokens:,}",
            "cache write": f"{usage.cache_write_tokens:,}",
        }
        table.add_row(styled(line.name), *(cells[name] for name in names))
    Page().table(table)
