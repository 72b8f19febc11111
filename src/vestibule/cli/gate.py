"""`vestibule gate`: in CI, is there a valid decision for exactly this commit and tree?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vestibule.pipeline.gate_answer import GateAnswer

_COMMIT = click.option("--commit", required=True, metavar="SHA", help="The commit, in full, or a name in --repo.")
_REPO = click.option(
    "--repo", type=click.Path(path_type=Path), default=Path(), help="Where names are looked up (default: this folder)."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


@click.group("gate")
def command() -> None:
    """Ask for the decision about a commit: 0 approved, 3 a person must still decide, 6 there is no valid approval."""


@command.command()
@_COMMIT
@_REPO
@_JSON
def verify(commit: str, repo: Path, as_json: bool) -> int:
    """Is there a valid decision for exactly this commit and its tree, now?

    Decisions and their signatures, the base's configuration and the log must agree, as for a merge.
    """
    return _print(_ask(commit, repo), as_json=as_json)


@command.command()
@_COMMIT
@_REPO
@click.option(
    "--timeout",
    type=click.FloatRange(0, 604800),
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long.",
)
@_JSON
def wait(commit: str, repo: Path, timeout: float, as_json: bool) -> int:
    """Wait until a person has decided, then answer as `verify` does; 3 when the time is over first."""
    import time

    from vestibule.cli.output import say

    deadline = time.monotonic() + timeout
    answer = _ask(commit, repo)
    if answer.answer == "waiting":
        say(f"waiting for a decision about {answer.commit[:12]} (run {answer.run})")
    while answer.answer == "waiting" and time.monotonic() < deadline:
        time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
        answer = _ask(commit, repo)
    return _print(answer, as_json=as_json)


def _ask(commit: str, repo: Path) -> GateAnswer:
    from vestibule.cli.base import top
    from vestibule.core.errors import UsageError
    from vestibule.core.ids import SHA
    from vestibule.git import Git
    from vestibule.pipeline.gate_answer import answer_for
    from vestibule.pipeline.services import Services

    sha: str | None = commit
    if not SHA.match(commit):
        sha = Git.open(top(repo)).commit_of(commit)
    if sha is None:
        raise UsageError(f"{commit!r} is no commit.", next_step="Give its full id, or a name with --repo.")
    services = Services()
    try:
        return answer_for(services, sha)
    finally:
        services.close()


def _print(answer: GateAnswer, *, as_json: bool) -> int:
    from vestibule.cli.output import emit_json
    from vestibule.core.text.sanitize import show_hidden

    if as_json:
        emit_json(answer.as_json())
    else:
        print(show_hidden(f"{answer.answer}: {answer.commit[:12]} {answer.reason}"))
    return answer.exit_code
