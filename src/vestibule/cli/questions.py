"""`vestibule questions`: what agents asked and nobody answered yet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vestibule.cli.terminal import Page
    from vestibule.core.runs import AskedView


@click.command(name="questions", short_help="What agents asked people.")
@click.argument("run", required=False, default="")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(run: str, as_json: bool) -> None:
    """List the open questions of all runs, or every question of RUN with its answer.

    What an agent asks, and why it says so, are its own words: untrusted.
    """
    from vestibule.cli.output import emit_json
    from vestibule.cli.terminal import Page
    from vestibule.pipeline.asked import question_json
    from vestibule.pipeline.reader import Reader
    from vestibule.pipeline.services import Services

    services = Services()
    services.questions.expire()
    reader = Reader(services)
    found = reader.questions(services.runs.get(run).id if run else "")
    if as_json:
        emit_json({"questions": [question_json(item) for item in found]})
        return
    page = Page()
    if not found:
        page.line("No agent asks anything." if not run else "This run asked nothing.")
    for index, item in enumerate(found):
        if index:
            page.line("")
        show_question(page, item)


def show_question(page: Page, item: AskedView) -> None:
    """One question for the terminal. The agent's words are shown on one visible line each."""
    from rich.text import Text

    from vestibule.cli.terminal import styled

    question = item.question
    kinds = {"scope": "asks for files", "call": "asks to make a call", "block": "says a refusal makes no sense"}
    style = "bold yellow" if question.state == "open" else "dim"
    page.line(Text(f"{question.id}  ", "bold"), Text(question.state, style), f"  run {question.run}")
    page.row("agent", kinds[question.kind])
    for line in asked_lines(item):
        page.row("", styled(line, limit=4000))
    page.row("says why", styled(question.why or "nothing", limit=2000), Text("  (untrusted)", "dim"))
    page.row("has read", f"{question.labels.integrity.value}, {question.labels.confidentiality.value}")
    for path, why in item.beyond:
        page.row("", Text("cannot be granted: ", "red"), styled(path or "this", limit=400), f" ({why})")
    if question.state == "open":
        page.row("expires", question.expires[:19].replace("T", " "))
        if item.standing is not None and not item.standing.may:
            page.row("you", styled(item.standing.reason))
        word = "--grant" if item.grantable else "--refuse"
        page.whole(Text.assemble(Text(f"{'next':<10}", "dim"), f"vestibule answer {question.id} {word} --reason '…'"))
    elif question.person is not None:
        mark = ", the requester" if question.self_review else ""
        page.row("answer", styled(f"{question.person.id}{mark}: {question.reason}"))


def asked_lines(item: AskedView) -> list[str]:
    """What is asked, a line each. For a call: the tool and its arguments as JSON."""
    asked = item.question.asked
    if item.question.kind == "scope":
        return [f"{asked.get('access', '')} {path}" for path in asked.get("paths", ())]
    return [f"{name}: {value if isinstance(value, str) else json.dumps(value)}" for name, value in asked.items()]
