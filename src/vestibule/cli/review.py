"""`vestibule review`: a person's decision, under the person's identity."""

from __future__ import annotations

import click


@click.command(name="review", short_help="Approve, request changes or reject, under your identity.")
@click.argument("run")
@click.option("--approve", "choice", flag_value="approve", help="The change may merge.")
@click.option("--request-changes", "choice", flag_value="request-changes", help="The agent works on it again.")
@click.option("--reject", "choice", flag_value="reject", help="The change is not wanted; the run ends.")
@click.option(
    "--reason", required=True, help="Why, in your words; recorded, and read by the agent when changes are requested."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(run: str, choice: str | None, reason: str, as_json: bool) -> int:
    """Decide RUN at its gate, then drive it on to its next gate or end.

    You are the operating-system user of this process. The decision is bound to the commit, tree, base and policy
    as they stand now; a later commit voids it.
    """
    from typing import cast

    from vestibule.cli.drive import finish, open_driver
    from vestibule.core.errors import UsageError
    from vestibule.core.model import Choice

    if choice is None:
        raise UsageError("Which decision?", next_step="Add --approve, --request-changes or --reject.")
    driver = open_driver()
    found = driver.services.runs.get(run).id
    return finish(
        driver,
        lambda: driver.decide(found, cast("Choice", choice), reason, person=driver.services.person, channel="cli"),
        found,
        as_json=as_json,
    )
