"""What leaves the sandbox: the workspace compared with the view, by content, after every process is dead.

Rules it keeps:
1. Nothing runs in the agent's tree: no git, no tool, no configuration. Every folder named `.git` is ignored.
2. Files are opened beneath the workspace's descriptor (`openat2`, no links of any kind) and judged by what was opened:
   regular, one link, no set-user-id. A name swapped for a link reads nothing outside.
3. Links are exported as links; devices, pipes and sockets never leave.
4. Bounded in number, depth and bytes: past a bound the export is refused, never cut silently.
5. A file that the view showed in part is compared with that part, and its change says so: nobody who saw a part knows
   what it would replace.
6. What cannot be exported keeps its base version and is reported with a reason: it never becomes a deletion. Of one
   reason so many are named that a person still reads them; the others are counted.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vestibule.boundary.changes.changeset import display
from vestibule.boundary.changes.openat import open_beneath
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.refusal import refusal
from vestibule.core.text.paths import fold
from vestibule.core.view import Export, ExportedFile, View, ViewFile

Mode = Literal["100644", "100755", "120000"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Ceilings of one export."""

    entries: int = 200_000
    depth: int = 64
    file_bytes: int = 16 << 20
    total_bytes: int = 128 << 20
    """Of changed content, which is held in memory."""
    named: int = 50
    """What is left behind for one reason and named; the rest is a number."""


def blob_sha(data: bytes, like: str) -> str:
    """The git object name of a blob, in the hash of `like` (SHA-1 of 40 digits or SHA-256 of 64)."""
    kind = hashlib.sha256 if len(like) == 64 else hashlib.sha1
    return kind(b"blob %d\0" % len(data) + data).hexdigest()


def export_workspace(workspace: Path, view: View, bounds: Bounds | None = None) -> Export:
    """Changes of the workspace against the view.

    Raises:
        Refused: `change.export.limits`, more than the bounds allow.
        DependencyDown: `workspace` cannot be read, or the kernel lacks openat2.
    """
    walk = _Walk({item.path.encode("utf-8"): item for item in view.files}, view.base_commit, bounds or Bounds())
    try:
        root = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(error) from None
    try:
        walk.folder(root, b"", 0)
    finally:
        os.close(root)
    deleted = [
        ExportedFile(path=item.path, status="deleted", mode=item.mode, content=None, partial=item.partial)
        for path, item in walk.view.items()
        if path not in walk.kept and not walk.shadowed(path)
    ]
    files = sorted([*walk.files, *deleted], key=lambda item: (item.path, item.status))
    return Export(files=tuple(files), dropped=tuple(walk.named()))


def _unreadable(error: OSError) -> DependencyDown:
    return DependencyDown("workspace", "The workspace cannot be read.", fact=error.strerror or "")


@dataclass(slots=True)
class _Walk:
    view: dict[bytes, ViewFile]
    like: str
    bounds: Bounds
    files: list[ExportedFile] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    kept: set[bytes] = field(default_factory=set)
    skipped: set[bytes] = field(default_factory=set)
    reasons: dict[str, int] = field(default_factory=dict)
    entries: int = 0
    total: int = 0

    def folder(self, descriptor: int, prefix: bytes, depth: int) -> None:
        if depth > self.bounds.depth:
            raise self._limit(f"folders nested deeper than {self.bounds.depth}")
        for name in sorted(self._names(descriptor)):
            if fold(os.fsdecode(name)) == ".git":
                if prefix or not stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                    self._drop(prefix + name, "change.export.git: git's own folders and files never leave")
                continue
            self.entries += 1
            if self.entries > self.bounds.entries:
                raise self._limit(f"more than {self.bounds.entries:,} files and folders")
            try:
                self._entry(descriptor, name, prefix, depth)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO):
                    raise _unreadable(error) from None
                self._drop(prefix + name, f"change.export.unreadable: {os.strerror(error.errno or 0)}")

    def shadowed(self, path: bytes) -> bool:
        """Whether `path` is, or lies beneath, something that could not be exported."""
        parts = path.split(b"/")
        return any(b"/".join(parts[:count]) in self.skipped for count in range(1, len(parts) + 1))

    def _names(self, descriptor: int) -> Iterator[bytes]:
        with os.scandir(descriptor) as listing:
            for count, entry in enumerate(listing):
                if self.entries + count > self.bounds.entries:
                    raise self._limit(f"more than {self.bounds.entries:,} files and folders")
                yield os.fsencode(entry.name)

    def _entry(self, descriptor: int, name: bytes, prefix: bytes, depth: int) -> None:
        path = prefix + name
        kind = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
        if stat.S_ISDIR(kind):
            with _opened(descriptor, name, os.O_RDONLY | os.O_DIRECTORY) as inner:
                self.folder(inner, path + b"/", depth + 1)
        elif stat.S_ISLNK(kind):
            target = os.fsencode(os.readlink(name, dir_fd=descriptor))
            self._compare(path, "120000", target)
        elif stat.S_ISREG(kind):
            # Non-blocking: should the name become a pipe meanwhile, opening it must not wait.
            with _opened(descriptor, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY) as file:
                self._regular(file, path)
        else:
            self._drop(path, f"change.export.special: a {_KINDS.get(stat.S_IFMT(kind), 'special file')} never leaves")

    def _regular(self, file: int, path: bytes) -> None:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            self._drop(path, "change.export.swapped: the file became something else while it was read")
        elif status.st_mode & (stat.S_ISUID | stat.S_ISGID):
            self._drop(path, "change.export.setuid: a set-user-id or set-group-id file never leaves")
        elif status.st_nlink != 1:
            self._drop(path, "change.export.hard_link: the file has another name, perhaps outside the workspace")
        elif status.st_size > self.bounds.file_bytes:
            limit = self.bounds.file_bytes >> 20
            self._drop(path, f"change.export.size: the file has {status.st_size:,} bytes; {limit} MiB are allowed")
        else:
            data = _read(file, self.bounds.file_bytes + 1)
            if len(data) > self.bounds.file_bytes:
                self._drop(path, "change.export.size: the file grew while it was read")
            else:
                self._compare(path, "100755" if status.st_mode & stat.S_IXUSR else "100644", data)

    def _compare(self, path: bytes, mode: Mode, data: bytes) -> None:
        known = self.view.get(path)
        self.kept.add(path)
        if known and known.mode == mode and known.size == len(data) and known.blob == blob_sha(data, self.like):
            return
        self.total += len(data)
        if self.total > self.bounds.total_bytes:
            raise self._limit(f"more than {self.bounds.total_bytes >> 20} MiB of changed content")
        try:
            text = path.decode("utf-8")
        except UnicodeDecodeError:
            self._drop(path, "path.encoding: The path is not valid UTF-8.")
            return
        self.files.append(
            ExportedFile(
                path=text,
                status="modified" if known else "added",
                mode=mode,
                content=data,
                partial=known is not None and known.partial,
            )
        )

    def _drop(self, path: bytes, reason: str) -> None:
        self.skipped.add(path)
        rule = reason.partition(":")[0]
        self.reasons[rule] = self.reasons.get(rule, 0) + 1
        if self.reasons[rule] <= self.bounds.named:
            self.dropped.append((display(path), reason))

    def named(self) -> list[tuple[str, str]]:
        """What is left behind, at most `named` of one reason, and how many others there are."""
        more = ((rule, count - self.bounds.named) for rule, count in self.reasons.items() if count > self.bounds.named)
        return [*self.dropped, *((f"({count:,} others)", f"{rule}: not named one by one") for rule, count in more)]

    @staticmethod
    def _limit(what: str) -> Refused:
        return Refused(
            refusal(
                "change.export.limits",
                "The workspace is larger than what may leave.",
                fact=what,
                agent="Remove generated files from the workspace and finish again.",
                person="Look at the run's workspace; generated folders belong in the base's .gitignore.",
            )
        )


_KINDS = {
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def _read(file: int, limit: int) -> bytes:
    parts: list[bytes] = []
    left = limit
    while left > 0:
        part = os.read(file, min(left, 1 << 20))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


@contextmanager
def _opened(folder: int, name: bytes, flags: int) -> Iterator[int]:
    descriptor = open_beneath(folder, name, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
