"""`vestibule`: a lazy group, so that `--help` costs no imports, and one place that turns errors into exit codes."""

from __future__ import annotations

import importlib
import os
import sys
from typing import NoReturn

import click

from vestibule import __version__

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("vestibule.cli.init", "Write .vestibule/ for a repository; never overwrites."),
    "doctor": ("vestibule.cli.doctor", "Which walls stand on this machine, by attacking them."),
    "run": ("vestibule.cli.run", "Take one ticket up to its first gate or end."),
    "review": ("vestibule.cli.review", "Approve, request changes or reject, under your identity."),
    "questions": ("vestibule.cli.questions", "What agents asked people."),
    "answer": ("vestibule.cli.answer", "Grant or refuse what an agent asked for, under your identity."),
    "resume": ("vestibule.cli.resume", "Go on after a crash."),
    "cancel": ("vestibule.cli.cancel", "Stop a run and say what was undone."),
    "runs": ("vestibule.cli.runs", "List runs."),
    "show": ("vestibule.cli.show", "One run: decisions, findings, usage, timeline."),
    "console": ("vestibule.cli.console", "Serve the review console on loopback."),
    "check": ("vestibule.cli.check", "The changes crossing alone, on any two commits."),
    "sandbox": ("vestibule.cli.sandbox", "Run one command inside the walls."),
    "gate": ("vestibule.cli.gate", "In CI: is there a valid decision for exactly this commit?"),
    "policy": ("vestibule.cli.policy", "Lint, test and explain policies."),
    "audit": ("vestibule.cli.audit", "Verify, show and export the audit log."),
    "agents": ("vestibule.cli.agents", "Which agents there are, what is installed, what was verified."),
    "cost": ("vestibule.cli.cost", "What was spent."),
    "upstream": ("vestibule.cli.upstream", "Look at upstream MCP servers and pin their tools."),
    "trust": ("vestibule.cli.trust", "The record of each agent, and the step it proposes."),
}
"""Name → module and help line. The module's `command` is the click command."""

STOPPED, UNHEARD = 130, 141
"""By Ctrl-C, by a closed pipe: 128 and the signal's number, as shells have it."""


class LazyGroup(click.Group):
    """Imports a command's module when it is called, not to list it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name][0]}.command is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS:
            import difflib

            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else " `vestibule --help` lists the commands."
            raise click.UsageError(f"There is no command {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vestibule")
def cli() -> None:
    """Run AI coding agents in CI/CD safely.

    An agent sees only what its task needs, talks to the world only through gateways, spends only its
    budget, and its change reaches the main branch only when guards and a named person agreed.

    Exit codes: 0 done · 2 usage or configuration · 3 held: a person must decide · 4 refused ·
    5 the agent failed or changed nothing · 6 a verification failed · 1 a bug of ours.
    """


def main() -> NoReturn:
    """Entry point of the console script."""
    from vestibule.core.errors import OK, VestibuleError

    as_json = "--json" in (sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:])
    try:
        result = cli.main(standalone_mode=False)
        code = result if isinstance(result, int) else OK
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        code = _usage(error, as_json)
    except click.Abort as error:
        code = _stopped(error, as_json)
    except VestibuleError as error:
        from vestibule.cli.output import show_error

        code = show_error(error, as_json=as_json)
    except (BrokenPipeError, SystemExit):
        # SystemExit is click's answer to a reader of stdout that has left. Not 0: who asked did not get an answer.
        code = UNHEARD
    except Exception as error:
        if os.environ.get("VESTIBULE_TRACEBACK") and type(error).__name__ != "GitError":
            raise
        code = _failed(error, as_json)
    leave(code)


def _failed(error: Exception, as_json: bool) -> int:
    """A git that failed where nobody expected it is a dependency that is down; all else is a bug of ours."""
    from vestibule.cli.output import show_bug, show_error
    from vestibule.core.errors import BUG, DependencyDown
    from vestibule.git import GitError

    if isinstance(error, GitError):
        down = DependencyDown(
            "git",
            "git could not read or write the repository.",
            fact=error.stderr.strip()[:300],
            person="Run `git fsck` in it and repair what it reports.",
        )
        return show_error(down, as_json=as_json)
    show_bug(error, as_json=as_json)
    return BUG


def leave(code: int) -> NoReturn:
    """End the process now: what must last is durable already, and background threads have nothing to say."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (BrokenPipeError, ValueError):
        pass
    os._exit(code)


def _stopped(error: click.Abort, as_json: bool) -> int:
    words = str(error) or "Stopped."
    if as_json:
        from vestibule.cli.output import emit_json

        emit_json({"error": {"what": "Stopped.", "why": "", "next": words.removeprefix("Stopped. ")}})
    sys.stderr.write(f"{words}\n")
    return STOPPED


def _usage(error: click.ClickException, as_json: bool) -> int:
    if as_json:
        from vestibule.cli.output import emit_json

        emit_json({"error": {"what": error.format_message(), "why": "", "next": "See --help."}})
    error.show(sys.stderr)
    return 2
