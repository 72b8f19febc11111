"""What a sandbox must not leave behind: processes, mounts, namespaces, control groups, files, leased uids."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from vestibule.sandbox.local import LocalSandbox
from vestibule.sandbox.local.client import SERVER

_SPARED = ("/srv/house/victims", "/srv/house/marks", "/srv/house/logs")
"""Where attacks are supposed to leave marks."""


class Residue:
    """The state before; `found` says what is there beyond it, after a short time for the kernel to finish."""

    def __init__(self, house: Path) -> None:
        self._house = house
        self._before: dict[str, set[str]] = {}

    def settle(self, backend: LocalSandbox) -> None:
        """Start what stays on purpose (the launch server, proofs) and take the state before."""
        SERVER.start()
        (self._house / "state" / "sandboxes").mkdir(exist_ok=True)
        if not backend._without:
            backend.report()
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and len(_descendants()) < 3:
            time.sleep(0.01)
        self._before = self._state()

    def found(self) -> list[str]:
        """What is left; empty when all is gone."""
        deadline = time.monotonic() + 3
        while True:
            now = self._state()
            left = [
                f"{kind}: {item}"
                for kind, items in now.items()
                for item in sorted(items - self._before.get(kind, set()))
            ]
            if not left:
                return []
            if time.monotonic() > deadline:
                self._before = now  # told once
                return left[:20]
            time.sleep(0.02)  # a warm keeper takes the place of the one that was used; nothing tells when it is there

    def _state(self) -> dict[str, set[str]]:
        processes = _descendants()
        return {
            "process": {name for name in processes.values() if not _kept(name)},
            "descriptor": _descriptors(),
            "mount": set(Path("/proc/self/mountinfo").read_text().splitlines()),
            "namespace": _namespaces(processes),
            "cgroup": _groups(),
            "file": set(_files(self._house)) | set(_files(Path("/tmp"))) | set(_files(Path("/run"))),
            "shared memory": set(Path("/proc/sysvipc/shm").read_text().splitlines()),
        }


def _descendants() -> dict[int, str]:
    """pid → command line of every process below this one, orphans included (we are their subreaper)."""
    parents: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                text = Path(entry.path, "stat").read_text()
                if text.rpartition(")")[2].split()[0] == "Z":
                    continue  # dead: it waits for us, who adopted it, to be told
                parents[int(entry.name)] = int(text.rpartition(")")[2].split()[1])
    below, found = {os.getpid()}, {}
    for _ in range(12):
        fresh = {pid for pid, parent in parents.items() if parent in below} - below
        if not fresh:
            break
        below |= fresh
    for pid in below - {os.getpid()}:
        with contextlib.suppress(OSError):
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    return found


def _kept(name: str) -> bool:
    """The launch server with its warm keeper and launcher, and the outside's own."""
    return "/local/server.py" in name or "sleep 3600" in name or "CANARY-" in name


def _descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):
            target = Path(f"/proc/self/fd/{name}").readlink()
            if not str(target).startswith(("socket:", "pipe:", "/proc/", "anon_inode:[event")):
                found.add(f"{name} {target}")
    return found


def _namespaces(processes: dict[int, str]) -> set[str]:
    """Network namespaces that a process below us is in or holds, but for our own."""
    own = Path("/proc/self/ns/net").stat().st_ino
    found = set()
    for pid, name in processes.items():
        if _kept(name):
            continue
        with contextlib.suppress(OSError):
            inode = Path(f"/proc/{pid}/ns/net").stat().st_ino
            if inode != own:
                found.add(str(inode))
    return found


MADE: set[str] = set()
"""Folders of the control groups of every sandbox of this battery. Other programs' sandboxes come and go beside us."""


def _groups() -> set[str]:
    """Control groups of our sandboxes that are still there."""
    return {folder for folder in MADE if Path(folder).exists()}


def _files(folder: Path) -> list[str]:
    found = []
    for where, folders, files in os.walk(folder):
        if where.startswith((*_SPARED, "/run/vestibule")):
            continue
        found += [os.path.join(where, name) for name in (*folders, *files)]  # noqa: PTH118
    return found
