"""One process hosts a run at a time: an advisory lock that the kernel drops with the process.

The file's text names the holder, for people and for `cancel`; the lock alone decides.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from vestibule.core.errors import UsageError

PATIENCE = 1.0
"""Seconds that a second holder waits: as long as a look at the lease, or the end of a process, may take."""


class Lease:
    """Held while the object lives. `kill -9` releases it; a second holder is refused after `patience` seconds."""

    def __init__(self, folder: Path, run: str, *, patience: float = PATIENCE) -> None:
        self._descriptor = os.open(folder / "lease", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        deadline = time.monotonic() + patience
        while not _locked(self._descriptor):
            if time.monotonic() >= deadline:
                owner = _noted(self._descriptor)
                os.close(self._descriptor)
                raise UsageError(
                    f"Run {run} is being worked on by another process" + (f" (pid {owner})." if owner else "."),
                    next_step=f"Wait for it, or stop it with `vestibule cancel {run}`.",
                )
            time.sleep(0.01)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"pid {os.getpid()}\n".encode(), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def holder(folder: Path) -> int | None:
    """The process id that holds a run's lease, 0 when it cannot be told, None when nobody does.

    The file's text alone is no proof, for whoever was killed before may have left it, and ids are used again:
    the process named must have the file open.
    """
    try:
        descriptor = os.open(folder / "lease", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if _locked(descriptor):
            return None
        pid = _noted(descriptor)
        return pid if pid and _has_open(pid, os.fstat(descriptor)) else 0
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _noted(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).decode("ascii", "replace").split()
    return int(text[1]) if len(text) == 2 and text[1].isascii() and text[1].isdigit() else 0


def _has_open(pid: int, file: os.stat_result) -> bool:
    try:
        return any(_same(item, file) for item in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def _same(path: Path, file: os.stat_result) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (file.st_dev, file.st_ino)
