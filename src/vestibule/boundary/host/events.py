"""What the kernel's programs tell, record by record. *Stdlib only; pure.*

A record is `struct event` of `bpf/monitor.bpf.c`: 96 bytes of numbers, then a path (its names, the last first, each
with a NUL) and a text (the argument list, what a program passed as a path, or an address).
"""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

HEAD = struct.Struct("<QQQIIIIIIiIQQ16sII")
assert HEAD.size == 96  # noqa: S101 - the layout that both sides agreed on

EXEC, WRITE, UNLINK, RENAME_FROM, RENAME_TO, LINK, TRUNCATE, CONNECT, UNIX, CALL, MET = range(1, 12)
NAMES = {
    EXEC: "exec",
    WRITE: "write",
    UNLINK: "unlink",
    RENAME_FROM: "rename",
    RENAME_TO: "write",
    LINK: "write",
    TRUNCATE: "write",
    CONNECT: "connect",
    UNIX: "unix",
    CALL: "call",
    MET: "met",
}
"""Kind → the word that behaviours and people use."""

CUT, DETACHED, UNLINKED, RACED, SOCKET_IN, REFUSED, DATAGRAM, RELATIVE = (1 << bit for bit in range(8))
FLAGS = {
    "cut": CUT,
    "detached": DETACHED,
    "unlinked": UNLINKED,
    "raced": RACED,
    "socket_in": SOCKET_IN,
    "refused": REFUSED,
    "datagram": DATAGRAM,
}

_CALLS = {
    "x86_64": {
        56: "clone",
        101: "ptrace",
        105: "setuid",
        106: "setgid",
        113: "setreuid",
        114: "setregid",
        117: "setresuid",
        119: "setresgid",
        122: "setfsuid",
        123: "setfsgid",
        155: "pivot_root",
        161: "chroot",
        165: "mount",
        166: "umount2",
        175: "init_module",
        272: "unshare",
        304: "open_by_handle_at",
        308: "setns",
        313: "finit_module",
        321: "bpf",
        425: "io_uring_setup",
    },
    "aarch64": {
        39: "umount2",
        40: "mount",
        41: "pivot_root",
        51: "chroot",
        97: "unshare",
        105: "init_module",
        117: "ptrace",
        143: "setregid",
        144: "setgid",
        145: "setreuid",
        146: "setuid",
        147: "setresuid",
        149: "setresgid",
        151: "setfsuid",
        152: "setfsgid",
        220: "clone",
        265: "open_by_handle_at",
        268: "setns",
        273: "finit_module",
        280: "bpf",
        425: "io_uring_setup",
    },
}
CALL_NAMES = frozenset(_CALLS["x86_64"].values())


class BadRecord(ValueError):
    """Bytes that are no record."""


class Event(NamedTuple):
    """One event. `time` is nanoseconds of the boot clock, `device` as the kernel numbers it, `result` 0 or -errno.

    `path` is absolute as seen inside (of a detached file its bare name); `arguments` the argument list of an exec;
    `address` and `port` of a connection; `call` a system call's name, `argument` its first
    argument (of a connection 1 where a message was sent without one). Texts hold what a program chose.
    """

    kind: int
    time: int
    group: int
    pid: int
    parent: int
    comm: str
    flags: int
    path: str = ""
    arguments: tuple[str, ...] = ()
    inode: int = 0
    device: tuple[int, int] = (0, 0)
    result: int = 0
    address: str = ""
    port: int = 0
    call: str = ""
    argument: int = 0

    @property
    def name(self) -> str:
        return NAMES[self.kind]


def path_of(names: bytes, flags: int) -> str:
    """Names, the last first → the path."""
    parts = names.split(b"\0")[-2::-1]
    joined = b"/".join(parts).decode("utf-8", "surrogateescape")
    return joined if flags & DETACHED else "/" + joined


def parse(record: bytes, machine: str = "x86_64") -> Event:
    """Raises BadRecord."""
    try:
        head = HEAD.unpack_from(record)
    except struct.error:
        raise BadRecord("shorter than its head") from None
    time, group, inode, kind, flags, pid, parent, dev, number, result, port, first, _, comm, path_size, text_size = head
    if kind not in NAMES or len(record) < HEAD.size + path_size + text_size:
        raise BadRecord("of an unknown kind or size")
    place = record[HEAD.size : HEAD.size + path_size]
    text = record[HEAD.size + path_size : HEAD.size + path_size + text_size]
    path, address, call = "", "", ""
    arguments: tuple[str, ...] = ()
    if kind in (EXEC, WRITE):
        path = path_of(place, flags)
        if kind == EXEC:
            pieces = text.decode("utf-8", "surrogateescape").split("\0")
            arguments = tuple(pieces if flags & CUT else pieces[:-1])
    elif kind in (CONNECT, MET):
        address = str(ipaddress.ip_address(text[:4] if number == 2 else text[:16]))
    elif kind == UNIX:
        shown = text.rstrip(b"\0")
        address = shown.decode("utf-8", "replace").replace("\0", "@", 1)  # as ss(8) shows an abstract one
    elif kind == CALL:
        call = _CALLS.get(machine, {}).get(number, str(number))
    else:
        given = text.rstrip(b"\0").decode("utf-8", "surrogateescape")
        path = joined(path_of(place, flags) if flags & RELATIVE else "/", given)
    return Event(
        kind=kind,
        time=time,
        group=group,
        pid=pid,
        parent=parent,
        comm=comm.split(b"\0", 1)[0].decode("utf-8", "replace"),
        flags=flags,
        path=path,
        arguments=arguments,
        inode=inode,
        device=(dev >> 20, dev & 0xFFFFF),
        result=result,
        address=address,
        port=port,
        call=call,
        argument=first,
    )


def joined(folder: str, given: str) -> str:
    """A program's own path, continued from the folder it starts in; dots are taken out, links are not followed."""
    parts: list[str] = []
    for part in (given if given.startswith("/") else f"{folder}/{given}").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)
