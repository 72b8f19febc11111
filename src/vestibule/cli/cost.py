"""`vestibule cost`: what was spent, its exports, and whether the provider bills the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from vestibule.cost.reconcile import Reconciliation
    from vestibule.cost.report import BudgetLine, CostLine
    from vestibule.store.database import Database

_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?Z)?\Z", re.ASCII)


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    """A UTC day or moment as the ledger writes it; "" for none."""
    from datetime import UTC, datetime

    from vestibule.core.clock import rfc3339

    if value is None:
        return ""
    try:
        if not _MOMENT.match(value):
            raise ValueError
        return rfc3339(datetime.fromisoformat(value).replace(tzinfo=UTC))
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is no UTC day or moment such as 2026-01-31 or 2026-01-31T15:00Z", ctx, param
        ) from None


def _span(command: Callable[..., Any]) -> Callable[..., Any]:
    since = click.option("--since", callback=_moment, metavar="DAY", help="From this UTC day or moment on.")
    until = click.option("--until", callback=_moment, metavar="DAY", help="Up to this UTC day or moment, without it.")
    return since(until(command))


@click.group(invoke_without_command=True)
@click.option(
    "--by",
    type=click.Choice(["agent", "agent-version", "role", "model", "run", "repository", "provider", "day"]),
    default="run",
    show_default=True,
    help="One line for each of these.",
)
@_span
@click.option("--budgets", is_flag=True, help="Also the ceilings that hold now, with what is spent and reserved.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "prometheus"]),
    default="table",
    show_default=True,
    help="prometheus: all metrics as text, for node_exporter's textfile collector.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object; money in nano-USD.")
@click.pass_context
def command(ctx: click.Context, by: str, since: str, until: str, budgets: bool, form: str, as_json: bool) -> None:
    """What was spent on models, as the gateway counted it.

    Prices are exact: a request costs what the provider's own count of its tokens costs by the price table.
    """
    if ctx.invoked_subcommand is not None:
        return
    from vestibule.cli.output import emit_json
    from vestibule.core import clock
    from vestibule.core.model import Usage
    from vestibule.cost.report import DIMENSIONS, CostLine, budget_lines, cost_lines

    with _database() as db:
        if form == "prometheus":
            if as_json or since or until or budgets:
                raise click.UsageError("--format prometheus has no further options: metrics are of everything.")
            from vestibule.pipeline.metrics import metrics_here

            click.echo(metrics_here(db).page(), nl=False)
            return
        dimension = next(item for item in DIMENSIONS if item == by)
        lines = cost_lines(db, dimension, since=since, until=until)
        ceilings = budget_lines(db, now=clock.now()) if budgets else []
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
                **({"budgets": [line.model_dump(mode="json") for line in ceilings]} if budgets else {}),
            }
        )
        return
    if not lines:
        click.echo("Nothing was spent in this time." if since or until else "Nothing was spent yet.")
    else:
        # Runs are not summed: one run may stand in several lines.
        _table(by, [*lines, CostLine(name="total", runs=0, usage=total)])
    if budgets:
        _budgets(ceilings)


@command.command("export")
@click.option("--focus", "form", flag_value="focus", help="FOCUS cost and usage rows as CSV.")
@click.option("--otlp", "form", flag_value="otlp", help="OpenTelemetry metrics as OTLP/JSON lines.")
@click.option("--otlp-spans", "form", flag_value="otlp-spans", help="A span for each request as OTLP/JSON lines.")
@click.option("--version", "version", type=click.Choice(["1.2"]), default="1.2", show_default=True, help="Of FOCUS.")
@click.option(
    "--semconv",
    type=click.Choice(["1.41", "genai"]),
    default="1.41",
    show_default=True,
    help="Generation of OpenTelemetry's GenAI conventions.",
)
@click.option("--account", default="", metavar="ID", help="FOCUS BillingAccountId (default: the provider's name).")
@_span
def export(form: str | None, version: str, semconv: str, account: str, since: str, until: str) -> None:  # noqa: ARG001
    """Spend for other programs, on stdout.

    \b
    vestibule cost export --focus --since 2026-01-01 --until 2026-02-01 >january.csv
    """
    import json
    from datetime import UTC, datetime

    from vestibule.cost.focus import focus_csv
    from vestibule.cost.otel import CONVENTIONS, metrics_request, span_requests
    from vestibule.cost.spend import read_spends

    if form is None:
        raise click.UsageError("Say what to export: --focus, --otlp or --otlp-spans.")
    with _database() as db:
        spends = read_spends(db, since=since, until=until)
        lines: Iterator[str]
        if form == "focus":
            lines = focus_csv(spends, _tags(db), account=account)
        elif form == "otlp":
            request = metrics_request(spends, CONVENTIONS[semconv], datetime.now(UTC))
            lines = iter((json.dumps(request) + "\n",))
        else:
            lines = (json.dumps(request) + "\n" for request in span_requests(spends, CONVENTIONS[semconv]))
        for line in lines:
            click.echo(line, nl=False)


@command.command("reconcile")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--provider", type=click.Choice(["anthropic", "openai"]), required=True, help="Whose report FILE is.")
@click.option("--as", "name", default="", metavar="NAME", help="The provider's name in the operator's configuration.")
@click.option(
    "--tolerance",
    type=click.IntRange(0, 1000),
    default=10,
    show_default=True,
    metavar="PER_MILLE",
    help="How much of the larger side may differ.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def reconcile_command(file: Path, provider: str, name: str, tolerance: int, as_json: bool) -> int:
    """Compare a provider's usage or cost report with what the gateway counted, by UTC day and model.

    FILE is the JSON answer of the provider's own API, all pages joined: Anthropic's messages usage report (grouped by
    model) or cost report, OpenAI's completions usage (grouped by model) or costs. Exit code 6 when they differ.
    """
    from vestibule.cli.output import emit_json
    from vestibule.core.errors import OK, VERIFICATION_FAILED
    from vestibule.cost.bills import anthropic, openai
    from vestibule.cost.reconcile import Tolerance, reconcile
    from vestibule.cost.spend import read_spends

    bill = {"anthropic": anthropic, "openai": openai}[provider].read(_read(file))
    wanted = name or provider
    first, last = (min(bill.days), max(bill.days)) if bill.days else ("9999", "0000")
    with _database() as db:
        spends = (item for item in read_spends(db, since=first, until=last + "U") if item.provider == wanted)
        found = reconcile(bill, spends, Tolerance(per_mille=tolerance))
    if as_json:
        emit_json({"provider": wanted, **found.model_dump(mode="json")})
    else:
        _differences(found)
    return OK if found.ok else VERIFICATION_FAILED


def _read(file: Path) -> bytes:
    from vestibule.core.errors import UsageError
    from vestibule.cost.bills.base import MAX_BYTES

    try:
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{file} cannot be read.", why=error.strerror or "") from None


@contextmanager
def _database() -> Iterator[Database]:
    from vestibule.config.load import state_dir
    from vestibule.store.database import Database

    db = Database.open(state_dir())
    try:
        yield db
    finally:
        db.close()


def _tags(db: Database) -> Callable[[str], dict[str, str]]:
    """What a run's row adds to the tags of its spend."""
    from vestibule.pipeline.record import RunStore

    store = RunStore(db)

    def tags(run: str) -> dict[str, str]:
        record = store.find(run)
        if record is None:
            return {}
        return {"requester": record.requester, "pull_request": record.branch, "state": record.state.value}

    return tags


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


def _budgets(lines: list[BudgetLine]) -> None:
    from rich.table import Table

    from vestibule.cli.terminal import Page, styled
    from vestibule.core.money import format_usd

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("budget", overflow="fold")
    for name in ("window", "spent", "reserved", "limit", "tokens", "token limit"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(
            styled(f"{line.scope} {line.name}"),
            line.window,
            format_usd(line.spent_nano_usd),
            format_usd(line.held_nano_usd),
            "" if line.limit_nano_usd is None else format_usd(line.limit_nano_usd),
            f"{line.spent_tokens + line.held_tokens:,}",
            "" if line.limit_tokens is None else f"{line.limit_tokens:,}",
        )
    click.echo("")
    Page().table(table)


def _differences(found: Reconciliation) -> None:
    from rich.table import Table

    from vestibule.cli.terminal import Page, styled
    from vestibule.core.money import format_usd

    def shown(what: str, number: int) -> str:
        return format_usd(number) if what == "nano_usd" else f"{number:,}"

    if found.differences:
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("day", no_wrap=True)
        table.add_column("model", overflow="fold")
        for name in ("what", "counted", "billed"):
            table.add_column(name, justify="right", no_wrap=True)
        for item in found.differences:
            what = "cost" if item.what == "nano_usd" else item.what.replace("_", " ")
            cells = (shown(item.what, item.counted), shown(item.what, item.billed))
            table.add_row(item.day, styled(item.model or "all models"), what, *cells)
        Page().table(table)
    days = f"{found.days[0]} to {found.days[-1]}" if found.days else "no day"
    counted = f"counted {format_usd(found.counted_nano_usd)} and {found.counted_tokens:,} tokens"
    billed = [] if found.billed_nano_usd is None else [format_usd(found.billed_nano_usd)]
    billed += [] if found.billed_tokens is None else [f"{found.billed_tokens:,} tokens"]
    click.echo(f"{days}: {counted}, billed {' and '.join(billed) or 'nothing'}.")
    if found.other_nano_usd:
        click.echo(f"Also billed, for what is not tokens: {format_usd(found.other_nano_usd)}.")
    if found.charged_holds:
        upper = format_usd(found.charged_nano_usd)
        click.echo(f"{found.charged_holds} requests told no usage and are counted at most: {upper}.")
    if found.open_requests:
        click.echo(f"{found.open_requests} requests of these days are still open.")
    verdict = "They agree" if found.ok else f"{len(found.differences)} of {found.compared} numbers differ"
    click.echo(f"{verdict} (tolerance {found.tolerance.per_mille} per mille).")
