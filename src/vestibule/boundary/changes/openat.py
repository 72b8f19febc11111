"""`openat2(2)` by system call: open a name below a descriptor and nothing else.

`RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV`: no component may be a link, leave
the folder or cross a mount, and the kernel decides it at the moment of opening, so that a swap changes nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os

from vestibule.core.errors import DependencyDown

_SYS_OPENAT2 = 437  # the same number on every architecture (Linux 5.6)
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)


def open_beneath(folder: int, name: bytes, flags: int) -> int:
    """A descriptor of `name` beneath the folder's descriptor, close-on-exec.

    Raises:
        OSError: `ELOOP` for a link, `EXDEV` for a way out, and whatever open(2) says.
        DependencyDown: the kernel has no openat2 (Linux 5.6).
    """
    how = _OpenHow(flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0, _NO_XDEV | _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH)
    while True:
        found = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(folder),
            ctypes.c_char_p(name),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if found >= 0:
            return int(found)
        code = ctypes.get_errno()
        if code in (errno.EINTR, errno.EAGAIN):
            continue
        if code == errno.ENOSYS:
            raise DependencyDown(
                "openat2",
                "The kernel cannot open files beneath a folder safely.",
                fact="openat2 is missing",
                person="Use Linux 5.6 or later.",
            )
        raise OSError(code, os.strerror(code), name)
