"""The second rung: where the kernel takes no programs, fanotify on the sandbox's own mounts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_cell import need

from vestibule.boundary.host.behaviours import shipped
from vestibule.boundary.host.monitor import Monitor

_UNSHARED = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0
assert libc.mount(b'none', b'/', None, 0x44000, None) == 0
print('ready', flush=True)
sys.stdin.readline()
os.execv('/bin/sh', ['sh', '-c', sys.argv[1]])
"""


@pytest.fixture
def second() -> Iterator[Monitor]:
    """A monitor on a machine without cgroup v2."""
    monitor = Monitor(lambda: shipped().as_data(), lambda: None)
    need(monitor)
    yield monitor
    monitor.stop()


def test_without_programs_the_second_rung_stands_and_says_what_it_lacks(second: Monitor) -> None:
    standing = second.standing()
    assert (standing.rung, standing.up, standing.whole) == ("fanotify", True, False)
    assert "no cgroup v2" in standing.proved_by
    assert "connections are not" in standing.proved_by


def test_it_sees_executed_and_written_files_of_the_sandboxs_own_mounts_only(second: Monitor, tmp_path: Path) -> None:
    import subprocess

    inside = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _UNSHARED, f"echo x > {tmp_path}/seen; mkdir -p {tmp_path}/etc; /bin/true"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert inside.stdin is not None
    assert inside.stdout is not None
    assert inside.stdout.readline() == b"ready\n"
    matches: list[object] = []
    watch = second.watch("r", writable=("/nowhere",), on_match=matches.append, on_down=matches.append)
    handle = watch.add(None, inside.pid)
    (tmp_path / "outside").write_text("not seen")
    inside.stdin.close()
    assert inside.wait(20) == 0
    inside.stdout.close()
    watch.drop(handle)
    summary = watch.close()
    assert f"{tmp_path}/seen" in summary.writes
    assert f"{tmp_path}/outside" not in summary.writes
    assert "true" in {Path(item.path).name for item in summary.programs}
    assert summary.drops == 0
    assert [match.behaviour for match in matches] == ["outside-write"]  # type: ignore[attr-defined]
