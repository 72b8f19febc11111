"""Files that CI runs: a script that an existing workflow calls is as good as the workflow (see `reachable`)."""

from __future__ import annotations

from collections.abc import Iterator

from vestibule.boundary.changes.changeset import ChangeSet
from vestibule.boundary.changes.guards.base import GuardContext, found, suffix
from vestibule.boundary.changes.guards.review import PROSE, is_test
from vestibule.boundary.changes.reachable import runs_for_ci
from vestibule.core.model import Finding
from vestibule.core.text.globs import first_match
from vestibule.core.text.paths import fold
from vestibule.core.verdict import Ruling

_DATA = frozenset({".json", ".lock", ".txt", ".toml", ".cfg", ".ini", ".xml", ".csv", ".yml", ".yaml", ".mod", ".sum"})
"""Inputs of tools; what runs among them has rows of its own (`startup`)."""


def examine(changes: ChangeSet, context: GuardContext) -> Iterator[Finding]:  # noqa: ARG001 - one protocol for all
    for change in changes.changes:
        for raw in change.paths:
            if raw not in changes.ci_reachable or is_test(change.name) or suffix(change.name) in _DATA:
                continue
            if first_match(fold(change.name), PROSE):
                continue
            script = runs_for_ci(raw, change.new_mode, change.head)
            yield found(
                "change.ci_script",
                Ruling.DENY if script else Ruling.HOLD,
                "CI configuration runs this file: the change would run there before anybody approved it."
                if script
                else "CI configuration names this file.",
                change,
                fix="A person changes what CI runs, in a change of its own.",
            )
