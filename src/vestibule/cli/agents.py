"""`vestibule agents`: which agents there are, what is installed, and what was verified."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vestibule.cli.pauses import pause, paused, release

if TYPE_CHECKING:
    from vestibule.agents.inventory import Listed
    from vestibule.pipeline.record import RunRecord
    from vestibule.pipeline.services import Services

START_SECONDS = 60.0
"""How long a program may take to say its version inside the walls."""

_STYLES = {"verified": "green", "not verified": "yellow", "not installed": "dim", "any program": ""}


@click.group(
    "agents",
    invoke_without_command=True,
    short_help="Which agents there are, and what was verified.",
    epilog="Exit codes: 0 listed · 6 with --check, an installed program did not start inside the walls · "
    "2 configuration error.",
)
@click.option("--check", is_flag=True, help="Start each installed program inside the walls and let it say its version.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_context
def command(ctx: click.Context, *, check: bool, as_json: bool) -> int:
    """Each adapter: its program in the operator's tool folders, its modes, and the versions it was tested with.

    `verified` means that this release's tests drove exactly this version, unmodified, in the modes named, and that it
    obeyed none of the control files planted for it. Any other version may work and is `not verified`.
    """
    from vestibule.core.errors import OK, VERIFICATION_FAILED

    if ctx.invoked_subcommand is not None:
        return OK
    from vestibule.agents.inventory import inventory
    from vestibule.cli.output import emit_json
    from vestibule.pipeline.services import Services

    services = Services()
    tools = tuple(Path(item) for item in services.operator.sandbox.tools)
    listed = inventory(tools)
    records = services.runs.all()
    agents = [_with_runs(item, records) for item in listed]
    if check:
        for item, told in zip(listed, agents, strict=True):
            told["starts"] = _start(services, item) if item.path else None
    if as_json:
        emit_json({"agents": agents, "tools": [str(path) for path in tools]})
    else:
        _show(agents, tools)
    services.close()
    failed = any(told.get("starts") and not told["starts"]["ok"] for told in agents)
    return VERIFICATION_FAILED if failed else OK


command.add_command(pause)
command.add_command(release)
command.add_command(paused)


def _with_runs(item: Listed, records: list[RunRecord]) -> dict[str, Any]:
    """The adapter, and per agent version that worked here: how many runs, and the last one."""
    versions: dict[str, dict[str, Any]] = {}
    for record in records:  # newest first
        if record.agent.adapter != item.adapter:
            continue
        last = {"run": record.id, "state": record.state.value, "updated": record.updated}
        found = versions.setdefault(record.agent.version, {"version": record.agent.version, "runs": 0, "last": last})
        found["runs"] += 1
    return {**item.model_dump(mode="json"), "runs": list(versions.values())}


def _start(services: Services, item: Listed) -> dict[str, Any]:
    """Starts the program with `--version` inside the walls: no workspace, no network, no token."""
    import time

    from vestibule.core.ids import new_run_id
    from vestibule.core.ports import Limits, SandboxSpec
    from vestibule.core.text.sanitize import one_line

    backend = services.sandbox
    run = new_run_id(time.time_ns() // 1_000_000)
    limits = Limits(
        wall_seconds=START_SECONDS,
        memory_bytes=services.operator.sandbox.memory_mb << 20,
        pids=services.operator.sandbox.pids,
    )
    spec = SandboxSpec(run=run, argv=(item.path, "--version"), cwd="/home/agent", limits=limits)
    try:
        sandbox = backend.create(spec)
        try:
            services.require_walls(sandbox.report, services.operator.sandbox.minimum)
            sandbox.go()
            result = sandbox.wait()
        finally:
            sandbox.kill()
    finally:
        backend.release(run)
    said = one_line((result.stdout or result.stderr).decode("utf-8", "replace").strip(), 200)
    return {"ok": result.exit_code == 0, "exit_code": result.exit_code, "said": said, "ms": round(result.wall_ms, 1)}


def _show(agents: list[dict[str, Any]], tools: tuple[Path, ...]) -> None:
    from rich.text import Text

    from vestibule.cli.terminal import Page, styled

    page = Page()
    for told in agents:
        version = f" {told['version']}" if told["version"] and told["standing"] != "any program" else ""
        page.title(f"{told['adapter']}{version}")
        page.row("standing", Text(told["standing"], style=_STYLES[told["standing"]]))
        if told["path"]:
            page.row("program", styled(told["path"]))
        if told["problem"]:
            page.row("problem", styled(told["problem"]))
        page.row("modes", ", ".join(told["modes"]))
        if told["verified"]:
            page.row(
                "tested", ", ".join(f"{item['version']} ({', '.join(item['modes'])})" for item in told["verified"])
            )
        if told["control_files"]:
            page.row("hidden", ", ".join(told["control_files"]))
        starts = told.get("starts")
        if starts:
            words = f"in {starts['ms']:.0f} ms: " if starts["ok"] else f"no, exit code {starts['exit_code']}: "
            page.row("starts", Text(words, style="green" if starts["ok"] else "red"), styled(starts["said"]))
        for item in told["runs"][:3]:
            count = f"{item['runs']} run{'s' if item['runs'] != 1 else ''}"
            page.row("worked", styled(item["version"]), f": {count}, last {item['last']['state'].replace('_', ' ')}")
    page.line("")
    page.row("tools", ", ".join(map(str, tools)) or "no folders: name them under sandbox.tools")
