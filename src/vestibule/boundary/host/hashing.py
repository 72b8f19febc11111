"""The digest of a program as it was executed. *Stdlib only; runs in the monitor's process.*

Rules it keeps:
1. A path is resolved below the sandbox's own root by the kernel (`openat2`, RESOLVE_IN_ROOT, no magic links), so no
   link inside leads to a file outside.
2. Only the very file that was executed is hashed: same inode, same device; else the digest is empty.
3. Nothing here waits: no FIFO, no device, no endless file.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import stat
from typing import Any

_OPENAT2 = 437
_IN_ROOT, _NO_MAGICLINKS = 0x10, 0x02
_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_known: dict[tuple[int, int, int, int, int], str] = {}


def program_digest(root: int, event: Any, most: int) -> str:
    """SHA-256 in hex of the file at `event.path` below the folder `root`, a descriptor; empty when it is another one
    now, longer than `most` bytes, or cannot be read."""
    fd = _open(root, os.fsencode(event.path).lstrip(b"/"))
    if fd < 0:
        return ""
    try:
        found = os.fstat(fd)
        device = (os.major(found.st_dev), os.minor(found.st_dev))
        if not stat.S_ISREG(found.st_mode) or (found.st_ino, device) != (event.inode, event.device):
            return ""
        if found.st_size > most:
            return ""
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if key not in _known:
            if len(_known) > 4096:
                _known.clear()
            with os.fdopen(os.dup(fd), "rb") as file:
                _known[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return _known[key]
    except OSError:
        return ""
    finally:
        os.close(fd)


def _open(root: int, path: bytes) -> int:
    how = _How(os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, 0, _IN_ROOT | _NO_MAGICLINKS)
    return int(_libc.syscall(_OPENAT2, root, path or b".", ctypes.byref(how), ctypes.sizeof(how)))
