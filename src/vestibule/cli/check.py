"""`vestibule check`: the changes crossing alone, on any two commits.

Rules it keeps:
1. The governed never governs: configuration comes from the base's tip, the change from the merge base to the head. The
   organisation's bounds hold, for the shipped role too.
2. The base is named, the remote's default branch, `main` or `master`; never silently what is checked out.
3. What cannot be read is refused, never passed.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vestibule.cli.base import base_of, rights_of, top

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vestibule.boundary.changes.guards import GuardContext
    from vestibule.config.schema import OperatorConfig
    from vestibule.core.ids import Sha
    from vestibule.core.model import Finding
    from vestibule.core.text.secrets import KnownSecret
    from vestibule.core.verdict import Ruling
    from vestibule.git import Git


@click.command(
    "check",
    epilog="Exit codes: 0 nothing to object · 3 a person must look · 4 refused · 2 usage or configuration.",
)
@click.option("--repo", type=click.Path(path_type=Path), default=Path(), help="The repository's top folder.")
@click.option(
    "--base", default="", help="What the change goes to. Default: the remote's default branch, main or master."
)
@click.option("--head", default="HEAD", show_default=True, help="The commit to judge.")
@click.option("--role", default="", help="Judge against this role of the base's configuration.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--sarif", "as_sarif", is_flag=True, help="SARIF 2.1.0 on stdout.")
def command(repo: Path, base: str, head: str, role: str, *, as_json: bool, as_sarif: bool) -> int:
    """Judge a change, by human or agent, as the changes crossing would: scope, protected paths, links, modes,
    submodules, hidden Unicode, secrets, size.
    """
    from vestibule.boundary.changes.changeset import read_changeset
    from vestibule.boundary.changes.rules import examine, ruling
    from vestibule.boundary.changes.scanners import not_run
    from vestibule.cli.output import emit_json, say
    from vestibule.core.errors import HELD, OK, REFUSED, UsageError
    from vestibule.core.verdict import Ruling
    from vestibule.git import Git

    if as_json and as_sarif:
        raise UsageError("--json and --sarif exclude each other.")
    started = time.perf_counter()
    git = Git.open(top(repo))
    base_name, tip, head_sha, fork = resolve(git, base, head)
    chosen, context, scanners = guard_context(git, tip, base_name, role, say)
    read_from = time.perf_counter()
    changes = read_changeset(git, fork, head_sha)
    judged_from = time.perf_counter()
    findings = (*examine(changes, context), *not_run(scanners))
    verdict = ruling(findings)
    done = time.perf_counter()
    timings = {
        "read": round((judged_from - read_from) * 1000, 1),
        "guards": round((done - judged_from) * 1000, 1),
        "total": round((done - started) * 1000, 1),
    }
    if as_json:
        emit_json(
            {
                "verdict": verdict.value,
                "findings": [finding.as_json() for finding in findings],
                "changed_files": list(changes.files),
                "timings_ms": timings,
                "base": base_name,
                "base_commit": fork,
                "head_commit": head_sha,
                "role": chosen,
            }
        )
    elif as_sarif:
        from vestibule import __version__
        from vestibule.boundary.changes.sarif import to_sarif

        emit_json(to_sarif(findings, version=__version__, head=head_sha))
    else:
        count = len(changes.files)
        about = (
            f"{count} file{'s' if count != 1 else ''}; {base_name} ({fork[:10]}) to {head_sha[:10]}, role {chosen}, "
        )
        _show(findings, verdict, f"{about}{timings['total']:.0f} ms")
    return {Ruling.ALLOW: OK, Ruling.HOLD: HELD, Ruling.DENY: REFUSED}[verdict]


def resolve(git: Git, base: str, head: str) -> tuple[str, Sha, Sha, Sha]:
    """(name of the base, its tip, the head, the merge base).

    Raises:
        UsageError: exit 2, saying what is missing and how to name it.
    """
    from vestibule.core.errors import UsageError

    head_sha = git.commit_of(head)
    if head_sha is None:
        if head == "HEAD":
            raise UsageError(
                "There is no commit to check yet.",
                why="The repository is empty, or its branch has no commit.",
                next_step="Commit first, or name a commit with --head.",
            )
        raise UsageError(f"--head {head!r} is no commit of this repository.", next_step="Name a branch, tag or commit.")
    name, tip = base_of(git, base, "It is not clear what the change goes to.")
    fork = git.merge_base(tip, head_sha)
    if fork is None:
        shallow = (git.git_dir / "shallow").exists()
        raise UsageError(
            "Base and head have no commit in common.",
            why="The clone is shallow: the commit they share was not fetched."
            if shallow
            else "Their histories are unrelated.",
            next_step="Fetch the history (`git fetch --unshallow`; fetch-depth: 0 in CI)."
            if shallow
            else "Name another base with --base.",
        )
    return name, tip, head_sha, fork


def guard_context(
    git: Git, tip: Sha, base_name: str, role: str, say: Callable[[str], None]
) -> tuple[str, GuardContext, tuple[str, ...]]:
    """The role's name, what the guards judge against, and scanners asked for: from the base's tip, and from the
    operator's configuration the organisation's bounds.
    """
    from vestibule.boundary.changes.guards import GuardContext
    from vestibule.config.load import load_operator_config
    from vestibule.config.roles import scope_of
    from vestibule.core.model import Scope

    name, rights, config = rights_of(git, tip, base_name, role, say)
    operator = load_operator_config()
    secrets = tuple(known_secrets(operator))
    if config is None:
        scope = Scope(read=rights.read, write=rights.write, bounds=operator.scope.bounds())
        return name, GuardContext.of_scope(scope, secrets), ()
    return name, GuardContext.of_scope(scope_of(rights, config, operator), secrets), config.scanners


def known_secrets(operator: OperatorConfig) -> Iterator[KnownSecret]:
    """Values of this process's provider keys: they must not stand in a change, in no form."""
    import os

    from vestibule.core.text.secrets import KnownSecret
    from vestibule.identity.keys import secret_of

    for name, provider in operator.models.items():
        source = provider.key
        if source is None:
            continue
        if source.env and (value := os.environ.get(source.env, "")):
            yield KnownSecret(f"the key of {name} ({source.env})", secret_of(value.encode("utf-8", "surrogateescape")))
        elif source.file:
            try:
                yield KnownSecret(f"the key of {name}", secret_of(Path(source.file).expanduser().read_bytes().strip()))
            except OSError:
                continue  # `check` calls no provider; a key that this user cannot read is no value to look for


def _show(findings: tuple[Finding, ...], verdict: Ruling, about: str) -> None:
    from rich.text import Text

    from vestibule.cli.terminal import Page, styled
    from vestibule.core.verdict import Ruling

    page = Page()
    colours = {Ruling.ALLOW: "green", Ruling.HOLD: "yellow", Ruling.DENY: "red"}
    place = None
    for finding in findings:
        path = finding.place.path if finding.place else "the change as a whole"
        if path != place:
            page.whole(styled(path, "bold", limit=300))
            place = path
        line = f":{finding.place.line}" if finding.place and finding.place.line else ""
        page.line(
            "  ",
            Text(f"{finding.verdict.value:<5}", style=colours[finding.verdict]),
            Text(f" {finding.rule}{line}  ", style="cyan"),
            styled(finding.message, limit=400),
            hang=8,
        )
        if finding.fix and finding.verdict is not Ruling.ALLOW:
            page.line("        → ", styled(finding.fix, "dim", limit=300), hang=10)
    words = {
        Ruling.ALLOW: "nothing to object",
        Ruling.HOLD: "a person must look",
        Ruling.DENY: "refused",
    }[verdict]
    counts = {r: sum(1 for f in findings if f.verdict is r) for r in (Ruling.DENY, Ruling.HOLD)}
    page.line(
        Text(f"{verdict.value}: {words}", style=f"bold {colours[verdict]}"),
        f"  {counts[Ruling.DENY]} denied, {counts[Ruling.HOLD]} held; ",
        styled(about, limit=300),
        hang=7,
    )
