"""Which programs inside a sandbox hold a connection, found out from outside.

Rules it keeps:
1. Only the kernel's tables are asked: the connection's inode in the sandbox's network namespace, then who holds it.
2. Every holder counts, for each may write to it. A process that changed while it was looked at makes the answer
   "not known", and so does more than can be looked at; who asks has to take that for a no.

A program is the file that a process executes. What runs in it is another matter: an interpreter runs any script, and
a program can be made to load a library. So this tells programs apart that are honest, and finds mistakes; it is no
wall against a program that was subverted.

Source: proc(5): /proc/PID/net/tcp, /proc/PID/fd, /proc/PID/exe, /proc/PID/task/TID/children.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

MAX_PROCESSES = 1024
"""Processes of a sandbox that are looked at for one question."""


def programs_of(first: int, client: tuple[str, int], server: tuple[str, int]) -> tuple[str, ...]:
    """Paths of the programs that hold `client`'s end of the connection to `server`; `first` is the sandbox's pid 1.

    Empty: not known.
    """
    inode = _inode(first, client, server)
    if not inode:
        return ()
    found: dict[str, None] = {}
    target = f"socket:[{inode}]"
    count = 0
    for pid in processes(first):
        count += 1
        if count > MAX_PROCESSES:
            return ()
        try:
            before = _link(f"/proc/{pid}/exe")
            if not _holds(pid, target):
                continue
            if _link(f"/proc/{pid}/exe") != before:
                return ()
        except FileNotFoundError:
            continue  # it is gone, or has no program any more
        except OSError:
            if pid == first:
                continue  # our own first process: it shows nothing, and holds nothing
            return ()
        found[before] = None
    return tuple(found)


def processes(first: int) -> Iterable[int]:
    """Every process below `first`, itself included. Orphans inside are its children, so none is missed that stays."""
    waiting = [first]
    while waiting:
        pid = waiting.pop()
        yield pid
        try:
            threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - names only
        except OSError:
            continue
        for thread in threads:
            try:
                waiting += [int(item) for item in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()]
            except OSError:
                continue


def _link(path: str) -> str:
    return os.readlink(path)  # noqa: PTH115 - text, as the kernel has it


def _holds(pid: int, target: str) -> bool:
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):  # noqa: PTH208 - names only
        try:
            if _link(f"{folder}/{name}") == target:
                return True
        except FileNotFoundError:
            continue
    return False


def _inode(first: int, client: tuple[str, int], server: tuple[str, int]) -> str:
    """The inode of the client's socket in the namespace's tables, "" when it is not there."""
    for table, addresses in (
        ("tcp", (_plain(client), _plain(server))),
        ("tcp6", (_mapped(client), _mapped(server))),  # an IPv6 socket that speaks IPv4
    ):
        try:
            lines = Path(f"/proc/{first}/net/{table}").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            parts = line.split()
            if len(parts) > 9 and (parts[1], parts[2]) == addresses:
                return parts[9] if parts[9] != "0" else ""
    return ""


def _plain(end: tuple[str, int]) -> str:
    """As /proc/net/tcp writes it: the address as the machine's own 32-bit number, in hexadecimal."""
    (number,) = struct.unpack("=I", socket.inet_aton(end[0]))
    return f"{number:08X}:{end[1]:04X}"


def _mapped(end: tuple[str, int]) -> str:
    words = struct.unpack("=4I", b"\0" * 10 + b"\xff\xff" + socket.inet_aton(end[0]))
    return "".join(f"{word:08X}" for word in words) + f":{end[1]:04X}"
