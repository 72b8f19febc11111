"""`vestibule run`: one ticket up to its first gate or end."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    name="run",
    short_help="Take one ticket up to its first gate or end.",
    context_settings={"ignore_unknown_options": False},
)
@click.argument("ticket")
@click.option("--repo", type=click.Path(path_type=Path), default=Path(), help="The repository (default: this folder).")
@click.option("--base", default="", help="Branch to start from and to merge into (default: the default branch).")
@click.option("--role", default="", help="A role of the repository's configuration.")
@click.option("--agent", default="", help="An agent of the configuration, else an adapter.")
@click.option("--model", default="", help="The model, instead of the agent's.")
@click.option(
    "--egress",
    type=click.Choice(["named", "learn"]),
    default="named",
    help="Names the agent reaches: those listed; `learn` lets others in and says what to list.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.argument("command_line", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD …]")
def command(
    ticket: str,
    repo: Path,
    base: str,
    role: str,
    agent: str,
    model: str,
    egress: str,
    as_json: bool,
    command_line: tuple[str, ...],
) -> int:
    """Take TICKET (a Markdown or YAML file, or `-`) up to its first gate or end.

    \b
    vestibule run ticket.md --agent claude
    vestibule run ticket.md --agent command -- ruff check --fix src

    Ends with 3 when the change waits at its review gate: the normal end.
    """
    from vestibule.cli.drive import finish, open_driver
    from vestibule.pipeline.prepare import RunRequest, prepare

    driver = open_driver()
    driver.services.sandbox.prepare()
    driver.services.monitor.start()
    request = RunRequest(
        ticket=ticket,
        repo=repo,
        base=base,
        role=role,
        agent=agent,
        model=model,
        command=command_line,
        egress="learn" if egress == "learn" else "named",
    )
    record = prepare(request, driver.services.operator, driver.services.person.id)
    return finish(driver, lambda: driver.start(record), record.id, as_json=as_json)
