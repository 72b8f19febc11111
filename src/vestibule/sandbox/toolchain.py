"""What set-up commands made, kept by what it was made from: copied out, sealed, verified before each use, pruned.

Rules it keeps:
1. What a set-up left is data of hostile package scripts: nothing of it is run or followed here. Files, folders and
   links are kept; what is none of these, or cannot be copied, makes the set-up a failure.
2. A kept result is found by its key alone (everything it depends on), and its digest is computed anew before each use:
   one that changed is refused.
3. A result appears whole, under its final name, or not at all. One that is in use is not pruned.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from vestibule.core.base import Noun
from vestibule.core.canonical import digest
from vestibule.core.errors import DependencyDown
from vestibule.sandbox.removal import remove_tree

SETUP = "/opt/setup"
"""Where set-up commands write, and where their result is shown read-only."""

KEPT = 8
"""Results that are kept beside the ones in use; the longest unused go first."""

MAX_RESULT_FILES = 500_000
"""Files, folders and links of one result."""

_MANIFEST = "manifest.json"
_CHUNK = 1 << 20


class Toolchain(Noun):
    """A kept result. `digest` names its exact content, `tree` is its folder."""

    key: str
    digest: str
    tree: Path
    files: int


class Unusable(Exception):
    """A set-up left something that cannot be kept; the message says what."""


class Store:
    """Results below one folder of the state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._locks: list[int] = []

    def find(self, key: str) -> Toolchain | None:
        """The kept result, verified and held until `close`.

        Raises:
            DependencyDown: `toolchain`; it is not what was kept, or cannot be read.
        """
        place = self.folder / key
        if not place.exists():
            return None
        try:
            self._hold(place)
            manifest = json.loads((place / _MANIFEST).read_bytes())
            found, files = tree_digest(place / "tree")
        except (OSError, ValueError, Unusable) as error:
            raise _changed(key, str(error) or type(error).__name__) from None
        if manifest.get("key") != key or manifest.get("digest") != found:
            raise _changed(key, f"{found[:16]} instead of {str(manifest.get('digest'))[:16]}")
        with contextlib.suppress(OSError):
            os.utime(place)
        return Toolchain(key=key, digest=found, tree=place / "tree", files=files)

    def keep(self, key: str, made: Path) -> Toolchain:
        """Copy what a set-up left in `made`; every process that could write there is dead.

        Raises:
            Unusable: it holds something that cannot be kept.
            DependencyDown: `toolchain`; the store cannot be written.
        """
        fresh = self.folder / f".{key[:32]}-{os.getpid()}"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            remove_tree(fresh)
            (fresh / "tree").mkdir(mode=0o755, parents=True)
            fresh.chmod(0o700)
            copy(made, fresh / "tree")
            found, files = tree_digest(fresh / "tree")
            manifest = {"version": 1, "key": key, "digest": found, "files": files}
            (fresh / _MANIFEST).write_text(json.dumps(manifest))
            with contextlib.suppress(OSError):
                fresh.rename(self.folder / key)
        except OSError as error:
            raise DependencyDown(
                "toolchain", "The result of the set-up commands cannot be kept.", fact=error.strerror or ""
            ) from None
        finally:
            with contextlib.suppress(OSError):
                remove_tree(fresh)
        kept = self.find(key)
        if kept is None:
            raise DependencyDown("toolchain", "The result of the set-up commands cannot be kept.")
        return kept

    def prune(self) -> None:
        """Remove what was not used for longest, beyond `KEPT`, and what dead processes left half made."""
        found = []
        for place in self.folder.glob("[!.]*"):
            with contextlib.suppress(OSError):
                found.append((place.stat().st_mtime_ns, place))
        for place in self.folder.glob(".*"):
            pid = place.name.rpartition("-")[2]
            if pid.isdigit() and not Path("/proc", pid).exists():
                with contextlib.suppress(OSError):
                    remove_tree(place)
        for _, place in sorted(found, reverse=True)[KEPT:]:
            with contextlib.suppress(OSError):
                fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    gone = place.with_name(f".{place.name[:32]}-{os.getpid()}-{time.monotonic_ns()}")
                    place.rename(gone)
                    remove_tree(gone)
                finally:
                    os.close(fd)

    def close(self) -> None:
        """What was found may be pruned again. Idempotent."""
        for fd in self._locks:
            os.close(fd)
        self._locks.clear()

    def _hold(self, place: Path) -> None:
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._locks.append(fd)
        fcntl.flock(fd, fcntl.LOCK_SH)
        if not place.exists():
            raise Unusable("it was removed meanwhile")


def _changed(key: str, fact: str) -> DependencyDown:
    return DependencyDown(
        "toolchain",
        "A kept result of set-up commands is not what was kept.",
        fact=f"{key[:16]}: {fact}",
        person="Find out who wrote to the state folder; then remove this folder of toolchains/, and it is made anew.",
    )


def _walk(top: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    """(name below `top`, path, what it is) of everything, no link followed. Raises Unusable."""
    count = 0
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            with os.scandir(top / below) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise Unusable(f"{below or '.'} cannot be read: {error.strerror}") from None
        for entry in found:
            count += 1
            if count > MAX_RESULT_FILES:
                raise Unusable(f"it has more than {MAX_RESULT_FILES:,} files")
            name = f"{below}/{entry.name}" if below else entry.name
            about = entry.stat(follow_symlinks=False)
            if not (stat.S_ISDIR(about.st_mode) or stat.S_ISREG(about.st_mode) or stat.S_ISLNK(about.st_mode)):
                raise Unusable(f"{name} is no file, folder or link")
            yield name, top / name, about
            if stat.S_ISDIR(about.st_mode):
                waiting.append(name)


def copy(source: Path, target: Path) -> None:
    """Everything below `source` into the empty folder `target`, ours, readable by all, written by none.

    Raises:
        Unusable: something there cannot be kept.
        OSError: `target` cannot be written.
    """
    for name, path, about in _walk(source):
        place = target / name
        if stat.S_ISDIR(about.st_mode):
            place.mkdir(mode=0o755)
        elif stat.S_ISLNK(about.st_mode):
            place.symlink_to(os.readlink(path))  # noqa: PTH115 - as it is, whatever bytes it has
        else:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                raise Unusable(f"{name} cannot be read: {error.strerror}") from None
            with open(fd, "rb") as inner, open(place, "xb") as outer:
                shutil.copyfileobj(inner, outer, _CHUNK)
            place.chmod(0o555 if about.st_mode & 0o100 else 0o444)


def tree_digest(tree: Path) -> tuple[str, int]:
    """(digest over every name, kind, mode and content, how many entries). Raises Unusable, OSError."""
    rows = []
    for name, path, about in _walk(tree):
        kind = stat.S_IFMT(about.st_mode)
        row = [os.fsencode(name).hex(), kind, about.st_mode & 0o7777 if kind != stat.S_IFLNK else 0]
        if kind == stat.S_IFLNK:
            row.append(os.fsencode(os.readlink(path)).hex())  # noqa: PTH115
        elif kind == stat.S_IFREG:
            with open(path, "rb") as file:
                row.append(hashlib.file_digest(file, "sha256").hexdigest())
        rows.append(row)
    return digest(sorted(rows)), len(rows)
