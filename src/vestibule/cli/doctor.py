"""`vestibule doctor`: which walls stand on this machine, proved by attacking them; which tools there are."""

from __future__ import annotations

from typing import Any

import click

TOOLS: dict[str, tuple[str, ...]] = {
    "git": ("git", "--version"),
    "bubblewrap": ("bwrap", "--version"),
    "ripgrep": ("rg", "--version"),
    "node": ("node", "--version"),
    "claude": ("claude", "--version"),
    "codex": ("codex", "--version"),
    "gemini": ("gemini", "--version"),
    "opencode": ("opencode", "--version"),
    "copilot": ("copilot", "--version"),
}
"""Tool → how to ask for its version."""

_SECONDS = 10


@click.command("doctor", epilog="Exit codes: 0 the operator's minimum stands · 6 it does not · 2 configuration error.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(*, as_json: bool) -> int:
    """Attack the walls of this machine from inside a sandbox, and say which stand."""
    import os
    from concurrent.futures import ThreadPoolExecutor

    from vestibule.config.load import config_dir, load_operator_config, state_dir
    from vestibule.core.errors import OK, VERIFICATION_FAILED
    from vestibule.sandbox.local import LocalSandbox

    operator = load_operator_config()
    backend = LocalSandbox(tools=operator.sandbox.tools, forbidden=(state_dir(), config_dir(os.environ)), state=None)
    backend.prepare()
    with ThreadPoolExecutor(len(TOOLS)) as pool:
        tools = dict(zip(TOOLS, pool.map(_version, TOOLS.values()), strict=True))
    from vestibule.pipeline.monitor import monitor_here, with_monitor

    report = with_monitor(backend.report(), monitor_here().standing())
    missing = report.missing(operator.sandbox.minimum)
    limits = {**report.limits, "workspace": _workspace()} if report.tier != "none" else {}
    found = {
        "tier": report.tier,
        "walls": {name: wall.model_dump() for name, wall in report.walls.items()},
        "minimum": {"walls": list(operator.sandbox.minimum), "missing": list(missing)},
        "limits": limits,
        "tools": tools,
        "fail_modes": _fail_modes(),
        "posture": {},
    }
    if as_json:
        from vestibule.cli.output import emit_json

        emit_json(found)
    else:
        _show(found)
    return VERIFICATION_FAILED if missing else OK


def _version(argv: tuple[str, ...]) -> dict[str, Any]:
    """`{path, version}` of a program on PATH; None for both when it is not there."""
    import shutil
    import subprocess

    path = shutil.which(argv[0])
    if path is None:
        return {"path": None, "version": None}
    try:
        done = subprocess.run(
            [path, *argv[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "NO_COLOR": "1"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"path": path, "version": None, "problem": type(error).__name__}
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
    return {"path": path, "version": lines[0][:100] if lines else None}


def _workspace() -> str:
    """What would hold a workspace's quota: one is made and removed."""
    import tempfile
    from pathlib import Path

    from vestibule.core.errors import VestibuleError
    from vestibule.sandbox.quota import WorkspaceDisk

    try:
        with tempfile.TemporaryDirectory(prefix="vestibule-disk-") as folder:
            disk = WorkspaceDisk(Path(folder), megabytes=8, files=100)
            disk.close()
    except (VestibuleError, OSError) as error:
        return f"none: {error}"
    return "mount" if disk.quota.held else f"counted: {disk.why}"


def _fail_modes() -> list[dict[str, Any]]:
    from vestibule.pipeline.fail_modes import FAIL_MODES

    return [row.model_dump(mode="json") for row in FAIL_MODES]


def _show(found: dict[str, Any]) -> None:
    tiers = {
        "root": "root: sandboxes run under their own uid",
        "user": "user: sandboxes run under your uid",
        "none": "none: no sandbox can be made here, and nothing will run",
    }
    from rich.text import Text

    from vestibule.cli.terminal import Page, styled

    page = Page()
    page.line(f"Tier  {tiers[found['tier']]}", hang=6)
    page.title("Walls")
    for name, wall in found["walls"].items():
        up = wall["state"] == "up"
        page.line(
            Text("  up    " if up else "  DOWN  ", "green" if up else "red"),
            f"{name:<13} ",
            styled(wall["proved_by"], "dim"),
            hang=22,
        )
    page.title("Ceilings")
    for name, mechanism in found["limits"].items():
        page.line(f"  {name:<13} ", styled(mechanism, "dim"), hang=16)
    page.title("Tools")
    for name, tool in found["tools"].items():
        page.line(f"  {name:<13} ", styled(tool["version"] or "not found", "" if tool["version"] else "dim"))
    page.title("When something breaks, the answer is no")
    guards: dict[str, list[str]] = {}
    for row in found["fail_modes"]:
        guards.setdefault(row["guard"], []).append(row["depends_on"])
    for guard, needs in guards.items():
        page.line(f"  {guard:<13} ", Text("; ".join(needs), "dim"), hang=16)
    page.line(Text("  --json says how each is refused, and which test breaks it.", "dim"), hang=2)
    missing = found["minimum"]["missing"]
    page.title(
        f"The configured minimum ({', '.join(found['minimum']['walls'])}) "
        + (f"does NOT stand: {', '.join(missing)} down." if missing else "stands.")
    )
