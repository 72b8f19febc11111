"""Submodules: a gitlink brings code from elsewhere that nobody reviewed here (CVE-2024-32002, CVE-2025-48384)."""

from __future__ import annotations

from collections.abc import Iterator

from vestibule.boundary.changes.changeset import GITLINK, ChangeSet
from vestibule.boundary.changes.guards.base import GuardContext, found
from vestibule.core.model import Finding
from vestibule.core.verdict import Ruling


def examine(changes: ChangeSet, context: GuardContext) -> Iterator[Finding]:  # noqa: ARG001 - one protocol for all
    for change in changes.changes:
        if GITLINK in (change.old_mode, change.new_mode):
            yield found(
                "change.submodule",
                Ruling.DENY,
                "The change adds, moves or removes a submodule.",
                change,
                fix="A person changes submodules; leave the pinned commit as it is.",
            )
