"""From a `SandboxSpec` to the keeper's configuration: everything is checked here, before a process exists."""

from __future__ import annotations

import os
import platform
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

from vestibule.core.errors import ConfigError, DependencyDown, UsageError
from vestibule.core.ports import RESOLVER, SandboxSpec
from vestibule.core.text.names import NameRefused, canonical_host, inside_address
from vestibule.sandbox.local import argv, etc, limits, seccomp, tools

MAX_SOCKETS = 240
"""What one message of descriptors carries (unix(7), SCM_MAX_FD 253)."""

PORT = 80
_NATIVE = Path(__file__).resolve().parent.parent / "native"
_PROGRAMS = "/usr/bin:/bin:/usr/local/bin"


def draw(
    spec: SandboxSpec,
    *,
    name: str,
    uid: int | None,
    record: str | None,
    tool_paths: tuple[str, ...],
    tool_binds: tuple[argv.Bind, ...],
    forbidden: tuple[Path, ...],
    without: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """The configuration, ready for JSON. `uid` is the dedicated one, None where there is none.

    `without` is for tests of what holds when a wall does not (`ablation`).

    Raises:
        DependencyDown: `sandbox`; bubblewrap or a filter for this architecture is missing.
        UsageError: the specification asks for something that cannot be shown.
    """
    bwrap = find_bubblewrap()
    try:
        machine = platform.machine()
        program = seccomp.everything() if "seccomp" in without else seccomp.filter_program(machine, notify=True)
        first = _first(machine)
    except seccomp.UnknownArchitecture as error:
        raise DependencyDown("sandbox", f"There is no seccomp filter for this architecture ({error}).") from None
    _check_texts(spec)
    hosts = tuple(dict.fromkeys(host for host, _ in spec.endpoints))
    addresses = _addresses((*spec.names, *hosts))
    system, links = _system()
    plan = {
        "argv": spec.argv,
        "cwd": spec.cwd,
        "env": argv.environment(spec.env, (*spec.path, *tools.bins(tool_paths))),
        "system": system,
        "links": links,
        "tools": tool_binds,
        "mounts": _mounts(spec, forbidden),
        "etc_files": {path: data.hex() for path, data in etc.files(addresses, dns=spec.resolver).items()},
        "home_files": {_home_path(path): data.hex() for path, data in spec.home_files.items()},
        "tmp_bytes": min(1 << 30, max(1 << 20, spec.limits.memory_bytes // 4)),
        "without": sorted(without),
    }
    return {
        "name": name,
        "bwrap": bwrap,
        "uid": uid,
        "plan": plan,
        "seccomp": program.hex(),
        "own_seccomp": (seccomp.everything() if "first_process" in without else seccomp.own_program(machine)).hex(),
        "inside": first.hex(),
        "landlock": "landlock" not in without,
        "without": sorted(without),
        "notify": True,
        "machine": machine,
        "addresses": {name: addresses[canonical_host(name)] for name in spec.names},
        "sockets": _sockets(spec, addresses),
        "ceilings": _ceilings(spec)._asdict(),
        "wall_seconds": spec.limits.wall_seconds,
        "disk": next((str(mount.source) for mount in spec.mounts if mount.write), None),
        "quota": spec.quota.model_dump(mode="json") if spec.quota else None,
        "record": record,
    }


@lru_cache(maxsize=1)
def _first(machine: str) -> bytes:
    """The sandbox's first process, as shipped for this architecture. Raises DependencyDown when it is not there."""
    path = _NATIVE / f"inside.{machine}"
    try:
        return path.read_bytes()
    except OSError as error:
        raise DependencyDown(
            "sandbox",
            "The sandbox's first process is not installed for this architecture.",
            fact=f"{path.name}: {error.strerror}",
            person="Reinstall Vestibule; tools/build_native.py builds it from its source.",
        ) from None


def find_bubblewrap() -> str:
    """Raises DependencyDown when it is not there."""
    found = shutil.which("bwrap", path=_PROGRAMS)
    if found is None:
        raise DependencyDown(
            "sandbox",
            "bubblewrap is not installed, and nothing weaker is used in its place.",
            person="Install bubblewrap 0.8 or later (`apt-get install bubblewrap`).",
        )
    return found


def plain(run: str) -> str:
    """A run's id as part of a group's and a record's name."""
    return "".join(char if char.isascii() and (char.isalnum() or char == "-") else "-" for char in run.lower())[:40]


def _addresses(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for position, name in enumerate(names):
        try:
            found[canonical_host(name)] = inside_address(position)
        except (NameRefused, ValueError) as error:
            raise UsageError(f"A sandbox cannot have the name {name!r}.", why=str(error)) from None
    return found


def _sockets(spec: SandboxSpec, addresses: dict[str, str]) -> list[tuple[str, str, str, int]]:
    """(key, kind, address, port) of every socket inside, in the order in which they come out."""
    found = [(name, "tcp", addresses[canonical_host(name)], PORT) for name in spec.names]
    for host, port in dict.fromkeys(spec.endpoints):
        if not 0 < port < 65536:
            raise UsageError(f"{host}:{port} has no usable port.")
        found.append((f"{canonical_host(host)}:{port}", "tcp", addresses[canonical_host(host)], port))
    if spec.resolver:
        found += [(key, kind, "127.0.0.1", 53) for key, kind in zip(RESOLVER, ("udp", "tcp"), strict=True)]
    if len(found) > MAX_SOCKETS:
        raise UsageError(f"A sandbox has at most {MAX_SOCKETS} names with ports, and {len(found)} were asked for.")
    if len({item[2:] for item in found if item[1] == "tcp"}) != sum(item[1] == "tcp" for item in found):
        raise UsageError("Two names of a sandbox share an address and a port.")
    return found


@lru_cache(maxsize=1)
def _system() -> tuple[tuple[argv.Bind, ...], tuple[tuple[str, str], ...]]:
    """/usr, the folders or links beside it, and the few shown entries of /etc."""
    binds = [argv.Bind("/usr", "/usr", False)]
    links = []
    for name in ("bin", "sbin", "lib", "lib64", "lib32", "libx32"):
        path = Path("/") / name
        if path.is_symlink():
            links.append((str(path.readlink()), str(path)))
        elif path.is_dir():
            binds.append(argv.Bind(str(path), str(path), False))
    for name in etc.SHOWN:
        path = Path("/etc") / name
        if path.exists():
            binds.append(argv.Bind(str(path.resolve()), str(path), False))
    return tuple(binds), tuple(links)


def _mounts(spec: SandboxSpec, forbidden: tuple[Path, ...]) -> tuple[argv.Bind, ...]:
    found = []
    for mount in spec.mounts:
        target = mount.target
        if not target.startswith("/") or ".." in target.split("/") or target == "/" or "\0" in target:
            raise UsageError(f"{target!r} is no place inside a sandbox.")
        if not mount.source.is_absolute() or not os.path.lexists(mount.source):
            raise UsageError(f"{mount.source} does not exist, so it cannot be shown inside.")
        if mount.source.is_symlink():
            raise UsageError(f"{mount.source} is a symbolic link; a mount's source must not be one.")
        for away in forbidden:
            if mount.source == away or mount.source in away.parents:
                raise ConfigError(f"{mount.source} contains Vestibule's own state and is never shown inside.")
        found.append(argv.Bind(str(mount.source), target, mount.write))
    return tuple(found)


def _home_path(path: str) -> str:
    if path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
        raise UsageError(f"{path!r} is no path below HOME.")
    return path


def _check_texts(spec: SandboxSpec) -> None:
    if not spec.argv or any("\0" in item for item in (*spec.argv, spec.cwd, *spec.env, *spec.env.values())):
        raise UsageError("A program, its arguments and its environment contain no NUL bytes, and there is a program.")
    if any(not key or "=" in key for key in spec.env):
        raise UsageError("A variable's name is not empty and contains no '='.")


def _ceilings(spec: SandboxSpec) -> limits.Ceilings:
    given = spec.limits
    written = {"/usr", *(str(mount.source) for mount in spec.mounts if mount.write)}
    if spec.quota is not None:
        written.add(str(spec.quota.folder.parent))  # where its image lies
    return limits.Ceilings(
        memory_bytes=given.memory_bytes,
        pids=given.pids,
        cpu_seconds=given.cpu_seconds,
        file_bytes=given.file_bytes,
        open_files=given.open_files,
        cpu_percent=given.cpu_percent,
        io_bytes=given.io_bytes,
        disks=tuple(sorted(written)),
    )
