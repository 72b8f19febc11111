"""The `openat2` system call: path resolution that cannot leave a directory.

Rule it keeps: every path is resolved beneath a directory descriptor, through no link of any kind and
into no other mount, or it is not resolved at all. There is no weaker way to fall back to.

Source: openat2(2), Linux 5.6 or later; the number 437 is the same on every architecture that Linux
runs Python on.
"""

from __future__ import annotations

import ctypes
import errno
import os

from vestibule.core.errors import DependencyDown

SYS_OPENAT2 = 437

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
BENEATH = RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH

_RETRIES = 64
"""A concurrent rename may make the kernel answer EAGAIN; it says to try again (openat2(2))."""


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _syscall(directory: int, name: bytes, how: _OpenHow) -> int:
    return int(
        _libc.syscall(
            ctypes.c_long(SYS_OPENAT2),
            ctypes.c_int(directory),
            ctypes.c_char_p(name),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
    )


def open_beneath(directory: int, path: str, flags: int) -> int:
    """A descriptor for `path` (relative, no NUL) beneath `directory`, close-on-exec.

    Raises:
        OSError: as openat2(2) says; ELOOP for a link, EXDEV for a way out or another mount.
        DependencyDown: `openat2` when the kernel or a filter lacks the call.
    """
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=0, resolve=BENEATH)
    name = os.fsencode(path)
    if b"\0" in name:
        raise OSError(errno.EINVAL, "NUL in a path")
    for _ in range(_RETRIES):
        result = _syscall(directory, name, how)
        if result >= 0:
            return result
        code = ctypes.get_errno()
        if code in (errno.ENOSYS, errno.EPERM):
            raise DependencyDown(
                "openat2",
                "This kernel does not let the gateway resolve paths beneath a folder.",
                fact=errno.errorcode[code],
                person="Use Linux 5.6 or later, and a container profile that permits the openat2 system call.",
            )
        if code not in (errno.EAGAIN, errno.EINTR):
            raise OSError(code, os.strerror(code))
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
