"""Switching single walls off, to test that others still stand in an attack's way. *Stdlib only.*

No configuration and no option leads here: the names come from `LocalSandbox._without`, which is empty and which only
classes of the tests replace (`tests/unit/sandbox/test_sandbox_ablation.py` keeps it so). A sandbox made this way has no
proof of walls, so whatever asks for a minimum of walls refuses it.

What each name means:
`seccomp`        every call of every ABI reaches the kernel.
`landlock`       no rule.
`first_process`  no filter on the first process, and its memory can be looked at.
`mounts`         the host's file system is there, at its own places and writable.
`network`        the network namespace that the launch server is in: an empty one, the host's where it could not leave.
`pids`           the host's processes are visible and can be named.
`caps`           all capabilities (of the sandbox's own user namespace).
`cgroup`         no ceilings by control group; rlimits are there instead.
`own_uid`        the supervisor's uid.
`descriptors`    an open descriptor of the host's root leaks in.
The user namespace and `no_new_privs` stay: bubblewrap sets both itself, and Landlock and seccomp depend on the latter.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

WALLS = frozenset(
    {
        "seccomp",
        "landlock",
        "first_process",
        "mounts",
        "network",
        "pids",
        "caps",
        "cgroup",
        "own_uid",
        "descriptors",
    }
)

_OURS = (Path("/proc"), Path("/dev"), Path("/sys"), Path("/run"))
_NAMESPACES = {"network": "net", "pids": "pid"}


def namespaces(kinds: Iterable[str], without: Iterable[str]) -> tuple[str, ...]:
    """The namespaces that must be new."""
    shared = {_NAMESPACES.get(name) for name in without}
    return tuple(kind for kind in kinds if kind not in shared)


def options(given: Sequence[str], without: Sequence[str]) -> list[str]:
    """bubblewrap's options without these walls. Raises ValueError for a wall that cannot be switched off."""
    unknown = set(without) - WALLS
    if unknown:
        raise ValueError(f"these walls cannot be switched off: {', '.join(sorted(unknown))}")
    if {"mounts", "own_uid"} <= set(without):
        raise ValueError("without own uid the host's files stay hidden: this machine's own would be writable")
    found = list(given)
    if "network" in without:
        found.remove("--unshare-net")
    if "pids" in without:
        found.remove("--unshare-pid")
        found.remove("--as-pid-1")
        at = found.index("--proc")
        found[at : at + 2] = ["--bind", "/proc", "/proc"]
    if "caps" in without:
        at = found.index("--cap-drop")
        found[at] = "--cap-add"
        found.remove("--disable-userns")
    if "mounts" in without:
        found = _with_the_host(found)
    return found


def _with_the_host(given: list[str]) -> list[str]:
    """Everything of the host at its own place, writable, before what a sandbox is furnished with."""
    takes = {"--ro-bind": 2, "--bind": 2, "--symlink": 2, "--file": 2, "--tmpfs": 1, "--dir": 1}
    targets = {Path(given[at + takes[option]]) for at, option in enumerate(given) if option in takes}
    targets -= {Path("/tmp")}  # noqa: S108
    shown = [text for path in _beside(Path("/"), targets) for text in ("--bind-try", str(path), str(path))]
    writable = ["--bind" if item == "--ro-bind" else item for item in given]
    root = writable.index("--remount-ro", writable.index("--chdir") - 2)
    del writable[root : root + 2]
    tmp = writable.index("/tmp", writable.index("--tmpfs"))  # noqa: S108
    del writable[tmp - 5 : tmp + 1]
    first = writable.index("--perms")  # the folders that a sandbox begins with
    after = first
    while writable[after : after + 3 : 2] == ["--perms", "--dir"]:
        after += 4
    return [*writable[:after], *shown, *writable[after:]]


def _beside(folder: Path, targets: set[Path]) -> Iterator[Path]:
    """The host's files and folders where nothing of the sandbox lies at, below or above: it would be written
    through, or could not be reached."""
    try:
        entries = sorted(folder.iterdir())
    except PermissionError:  # the program's uid could not look in either
        return
    for path in entries:
        if path.is_symlink() or path in targets or path in _OURS:
            continue
        if any(path in target.parents for target in targets):
            yield from _beside(path, targets)
        else:
            yield path


def leak(without: Sequence[str]) -> None:
    """Leave a descriptor of the host's root open in the program that is about to be executed."""
    if "descriptors" in without:
        os.set_inheritable(os.open("/", os.O_RDONLY | os.O_DIRECTORY), True)


def settled(pid: int, deadline: float) -> dict[str, str]:
    """A furnished sandbox that keeps its capabilities: bubblewrap waits in read(2) for the word to go."""
    while time.monotonic() < deadline:
        if Path(f"/proc/{pid}/syscall").read_text().split()[0] in ("0", "63"):
            text = Path(f"/proc/{pid}/status").read_text()
            return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        time.sleep(0.001)
    raise OSError("the sandbox was not furnished in time")
