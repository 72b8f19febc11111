"""Trusted instructions: read from the protected base commit, and from nowhere else.

Rules it keeps:
1. The commit is the run's base, in every round: what an agent wrote in an earlier one is never an instruction, and the
   working tree is not looked at.
2. Only what `core.instructions` names is read, regular files only, bounded before they are read.
3. A view that names one holds for it too: nothing is told that the files would not show.
4. What is given is recorded: path, digest of the bytes as given, and label. The label joins the run's before the
   agent starts, for from its first request on it works under what it was told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vestibule.core.canonical import digest_bytes
from vestibule.core.instructions import Instruction, instruction, instruction_paths
from vestibule.core.labels import Label, joined
from vestibule.core.model import Scope
from vestibule.core.projection import CannotProject, project, rules_for
from vestibule.git import Git

OWNERS = (".github/CODEOWNERS", ".gitlab/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS")
"""Where CODEOWNERS is looked for; the first that is there counts."""

READ_BYTES = 1 << 20
"""Of one file, so that the note about what was cut can say how much it is; beyond this it is not read at all."""


def instructions_of(git: Git, base: str, scope: Scope) -> tuple[Instruction, ...]:
    """The instructions for a task with `scope` as the commit `base` has them, nearest to the root first.

    Raises:
        DependencyDown, GitError: git did not answer.
    """
    entries = {entry.path: entry for entry in git.tree(base) if entry.kind == "blob"}
    paths = instruction_paths(((path, entry.mode) for path, entry in entries.items()), scope)
    fitting = [path for path in paths if 0 < (entries[path].size or 0) <= READ_BYTES]
    contents = dict(git.blobs(dict.fromkeys(entries[path].sha for path in fitting)))
    shown = ((path, _in_view(path, contents[entries[path].sha], scope)) for path in fitting)
    found = (instruction(path, base, data, scope) for path, data in shown if data is not None)
    return tuple(item for item in found if item is not None)


def _in_view(path: str, data: bytes, scope: Scope) -> bytes | None:
    """What the scope's views show of a file; None: no part of it can be shown."""
    rules = rules_for(path, scope.views)
    try:
        return project(data, path, rules) if rules else data
    except CannotProject:
        return None


def owners_of(git: Git, base: str) -> str:
    """The text of CODEOWNERS as the commit `base` has it: the first of the places where forges look; empty without.

    Raises:
        DependencyDown, GitError: git did not answer.
    """
    entries = {
        entry.path: entry for entry in git.tree(base) if entry.path in OWNERS and entry.mode in ("100644", "100755")
    }
    for path in OWNERS:
        if path in entries and 0 < (entries[path].size or 0) <= READ_BYTES:
            return dict(git.blobs([entries[path].sha]))[entries[path].sha].decode("utf-8", "replace")
    return ""


def label_of_all(instructions: Iterable[Instruction]) -> Label:
    """What an agent that was given these has read."""
    return joined(item.label for item in instructions)


def as_details(instructions: Iterable[Instruction]) -> list[dict[str, Any]]:
    """What the log says of them: no text."""
    return [
        {
            "path": item.path,
            "commit": item.commit,
            "digest": digest_bytes(item.text.encode("utf-8")),
            "label": item.label.model_dump(mode="json"),
        }
        for item in instructions
    ]
