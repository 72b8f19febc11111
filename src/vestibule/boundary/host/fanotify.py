"""The second rung, where the kernel takes no programs: fanotify on the mounts of a sandbox. *Stdlib only.*

Rules it keeps:
1. It sees which files are executed and which written files are closed, on every mount that a sandbox has; neither
   arguments, nor removals and moves, nor connections. The report says so by its rung's name.
2. A queue that overflows is an event that was lost.
3. Mounts are marked before the program starts, when nothing inside can have changed them.

Source: fanotify(7), fanotify_init(2), fanotify_mark(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import socket
import struct
import time
from pathlib import Path
from typing import Any

from vestibule.boundary.host import events
from vestibule.boundary.host.worker import Session, Worker, held, release

_EVENT = struct.Struct("=IBBHQii")
_CLOSE_WRITE, _OPEN_EXEC, _OVERFLOW = 0x8, 0x1000, 0x4000
_ADD, _MOUNT = 0x1, 0x10
_CLOEXEC, _NONBLOCK = 0x1, 0x2
_SKIPPED = frozenset({"proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2"})
_libc = ctypes.CDLL(None, use_errno=True)


def _marked(paths: list[str]) -> int:
    """A descriptor that tells of these mounts. Raises OSError."""
    fd = int(_libc.fanotify_init(_CLOEXEC | _NONBLOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_LARGEFILE))
    if fd < 0:
        raise _failed("fanotify cannot be used")
    for path in paths:
        mask = ctypes.c_uint64(_CLOSE_WRITE | _OPEN_EXEC)
        if _libc.fanotify_mark(fd, _ADD | _MOUNT, mask, -100, os.fsencode(path)) < 0:
            os.close(fd)
            raise _failed(f"{path} cannot be watched")
    return fd


def _failed(what: str) -> OSError:
    number = ctypes.get_errno() or errno.EIO
    return OSError(number, f"{what}: {os.strerror(number)}")


def mounts_of(pid: int) -> list[str]:
    """The mounts of a process that hold files, as paths that lead into its own root."""
    found = []
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] not in _SKIPPED:
            place = before.split()[4].encode().decode("unicode_escape")
            found.append(f"/proc/{pid}/root{place}")
    return found


class FileWorker(Worker):
    """The monitor's process on this rung."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.poll = select.epoll()
        self.ring = self.poll.fileno()
        self.sessions: dict[str, Session] = {}
        self.by_group: dict[bytes, Session] = {}
        self.batch: list[bytes] = []
        self.fds: dict[bytes, int] = {}
        self.last = 0
        self.machine = os.uname().machine
        self.behaviours = ()
        self.number = 0

    def lost(self) -> dict[str, int]:
        return {key: session.drops for key, session in self.sessions.items() if session.drops}

    def drain(self, most: int) -> int:
        total = 0
        for group, fd in list(self.fds.items()):
            while total < most and (data := _read(fd)):
                total += self._take(group, data)
        self.process()
        return total

    def _take(self, group: bytes, data: bytes) -> int:
        count = 0
        while len(data) >= _EVENT.size:
            size, _, _, _, mask, fd, pid = _EVENT.unpack_from(data)
            data = data[size:]
            count += 1
            session = self.by_group.get(group)
            if mask & _OVERFLOW:
                if session is not None:
                    session.drops += 1
            elif fd >= 0:
                for kind, bit in ((events.EXEC, _OPEN_EXEC), (events.WRITE, _CLOSE_WRITE)):
                    if mask & bit and not (kind == events.EXEC and self._is_loader(fd, pid)):
                        self.batch.append(_record(kind, group, fd, pid))
            if fd >= 0:
                os.close(fd)
        return count

    def _is_loader(self, fd: int, pid: int) -> bool:
        """Whether this is the second file of one exec: the loader that the first one names."""
        second = pid == self.last and Path(f"/proc/self/fd/{fd}").readlink().name.startswith(("ld-", "ld.so", "ld64"))
        self.last = pid
        return second

    def do_add(self, request: dict[str, Any], _: list[int]) -> dict[str, Any]:
        session = self.sessions[request["key"]]
        self.number += 1
        group = self.number.to_bytes(8, "little")
        inside = held(int(request["inside"]))
        try:
            fd = _marked(mounts_of(int(request["inside"])))
        except BaseException:
            release(inside)
            raise
        self.fds[group] = fd
        self.poll.register(fd, select.EPOLLIN)
        session.groups[group] = []
        session.inside[group] = inside
        self.by_group[group] = session
        return {"watched": self.number}

    def let_go(self, session: Session, group: bytes) -> None:
        session.groups.pop(group)
        while self.drain(1 << 16):
            pass
        session.flush()
        self.by_group.pop(group, None)
        fd = self.fds.pop(group)
        self.poll.unregister(fd)
        os.close(fd)
        release(session.inside.pop(group))

    def prove(self, _: Path, /) -> str:
        """A probe that executes and writes has to be seen. Raises ValueError, OSError."""
        name = f"/tmp/vestibule-monitor-{os.getpid()}"  # noqa: S108 - made exclusively below
        group = bytes(8)
        self.fds[group] = _marked(["/", "/tmp", "/bin/true"])  # noqa: S108
        try:
            child = os.fork()
            if child == 0:
                try:
                    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
                    os.execv("/bin/true", ["true"])  # noqa: S606 - an absolute path and a list
                finally:
                    os._exit(1)
            os.waitpid(child, 0)
            seen: set[int] = set()
            deadline = time.monotonic() + 2
            while time.monotonic() < deadline and len(seen) < 2 and (data := _read(self.fds[group])):
                self._take(group, data)
                for record in self.batch:
                    event = events.parse(record)
                    if event.pid == child and (event.kind == events.EXEC or event.path == name):
                        seen.add(event.kind)
                self.batch.clear()
        finally:
            os.close(self.fds.pop(group))
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
        if seen != {events.EXEC, events.WRITE}:
            raise ValueError("what a probe executed and wrote was not seen")
        return "a probe's exec and written file were seen; arguments, moves and connections are not"


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 16)
    except BlockingIOError:
        return b""


def _record(kind: int, group: bytes, fd: int, pid: int) -> bytes:
    """The same record as the kernel's programs make."""
    found = os.fstat(fd)
    place = os.fsencode(str(Path(f"/proc/self/fd/{fd}").readlink()).removesuffix(" (deleted)"))
    names = b"".join(part + b"\0" for part in reversed(place.split(b"/")) if part)
    device = os.major(found.st_dev) << 20 | os.minor(found.st_dev)
    flags = events.UNLINKED if not found.st_nlink else 0
    parent, comm = 0, b""
    with contextlib.suppress(OSError, ValueError, IndexError):
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        comm = stat[stat.index(b"(") + 1 : stat.rindex(b")")][:15]
        parent = int(stat[stat.rindex(b")") + 1 :].split()[1])
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    number = int.from_bytes(group, "little")
    head = events.HEAD.pack(
        now, number, found.st_ino, kind, flags, pid, parent, device, 0, 0, 0, 0, 0, comm, len(names), 0
    )
    return head + names
