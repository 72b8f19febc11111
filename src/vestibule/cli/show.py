"""`vestibule show`: one run with decisions, findings, usage and timeline, pleasant to read in a terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vestibule.cli.terminal import Page
    from vestibule.core.runs import RunView, TimelineEvent
    from vestibule.pipeline.record import RunRecord
    from vestibule.pipeline.services import Services

_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_STYLES = {"allow": "green", "deny": "red", "hold": "yellow"}
FIRST, LAST = 40, 160
"""Entries of a long timeline that are shown from its beginning and its end."""


@click.command(name="show", short_help="One run: decisions, findings, usage, timeline.")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.option("--diff", is_flag=True, help="Show the change as well.")
@click.option("--all", "whole", is_flag=True, help="Leave nothing of a long timeline out.")
def command(run: str, as_json: bool, diff: bool, whole: bool) -> None:
    """Show RUN (an id, or the unambiguous beginning of one)."""
    from vestibule.cli.output import emit_json
    from vestibule.cli.terminal import Page
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
    page = Page()
    _head(page, view, record)
    _refusals(page, view)
    _findings(page, view)
    _learned(page, record)
    if diff:
        _diff(page, view)
    _questions(page, view, every=True)
    _timeline(page, view, whole=whole)
    _reviews(page, view)


def print_summary(services: Services, record: RunRecord) -> None:
    """What `run`, `review` and `resume` say at the end."""
    from vestibule.cli.terminal import Page
    from vestibule.pipeline.reader import Reader

    view = Reader(services).get_run(record.id)
    if view is None:
        return
    page = Page()
    _head(page, view, record)
    _refusals(page, view)
    _findings(page, view)
    _questions(page, view, every=False)
    _learned(page, record)
    page.whole(f"{'more':<10}vestibule show {view.run}")


def _head(page: Page, view: RunView, record: RunRecord) -> None:
    from rich.text import Text

    from vestibule.cli.runs import state_style
    from vestibule.cli.terminal import styled
    from vestibule.core.money import format_usd

    state = view.state.value
    page.line(Text(f"run {view.run}  ", "bold"), Text(state.replace("_", " "), f"bold {state_style(state)}".strip()))
    page.row("task", styled(view.title))
    page.row("agent", styled((view.task.agent if view.task else record.agent).version))
    if view.scripted_model:
        page.row("", Text("Its model is scripted: answers come from a script, not from a model.", "yellow"))
    page.row("role", styled(f"{record.role}, asked for by {view.requester}"))
    page.row("has read", styled(f"{view.label.integrity.value} integrity, {view.label.confidentiality.value}"))
    if view.changed_files:
        more = f" and {len(view.changed_files) - 6} more" if len(view.changed_files) > 6 else ""
        page.row(
            "change", styled(_count(len(view.changed_files), "file") + ": " + ", ".join(view.changed_files[:6])), more
        )
    if view.branch:
        page.row("branch", styled(f"{view.branch} → {view.target.removeprefix('refs/heads/')}"))
    counts = view.counts
    page.row("decided", f"{counts.allow} allowed, {counts.hold} held, {counts.deny} denied")
    usage = view.usage
    if usage.requests:
        cached = f", {usage.cache_read_tokens:,} from cache" if usage.cache_read_tokens else ""
        page.row(
            "spent",
            f"{format_usd(usage.cost_nano_usd)} in {_count(usage.requests, 'request')}: "
            f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out{cached}",
        )
    for words in _reached(record):
        page.row("reached", styled(words))
    if view.walls:
        up = [name for name, wall in view.walls.walls.items() if wall.state == "up"]
        page.row("walls", f"{', '.join(up)} ({view.walls.tier})")
    for check in view.checks:
        style = {"passed": "green", "failed": "red"}.get(check.result, "dim")
        page.row("check", styled(check.name, limit=200), "  ", Text(check.result, style))
    page.row("now", styled(_now(record)))
    step = _next_step(view)
    if step:
        page.whole(Text.assemble(Text(f"{'next':<10}", "dim"), step))


def _reached(record: RunRecord) -> list[str]:
    """What left the sandbox, one line a name."""
    found: dict[str, list[int]] = {}
    for row in record.network.connections if record.network else ():
        if row.verdict == "allow":
            counts = found.setdefault(row.key, [0, 0, 0])
            for index, value in enumerate((row.count, row.sent, row.received)):
                counts[index] += value
    return [
        f"{key}: {_count(count, 'connection')}, {_size(sent)} out, {_size(received)} in"
        for key, (count, sent, received) in sorted(found.items())[:20]
    ]


def _learned(page: Page, record: RunRecord) -> None:
    """What learning found: which program asked for what, what allows it, and what else that allows."""
    from vestibule.cli.terminal import styled

    report = record.network
    if report is None or report.mode != "learn":
        return
    page.title("learned")
    if not report.needs:
        page.line("The agent reached no name that is not listed.")
    for need in report.needs:
        who = ", ".join(need.programs) or "a program that could not be told"
        page.line(styled(f"{need.key} by {who}, {_count(need.count, 'connection')}"), hang=2)
        if need.refused:
            page.line("  ", styled(f"refused by {need.refused}: a rule for it would change nothing"), hang=4)
            continue
        for item in need.also:
            page.line("  ", styled(f"would also allow {item}", "dim"), hang=4)
    if report.config_block:
        page.title("to allow exactly these, in .vestibule/config.yaml")
        for line in report.config_block.splitlines():
            page.whole(line)


def _now(record: RunRecord) -> str:
    from vestibule.core.model import State
    from vestibule.pipeline.drive import message_of

    if record.state is State.AWAITING_REVIEW and not record.note:
        return "Waits for a person to decide."
    return message_of(record)


def _next_step(view: RunView) -> str:
    """The command that goes on, whole, to be copied."""
    from vestibule.core.model import State

    if view.state is State.AWAITING_ANSWER:
        return f"vestibule questions {view.run}"
    if view.state is State.AWAITING_REVIEW:
        return f"vestibule review {view.run} --approve --reason '…'"
    if not view.state.final:
        return f"vestibule resume {view.run}"
    return ""


def _refusals(page: Page, view: RunView) -> None:
    from rich.text import Text

    from vestibule.cli.terminal import styled

    for item in view.refusals[:10]:
        page.line(
            Text(f"{'refused':<10}", "red"),
            styled(item.rule),
            ": ",
            styled(f"{item.reason} {item.fact}".strip()),
            hang=10,
        )
    if len(view.refusals) > 10:
        page.row("", f"and {len(view.refusals) - 10} more (--json has them all)")


def _findings(page: Page, view: RunView) -> None:
    from rich.text import Text

    from vestibule.cli.terminal import styled

    for item in view.findings:
        place = f"{item.place.path}:{item.place.line}" if item.place and item.place.line else ""
        place = place or (item.place.path if item.place else "")
        label = {"deny": "denied", "hold": "held", "allow": "noted"}[item.verdict.value]
        about = f"{item.rule}  {place}".rstrip()
        page.line(Text(f"{label:<10}", _STYLES[item.verdict.value]), styled(about), ": ", styled(item.message), hang=10)


def _questions(page: Page, view: RunView, *, every: bool) -> None:
    from vestibule.cli.questions import show_question

    shown = [item for item in view.questions if every or item.standing is not None]
    if shown:
        page.title("questions of the agent")
    for item in shown:
        show_question(page, item)


def _diff(page: Page, view: RunView) -> None:
    from rich.text import Text

    from vestibule.core.text.sanitize import show_hidden

    page.title("diff")
    colours = {"+": "green", "-": "red", "@": "cyan"}
    for line in view.patch.decode("utf-8", "replace").splitlines():
        head = line.startswith(("+++", "---", "diff ", "index "))
        page.whole(Text(show_hidden(line), "bold" if head else colours.get(line[:1], "")))


def _timeline(page: Page, view: RunView, *, whole: bool) -> None:
    """One line an intent: when, who, how decided, what. A new day and a new attempt get a line of their own."""
    from rich.text import Text

    from vestibule.cli.terminal import styled

    intents = [event for event in view.events if event.phase == "intent"]
    results = {event.intent: event.result for event in view.events if event.phase == "outcome"}
    page.title("timeline (UTC)")
    left_out = 0 if whole or len(intents) <= FIRST + LAST else len(intents) - FIRST - LAST
    day, attempt = "", 1
    for index, event in enumerate(intents):
        if left_out and FIRST <= index < FIRST + left_out:
            if index == FIRST:
                page.line(Text(f"  … {left_out} entries left out: --all shows them", "dim"))
            continue
        if event.time[:10] != day:
            day = event.time[:10]
            page.line(Text(day, "dim"))
        if event.attempt > attempt:
            attempt = event.attempt
            page.line(Text(f"attempt {attempt}", "bold"))
        ruling, style = _ruling(event, results.get(event.seq, ""))
        page.cut(
            Text(f"{event.time[11:19]}  ", "dim"),
            Text(f"{event.subject:<7} "),
            Text(f"{ruling:<8} ", style),
            styled(f"{event.action:<14}  "),
            styled(_resource(event)),
        )
        for note in _notes(event, intents[index + 1] if index + 1 < len(intents) else None):
            page.line(" " * 18, styled(note, "dim"), hang=18)


def _ruling(event: TimelineEvent, result: str) -> tuple[str, str]:
    """How it was decided; what was allowed and then did not go well says so."""
    verdict = event.verdict.value if event.verdict else ""
    if event.subject == "probe" and verdict == "deny":
        return "refused", "dim"
    if verdict == "allow" and result in ("failed", "unknown"):
        return result, "yellow"
    return verdict, _STYLES.get(verdict, "")


def _resource(event: TimelineEvent) -> str:
    if _SHA.match(event.resource):
        return event.resource[:12]
    return "" if event.resource == event.action else event.resource


def _notes(event: TimelineEvent, after: TimelineEvent | None) -> list[str]:
    """What stands below an entry: why it was not allowed, and a person's words."""
    verdict = event.verdict.value if event.verdict else ""
    if event.subject == "probe" and verdict == "deny":
        last = after is None or after.subject != "probe"
        return ["as it must be: probes only prove that the guards are live"] if last else []
    found = [", ".join(event.reasons)] if verdict in ("deny", "hold") and event.reasons else []
    return [*found, event.why] if event.why else found


def _reviews(page: Page, view: RunView) -> None:
    from rich.text import Text

    from vestibule.cli.terminal import styled

    if not view.decisions:
        return
    page.title("reviews")
    for item in view.decisions:
        mark = ", self-reviewed" if item.self_review else ""
        time = item.time[:19].replace("T", " ")
        page.line(
            Text(f"{time}  ", "dim"), styled(f"{item.person.id} ({item.choice}{mark}): "), styled(item.reason), hang=2
        )


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
