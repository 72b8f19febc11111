"""The bubblewrap arguments of one sandbox. *Stdlib only; pure.*

Rules it keeps:
1. Every namespace is new; further user namespaces are off; no capability, no controlling terminal, no inherited
   variable; everything dies with the launcher.
2. The root is a fresh tmpfs, remounted read-only when it is furnished: only /tmp, /home/agent, /dev/shm and the
   writable mounts can be written.
3. Arguments travel by descriptor (`--args`), never by the command line, which /proc shows to others: they hold the
   environment.
4. Content comes by descriptor too; nothing of it touches a disk.
5. Process 1 is ours (`native/inside.c`): it cannot be read, and starts the program behind Landlock and the filter.

Source: bwrap(1), version 0.8 and later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vestibule.sandbox.local import ablation, etc, landlock


class Bind(NamedTuple):
    """A host path at a place inside."""

    source: str
    target: str
    write: bool


class Plan(NamedTuple):
    """What a sandbox is made of, as far as bubblewrap is concerned."""

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    system: tuple[Bind, ...]
    links: tuple[tuple[str, str], ...]
    tools: tuple[Bind, ...]
    mounts: tuple[Bind, ...]
    etc_files: Mapping[str, bytes]
    home_files: Mapping[str, bytes]
    tmp_bytes: int
    without: tuple[str, ...] = ()
    """Walls that a test switched off (`ablation`); empty outside tests."""


class Descriptors(NamedTuple):
    """Numbers of the descriptors bubblewrap reads and writes."""

    status: int
    block: int


class Inside(NamedTuple):
    """What the sandbox's first process is given: descriptors of the filters and of the socket that takes the listener
    (-1: none), and the Landlock rules."""

    notify: int
    filter: int
    own: int
    landlock: landlock.Ruleset
    program: bytes


FIRST = "/run/vestibule-first"
"""The sandbox's first process: `native/inside.c`."""


def build(plan: Plan, fds: Descriptors, inside: Inside, content: Callable[[bytes], int]) -> tuple[list[str], list[str]]:
    """(options for `--args`, program and its arguments). `content` puts bytes into a descriptor and names it."""
    options = [
        "--unshare-user",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-cgroup",
        "--disable-userns",
        "--new-session",
        "--die-with-parent",
        "--cap-drop",
        "ALL",
        "--clearenv",
        *("--uid", str(etc.UID), "--gid", str(etc.GID)),
        *("--hostname", etc.HOSTNAME),
        *("--json-status-fd", str(fds.status)),
        *("--block-fd", str(fds.block)),
        "--as-pid-1",
    ]
    for name, value in plan.env.items():
        options += ["--setenv", name, value]
    for folder in ("/etc", "/home", "/run", "/var"):
        options += ["--perms", "0755", "--dir", folder]
    for bind in plan.system:
        options += ["--ro-bind", bind.source, bind.target]
    for target, link in plan.links:
        options += ["--symlink", target, link]
    size = str(plan.tmp_bytes)
    options += ["--proc", "/proc", "--dev", "/dev"]
    options += ["--perms", "1777", "--size", size, "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]  # noqa: S108
    options += ["--perms", "1777", "--size", size, "--tmpfs", "/tmp"]  # noqa: S108
    options += ["--perms", "0700", "--size", size, "--tmpfs", etc.HOME]
    for name, data in plan.etc_files.items():
        options += ["--perms", "0644", "--file", str(content(data)), f"/etc/{name}"]
    options += ["--symlink", "/tmp", "/var/tmp"]  # noqa: S108
    for bind in plan.tools:
        options += ["--ro-bind", bind.source, bind.target]
    for bind in sorted(plan.mounts, key=lambda bind: bind.target.count("/")):
        options += ["--bind" if bind.write else "--ro-bind", bind.source, bind.target]
    for name, data in plan.home_files.items():
        options += ["--perms", "0600", "--file", str(content(data)), f"{etc.HOME}/{name}"]
    options += ["--perms", "0555", "--file", str(content(inside.program)), FIRST]
    options += ["--remount-ro", "/", "--chdir", plan.cwd]
    if plan.without:
        options = ablation.options(options, plan.without)
    rules = [text for mask, path in inside.landlock.rules for text in (str(mask), path)]
    numbers = (inside.notify, inside.filter, inside.own, inside.landlock.fs, 0, inside.landlock.scoped)
    return options, [FIRST, *map(str, numbers), *rules, "--", *plan.argv]


def places(plan: Plan) -> Iterator[landlock.Place]:
    """What Landlock lets the program use: exactly what is mounted on purpose."""
    for bind in (*plan.system, *plan.tools):
        yield landlock.Place(bind.target, landlock.READ, folder=Path(bind.source).is_dir())
    for bind in plan.mounts:
        rights = landlock.WRITE if bind.write else landlock.READ
        yield landlock.Place(bind.target, rights, folder=Path(bind.source).is_dir())
    yield landlock.Place("/etc", landlock.READ)
    yield landlock.Place("/proc", landlock.READ | landlock.WRITE_FILE)
    yield landlock.Place("/dev", landlock.DEVICES)
    for path in ("/dev/shm", "/tmp", etc.HOME):  # noqa: S108
        yield landlock.Place(path, landlock.WRITE)


def environment(given: Mapping[str, str], tool_bins: Sequence[str]) -> dict[str, str]:
    """The whole environment inside: what the spec says, plus HOME, PATH, LANG, TERM and USER where it is silent."""
    path = ":".join([*tool_bins, "/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"])
    base = {"HOME": etc.HOME, "PATH": path, "LANG": "C.UTF-8", "TERM": "dumb", "USER": etc.USER}
    return {**base, **given}
