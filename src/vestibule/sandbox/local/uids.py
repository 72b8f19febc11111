"""Dedicated uids for sandboxes of a supervisor that runs as root.

Rules it keeps:
1. A uid is in use by one workspace at a time, on the whole machine: its lock is held by an open descriptor, which
   the keeper shares, so it is free only when supervisor and sandbox are both gone.
2. A uid that a person or service has is never taken.
3. Ownership changes never follow a symbolic link.

The range is the one systemd keeps for dynamic users (systemd, "Users, Groups, UIDs and GIDs", 61184–65519).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import secrets
from pathlib import Path

from vestibule.core.errors import DependencyDown

FIRST, LAST = 61184, 65519
_LOCKS = Path("/run/vestibule/uids")


class Lease:
    """A uid that is ours until `close`. Its descriptor goes to the keepers."""

    def __init__(self, uid: int, fd: int) -> None:
        self.uid = uid
        self.fd = fd

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def lease(folder: Path = _LOCKS) -> Lease:
    """A free uid of the range.

    Raises:
        DependencyDown: `sandbox`; the lock folder cannot be used, or all uids are taken.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != 0 or folder.is_symlink():
            raise DependencyDown("sandbox", f"{folder} does not belong to root.")
        span = LAST - FIRST + 1
        first = secrets.randbelow(span)
        for step in range(span):
            uid = FIRST + (first + step) % span
            found = _try(folder / str(uid), uid)
            if found is not None:
                return found
    except OSError as error:
        raise DependencyDown(
            "sandbox", f"Uids for sandboxes cannot be locked in {folder}.", fact=str(error.strerror)
        ) from None
    raise DependencyDown("sandbox", "Every uid for sandboxes is in use.")


def _try(path: Path, uid: int) -> Lease | None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    with contextlib.suppress(KeyError):
        pwd.getpwuid(uid)
        os.close(fd)
        return None
    return Lease(uid, fd)


def own_workspace(path: Path, uid: int | None) -> None:
    """Give a folder and everything below to `uid` (group the same number). None: nothing to do."""
    if uid is None:
        return
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for _, folders, files, at in os.fwalk(".", dir_fd=root, follow_symlinks=False):
            for name in (*folders, *files):
                os.chown(name, uid, uid, dir_fd=at, follow_symlinks=False)
        os.fchown(root, uid, uid)
    finally:
        os.close(root)
