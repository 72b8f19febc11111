"""The workspace as the gateway touches it: beneath one directory descriptor, and never as a deputy.

The agent runs native processes in the same tree at the same time and may swap any name for a link at
any instant. Rules this module keeps:
1. Every path is resolved by `openat2` beneath the descriptor that was opened when the run began,
   through no symbolic link, no magic link and into no other mount.
2. Only regular files with one link are read; nothing is read from pipes, devices or sockets.
3. Writing makes a new file in the target's own folder and renames it over the name: no existing file
   is ever opened for writing, so no swapped link is ever followed.
4. Folders are made one step at a time, each step resolved again by rule 1.
5. `.git` is never entered; the caller's paths come from the one normaliser.
6. A workspace that is gone, or a kernel without `openat2`, is a dependency that is down.

Source: openat2(2); CVE-2025-53109 and CVE-2025-53110 (a file server that followed links and prefixes).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vestibule.boundary.context.file_errors import NotDone, check_regular, explained, gone, no_git
from vestibule.boundary.context.openat2 import open_beneath
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.text.paths import PathRefused, normalise_path

MAX_DEPTH = 64
"""Folders below each other that a walk enters."""

MAX_VISITED = 200_000
"""Names that one walk looks at."""

_CHUNK = 1 << 20

_READING = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
"""Opening a pipe must not wait for a writer that never comes."""

_KIND, _FOLDER = 0o170000, stat.S_IFDIR

_NO_FOLDER = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.EACCES, errno.ENAMETOOLONG))


@dataclass(frozen=True, slots=True)
class Entry:
    """A name found by a walk. `size` in bytes; `target` is what a symbolic link says, unresolved."""

    path: str
    kind: Literal["file", "link"]
    size: int
    target: str = ""


@dataclass(frozen=True, slots=True)
class Scanned:
    """One folder of a walk: its path, an open descriptor, and the names in it that are no folders."""

    folder: str
    fd: int
    names: list[tuple[str, os.stat_result]]


@dataclass(frozen=True, slots=True)
class Change:
    """What one file becomes. `data` is None for a deletion, `executable` None keeps an existing file's mode.

    `before` is what the file must hold now; None: there must be none.
    """

    path: str
    data: bytes | None
    before: bytes | None
    executable: bool | None = None


class Workspace:
    """The folder that a run's sandbox has as `/workspace`. Safe to use from many threads.

    Files made by root are given to the folder's owner, which is who the sandbox runs as.
    """

    def __init__(self, path: Path) -> None:
        """Opens the folder.

        Raises:
            DependencyDown: `workspace` when it is no folder, `openat2` when the kernel lacks the call.
        """
        try:
            self._root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise gone(error) from error
        self.lock = threading.RLock()
        try:
            self._chown = self._owner()
            os.close(open_beneath(self._root, ".", os.O_PATH | os.O_DIRECTORY))
        except BaseException:
            os.close(self._root)
            raise

    def _owner(self) -> tuple[int, int] | None:
        found = os.fstat(self._root)
        return (found.st_uid, found.st_gid) if os.geteuid() == 0 and found.st_uid != 0 else None

    def close(self) -> None:
        """Idempotent. Later calls are refused."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def _alive(self) -> int:
        if self._root < 0:
            raise gone(OSError(errno.EBADF, "closed"))
        if os.fstat(self._root).st_nlink == 0:
            raise gone(OSError(errno.ENOENT, os.strerror(errno.ENOENT)))
        return self._root

    # reading

    def read(self, path: str, *, limit: int) -> bytes:
        """The bytes of a regular file of at most `limit` bytes.

        Raises:
            NotDone: missing, a folder, too large.
            Refused: `path.link`, `path.hard_link`, `path.kind`.
            DependencyDown: `workspace`, `openat2`.
        """
        with self._open(path, _READING) as fd:
            return _all(fd, path, check_regular(path, os.fstat(fd)), limit)

    def entry(self, path: str) -> Entry | None:
        """The regular file at `path`, None when there is none."""
        try:
            with self._open(path, os.O_PATH) as fd:
                found = check_regular(path, os.fstat(fd))
        except (NotDone, Refused) as error:
            if isinstance(error, DependencyDown):
                raise
            return None
        return Entry(path, "file", found.st_size)

    def scan(self, folder: str, enter: Callable[[str], bool]) -> Iterator[Scanned]:
        """`folder` and the folders below it that `enter` lets in, with what is in each that is no folder.

        Folders named `.git`, and names without a safe normal form, are left out: no tool could name them. A folder that
        is not there, or is no folder, has nothing in it. A step's descriptor is closed by the next.
        """
        root, budget, waiting = self._alive(), MAX_VISITED, [folder]
        while waiting and budget > 0:
            here = waiting.pop()
            try:
                fd = open_beneath(root, here or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno in _NO_FOLDER:
                    continue
                raise
            try:
                names: list[tuple[str, os.stat_result]] = []
                deeper: list[str] = []
                with os.scandir(fd) as entries:
                    for entry in entries:
                        budget -= 1
                        if budget < 0:
                            break
                        try:
                            found = entry.stat(follow_symlinks=False)
                        except OSError:  # gone meanwhile
                            continue
                        if found.st_mode & _KIND == _FOLDER:
                            deeper.append(entry.name)
                        else:
                            names.append((entry.name, found))
                yield Scanned(here, fd, names)
            finally:
                os.close(fd)
            if here.count("/") < MAX_DEPTH - 1:
                below = (f"{here}/{name}" if here else name for name in sorted(deeper, reverse=True))
                waiting.extend(path for path in below if is_normal(path) and enter(path))

    def link_target(self, folder: int, name: str) -> str:
        """What the link `name` in an open folder says; empty when it is none, or no text."""
        try:
            target = os.readlink(name, dir_fd=folder)
            target.encode("utf-8")
        except (OSError, UnicodeEncodeError):
            return ""
        return target

    def open_folder(self, path: str) -> int:
        """A descriptor of a folder, for `read_in`; -1 when there is none. The caller closes it.

        Raises:
            DependencyDown: `workspace`, `openat2`.
        """
        try:
            return open_beneath(self._alive(), path or ".", os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            found = explained(path, error)
            if isinstance(found, DependencyDown):
                raise found from error
            return -1

    def read_in(self, folder: int, path: str, *, limit: int) -> tuple[bytes, os.stat_result]:
        """As `read`, for a file in a folder that is open; with what the system said of it before it was read."""
        try:
            fd = open_beneath(folder, path.rpartition("/")[2], _READING)
        except OSError as error:
            raise explained(path, error) from error
        try:
            found = check_regular(path, os.fstat(fd))
            return _all(fd, path, found, limit), found
        finally:
            os.close(fd)

    def read_link(self, path: str) -> str:
        """What the symbolic link at `path` says, unresolved; empty when it is none, or cannot be looked at."""
        try:
            folder = self.open_folder(path.rpartition("/")[0])
        except DependencyDown:  # said by whoever opens the file
            return ""
        if folder < 0:
            return ""
        try:
            return self.link_target(folder, path.rpartition("/")[2])
        finally:
            os.close(folder)

    # writing

    def write(self, path: str, data: bytes) -> bool:
        """Puts `data` at `path`, making folders as needed. True when the file is new.

        Raises:
            NotDone: the name is a folder, or a folder's name is a file.
            Refused: `path.link`, `path.hard_link`, `path.kind`.
            DependencyDown: `workspace`, `openat2`.
        """
        with self.lock:
            return self._place(path, data, None)

    def apply(self, changes: Sequence[Change]) -> None:
        """All changes or none: when one fails, those already made are undone before the error is raised.

        Raises:
            NotDone: a file is not what its `before` says, or as for `write`.
            Refused, DependencyDown: as for `write`.
        """
        with self.lock:
            for change in changes:
                if self._current(change) != change.before:
                    raise NotDone("changed", f"{change.path} changed while the patch was worked out; read it again.")
            done: list[Change] = []
            try:
                for change in changes:
                    if change.data is None:
                        self._remove(change.path)
                    else:
                        self._place(change.path, change.data, change.executable)
                    done.append(change)
            except BaseException:
                for change in reversed(done):
                    with contextlib.suppress(NotDone, Refused, OSError):
                        if change.before is None:
                            self._remove(change.path)
                        else:
                            self._place(change.path, change.before, None)
                raise

    def _current(self, change: Change) -> bytes | None:
        limit = max(len(change.before or b""), 1)
        try:
            return self.read(change.path, limit=limit)
        except NotDone as error:
            if error.code == "missing":
                return None
            if error.code == "too_large":
                return b"\0changed"
            raise

    def _place(self, path: str, data: bytes, executable: bool | None) -> bool:
        with self._folder_of(path, make=True) as (folder, name):
            mode, created = self._mode(folder, path, name, executable)
            temporary = f".vestibule-{secrets.token_hex(12)}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                fd = os.open(temporary, flags, 0o600, dir_fd=folder)
            except OSError as error:
                raise explained(path, error) from error
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                if self._chown is not None:
                    os.fchown(fd, *self._chown)
                os.fchmod(fd, mode)
                os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
                ours = os.fstat(fd)
            except BaseException as error:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                if isinstance(error, OSError):
                    raise explained(path, error) from error
                raise
            finally:
                os.close(fd)
            self._landed(folder, path, name, ours)
            return created

    def _landed(self, folder: int, path: str, name: str, ours: os.stat_result) -> None:
        """The name must be the file that was written; else a process in the sandbox exchanged it meanwhile."""
        with contextlib.suppress(OSError):
            there = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                return
        raise NotDone("changed", f"{path} was replaced by another process while it was written.")

    def _mode(self, folder: int, path: str, name: str, executable: bool | None) -> tuple[int, bool]:
        try:
            fd = open_beneath(folder, name, os.O_PATH | os.O_NOFOLLOW)
        except FileNotFoundError:
            return (0o755 if executable else 0o644), True
        except OSError as error:
            raise explained(path, error) from error
        try:
            found = os.fstat(fd)
        finally:
            os.close(fd)
        check_regular(path, found)
        keep = bool(found.st_mode & stat.S_IXUSR) if executable is None else executable
        return (0o755 if keep else 0o644), False

    def _remove(self, path: str) -> None:
        with self._folder_of(path, make=False) as (folder, name):
            self._mode(folder, path, name, None)
            try:
                os.unlink(name, dir_fd=folder)
            except OSError as error:
                raise explained(path, error) from error

    @contextlib.contextmanager
    def _folder_of(self, path: str, *, make: bool) -> Iterator[tuple[int, str]]:
        """A descriptor of the folder that holds `path`, and the last name."""
        *folders, name = path.split("/")
        no_git(path)
        fd = self._open_folder(self._alive(), ".", path)
        try:
            for part in folders:
                try:
                    deeper = open_beneath(fd, part, os.O_PATH | os.O_DIRECTORY)
                except FileNotFoundError as error:
                    if not make:
                        raise explained(path, error) from error
                    deeper = self._make_folder(fd, part, path)
                except OSError as error:
                    raise explained(path, error) from error
                os.close(fd)
                fd = deeper
            yield fd, name
        finally:
            os.close(fd)

    def _make_folder(self, parent: int, name: str, path: str) -> int:
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=parent)
        except OSError as error:
            raise explained(path, error) from error
        fd = self._open_folder(parent, name, path, os.O_RDONLY)
        if self._chown is not None and os.fstat(fd).st_uid == 0:
            os.fchown(fd, *self._chown)
        return fd

    def _open_folder(self, parent: int, name: str, path: str, flags: int = os.O_PATH) -> int:
        try:
            return open_beneath(parent, name, flags | os.O_DIRECTORY)
        except OSError as error:
            raise explained(path, error) from error

    @contextlib.contextmanager
    def _open(self, path: str, flags: int) -> Iterator[int]:
        no_git(path)
        try:
            fd = open_beneath(self._alive(), path, flags)
        except OSError as error:
            raise explained(path, error) from error
        try:
            yield fd
        finally:
            os.close(fd)


def is_normal(path: str) -> bool:
    """Whether a path is its own normal form."""
    try:
        return normalise_path(path) == path
    except PathRefused:
        return False


def _all(fd: int, path: str, found: os.stat_result, limit: int) -> bytes:
    if found.st_size > limit:
        raise NotDone("too_large", f"{path} has {found.st_size} bytes; this tool reads files of at most {limit} bytes.")
    wanted = min(_CHUNK, limit + 1, found.st_size + 1)
    first = os.read(fd, wanted)
    if len(first) == found.st_size < wanted:
        return first
    parts = [first]
    left = limit + 1 - len(first)
    while left > 0 and (part := os.read(fd, min(_CHUNK, left))):
        parts.append(part)
        left -= len(part)
    if left <= 0:
        raise NotDone("too_large", f"{path} grew past {limit} bytes while it was read.")
    return b"".join(parts)
