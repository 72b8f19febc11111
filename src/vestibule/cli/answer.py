"""`vestibule answer`: a person's answer to what an agent asked, under the person's identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vestibule.core.model import AnswerChoice, Question
    from vestibule.pipeline.drive import Driver


@click.command(name="answer", short_help="Grant or refuse what an agent asked for, under your identity.")
@click.argument("question", metavar="QUESTION|RUN")
@click.option("--grant", "choice", flag_value="grant", help="The agent may have it.")
@click.option("--refuse", "choice", flag_value="refuse", help="The agent goes on without it. Acknowledges a block.")
@click.option("--reason", required=True, help="Why, in your words; recorded, and read by the agent.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(question: str, choice: str | None, reason: str, as_json: bool) -> int:
    """Answer QUESTION, or the one open question of RUN.

    While the agent works it gets the answer within two seconds, and this command ends with 0. When it has ended, the
    run is driven on to its next gate or end, and the exit code is that of `run`.

    You are the operating-system user of this process. `vestibule questions` shows what is open.
    """
    from typing import cast

    from vestibule.cli.drive import finish, open_driver
    from vestibule.core.errors import OK, UsageError

    if choice is None:
        raise UsageError("Which answer?", next_step="Add --grant or --refuse.")
    driver = open_driver()
    asked = _find(driver, question)
    record, after = driver.answer(
        asked.id,
        cast("AnswerChoice", choice),
        reason,
        person=driver.services.person,
        channel="cli",
        seen=asked.digest,
    )
    if driver.is_left(record):
        return finish(driver, lambda: driver.on(record.id), record.id, as_json=as_json)
    from vestibule.cli.output import emit_json
    from vestibule.pipeline.console_answers import answer_message
    from vestibule.pipeline.reader import Reader

    if as_json:
        emit_json(Reader(driver.services).as_json(record.id))
    else:
        print(answer_message(record, after))
    driver.services.close()
    return OK


def _find(driver: Driver, text: str) -> Question:
    """The question of this id, else the only open one of a run.

    Raises:
        UsageError: none, or several.
    """
    from vestibule.core.errors import UsageError

    book = driver.services.questions
    if text.startswith("q-"):
        return book.must(text)
    run = driver.services.runs.get(text).id
    waiting = book.open_of(run)
    if len(waiting) == 1:
        return waiting[0]
    if not waiting:
        raise UsageError(f"Run {run} asks nothing now.", next_step=f"See what it asked with `vestibule show {run}`.")
    names = ", ".join(item.id for item in waiting)
    raise UsageError(
        f"Run {run} asks {len(waiting)} questions.",
        next_step=f"Look at them with `vestibule questions {run}` and answer one: {names}.",
    )
