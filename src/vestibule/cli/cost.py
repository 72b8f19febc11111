"""`vestibule cost`: what was spent."""

from __future__ import annotations

import click


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


def _table(by: str, lines: list[object]) -> None:
    from rich.console import Console
    from rich.table import Table

    from vestibule.core.money import format_usd
    from vestibule.core.text.sanitize import show_hidden
    from vestibule.cost.report import CostLine

    table = Table(box=None, pad_edge=False)
    table.add_column(by)
    for name in ("cost", "reserved", "requests", "input", "output", "cache read", "cache write"):
        table.add_column(name, justify="right")
    for line in lines:
        assert isinstance(line, CostLine)  # noqa: S101 narrows for the type checker
        usage = line.usage
        cost = format_usd(usage.cost_nano_usd) + (" (at most)" if line.charged_holds else "")
        table.add_row(
            show_hidden(line.name),
            cost,
            format_usd(line.held_nano_usd) if line.held_nano_usd else "",
            *(
                f"{count:,}"
                for count in (
                    usage.requests,
                    usage.input_tokens,
                    usage.output_tokens,
                    usage.cache_read_tokens,
                    usage.cache_write_tokens,
                )
            ),
        )
    Console(highlight=False, markup=False, soft_wrap=True).print(table)
