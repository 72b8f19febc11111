"""What is in the workspace, as far as the scope shows it: a table that is brought up to date before each use.

Rules it keeps:
1. Whether a name is shown is decided before anything but its name is looked at; of a file that is not shown nothing
   is kept, and nothing is said.
2. Native programs write here at any time, so nothing is believed for longer than one call: every use looks at every
   name again, and a file counts as unchanged only by inode, size and ctime together.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vestibule.boundary.context.rights import Rights
from vestibule.boundary.context.workspace import Workspace, is_normal

Key = tuple[int, int, int]
"""What tells one content of a file from another without reading it."""


def key_of(found: os.stat_result) -> Key:
    """Inode, ctime (nanoseconds), size. Whatever changes a file moves its ctime, which nobody can set."""
    return found.st_ino, found.st_ctime_ns, found.st_size


_NOTHING: dict[str, Item | None] = {}
_REMEMBERED = 50_000


@dataclass(slots=True)
class Item:
    """A file or link that is shown. `order` sorts as a walk does: folder by folder, name by name."""

    path: str
    order: tuple[str, ...]
    kind: Literal["file", "link"]
    size: int
    key: Key
    target: str = ""


class Tree:
    """The table of one task. Thread-safe."""

    def __init__(self, workspace: Workspace, rights: Rights) -> None:
        self._workspace = workspace
        self._rights = rights
        self._folders: dict[str, dict[str, Item | None]] = {}
        """By folder and name; None is a name that is not shown, whatever it is."""
        self._reaches: dict[str, bool] = {}
        self._sorted: list[Item] | None = None
        self._lock = threading.Lock()

    def items(self, folder: str = "") -> list[Item]:
        """Files and links at or below `folder` that are shown, in order, as they are now.

        Raises:
            DependencyDown: `workspace`, `openat2`.
        """
        with self._lock:
            changed = self._refresh(folder)
            if folder:
                return _ordered(self._below(folder))
            if changed or self._sorted is None:
                self._sorted = _ordered(item for names in self._folders.values() for item in names.values() if item)
            return self._sorted

    def _below(self, folder: str) -> Iterable[Item]:
        prefix = f"{folder}/"
        for path, names in self._folders.items():
            if path == folder or path.startswith(prefix):
                yield from (item for item in names.values() if item)

    def _refresh(self, folder: str) -> bool:
        changed = False
        seen: set[str] = set()
        for step in self._workspace.scan(folder, self._enter):
            here = step.folder
            seen.add(here)
            old = self._folders.get(here, _NOTHING)
            new: dict[str, Item | None] = {}
            for name, found in step.names:
                if name in old:
                    item = old[name]
                    if item is None or item.key == (found.st_ino, found.st_ctime_ns, found.st_size):
                        new[name] = item
                        continue
                path = f"{here}/{name}" if here else name
                if not is_normal(path) or not self._rights.readable(path):
                    new[name] = None
                    continue
                item = self._item(path, found, step.fd)
                if item is not None:
                    new[name] = item
                    changed = True
            changed = changed or len(new) != len(old)
            self._folders[here] = new
        prefix = f"{folder}/" if folder else ""
        for path in [path for path in self._folders if path not in seen and f"{path}/".startswith(prefix)]:
            changed = True
            del self._folders[path]
        if changed:
            self._sorted = None
        return changed

    def _enter(self, folder: str) -> bool:
        found = self._reaches.get(folder)
        if found is None:
            if len(self._reaches) > _REMEMBERED:
                self._reaches.clear()
            found = self._reaches[folder] = self._rights.reaches(folder)
        return found

    def _item(self, path: str, found: os.stat_result, fd: int) -> Item | None:
        if stat.S_ISREG(found.st_mode):
            kind: Literal["file", "link"] = "file"
        elif stat.S_ISLNK(found.st_mode):
            kind = "link"
        else:
            return None
        order = tuple(path.split("/"))
        target = self._workspace.link_target(fd, order[-1]) if kind == "link" else ""
        return Item(path, order, kind, found.st_size, key_of(found), target)


def _ordered(items: Iterable[Item]) -> list[Item]:
    return sorted(items, key=lambda item: item.order)
