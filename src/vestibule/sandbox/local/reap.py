"""What a dead supervisor or keeper left behind: ended and removed by its record.

A record names processes by pid and start time and control groups by their folders, so that nothing is ever killed
or removed that merely has an old number or name.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from pathlib import Path
from typing import Any

from vestibule.core.errors import DependencyDown
from vestibule.sandbox.local import limits, wire


def reap_record(path: Path) -> None:
    """End and remove everything a record names, then the record.

    Raises:
        DependencyDown: `sandbox`; the record cannot be read, or something survives.
    """
    try:
        entry = json.loads(path.read_text())
        end(entry)
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DependencyDown("sandbox", f"The record {path} cannot be read.", fact=str(error)) from None
    path.unlink(missing_ok=True)


def end(entry: dict[str, Any]) -> None:
    """End the processes and remove the groups of `{name, folders, processes}`.

    Raises:
        DependencyDown: `sandbox`; something survives.
    """
    group = limits.Group.recorded(entry["name"], entry["folders"])
    for pid, started in entry["processes"]:
        _kill_exactly(pid, started)
    if not group.destroy():
        raise DependencyDown("sandbox", f"Processes of {entry['name']} cannot be ended.")


def _kill_exactly(pid: int, started: int | None) -> None:
    """SIGKILL one process, told from a later one with its number by its start; wait until it is gone."""
    try:
        fd = os.pidfd_open(pid)
    except (ProcessLookupError, OSError):
        return
    try:
        if started is not None and wire.start_time(pid) == started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                select.select([fd], [], [], 10)
    finally:
        os.close(fd)
