"""A work tree's files, one path at a time, through directory descriptors.

Rules it keeps:
1. No link is ever followed: each folder of a path is opened with O_NOFOLLOW below the last one, starting at the root.
2. A file is made whole elsewhere and then renamed into place, so a path holds its old content or its new content,
   never a part of it, whenever the process dies; nothing of ours ever lies in the work tree.
3. Content is compared as bytes against git's object name; no filter, no line-end conversion.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from vestibule.core.base import Noun
from vestibule.core.ids import Sha

Seen = Literal["old", "new", "other"]


class Entry(Noun):
    """A file of a tree: mode 100644, 100755 or 120000, and its blob."""

    mode: str
    sha: Sha


class Change(Noun):
    """What happens to one path; None is absence."""

    path: bytes
    old: Entry | None
    new: Entry | None

    def reversed(self) -> Change:
        return Change(path=self.path, old=self.new, new=self.old)


class Files:
    """The files below `root`. `stage` is the path of one new file at a time, outside it, on the same file system."""

    def __init__(self, root: Path, stage: Path, *, executable_bit: bool = True) -> None:
        self._root = root
        self._stage = stage
        self._executable_bit = executable_bit

    def seen(self, change: Change) -> Seen:
        """Which side of `change` the path holds now."""
        if self._holds(change.path, change.old):
            return "old"
        return "new" if self._holds(change.path, change.new) else "other"

    def put(self, path: bytes, entry: Entry | None, content: bytes) -> None:
        """Make `path` hold `entry` (its bytes in `content`), or nothing. Missing folders are made, empty ones removed.

        Raises OSError; a link or a file where a folder belongs is ENOTDIR or ELOOP.
        """
        if entry is None:
            self._remove(path)
            return
        self._stage.unlink(missing_ok=True)
        if entry.mode == "120000":
            os.symlink(content, os.fsencode(self._stage))  # noqa: PTH211  the target is bytes
        else:
            bits = 0o777 if entry.mode == "100755" else 0o666
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(self._stage, flags, bits), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        with self._folder(path, make=True) as (folder, name):
            os.rename(self._stage, name, dst_dir_fd=folder)

    def sweep(self) -> None:
        """Remove what a killed process or a failed attempt may have left at `stage`."""
        self._stage.unlink(missing_ok=True)

    def _holds(self, path: bytes, entry: Entry | None) -> bool:
        try:
            with self._folder(path) as (folder, name):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if entry is None:
                    return False
                if stat.S_ISLNK(found.st_mode):
                    return entry.mode == "120000" and _sha(os.readlink(name, dir_fd=folder), entry.sha)
                if not stat.S_ISREG(found.st_mode) or entry.mode == "120000":
                    return False
                executable = bool(found.st_mode & stat.S_IXUSR)
                if self._executable_bit and executable != (entry.mode == "100755"):
                    return False
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
                with os.fdopen(descriptor, "rb") as file:
                    return _sha(file.read(), entry.sha)
        except FileNotFoundError:
            return entry is None
        except OSError:
            return False  # a link or a file where a folder belongs, or unreadable: something else is there

    def _remove(self, path: bytes) -> None:
        try:
            with self._folder(path) as (folder, name):
                os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            pass
        parent = os.path.dirname(path)  # noqa: PTH120  bytes
        while parent:
            try:
                with self._folder(parent) as (folder, name):
                    os.rmdir(name, dir_fd=folder)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    return  # not empty: somebody else's files stay
            parent = os.path.dirname(parent)  # noqa: PTH120

    @contextmanager
    def _folder(self, path: bytes, *, make: bool = False) -> Iterator[tuple[int, bytes]]:
        """The descriptor of the folder that holds `path`, and the name in it."""
        *folders, name = path.split(b"/")
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        current = os.open(self._root, flags)
        try:
            for folder in folders:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(folder, 0o777, dir_fd=current)
                below = os.open(folder, flags, dir_fd=current)
                os.close(current)
                current = below
            yield current, name
        finally:
            os.close(current)


def _sha(data: bytes, expected: Sha) -> bool:
    """Whether `data` is the blob `expected` (SHA-1 or SHA-256 repositories, by the name's length)."""
    header = b"blob %d\0" % len(data)
    if len(expected) == 64:
        return hashlib.sha256(header + data).hexdigest() == expected
    return hashlib.sha1(header + data, usedforsecurity=False).hexdigest() == expected


def plain_path(path: bytes) -> bool:
    """Whether a tree's path may ever be written: relative, no `.`, `..` or `.git` in any spelling, no empty part."""
    parts = path.split(b"/")
    return all(part not in (b"", b".", b"..") and part.lower() != b".git" and b"\0" not in part for part in parts)
