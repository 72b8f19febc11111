"""Modes: a file becomes executable only where it was written to be one.

Git keeps no set-user-id bit; the export refuses such files before they get here.
"""

from __future__ import annotations

from collections.abc import Iterator

from vestibule.boundary.changes.changeset import GITLINK, LINK, NOTHING, ChangeSet
from vestibule.boundary.changes.guards.base import GuardContext, found
from vestibule.core.model import Finding
from vestibule.core.verdict import Ruling

PLAIN, EXECUTABLE, LEGACY = "100644", "100755", "100664"


def examine(changes: ChangeSet, context: GuardContext) -> Iterator[Finding]:  # noqa: ARG001 - one protocol for all
    for change in changes.changes:
        mode = change.new_mode
        if mode not in (PLAIN, EXECUTABLE, LEGACY, LINK, GITLINK, NOTHING):
            yield found("change.mode.unknown", Ruling.DENY, f"The file has the impossible mode {mode[:6]}.", change)
        elif mode == EXECUTABLE and change.old_mode != EXECUTABLE:
            script = change.head.startswith(b"#!") and not change.binary
            if script:
                ruling, message = Ruling.ALLOW, "A script is executable now."
            elif change.old_mode == NOTHING:
                ruling, message = Ruling.HOLD, "A new file is executable and is no script."
            else:
                ruling, message = Ruling.HOLD, "An existing file that is no script becomes executable."
            yield found(
                "change.mode.executable",
                ruling,
                message,
                change,
                excerpt=f"{change.old_mode} {mode}",
                fix="" if script else "Drop the executable bit, or say in the change why the file needs it.",
            )
