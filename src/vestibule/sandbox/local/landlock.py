"""Landlock, the second wall around files: which rights on which place inside. *Stdlib only.*

Rules it keeps:
1. What no mount shows on purpose has no rule, and so no right: should a mount fail to hide something, it stays closed.
2. Nothing is listed at the root: `/` itself has no rule.
3. Signals and abstract sockets reach nobody outside, where the kernel can say so (ABI 6).
4. The rules are put in force inside, by the sandbox's first process, after every mount: Landlock forbids mounting.

Network rights are not used: a program's own servers listen on any loopback port of its empty namespace.
Source: landlock(7), linux/landlock.h.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from vestibule.sandbox.local import syscalls

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = (1 << bit for bit in range(6, 13))
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15

_FS = (1 << 13) - 1
_ADDED = {2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEV}
_SCOPED = {6: 3}
"""Since which ABI: abstract UNIX sockets (1) and signals (2)."""

READ = EXECUTE | READ_FILE | READ_DIR
WRITE = (
    READ
    | WRITE_FILE
    | _REMOVE_DIR
    | _REMOVE_FILE
    | _MAKE_DIR
    | _MAKE_REG
    | _MAKE_SOCK
    | _MAKE_FIFO
    | _MAKE_SYM
    | _REFER
    | _TRUNCATE
)
DEVICES = READ | WRITE_FILE | _TRUNCATE | _IOCTL_DEV
_ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | _TRUNCATE | _IOCTL_DEV


class Place(NamedTuple):
    """A path inside, the rights below it, and whether it is a folder."""

    path: str
    rights: int
    folder: bool = True


class Ruleset(NamedTuple):
    """What is handled, and the rights on each place; all zero and empty without Landlock."""

    fs: int = 0
    scoped: int = 0
    rules: tuple[tuple[int, str], ...] = ()


def abi() -> int:
    """The kernel's Landlock ABI, 0 without. Asked once per process."""
    return syscalls.landlock_abi()


def ruleset(places: Iterable[Place], version: int) -> Ruleset:
    """The rules for a kernel of that ABI. Pure."""
    if version < 1:
        return Ruleset()
    handled = _FS
    for since, right in _ADDED.items():
        handled |= right if version >= since else 0
    scoped = 0
    for since, bits in _SCOPED.items():
        scoped |= bits if version >= since else 0
    rules = []
    for place in places:
        rights = place.rights & handled & (-1 if place.folder else _ON_FILES)
        if rights:
            rules.append((rights, place.path))
    return Ruleset(handled, scoped, tuple(rules))
