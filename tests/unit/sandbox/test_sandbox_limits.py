"""Processor and disk ceilings hold where a controller exists, and the report never claims one that does not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from sandbox_helpers import Inside, python, specification

from vestibule.core.ports import Limits
from vestibule.sandbox.local import LocalSandbox, limits

CEILINGS = limits.Ceilings(1 << 28, 32, None, 1 << 20, 64, cpu_percent=50, io_bytes=1 << 20, disks=("/",))


def test_a_ceiling_of_processor_time_holds_and_the_report_names_its_mechanism(inside: Inside) -> None:
    code = """
import time
end = time.monotonic() + 1.0
while time.monotonic() < end: pass
print(time.process_time())
"""
    result = inside(python(code), limits=Limits(wall_seconds=20, memory_bytes=256 << 20, cpu_percent=20))
    used = float(result.stdout)
    assert used < 0.6 or result.walls.limits["cpu"] == "none"  # a fifth, and what the first period allows


def test_the_report_says_what_holds_each_ceiling(inside: Inside) -> None:
    found = inside("true").walls.limits
    assert set(found) == {"memory", "pids", "cpu", "io", "workspace"}
    assert found["workspace"] == "none"  # this sandbox was given no quota
    assert found["memory"] in ("cgroup2", "cgroup1", "rlimit")


def test_nothing_is_claimed_that_a_controller_refused(tmp_path: Path) -> None:
    group = limits.Group("vestibule-1-test")
    group._held = {"cpu": tmp_path / "missing", "blkio": tmp_path / "missing"}
    group.limit(CEILINGS)
    assert (group.cpu, group.io) == ("none", "none")


def test_v1_ceilings_are_written_for_the_whole_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "block_devices", lambda _: {"8:0"})
    group = limits.Group("vestibule-1-test")
    group._held = {"cpu": tmp_path, "blkio": tmp_path}
    group.limit(CEILINGS)
    assert (tmp_path / "cpu.cfs_quota_us").read_text() == "50000"
    assert (tmp_path / "blkio.throttle.write_bps_device").read_text() == "8:0 1048576"
    assert (tmp_path / "blkio.throttle.read_bps_device").read_text() == "8:0 1048576"
    assert group.io == "cgroup1: reads and direct writes"
    assert group.cpu == "cgroup1"


def test_v2_ceilings_are_written_for_the_whole_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "block_devices", lambda _: {"8:0"})
    group = limits.Group("vestibule-1-test")
    group._held = {"cpu": tmp_path, "io": tmp_path}
    group._v2 = tmp_path
    group.limit(CEILINGS)
    assert (tmp_path / "cpu.max").read_text() == "50000 100000"
    assert (tmp_path / "io.max").read_text() == "8:0 rbps=1048576 wbps=1048576"
    assert (group.cpu, group.io) == ("cgroup2", "cgroup2")


def test_a_partition_is_its_whole_disk_and_memory_is_none(tmp_path: Path) -> None:
    number = tmp_path.stat().st_dev
    disk = tmp_path / "devices" / "sda"
    (disk / "sda1").mkdir(parents=True)
    (disk / "dev").write_text("8:0\n")
    (disk / "sda1" / "dev").write_text("8:1\n")
    (disk / "sda1" / "partition").write_text("1\n")
    sys = tmp_path / "block"
    sys.mkdir()
    assert limits.block_devices(str(tmp_path), sys) == set()
    (sys / f"{os.major(number)}:{os.minor(number)}").symlink_to(disk / "sda1")
    assert limits.block_devices(str(tmp_path), sys) == {"8:0"}


def test_activity_counts_what_runs_inside_and_what_it_says(backend: LocalSandbox, workspace: Path) -> None:
    code = """
import os, sys, time
if os.fork() == 0:
    end = time.process_time() + 0.3
    while time.process_time() < end: pass
    os._exit(0)
os.wait()
print('x' * 999, flush=True)
sys.stdin.read()
time.sleep(20)
"""
    sandbox = backend.create(specification(python(code), workspace))
    try:
        sandbox.go()
        deadline = time.monotonic() + 10
        while (found := sandbox.activity()).output_bytes < 1000 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert found.output_bytes == 1000
        assert found.cpu_seconds >= 0.25
        again = sandbox.activity()
        assert again.cpu_seconds - found.cpu_seconds < 0.1
    finally:
        sandbox.kill()


def test_processor_time_is_known_without_a_group_too() -> None:
    before = limits.cpu_seconds_below(os.getpid())
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    assert limits.cpu_seconds_below(os.getpid()) - before >= 0.05
    assert limits.Group("vestibule-1-test").cpu_seconds() is None
