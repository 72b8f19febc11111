"""`vestibule sandbox exec`: one command inside the walls, on a throw-away view of the base commit."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vestibule.cli.base import top

if TYPE_CHECKING:
    from vestibule.config.schema import OperatorConfig, OperatorSandbox
    from vestibule.core.ids import Sha
    from vestibule.core.model import Scope
    from vestibule.core.ports import SandboxResult
    from vestibule.git import Git
    from vestibule.sandbox.local import LocalSandbox


@click.group("sandbox")
def command() -> None:
    """Run one command inside the walls."""


@command.command(
    "exec",
    context_settings={"ignore_unknown_options": True},
    epilog="Exits as the command does; 4 with a sentence when refused, 2 when the call is wrong.",
)
@click.option("--repo", type=click.Path(path_type=Path), default=Path(), help="The repository's top folder.")
@click.option("--base", default="", help="Commit to show. Default: the remote's default branch, main or master.")
@click.option("--role", default="", help="Show and let write what this role may.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of the command's output.")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD …")
def execute(repo: Path, base: str, role: str, argv: tuple[str, ...], *, as_json: bool) -> int:
    """One command on the scoped view of the base commit. Nothing of what it writes is kept; it has no network.

    Its input, output and exit code pass through unchanged.
    """
    import os

    from vestibule.config.load import config_dir, load_operator_config, state_dir
    from vestibule.core.clock import now
    from vestibule.git import Git
    from vestibule.identity.people import current_person
    from vestibule.sandbox.local import LocalSandbox
    from vestibule.store.database import make_private_folder

    with _signals():
        operator = load_operator_config()
        home = make_private_folder(state_dir())
        backend = LocalSandbox(tools=operator.sandbox.tools, state=home, forbidden=(config_dir(os.environ),))
        git = Git.open(top(repo))
        name, scope, minimum = _rights(git, base, role, operator)
        events: list[dict[str, Any]] = []

        def note(phase: str, details: dict[str, Any]) -> None:
            entry = {"seq": len(events) + 1, "time": now(), "phase": phase, "attempt": 1, "subject": "person"}
            about = {"action": "host.exec", "resource": argv[0], "verdict": "allow", "reasons": [f"role.{name}"]}
            events.append({**entry, **about, "actor": current_person().id, **details})

        result = _run(
            backend,
            git,
            home,
            scope,
            argv,
            minimum=(*operator.sandbox.minimum, *minimum),
            terms=operator.sandbox,
            capture=as_json,
            note=note,
        )
    if as_json:
        from vestibule.cli.output import emit_json

        emit_json(_summary(result, name, events))
    return result.exit_code


def _summary(result: SandboxResult, role: str, events: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "exit_code": result.exit_code,
        "reason": result.reason,
        "role": role,
        "sandbox": {
            "backend": result.walls.backend,
            "tier": result.walls.tier,
            "walls": {name: wall.state for name, wall in result.walls.walls.items()},
            "limits": result.walls.limits,
            "start_ms": result.walls.start_ms,
        },
        "walls": {name: wall.model_dump() for name, wall in result.walls.walls.items()},
        "events": events,
        "stdout": result.stdout.decode("utf-8", "replace"),
        "stderr": result.stderr.decode("utf-8", "replace"),
        "truncated": result.truncated,
        "wall_ms": result.wall_ms,
    }


def _rights(git: Git, base: str, role: str, operator: OperatorConfig) -> tuple[str, tuple[Sha, Scope], tuple[str, ...]]:
    """(role's name, (base commit, scope), walls the repository wants)."""
    from vestibule.cli.base import base_of, rights_of
    from vestibule.cli.output import say
    from vestibule.config.roles import scope_of
    from vestibule.core.model import Scope

    name, commit = base_of(git, base, "It is not clear what to show.")
    chosen, rights, config = rights_of(git, commit, name, role, say)
    if config is None:
        views = tuple(item.rule("organisation") for item in operator.views)
        scope = Scope(read=rights.read, write=rights.write, bounds=operator.scope.bounds(), views=views)
        return chosen, (commit, scope), ()
    return chosen, (commit, scope_of(rights, config, operator)), config.sandbox.minimum


def _run(
    backend: LocalSandbox,
    git: Git,
    home: Path,
    shown: tuple[Sha, Scope],
    argv: tuple[str, ...],
    *,
    minimum: tuple[str, ...],
    terms: OperatorSandbox,
    capture: bool,
    note: Callable[[str, dict[str, Any]], None],
) -> SandboxResult:
    import os
    import time

    from vestibule.core.errors import DependencyDown
    from vestibule.core.ids import new_run_id
    from vestibule.core.ports import Limits, SandboxSpec
    from vestibule.pipeline.ceilings import disk_of, limits_of, over_quota
    from vestibule.sandbox.removal import remove_tree
    from vestibule.sandbox.view import materialise, mounts_for, project
    from vestibule.store.database import make_private_folder

    commit, scope = shown
    run = new_run_id(int(time.time() * 1000))
    backend.prepare()  # attacks its walls while git reads the view
    _sweep(backend, home / "exec")
    folder = make_private_folder(home / "exec" / f"{os.getpid()}-{run}")
    disk = None
    try:
        disk = disk_of(terms, folder)
        view = project(git, commit, scope)
        materialise(git, view, disk.workspace, uid=backend.workspace_uid(run))
        spec = SandboxSpec(
            run=run,
            argv=argv,
            mounts=mounts_for(view, scope, disk.workspace),
            env=_terminal(),
            limits=limits_of(terms, Limits().wall_seconds),
            quota=disk.quota,
        )
        sandbox = backend.create(spec) if capture else backend.create(spec, stdin=0, stdout=1, stderr=2)
        try:
            missing = sandbox.report.missing(minimum)
            if missing:
                wall = sandbox.report.walls.get(missing[0])
                raise DependencyDown(
                    missing[0],
                    f"The configured minimum wants walls that do not stand here: {', '.join(missing)}.",
                    fact=wall.proved_by if wall else "unknown wall",
                )
            note("intent", {})
            sandbox.go()
            result = sandbox.wait()
        finally:
            sandbox.kill()
        for name, count in sorted(result.refused_calls.items()):
            note(
                "intent",
                {"action": "host.call", "resource": name, "verdict": "deny", "reasons": ["host.call"], "count": count},
            )
        note("outcome", {"result": "ok" if result.exit_code == 0 else "failed", "exit_code": result.exit_code})
        if result.reason == "quota":
            raise over_quota(terms)
        return result
    finally:
        if disk is not None:
            disk.close()
        remove_tree(folder)
        backend.release(run)
        backend.close()


def _sweep(backend: LocalSandbox, folder: Path) -> None:
    """Remove workspaces of commands that were killed before they could do it themselves."""
    from vestibule.core.errors import DependencyDown
    from vestibule.sandbox.quota import clear
    from vestibule.sandbox.removal import remove_tree

    for path in folder.glob("*-*"):
        pid, _, run = path.name.partition("-")
        if pid.isdigit() and not Path("/proc", pid).exists():
            backend.reap(run)
            with contextlib.suppress(OSError, DependencyDown):
                clear(path)
                remove_tree(path)


def _terminal() -> dict[str, str]:
    """The terminal's kind and size are the person's, and harmless."""
    import os

    return {name: os.environ[name] for name in ("TERM", "COLUMNS", "LINES", "NO_COLOR") if os.environ.get(name)}


class _Stopped(BaseException):
    """A signal asked us to end; everything on the way up cleans."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP end the sandbox, then us, with 128 plus the signal's number."""

    def stop(number: int, _frame: object) -> None:
        for item in kept:
            signal.signal(item, signal.SIG_IGN)  # once is enough: cleaning up must not be cut short
        raise _Stopped(number)

    kept = {item: signal.signal(item, stop) for item in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except _Stopped as error:
        raise click.exceptions.Exit(128 + error.number) from None
    finally:
        for item, handler in kept.items():
            signal.signal(item, handler)
