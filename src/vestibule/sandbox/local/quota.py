"""What a sandbox has written, against its ceiling: seen by the keeper, four times a second. *Stdlib only.*

Rules it keeps:
1. Room and files both count. On a file system of the workspace's own (`held`) nothing passes the ceiling, and the
   sandbox ends when one of them is used up; elsewhere the keeper counts, and it ends when it finds one passed.
2. What cannot be counted, three times in a row, has passed: a folder that hides its content, or one nested deeper than
   a path is long.
3. Counting costs at most a twentieth of the keeper's time, and is skipped while the file system says that nothing
   grew; never for longer than `AT_LEAST_SECONDS`.

What is deleted and still held open is not found by counting; the floor of free space (`limits.disk_is_full`) holds it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

DISK = "vestibule-disk"
"""The name of every mount point of a workspace's disk."""

AT_LEAST_SECONDS = 5.0
_SHARE = 20
_STEP = 64
_UNCOUNTED = 3
_LEFT = 1 << 20
"""ext4 refuses to write while a few hundred blocks seem free."""


class Watch:
    """One workspace's ceiling. `config` is `{folder, bytes, files, held}`."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.folder: str = config["folder"]
        self._bytes: int = config["bytes"]
        self._files: int = config["files"]
        self._held: bool = config["held"]
        self._next = 0.0
        self._late = 0.0
        self._seen = (0, 0)
        self._uncounted = 0

    def passed(self) -> str:
        """`space`, `files` or `uncounted`; empty while there is room."""
        found = os.statvfs(self.folder)
        if self._held:
            if found.f_bavail * found.f_frsize < _LEFT:
                return "space"
            return "files" if found.f_favail == 0 else ""
        now = time.monotonic()
        free = (found.f_bavail * found.f_frsize, found.f_favail)
        grown = self._seen[0] - free[0] > self._bytes // _STEP or self._seen[1] - free[1] > self._files // _STEP
        if now < self._next or (now < self._late and not grown):
            return ""
        size, files, whole = count(self.folder, self._bytes, self._files)
        after = time.monotonic()
        self._seen = free
        self._next = after + (after - now) * _SHARE
        self._late = after + AT_LEAST_SECONDS
        self._uncounted = 0 if whole else self._uncounted + 1
        if size > self._bytes:
            return "space"
        if files > self._files:
            return "files"
        return "uncounted" if self._uncounted >= _UNCOUNTED else ""


def count(folder: str, most_bytes: int, most_files: int) -> tuple[int, int, bool]:
    """(bytes on disk, files and folders, whether all could be counted); stops when either is passed."""
    size = files = 0
    whole = True
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        size += _size(entry)
                    if size > most_bytes or files > most_files:
                        return size, files, whole
        except FileNotFoundError:
            continue  # removed meanwhile
        except OSError:
            whole = False
    return size, files, whole


def _size(entry: os.DirEntry[str]) -> int:
    try:
        about = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return 0
    return about.st_blocks * 512


def mechanism(config: dict[str, Any] | None) -> str:
    """What holds a workspace's quota: `mount`, `counted`, or `none` when there is none."""
    return "none" if config is None else "mount" if config["held"] else "counted"


def floor_of(config: dict[str, Any] | None, written: str | None) -> str | None:
    """The folder whose file system must keep free space: of a disk of its own, where its image lies."""
    if config is not None and config["held"]:
        return str(Path(config["folder"]).parent)
    return written
