"""Scope: every name a change touches, both sides of a rename, lies in the write globs."""

from __future__ import annotations

from collections.abc import Iterator

from vestibule.boundary.changes.changeset import ChangeSet, decode_path, display
from vestibule.boundary.changes.guards.base import GuardContext, found
from vestibule.core.model import Finding
from vestibule.core.verdict import Ruling


def examine(changes: ChangeSet, context: GuardContext) -> Iterator[Finding]:
    for change in changes.changes:
        for raw in change.paths:
            if not context.may_write(decode_path(raw)):
                side = "moved from here, which is" if raw != change.path else "changed here, which is"
                yield found(
                    "change.scope",
                    Ruling.DENY,
                    f"{display(raw)} is {side} outside the task's write scope.",
                    change,
                    excerpt=display(raw),
                    fix="Leave this file as it is, or widen the role's write globs in the base branch.",
                )
