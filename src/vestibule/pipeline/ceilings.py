"""What one sandbox of a run may use, from the operator's configuration; and what is said when it used it up."""

from __future__ import annotations

from pathlib import Path

from vestibule.config.schema import OperatorSandbox
from vestibule.core.errors import Refused
from vestibule.core.ports import Limits
from vestibule.core.refusal import refusal
from vestibule.sandbox.quota import WorkspaceDisk


def limits_of(sandbox: OperatorSandbox, seconds: float) -> Limits:
    """Ceilings of a sandbox that lives at most `seconds`."""
    return Limits(
        wall_seconds=seconds,
        memory_bytes=sandbox.memory_mb << 20,
        pids=sandbox.pids,
        cpu_percent=max(1, round(sandbox.cpus * 100)) if sandbox.cpus is not None else None,
        io_bytes=sandbox.io_mb << 20 if sandbox.io_mb is not None else None,
    )


def disk_of(sandbox: OperatorSandbox, folder: Path) -> WorkspaceDisk:
    """Room for a workspace below `folder`. Raises `DependencyDown`: `workspace`, `sandbox`."""
    return WorkspaceDisk(folder, megabytes=sandbox.workspace_mb, files=sandbox.workspace_files)


def over_quota(sandbox: OperatorSandbox) -> Refused:
    """The refusal of what filled its workspace."""
    return Refused(
        refusal(
            "sandbox.quota",
            "The workspace took more room or more files than it may, so everything in it was stopped.",
            fact=f"at most {sandbox.workspace_mb} MiB and {sandbox.workspace_files:,} files",
            agent="Write less to the workspace; keep what is temporary in /tmp.",
            person="Look at what the agent wrote; raise sandbox.workspace_mb or sandbox.workspace_files if it had to.",
        )
    )
