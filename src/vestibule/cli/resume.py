"""`vestibule resume`: go on after a crash."""

from __future__ import annotations

import click


@click.command(name="resume", short_help="Go on after a crash.")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(run: str, as_json: bool) -> int:
    """Go on with RUN where its process ended, or finish a merge that was left to you.

    Finished steps are not repeated. Work that was cut off starts again in a fresh sandbox, twice at most; what it
    spent stays spent.
    """
    from vestibule.cli.drive import finish, open_driver

    driver = open_driver()
    found = driver.services.runs.get(run).id
    return finish(driver, lambda: driver.resume(found), found, as_json=as_json)
