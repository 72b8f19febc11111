"""The bubblewrap arguments of one sandbox. *Stdlib only; pure.*

Rules it keeps:
1. Every namespace is new; further user namespaces are off; no capability, no controlling terminal, no inherited
   variable; everything dies with the launcher.
2. The root is a fresh tmpfs, remounted read-only when it is furnished: only /tmp, /home/agent, /dev/shm and the
   writable mounts can be written.
3. Arguments travel by descriptor (`--args`), never by the command line, which /proc shows to others: they hold the
   environment.
4. Content comes by descriptor too; nothing of it touches a disk.

Source: bwrap(1), version 0.8 and later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from vestibule.sandbox.local import etc


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


class Descriptors(NamedTuple):
    """Numbers of the descriptors bubblewrap reads and writes."""

    status: int
    block: int
    seccomp: int


def build(plan: Plan, fds: Descriptors, content: Callable[[bytes], int]) -> tuple[list[str], list[str]]:
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
        *("--add-seccomp-fd", str(fds.seccomp)),
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
    options += ["--remount-ro", "/", "--chdir", plan.cwd]
    return options, list(plan.argv)


def environment(given: Mapping[str, str], tool_bins: Sequence[str]) -> dict[str, str]:
    """The whole environment inside: what the spec says, plus HOME, PATH, LANG, TERM and USER where it is silent."""
    path = ":".join([*tool_bins, "/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"])
    base = {"HOME": etc.HOME, "PATH": path, "LANG": "C.UTF-8", "TERM": "dumb", "USER": etc.USER}
    return {**base, **given}
