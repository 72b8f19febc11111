"""Writing files of a view below a descriptor of the workspace.

Rules it keeps:
1. Every folder on the way is one name opened below its parent's descriptor, and never a link: no path is resolved a
   second time, so nothing that an agent exchanges meanwhile leads elsewhere.
2. What is written is a new name (`O_EXCL`); nothing that exists is opened for writing, replaced or given away.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from vestibule.core.view import ViewFile

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FOLDERS = 64


class Writer:
    """Writes below one folder. `uid` becomes the owner of what is made (None: we stay it)."""

    def __init__(self, folder: Path, uid: int | None = None) -> None:
        self.uid = uid
        self._root = os.open(folder, _FOLDER)
        self._open: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._forget()
        os.close(self._root)

    def _forget(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def folder(self, path: str) -> int:
        """A descriptor of the folder at `path` (`""` is the root), made on the way.

        Raises:
            OSError: a name on the way is a link or no folder.
        """
        if not path:
            return self._root
        if path not in self._open:
            if len(self._open) > _OPEN_FOLDERS:
                self._forget()
            at = os.dup(self._root)
            for part in path.split("/"):
                try:
                    deeper = self._step(at, part)
                finally:
                    os.close(at)
                at = deeper
            self._open[path] = at
        return self._open[path]

    def _step(self, at: int, name: str) -> int:
        made = False
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=at)
            made = True
        found = os.open(name, _FOLDER, dir_fd=at)
        # What stands there may have been exchanged since: only what is still ours is given away.
        if made and self.uid is not None and os.fstat(found).st_uid == os.geteuid():
            os.fchown(found, self.uid, self.uid)
        return found

    def write(self, file: ViewFile, data: bytes) -> None:
        """Puts one new file or link there.

        Raises:
            FileExistsError: something has that name already.
            OSError: a name on the way is a link or no folder, or the disk is full.
        """
        parent, _, name = file.path.rpartition("/")
        at = self.folder(parent)
        if file.mode == "120000":
            os.symlink(data, os.fsencode(name), dir_fd=at)
            return
        fd = os.open(name, _NEW, 0o600, dir_fd=at)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            mode = 0o755 if file.mode == "100755" else 0o644
            if file.partial:
                # Nobody's to change: it stays ours, so that whoever owns the folder cannot make it writable.
                os.fchmod(fd, mode & 0o555)
            else:
                os.fchmod(fd, mode)
                if self.uid is not None:
                    os.fchown(fd, self.uid, self.uid)
        finally:
            os.close(fd)
