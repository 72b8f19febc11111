"""Protected paths: what decides, builds, checks or steers agents elsewhere never changes through an agent.

Compared on folded names (case, compatibility forms), both sides of a rename, deletions included.
Agent-control files and the shipped list come from `core.control_files`; the repository adds its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from vestibule.boundary.changes.changeset import ChangeSet, decode_path, display
from vestibule.boundary.changes.guards.base import GuardContext, found
from vestibule.core.control_files import control_file, protected_path
from vestibule.core.model import Finding
from vestibule.core.text.globs import first_match
from vestibule.core.text.paths import fold
from vestibule.core.verdict import Ruling


def examine(changes: ChangeSet, context: GuardContext) -> Iterator[Finding]:
    own = tuple(folded for _, folded in context.folded_protected)
    for change in changes.changes:
        for raw in change.paths:
            name = decode_path(raw)
            folded = fold(name)
            if folded == ".vestibule" or folded.startswith(".vestibule/"):
                rule, why = "change.protected.vestibule", "it holds the rules that govern agents"
            elif control_file(name):
                rule, why = "change.protected.control_file", "agents, IDEs or tools obey it"
            elif protected_path(name):
                rule, why = "change.protected", "it decides what is built, checked or run elsewhere"
            elif own and (pattern := first_match(folded, own)):
                rule, why = "change.protected.configured", f"`changes.protected` names it ({pattern})"
            else:
                continue
            yield found(
                rule,
                Ruling.DENY,
                f"{display(raw)} is protected: {why}.",
                change,
                excerpt=display(raw),
                fix="Leave it out of this change; a person changes it, in a change of its own.",
            )
