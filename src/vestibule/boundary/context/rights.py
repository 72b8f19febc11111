"""A scope and a view, prepared for questions about paths.

Rule it keeps: answers come from the scope and the view alone, never from what is in the workspace.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vestibule.boundary.context import catalogue
from vestibule.core.control_files import control_file, protected_path
from vestibule.core.labels import REPOSITORY, Label, label_of, label_of_all
from vestibule.core.model import Scope
from vestibule.core.text.globs import first_match, literal_prefix, matches
from vestibule.core.text.paths import fold
from vestibule.core.view import View

_GLOB = re.compile(r"[*?\[{]")


@dataclass(frozen=True, slots=True)
class Rights:
    """A scope and a view, prepared for questions about paths."""

    scope: Scope
    shown: frozenset[str] = frozenset()
    """Folded paths of the view."""
    partial: frozenset[str] = frozenset()
    """Folded paths of files that the view shows in part."""
    links: frozenset[str] = frozenset()
    """Paths of the view that are symbolic links."""
    label: Label = REPOSITORY
    """The join of all files of the view."""

    @classmethod
    def of(cls, scope: Scope, view: View) -> Rights:
        return cls(
            scope,
            shown=frozenset(fold(item.path) for item in view.files),
            partial=frozenset(fold(path) for path in view.partial),
            links=frozenset(item.path for item in view.files if item.mode == "120000"),
            label=label_of_all((item.path for item in view.files), scope.labels),
        )

    def in_part(self, path: str) -> bool:
        """Whether the view shows a part of this file only."""
        return fold(path) in self.partial

    def label_of(self, path: str) -> Label:
        """What reading a file of the workspace adds to the run's label."""
        return label_of(path, self.scope.labels)

    def tool(self, name: str) -> bool:
        return name in catalogue.TOOLS and (name in catalogue.ALWAYS or name in self.scope.tools)

    def readable(self, path: str) -> bool:
        """Whether a file may be read, listed and searched."""
        return self.scope.reads(path) and control_file(path) is None

    def writable(self, path: str) -> bool:
        """Whether a file may be changed."""
        return self.scope.writes(path) and control_file(path) is None and not self.protected(path)

    def has(self, path: str, access: str) -> bool:
        """Whether a plain path (no glob) is in reach already."""
        return not _GLOB.search(path) and (self.writable(path) if access == "write" else self.readable(path))

    def reaches(self, folder: str) -> bool:
        """Whether a readable file can lie at or below `folder` (`""` is the workspace)."""
        return self.scope.reads(folder) or any(_below(folder, glob) for glob in self.scope.readable)

    def protected(self, path: str) -> bool:
        folded = fold(path)
        return (
            protected_path(path) is not None
            or first_match(path, self.scope.protected) is not None
            or first_match(folded, tuple(fold(glob) for glob in self.scope.protected)) is not None
        )


def _below(folder: str, glob: str) -> bool:
    """Whether `glob` can match a path below `folder`. In doubt (alternatives that hold a slash) it can."""
    if not folder:
        return True
    if re.search(r"\{[^}]*/", glob):
        prefix = literal_prefix(glob)
        return not prefix or f"{folder}/".startswith(f"{prefix}/") or prefix.startswith(f"{folder}/")
    parts = glob.split("/")
    for at, name in enumerate(folder.split("/")):
        if at < len(parts) and parts[at] == "**":
            return True
        if at >= len(parts) - 1 or not matches(name, parts[at]):
            return False
    return True
