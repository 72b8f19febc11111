"""What the tests of the monitor share: a control group under watch, with programs run inside it."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vestibule.boundary.host.monitor import Monitor, Watch
from vestibule.boundary.host.rules import Match
from vestibule.boundary.host.seen import Summary


def need(monitor: Monitor) -> None:
    """Skips where no monitor can stand; where CI=true that is a failure."""
    standing = monitor.standing()
    if not standing.up:
        why = f"the BPF monitor (root, libbpf.so.1, a kernel with BTF) does not stand here: {standing.proved_by}"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)


class Cell:
    """One watched group. `on_match` may be replaced."""

    def __init__(self, monitor: Monitor, folder: Path, writable: tuple[str, ...], file: Path) -> None:
        self.monitor = monitor
        self.group = folder
        self.matches: list[Match] = []
        self.down: list[str] = []
        self.told = threading.Event()
        self.file = file
        folder.mkdir()
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            self.watch: Watch = monitor.watch(
                folder.name, writable=writable, file=fd, on_match=self.matched, on_down=self.fell
            )
        finally:
            os.close(fd)
        self.handle = self.watch.add(folder, os.getpid())

    def matched(self, match: Match) -> None:
        self.matches.append(match)
        self.told.set()

    def fell(self, why: str) -> None:
        self.down.append(why)
        self.told.set()

    def start(self, *argv: str, **more: Any) -> subprocess.Popen[bytes]:
        enter = f'echo 0 > {self.group}/cgroup.procs; exec "$@"'
        return subprocess.Popen(["/bin/sh", "-c", enter, "sh", *argv], **more)

    def run(self, *argv: str, **more: Any) -> int:
        with self.start(*argv, **more) as process:
            return process.wait(60)

    def close(self) -> Summary:
        self.watch.drop(self.handle)
        return self.watch.close()


MakeCell = Callable[..., Cell]
