"""Resource ceilings: cgroup v2 where it can be had, else v1 controllers, else rlimits; says which. *Stdlib only.*

Rules it keeps:
1. A sandbox's group is made below the supervisor's own group where that may have children with controllers, else
   below the nearest folder above that has them switched on (a systemd scope holds processes, so it may not).
2. What could not be set is reported, never assumed: `memory` and `pids` each name the mechanism that holds them.
3. `destroy` ends with the group gone, or says that it is not.

Sources: kernel Documentation/admin-guide/cgroup-v2.rst (delegation, `cgroup.kill`, no internal processes),
cgroup-v1/{memory,pids,freezer-subsystem}.rst, getrlimit(2), user_namespaces(7).
"""

from __future__ import annotations

import os
import re
import resource
import time
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

_V1 = ("memory", "pids", "cpu", "blkio")
_WANTED = ("memory", "pids", "cpu", "io")
_PERIOD = 100_000
"""Microseconds over which a share of processors is counted."""
_PREFIX = "vestibule-"
_NAME = re.compile(r"vestibule-[0-9a-z-]{1,80}\Z")


class Ceilings(NamedTuple):
    """What is limited: bytes, processes and threads, seconds, bytes of one file, descriptors, hundredths of a
    processor at a time, and bytes a second that are read from and written to the disks of the folders `disks`."""

    memory_bytes: int
    pids: int
    cpu_seconds: int | None
    file_bytes: int
    open_files: int
    cpu_percent: int | None = None
    io_bytes: int | None = None
    disks: tuple[str, ...] = ()


class Place(NamedTuple):
    """Where this process may make groups: its v2 folder, the v1 folder of each controller, the v2 tree's top."""

    v2: Path | None
    v1: dict[str, Path]
    top: Path | None = None


@lru_cache(maxsize=1)
def own_place(mounts: str | None = None, cgroups: str | None = None) -> Place:
    """Read from /proc once; the arguments are their text, for tests."""
    mounts = Path("/proc/self/mounts").read_text() if mounts is None else mounts
    cgroups = Path("/proc/self/cgroup").read_text() if cgroups is None else cgroups
    paths: dict[str, str] = {}
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(",") if controllers else ["v2"]:
            paths[name] = path
    v2: Path | None = None
    top: Path | None = None
    v1: dict[str, Path] = {}
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 4:
            continue
        folder, kind, options = fields[1], fields[2], fields[3].split(",")
        if kind == "cgroup2" and "v2" in paths:
            v2, top = _below(folder, paths["v2"]), Path(folder)
        elif kind == "cgroup":
            for name in (*_V1, "freezer"):
                if name in options and name in paths:
                    v1[name] = _below(folder, paths[name])
    return Place(v2, v1, top)


def _v2_parent(own: Path, top: Path | None) -> Path:
    """The nearest folder, from our own upwards, whose children have memory and pids controllers; else our own."""
    for folder in (own, *own.parents):
        wanted = [name for name in _WANTED if name in _words(folder / "cgroup.controllers")]
        if folder == own and wanted:
            # EBUSY when processes live here (no internal processes): then only a folder above can do.
            _write(folder / "cgroup.subtree_control", " ".join(f"+{name}" for name in wanted))
        if {"memory", "pids"} <= set(_words(folder / "cgroup.subtree_control")) and _may_move_below(folder):
            return folder
        if top is None or folder == top:
            break
    return own


def v2_folder() -> Path | None:
    """The cgroup v2 folder below which sandboxes' groups are made; None where there is no such tree."""
    place = own_place()
    return None if place.v2 is None else _v2_parent(place.v2, place.top)


def _may_move_below(folder: Path) -> bool:
    """Moving a process needs the right to write the common ancestor's `cgroup.procs`, which is this folder's."""
    return os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _below(folder: str, path: str) -> Path:
    found = Path(folder) / path.lstrip("/")
    return found if found.is_dir() else Path(folder)


class Group:
    """The control groups of one sandbox. `folders` are what `destroy` removes."""

    def __init__(self, name: str) -> None:
        if not _NAME.match(name):
            raise ValueError(name)
        self.name = name
        self.folders: list[Path] = []
        self.memory = "none"
        self.pids = "none"
        self.cpu = "none"
        self.io = "none"
        self.kill_file: Path | None = None
        self._held: dict[str, Path] = {}
        self._v2: Path | None = None

    @property
    def mechanism(self) -> str:
        """`cgroup2`, `cgroup1` or `rlimit`: what holds both memory and processes."""
        return self.memory if self.memory == self.pids and self.memory != "none" else "rlimit"

    def make(self, place: Place | None = None) -> None:
        """Make the folders that can be made, without ceilings yet. Never raises for a missing right."""
        place = own_place() if place is None else place
        if place.v2 is not None:
            self._make_v2(_v2_parent(place.v2, place.top))
        for controller in _V1:
            if controller in place.v1 and controller not in self._held:
                self._make_v1(controller, place.v1[controller])

    def _make_v2(self, parent: Path) -> None:
        folder = parent / self.name
        try:
            folder.mkdir()
        except OSError:
            return
        self.folders.append(folder)
        self._held |= {name: folder for name in _words(parent / "cgroup.subtree_control") if name in _WANTED}
        self._v2 = folder
        if (folder / "cgroup.kill").exists():
            self.kill_file = folder / "cgroup.kill"

    def _make_v1(self, controller: str, parent: Path) -> None:
        folder = parent / self.name
        try:
            folder.mkdir()
        except OSError:
            return
        self.folders.append(folder)
        self._held[controller] = folder

    def limit(self, ceilings: Ceilings) -> None:
        """Set the ceilings. What could not be set is not claimed; look at `mechanism`."""
        for controller, folder in self._held.items():
            kind = "cgroup2" if folder == self._v2 else "cgroup1"
            if controller == "memory" and kind == "cgroup2":
                self.memory = kind if _write(folder / "memory.max", str(ceilings.memory_bytes)) else "none"
                _write(folder / "memory.swap.max", "0")
            elif controller == "memory":
                self.memory = kind if _write(folder / "memory.limit_in_bytes", str(ceilings.memory_bytes)) else "none"
                _write(folder / "memory.memsw.limit_in_bytes", str(ceilings.memory_bytes))
            elif controller == "pids":
                self.pids = kind if _write(folder / "pids.max", str(ceilings.pids)) else "none"
            elif controller == "cpu":
                self.cpu = _limit_cpu(folder, kind, ceilings.cpu_percent)
            else:
                self.io = _limit_io(folder, kind, ceilings)

    def enter(self) -> None:
        """Move the calling process in (it must be single-threaded). Raises OSError when a group refuses."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text("0")

    def kill(self) -> None:
        """SIGKILL everything inside, at once where the kernel can (`cgroup.kill`)."""
        if self.kill_file is not None:
            _write(self.kill_file, "1")
        for pid in self.members():
            try:
                os.kill(pid, 9)
            except (ProcessLookupError, PermissionError):
                continue

    def members(self) -> set[int]:
        found: set[int] = set()
        for folder in self.folders:
            try:
                found.update(int(item) for item in (folder / "cgroup.procs").read_text().split())
            except OSError:
                continue
        return found - {0}

    def destroy(self, timeout: float = 5.0) -> bool:
        """Kill what is left and remove the folders; whether all are gone."""
        deadline = time.monotonic() + timeout
        pause = 0.0005
        while self.folders:
            self.folders = [folder for folder in self.folders if not _remove(folder)]
            if not self.folders or time.monotonic() > deadline:
                break
            self.kill()
            time.sleep(pause)  # a killed process leaves its group a moment later; the kernel offers no event for v1
            pause = min(pause * 2, 0.05)
        return not self.folders

    def give_up(self) -> None:
        """No process could be moved in: nothing here holds anything."""
        self._held.clear()
        self.memory = self.pids = self.cpu = self.io = "none"

    def cpu_seconds(self) -> float | None:
        """Processor time of everything that is or was inside; None when no group counts it."""
        for folder in self.folders:
            for line in _lines(folder / "cpu.stat"):
                if line.startswith("usage_usec "):
                    return int(line.split()[1]) / 1e6
            for line in _lines(folder / "cpuacct.usage"):
                return int(line) / 1e9
        return None

    @classmethod
    def recorded(cls, name: str, folders: list[str]) -> Group:
        """A group as a dead supervisor left it. Folders that are not of that name are ignored."""
        group = cls(name)
        group.folders = [Path(item) for item in folders if Path(item).name == name]
        for folder in group.folders:
            if (folder / "cgroup.kill").exists():
                group.kill_file = folder / "cgroup.kill"
        return group


def cpu_seconds_below(pid: int) -> float:
    """Processor time of a process, those below it, and their children that ended (proc(5), stat fields 14 to 17)."""
    parents: dict[int, int] = {}
    used: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        for line in _lines(Path(entry.path, "stat")):
            fields = line.rpartition(")")[2].split()
            parents[int(entry.name)] = int(fields[1])
            used[int(entry.name)] = sum(int(item) for item in fields[11:15])
    total = 0
    for each, ticks in used.items():
        above = each
        while above not in (0, pid):
            above = parents.get(above, 0)
        total += ticks if above == pid else 0
    return total / os.sysconf("SC_CLK_TCK")


def sweep(place: Place | None = None) -> None:
    """Remove empty groups whose keeper is dead; the kernel refuses for those with processes."""
    place = own_place() if place is None else place
    parents = {*place.v1.values(), *([_v2_parent(place.v2, place.top)] if place.v2 else [])}
    for parent in parents:
        for folder in parent.glob(f"{_PREFIX}*-*"):
            pid = folder.name.split("-")[1]
            if pid.isdigit() and not Path("/proc", pid).exists():
                _remove(folder)


def _limit_cpu(folder: Path, kind: str, percent: int | None) -> str:
    """A smaller share than others when processors are scarce, and `percent` at most; which mechanism holds it."""
    if kind == "cgroup2":
        held = _write(folder / "cpu.weight", "50")
        if percent is not None:
            held = _write(folder / "cpu.max", f"{percent * _PERIOD // 100} {_PERIOD}")
    else:
        held = _write(folder / "cpu.shares", "512")
        if percent is not None:
            held = _write(folder / "cpu.cfs_period_us", str(_PERIOD))
            held = held and _write(folder / "cpu.cfs_quota_us", str(percent * _PERIOD // 100))
    return kind if held else "none"


def _limit_io(folder: Path, kind: str, ceilings: Ceilings) -> str:
    """Bytes a second of every disk below `ceilings.disks`. v1 counts reads and direct writes only, and says so."""
    found = {device for disk in ceilings.disks for device in block_devices(disk)}
    if ceilings.io_bytes is None or not found:
        return "none"
    held = True
    for device in found:
        if kind == "cgroup2":
            text = f"{device} rbps={ceilings.io_bytes} wbps={ceilings.io_bytes}"
            held = held and _write(folder / "io.max", text)
        else:
            for way in ("read", "write"):
                name = f"blkio.throttle.{way}_bps_device"
                held = held and _write(folder / name, f"{device} {ceilings.io_bytes}")
    return (kind if kind == "cgroup2" else f"{kind}: reads and direct writes") if held else "none"


def block_devices(folder: str, sys: Path = Path("/sys/dev/block")) -> set[str]:
    """`major:minor` of the whole disk that a folder's file system lies on; empty where it is on none.

    The kernel limits whole disks, not partitions. A file system that spans several (btrfs) has no number of its own.
    """
    number = Path(folder).stat().st_dev
    device = sys / f"{os.major(number)}:{os.minor(number)}"
    if not device.exists():
        return set()
    if (device / "partition").exists():
        device = device.resolve().parent
    return {"".join(_lines(device / "dev"))} - {""}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _remove(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _write(path: Path, text: str) -> bool:
    try:
        path.write_text(text)
    except OSError:
        return False
    return True


DISK_BYTES, DISK_FILES = 512 << 20, 10_000
"""What a writable folder's file system keeps free for everybody else; of a small one, a fiftieth."""


def disk_is_full(folder: str) -> bool:
    """Whether the file system of `folder` has less left than it must keep, of space or of files."""
    found = os.statvfs(folder)
    space = min(DISK_BYTES, found.f_blocks * found.f_frsize // 50)
    # Some file systems (btrfs) count no files.
    files = min(DISK_FILES, found.f_files // 50)
    return found.f_bavail * found.f_frsize < space or (found.f_files > 0 and found.f_favail < files)


def apply_rlimits(ceilings: Ceilings, *, group: Group, dedicated_uid: bool) -> None:
    """Ceilings a process carries itself. Those a cgroup does not hold are put here as well as rlimits can."""
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, ceilings.file_bytes)
    _lower(resource.RLIMIT_NOFILE, ceilings.open_files)
    if ceilings.cpu_seconds is not None:
        _lower(resource.RLIMIT_CPU, ceilings.cpu_seconds)
    if group.pids == "none":
        # Counted per user (and user namespace since Linux 5.14): our own uid's other processes come on top.
        others = 0 if dedicated_uid else _processes_of(os.getuid())
        _lower(resource.RLIMIT_NPROC, ceilings.pids + others)
    if group.memory == "none":
        _lower(resource.RLIMIT_DATA, ceilings.memory_bytes)


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


apart = 0
"""The launch server's pid where it has a user namespace of its own: processes are counted in there, without others'."""


def _processes_of(uid: int) -> int:
    threads: dict[int, int] = {}
    parents: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                if entry.stat().st_uid == uid or apart:
                    facts = Path(entry.path, "status").read_text()
                    parents[int(entry.name)] = int(re.search(r"PPid:\s*(\d+)", facts)[1])  # type: ignore[index]
                    if entry.stat().st_uid == uid:
                        threads[int(entry.name)] = int(re.search(r"Threads:\s*(\d+)", facts)[1])  # type: ignore[index]
            except (OSError, TypeError):
                continue
    return sum(count for pid, count in threads.items() if not apart or _below_server(pid, parents))


def _below_server(pid: int, parents: dict[int, int]) -> bool:
    while pid > 1:
        if pid == apart:
            return True
        pid = parents.get(pid, 0)
    return False
