"""Messages between supervisor, launch server and keeper: one JSON object a packet. *Stdlib only.*"""

from __future__ import annotations

import array
import json
import os
import socket
from typing import Any

MAX_MESSAGE = 64 << 10
MAX_FDS = 253
"""What one message carries (unix(7), SCM_MAX_FD)."""


class Gone(ConnectionError):
    """The other side is dead."""


def send(sock: socket.socket, message: dict[str, Any], fds: list[int] | None = None) -> None:
    """Raises Gone when nobody is there."""
    data = json.dumps(message).encode()
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionError) as error:
        raise Gone(str(error)) from None


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Raises Gone at the end, TimeoutError with the socket's timeout. Descriptors come close-on-exec."""
    fds = array.array("i")
    try:
        data, ancillary, flags, _ = sock.recvmsg(
            MAX_MESSAGE, socket.CMSG_SPACE(MAX_FDS * fds.itemsize), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionError as error:
        raise Gone(str(error)) from None
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if not data or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close_all(list(fds))
        raise Gone("closed" if not data else "message cut short")
    return json.loads(data), list(fds)


def close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def memory_file(data: bytes, name: str = "vestibule") -> int:
    """A descriptor of an anonymous file holding `data`, read from its start."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def read_whole(fd: int) -> bytes:
    """All of a file, without moving the offset that others may share."""
    found = b""
    while chunk := os.pread(fd, 1 << 20, len(found)):
        found += chunk
    return found


def start_time(pid: int) -> int | None:
    """Clock ticks since boot at which a process started (proc(5), field 22); with the pid it names one process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None
