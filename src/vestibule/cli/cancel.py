"""`vestibule cancel`: stop a run and say what was undone."""

from __future__ import annotations

import click


@click.command(name="cancel", short_help="Stop a run and say what was undone.")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(run: str, as_json: bool) -> None:
    """Stop RUN: its process, its sandbox, its open gate. Says what was undone."""
    from vestibule.cli.drive import open_driver
    from vestibule.cli.output import emit_json
    from vestibule.core.text.sanitize import show_hidden
    from vestibule.pipeline.reader import Reader

    driver = open_driver()
    record, undone = driver.cancel(driver.services.runs.get(run).id)
    if as_json:
        emit_json({**Reader(driver.services).as_json(record.id), "undone": undone})
    else:
        print(f"Run {record.id} is cancelled.")
        for line in undone:
            print(f"  {show_hidden(line)}")
    driver.services.close()
