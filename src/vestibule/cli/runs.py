"""`vestibule runs`: the runs there are, the one that changed last at the top."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vestibule.core.runs import RunSummary

_RIGHT = frozenset({"age", "files", "denied", "cost"})
_GAP = 2


@click.command(name="runs", short_help="List runs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(as_json: bool) -> None:
    """List runs, the one that changed last at the top."""
    from vestibule.cli.output import emit_json
    from vestibule.pipeline.reader import Reader
    from vestibule.pipeline.services import Services

    services = Services()
    found = Reader(services).list_runs()
    if as_json:
        emit_json({"runs": [item.model_dump(mode="json") for item in found]})
        return
    if not found:
        print("No runs yet. `vestibule run TICKET` starts one.")
        return
    _show(found)


def _show(found: list[RunSummary]) -> None:
    """Name, state and age always; the rest as the terminal is wide enough. The title takes what is left."""
    from rich.table import Table
    from rich.text import Text

    from vestibule.cli.terminal import Page, styled
    from vestibule.core.money import format_usd

    page = Page()
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    names = ["run", "state", "age", "denied", "cost", "title"]
    if page.width >= 110:
        names[5:5] = ["files", "role", "agent"]
    rows = [
        {
            "run": Text(item.run),
            "state": Text(
                item.state.value.replace("_", " ") + (f", asks {item.questions}" if item.questions else ""),
                style="yellow" if item.questions else state_style(item.state.value),
            ),
            "age": Text(_age(item.updated), style="dim"),
            "denied": Text(str(item.decisions.deny or ""), style="red"),
            "cost": Text(_cost(item, format_usd(item.cost_nano_usd))),
            "files": Text(str(item.changed_files or "")),
            "role": styled(item.role, limit=24),
            "agent": styled(item.agent.name if item.agent else "", limit=24),
            "title": styled(item.title, limit=100),
        }
        for item in found
    ]
    others = [max(len(name), *(row[name].cell_len for row in rows)) for name in names[:-1]]
    left = max(page.width - sum(others) - _GAP * len(others), len("title"))
    for name in names:
        table.add_column(name, justify="right" if name in _RIGHT else "left", no_wrap=True)
    for row in rows:
        row["title"].truncate(left, overflow="ellipsis")
        table.add_row(*(row[name] for name in names))
    page.table(table)
    if any(item.scripted_model and item.cost_nano_usd for item in found):
        page.line(Text("* what a real model would have cost: the answers came from a script", "dim"))


def _cost(item: RunSummary, text: str) -> str:
    if not item.cost_nano_usd:
        return ""
    return text + ("*" if item.scripted_model else " ")


def _age(updated: str) -> str:
    """`now`, `5m`, `3h`, `12d`."""
    from datetime import UTC, datetime

    from vestibule.core.clock import parse_rfc3339

    seconds = int((datetime.now(UTC) - parse_rfc3339(updated)).total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return "now"


def state_style(state: str) -> str:
    """A colour that says the same as the word."""
    if state in ("merged", "approved"):
        return "green"
    if state in ("refused", "failed", "rejected", "expired", "rolled_back"):
        return "red"
    return "yellow" if state.startswith("awaiting") or state == "changes_requested" else ""
