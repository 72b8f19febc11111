"""The seccomp filter: a deny list as classic BPF, emitted without a library. *Stdlib only; pure.*

Rules it keeps:
1. A system call of another architecture or ABI (32-bit, x32) kills the process: their numbers mean other calls.
2. What reaches other processes, changes namespaces or mounts, loads code into the kernel, or opens kernel
   interfaces with a history of privilege escalation gets EPERM.
3. `clone3` gets ENOSYS, so that C libraries use `clone`, whose flags the filter can read.
4. Sockets, alone or in pairs, are AF_UNIX, and TCP or UDP over AF_INET and AF_INET6; NETLINK_ROUTE stays, for
   `getaddrinfo` and `getifaddrs` (it is empty-handed in an empty network namespace without capabilities).
5. Terminal injection by `TIOCSTI` and `TIOCLINUX` gets EPERM.

A deny list lets through calls that a later kernel adds; the namespaces and missing capabilities are the wall
behind it. Sources: seccomp(2), linux/filter.h, asm/unistd_64.h, asm-generic/unistd.h, CVE-2017-5226 (TIOCSTI),
CVE-2014-9357 class (`open_by_handle_at`).
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

ALLOW = 0x7FFF0000
KILL = 0x80000000  # SECCOMP_RET_KILL_PROCESS
_ERRNO = 0x00050000
EPERM, ENOSYS, EPROTONOSUPPORT, EAFNOSUPPORT = 1, 38, 93, 97

_LD_ABS, _JEQ, _JGE, _JSET, _AND, _RET = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NR, _ARCH = 0, 4


def _arg(index: int) -> int:
    """Offset of the low 32 bits of an argument (both architectures are little-endian)."""
    return 16 + 8 * index


class Arch(NamedTuple):
    """An architecture: its audit number, its column in `DENIED`, and its x32-like ABI bit if it has one."""

    name: str
    audit: int
    column: int
    abi_bit: int


ARCHES = {
    "x86_64": Arch("x86_64", 0xC000003E, 0, 0x40000000),
    "aarch64": Arch("aarch64", 0xC00000B7, 1, 0),
}

# name → (x86_64, aarch64); None where the architecture has no such call.
DENIED: dict[str, tuple[int | None, int | None]] = {
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    # mounts
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "open_tree_attr": (467, 467),
    # namespaces
    "unshare": (272, 97),
    "setns": (308, 268),
    # asynchronous calls that no filter sees
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # code and keys in the kernel
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "userfaultfd": (323, 282),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "create_module": (174, None),
    "init_module": (175, 105),
    "delete_module": (176, 106),
    "finit_module": (313, 273),
    "get_kernel_syms": (177, None),
    "query_module": (178, None),
    # the machine
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    "nfsservctl": (180, 42),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "_sysctl": (156, None),
    # files by handle, watches on whole mounts
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "lookup_dcookie": (212, 18),
    "fanotify_init": (300, 262),
    # other machines' address layouts
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
}

_CLONE = (56, 220)
_CLONE3 = 435
_SOCKET = (41, 198)
_SOCKETPAIR = (53, 199)
_IOCTL = (16, 29)
_PERSONALITY = (135, 92)

NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (NEWTIME is for unshare and clone3 only)."""

TIOCSTI, TIOCLINUX = 0x5412, 0x541C
_PLAIN_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16


class UnknownArchitecture(RuntimeError):
    """No system call numbers are known for this machine, so no filter can be made."""


def _op(code: int, k: int, jt: int = 0, jf: int = 0) -> bytes:
    return struct.pack("<HBBI", code, jt, jf, k)


def _ret(action: int) -> bytes:
    return _op(_RET, action)


def _errno(number: int) -> bytes:
    return _ret(_ERRNO | number)


def _when(nr: int, body: list[bytes]) -> list[bytes]:
    """Run `body` (which always returns) when the loaded call number is `nr`."""
    return [_op(_JEQ, nr, 0, len(body)), *body]


def _clone() -> list[bytes]:
    return [_op(_LD_ABS, _arg(0)), _op(_JSET, NAMESPACE_FLAGS, 0, 1), _errno(EPERM), _ret(ALLOW)]


def _ioctl() -> list[bytes]:
    return [
        _op(_LD_ABS, _arg(1)),
        _op(_JEQ, TIOCSTI, 1, 0),
        _op(_JEQ, TIOCLINUX, 0, 1),
        _errno(EPERM),
        _ret(ALLOW),
    ]


def _personality() -> list[bytes]:
    body = [_op(_LD_ABS, _arg(0))]
    for index, value in enumerate(_PLAIN_PERSONALITIES):
        body.append(_op(_JEQ, value, len(_PLAIN_PERSONALITIES) - index, 0))
    return [*body, _errno(EPERM), _ret(ALLOW)]


def _socket() -> list[bytes]:
    inet = [
        _op(_LD_ABS, _arg(1)),
        _op(_AND, 0xF),  # without SOCK_CLOEXEC and SOCK_NONBLOCK
        _op(_JEQ, 1, 2, 0),  # SOCK_STREAM
        _op(_JEQ, 2, 1, 0),  # SOCK_DGRAM
        _errno(EPERM),
        _op(_LD_ABS, _arg(2)),
        _op(_JEQ, 0, 3, 0),
        _op(_JEQ, 6, 2, 0),  # IPPROTO_TCP
        _op(_JEQ, 17, 1, 0),  # IPPROTO_UDP
        _errno(EPROTONOSUPPORT),
        _ret(ALLOW),
    ]
    netlink = [_op(_LD_ABS, _arg(2)), _op(_JEQ, 0, 0, 1), _ret(ALLOW), _errno(EPERM)]
    return [
        _op(_LD_ABS, _arg(0)),
        _op(_JEQ, _AF_UNIX, 0, 1),
        _ret(ALLOW),
        _op(_JEQ, _AF_NETLINK, 0, len(netlink)),
        *netlink,
        _op(_JEQ, _AF_INET, 2, 0),
        _op(_JEQ, _AF_INET6, 1, 0),
        _errno(EPERM),
        *inet,
    ]


def _socketpair() -> list[bytes]:
    """The kernel makes both sockets, and loads their family's module, before it asks whether they can be a pair."""
    return [_op(_LD_ABS, _arg(0)), _op(_JEQ, _AF_UNIX, 0, 1), _ret(ALLOW), _errno(EPERM)]


@lru_cache(maxsize=4)
def filter_program(machine: str) -> bytes:
    """The filter for `machine` (as `platform.machine()` names it): an array of `struct sock_filter`.

    Raises:
        UnknownArchitecture: neither x86_64 nor aarch64; the caller refuses.
    """
    arch = ARCHES.get(machine)
    if arch is None:
        raise UnknownArchitecture(machine)
    column = arch.column
    program = [_op(_LD_ABS, _ARCH), _op(_JEQ, arch.audit, 1, 0), _ret(KILL), _op(_LD_ABS, _NR)]
    if arch.abi_bit:
        program += [_op(_JGE, arch.abi_bit, 0, 1), _ret(KILL)]
    program += _when(_CLONE[column], _clone())
    program += _when(_CLONE3, [_errno(ENOSYS)])
    program += _when(_SOCKET[column], _socket())
    program += _when(_SOCKETPAIR[column], _socketpair())
    program += _when(_IOCTL[column], _ioctl())
    program += _when(_PERSONALITY[column], _personality())
    for numbers in DENIED.values():
        number = numbers[column]
        if number is not None:
            program += _when(number, [_errno(EPERM)])
    program.append(_ret(ALLOW))
    return b"".join(program)
