"""`vestibule show`: one run with decisions, findings, usage and timeline, pleasant to read in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from vestibule.core.runs import RunView
    from vestibule.pipeline.record import RunRecord
    from vestibule.pipeline.services import Services


@click.command(name="show", short_help="One run: decisions, findings, usage, timeline.")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.option("--diff", is_flag=True, help="Show the change as well.")
def command(run: str, as_json: bool, diff: bool) -> None:
    """Show RUN (an id, or the unambiguous beginning of one)."""
    from vestibule.cli.output import emit_json
    from vestibule.pipeline.drive import Driver
    from vestibule.pipeline.reader import Reader
    from vestibule.pipeline.services import Services

    services = Services()
    record = Driver(services).expire(services.runs.get(run))
    reader = Reader(services)
    if as_json:
        emit_json(reader.as_json(record.id))
        return
    view = reader.get_run(record.id)
    if view is None:
        return
    console = _console()
    _head(console, view, record)
    _findings(console, view)
    if diff:
        from vestibule.core.text.sanitize import show_hidden

        console.print()
        console.print(show_hidden(view.patch.decode("utf-8", "replace")), markup=False, highlight=False)
    _timeline(console, view)
    _decisions(console, view)


def print_summary(services: Services, record: RunRecord) -> None:
    """What `run`, `review` and `resume` say at the end."""
    from vestibule.pipeline.reader import Reader

    view = Reader(services).get_run(record.id)
    if view is None:
        return
    console = _console()
    _head(console, view, record)
    _findings(console, view)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def _text(value: str, style: str = "", limit: int = 300) -> Any:
    from rich.text import Text

    from vestibule.core.text.sanitize import one_line

    return Text(one_line(value, limit), style=style)


def _head(console: Console, view: RunView, record: RunRecord) -> None:
    from rich.table import Table
    from rich.text import Text

    from vestibule.cli.runs import state_style
    from vestibule.core.money import format_usd
    from vestibule.pipeline.drive import message_of

    console.print(
        Text.assemble(
            (f"run {view.run}  ", "bold"), (view.state.value.replace("_", " "), state_style(view.state.value))
        )
    )
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("task", _text(view.title))
    agent = view.task.agent if view.task else record.agent
    scripted = "  (scripted model: answers come from a script, not from a model)" if view.scripted_model else ""
    table.add_row("agent", _text(f"{agent.version}{scripted}"))
    table.add_row("role", _text(f"{record.role}, asked for by {view.requester}"))
    if view.changed_files:
        names = ", ".join(view.changed_files[:6]) + (" …" if len(view.changed_files) > 6 else "")
        table.add_row("change", _text(f"{len(view.changed_files)} file(s): {names}"))
    if view.branch:
        table.add_row("branch", _text(f"{view.branch} → {view.target.removeprefix('refs/heads/')}"))
    counts = view.counts
    table.add_row("decided", f"{counts.allow} allowed, {counts.hold} held, {counts.deny} denied")
    usage = view.usage
    if usage.requests:
        tokens = f"{usage.input_tokens} in, {usage.output_tokens} out"
        table.add_row("spent", f"{format_usd(usage.cost_nano_usd)} in {usage.requests} request(s), {tokens} tokens")
    if view.walls:
        up = [name for name, wall in view.walls.walls.items() if wall.state == "up"]
        table.add_row("walls", f"{view.walls.tier}: {', '.join(up)}")
    if view.audit:
        table.add_row("log", f"{view.audit.origin} at {view.audit.size} entries")
    table.add_row("now", _text(message_of(record), limit=600))
    console.print(table)
    for item in view.refusals[:10]:
        console.print(Text.assemble(("  refused ", "red"), _text(f"{item.rule}: {item.reason} {item.fact}")))


def _findings(console: Console, view: RunView) -> None:
    from rich.text import Text

    for item in view.findings:
        place = f"{item.place.path}:{item.place.line}" if item.place and item.place.line else ""
        place = place or (item.place.path if item.place else "")
        style = {"deny": "red", "hold": "yellow"}.get(item.verdict.value, "dim")
        console.print(
            Text.assemble((f"  {item.verdict.value:5} ", style), _text(f"{item.rule}  {place}  {item.message}"))
        )


def _timeline(console: Console, view: RunView) -> None:
    from rich.table import Table

    console.print("\ntimeline", style="bold")
    table = Table.grid(padding=(0, 1))
    results = {event.intent: event.result for event in view.events if event.phase == "outcome"}
    for event in view.events:
        if event.phase != "intent":
            continue
        ruling = event.verdict.value if event.verdict else ""
        style = {"allow": "green", "deny": "red", "hold": "yellow"}.get(ruling, "")
        result = results.get(event.seq, "")
        reasons = "" if ruling == "allow" else ", ".join(event.reasons)
        table.add_row(
            _text(event.time[11:23], "dim"),
            _text(event.subject, "dim"),
            _text(event.action),
            _text(event.resource, limit=70),
            _text(ruling, style),
            _text("" if result in ("ok", "") else result, "yellow"),
            _text(reasons, "dim"),
        )
    console.print(table)


def _decisions(console: Console, view: RunView) -> None:
    if not view.decisions:
        return
    console.print("\nreviews", style="bold")
    for item in view.decisions:
        mark = " (self-reviewed)" if item.self_review else ""
        console.print(_text(f"  {item.time[:19]} {item.person.id}{mark}: {item.choice}. {item.reason}", limit=1000))
