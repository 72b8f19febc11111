"""Symbolic links: a link may only name something inside the tree that the task may read.

Targets are resolved on the resulting tree, by name, without following anything on a disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vestibule.boundary.changes.changeset import LINK, Change, ChangeSet, display
from vestibule.boundary.changes.guards.base import GuardContext, found
from vestibule.core.control_files import protected_path
from vestibule.core.model import Finding
from vestibule.core.text.globs import first_match
from vestibule.core.text.paths import PathRefused, fold, normalise_path
from vestibule.core.verdict import Ruling

MAX_TARGET_BYTES = 4096


@dataclass(frozen=True, slots=True)
class _Problem:
    rule: str
    ruling: Ruling
    message: str


def examine(changes: ChangeSet, context: GuardContext) -> Iterator[Finding]:
    for change in changes.changes:
        if not change.is_link:
            continue
        for problem in _judge(change, changes, context):
            yield found(
                problem.rule,
                problem.ruling,
                problem.message,
                change,
                excerpt=display((change.new or b"")[:200]),
                fix="" if problem.ruling is Ruling.ALLOW else "Copy the file, or link to a file of this task's scope.",
            )


def _judge(change: Change, changes: ChangeSet, context: GuardContext) -> Iterator[_Problem]:
    if change.status == "T":
        yield _Problem("change.symlink.replaces", Ruling.HOLD, "A file is replaced by a symbolic link.")
    target = change.new
    if target is None or not target or len(target) > MAX_TARGET_BYTES:
        yield _Problem("change.symlink.target", Ruling.DENY, "The link's target is empty or too long.")
        return
    try:
        text = target.decode("utf-8")
    except UnicodeDecodeError:
        yield _Problem("change.symlink.target", Ruling.DENY, "The link's target is not valid UTF-8.")
        return
    if text.startswith(("/", "~")) or text[1:2] == ":" or "\\" in text:
        yield _Problem("change.symlink.absolute", Ruling.DENY, "The link's target is absolute.")
        return
    walked = change.name.split("/")[:-1]
    for part in text.split("/"):
        if part in ("", "."):
            continue
        if changes.tree.get("/".join(walked).encode("utf-8", "surrogateescape")) == LINK:
            yield _Problem("change.symlink.chain", Ruling.DENY, "The link's target leads through another link.")
            return
        if part == "..":
            if not walked:
                yield _Problem("change.symlink.escape", Ruling.DENY, "The link's target lies outside the repository.")
                return
            walked.pop()
        else:
            walked.append(part)
    yield from _place("/".join(walked), changes, context)


def _place(path: str, changes: ChangeSet, context: GuardContext) -> Iterator[_Problem]:
    if not path:
        yield _Problem("change.symlink.folder", Ruling.HOLD, "The link names the whole repository.")
        return
    try:
        normalise_path(path)
    except PathRefused as error:
        yield _Problem("change.symlink.target", Ruling.DENY, f"The link's target is unsafe: {error.reason}")
        return
    raw = path.encode("utf-8")
    folder = raw in changes.folders
    if protected_path(path) or first_match(fold(path), [p for _, p in context.folded_protected]):
        yield _Problem("change.symlink.protected", Ruling.DENY, "The link names a protected file under another name.")
    elif raw not in changes.tree and not folder:
        outside = not context.may_read(path)
        yield _Problem(
            "change.symlink.dangling",
            Ruling.DENY if outside else Ruling.HOLD,
            "The link names nothing in this tree" + (", outside the task's scope." if outside else "."),
        )
    elif changes.tree.get(raw) == LINK:
        yield _Problem("change.symlink.chain", Ruling.HOLD, "The link names another link.")
    elif not context.may_read(path) and not (folder and context.may_read(path + "/x")):
        yield _Problem("change.symlink.scope", Ruling.DENY, "The link names a file outside the task's read scope.")
