"""`vestibule runs`: the runs there are, newest first."""

from __future__ import annotations

import click


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
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vestibule.core.money import format_usd
    from vestibule.core.text.sanitize import one_line

    if not found:
        print("No runs yet. `vestibule run TICKET` starts one.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "state", "title", "role", "agent", "files", "denied", "cost", "updated"):
        right = name in ("files", "denied", "cost")
        table.add_column(name, justify="right" if right else "left", no_wrap=name in ("run", "state", "updated"))
    for item in found:
        table.add_row(
            item.run,
            Text(item.state.value.replace("_", " "), style=state_style(item.state.value)),
            Text(one_line(item.title, 48)),
            item.role,
            Text(one_line(item.agent.name if item.agent else "", 20)),
            str(item.changed_files),
            str(item.decisions.deny),
            format_usd(item.cost_nano_usd) + (" scripted" if item.scripted_model else ""),
            item.updated[:16].replace("T", " "),
        )
    Console(highlight=False).print(table)


def state_style(state: str) -> str:
    """A colour that says the same as the word."""
    if state in ("merged", "approved"):
        return "green"
    if state in ("refused", "failed", "rejected", "expired", "rolled_back"):
        return "red"
    return "yellow" if state.startswith("awaiting") or state == "changes_requested" else ""
