"""`vestibule console`: the review console on loopback, with a one-time sign-in link."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vestibule.pipeline.services import Services


@click.command(name="console", short_help="Serve the review console on loopback.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1 (default: any free one).")
@click.option("--until", "run", default="", help="End when this run no longer waits.")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    default=None,
    help="Also serve /metrics for Prometheus on this port of 127.0.0.1.",
)
def command(port: int, run: str, metrics_port: int | None) -> int:
    """Serve the console on 127.0.0.1 and print a link that signs you in once.

    You are the operating-system user of this process: whoever opens the link decides under your name.
    """
    from vestibule.cli.output import say
    from vestibule.console.app import build_console_app
    from vestibule.console.server import serve_console
    from vestibule.console.sessions import Sessions
    from vestibule.pipeline.console_answers import ConsoleAnswers
    from vestibule.pipeline.drive import ConsoleDecisions, Driver
    from vestibule.pipeline.reader import Reader
    from vestibule.pipeline.services import Services

    services = Services()
    if run:
        run = services.runs.get(run).id
    sessions = Sessions(services.person)
    decisions = ConsoleDecisions(Driver(services))
    answers = ConsoleAnswers(decisions.driver)
    server = serve_console(
        lambda origin: build_console_app(
            runs=Reader(services), decide=decisions, sessions=sessions, origin=origin, answer=answers
        ),
        port=port,
    )
    with server, _metrics(services, metrics_port):
        say(f"{server.url}/login?token={sessions.issue_login()}")
        say("Ctrl-C ends it. The link works once; run the command again for another.")
        try:
            return _wait(services, run)
        except KeyboardInterrupt:
            return 0


@contextmanager
def _metrics(services: Services, port: int | None) -> Iterator[None]:
    """Serves metrics as long as the block runs. None: not at all."""
    if port is None:
        yield
        return
    from vestibule.cli.output import say
    from vestibule.console.metrics import TOKEN_FILE, build_metrics_app, scrape_token
    from vestibule.console.server import serve_console
    from vestibule.pipeline.metrics import metrics_here

    token = scrape_token(services.home)
    page = metrics_here(services.db).page
    with serve_console(lambda origin: build_metrics_app(page, token, origin), port=port) as server:
        say(f"{server.url}/metrics for Prometheus; its token is in {services.home / TOKEN_FILE}")
        yield


def _wait(services: Services, run: str) -> int:
    from vestibule.core.model import State
    from vestibule.pipeline.drive import exit_code
    from vestibule.pipeline.lease import holder

    while True:
        time.sleep(0.5)
        if not run:
            continue
        record = services.runs.get(run)
        settled = record.state.final or (record.state is State.APPROVED and record.note)
        if settled and holder(services.folder(run)) is None:
            time.sleep(1.0)  # the page that shows the outcome is fetched after it
            return exit_code(record)
