"""Unsafe names: whatever another file system or tool could read as another path is refused.

A name that the change introduces must have a normal form (`core.text.paths`) and must not collide with an
existing one where case or Unicode form is ignored (CVE-2021-21300, CVE-2024-32002). A name that was there before
is held, so that people can still repair it. A planted bare repository is refused (`safe.bareRepository`).
"""

from __future__ import annotations

from collections.abc import Iterator

from vestibule.boundary.changes.changeset import Change, ChangeSet, decode_path
from vestibule.boundary.changes.guards.base import GuardContext, found
from vestibule.core.model import Finding
from vestibule.core.text.paths import PathRefused, fold, normalise_path
from vestibule.core.verdict import Ruling


def examine(changes: ChangeSet, context: GuardContext) -> Iterator[Finding]:  # noqa: ARG001 - one protocol for all
    introduced = [change for change in changes.changes if change.introduces or change.status == "T"]
    for change in changes.changes:
        for raw in change.paths:
            problem = refused(decode_path(raw))
            if problem:
                new = raw == change.path and change.introduces
                yield found(
                    problem.rule,
                    Ruling.DENY if new else Ruling.HOLD,
                    problem.reason if new else f"An existing file has an unsafe name. {problem.reason}",
                    change,
                    fix=problem.hint,
                )
    if introduced:
        yield from _collisions(changes, introduced)
        yield from _bare_repositories(changes, introduced)


def refused(name: str) -> PathRefused | None:
    """Why `name` is no path in normal form, else None."""
    try:
        normal = normalise_path(name)
    except PathRefused as error:
        return error
    if normal != name:
        return PathRefused("path.form", "The path is not in normal form.", f"Write it as {normal!r}.")
    return None


def _collisions(changes: ChangeSet, introduced: list[Change]) -> Iterator[Finding]:
    spellings: dict[str, set[str]] = {}
    for raw in changes.tree:
        name = decode_path(raw)
        spellings.setdefault(fold(name), set()).add(name)
    folders: dict[str, set[str]] = {}
    for raw in changes.folders:
        name = decode_path(raw)
        folders.setdefault(fold(name), set()).add(name)
    for change in introduced:
        folded = fold(change.name)
        others = (spellings.get(folded, set()) | folders.get(folded, set())) - {change.name}
        if others:
            yield found(
                "path.collision",
                Ruling.DENY,
                "The name differs only in case or Unicode form from another name of the tree.",
                change,
                fix="Choose a name of its own.",
            )
            continue
        parts = folded.split("/")
        real = change.name.split("/")
        for depth in range(1, len(parts)):
            key, here = "/".join(parts[:depth]), "/".join(real[:depth])
            if spellings.get(key):
                yield found(
                    "path.collision",
                    Ruling.DENY,
                    "A folder of the path has the name of a file or link, but for case or Unicode form.",
                    change,
                    fix="Choose a folder of its own.",
                )
                break
            if folders.get(key, set()) - {here}:
                yield found(
                    "path.collision.folder",
                    Ruling.HOLD,
                    "A folder of the path exists in another spelling (case or Unicode form).",
                    change,
                    fix="Use the folder's existing spelling.",
                )
                break


def _bare_repositories(changes: ChangeSet, introduced: list[Change]) -> Iterator[Finding]:
    """git takes any folder with HEAD, objects/ and refs/ for a repository and obeys its configuration."""
    candidates: dict[bytes, Change] = {}
    for change in introduced:
        parts = change.path.split(b"/")
        for depth in range(len(parts)):
            if fold(decode_path(parts[depth])) in ("head", "objects", "refs", "config", "commondir"):
                candidates.setdefault(b"/".join(parts[:depth]), change)
    if not candidates:
        return
    files = {fold(decode_path(path)) for path in changes.tree}
    folders = {fold(decode_path(path)) for path in changes.folders}
    for folder, change in candidates.items():
        prefix = fold(decode_path(folder)) + "/" if folder else ""
        shared = prefix + "commondir" in files
        whole = prefix + "objects" in folders and (prefix + "refs" in folders or prefix + "packed-refs" in files)
        if prefix + "head" in files and (shared or whole):
            yield found(
                "change.repository",
                Ruling.DENY,
                "The folder would be a git repository of its own, with configuration that git obeys.",
                change,
                fix="Leave repositories out of the change.",
            )
