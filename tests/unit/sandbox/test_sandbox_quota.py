"""A workspace never takes more room or files than its quota, whoever fills it and however; nothing stays mounted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_helpers import RUN, python, specification

from vestibule.core.errors import DependencyDown
from vestibule.core.ports import Quota, SandboxResult
from vestibule.sandbox import quota as disks
from vestibule.sandbox.local import LocalSandbox, own_workspace
from vestibule.sandbox.local.quota import Watch, count
from vestibule.sandbox.quota import WorkspaceDisk
from vestibule.sandbox.removal import remove_tree

MB = 1 << 20
ROOT = os.geteuid() == 0


def mounts() -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


@pytest.fixture(params=["mount", "count"] if ROOT else ["count"])
def disk(
    request: pytest.FixtureRequest, backend: LocalSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WorkspaceDisk]:
    """As root by a mount and by counting; without, by counting."""
    if request.param == "count":
        monkeypatch.setattr(WorkspaceDisk, "_mounted", lambda *_: "counted in this test")
    folder = tmp_path / "attempt"
    folder.mkdir(mode=0o700)
    found = WorkspaceDisk(folder, megabytes=24, files=2000)
    assert found.quota.held is (request.param == "mount")
    found.workspace.mkdir()
    own_workspace(found.workspace, backend.workspace_uid(RUN))
    yield found
    found.close()
    assert not [place for place in mounts() if place.startswith(str(tmp_path))]


def run(backend: LocalSandbox, disk: WorkspaceDisk, code: str) -> SandboxResult:
    sandbox = backend.create(specification(python(code), disk.workspace, quota=disk.quota))
    sandbox.go()
    return sandbox.wait()


FILL = """
import time
with open('/workspace/big', 'wb') as file:
    try:
        for _ in range(300): file.write(bytes(1 << 20)); file.flush()
    except OSError as error: print(error.strerror, flush=True)
time.sleep(15)
"""
STORM = """
import os, time
try:
    for number in range(200000):
        if number % 500 == 0: os.mkdir(f'/workspace/{number}'); os.chdir(f'/workspace/{number}')
        os.close(os.open(str(number), os.O_CREAT))
except OSError as error: print(error.strerror, flush=True)
time.sleep(15)
"""


@pytest.mark.parametrize("code", [FILL, STORM], ids=["fill", "storm"])
def test_a_sandbox_that_fills_its_workspace_is_ended_and_the_reason_said(
    backend: LocalSandbox, disk: WorkspaceDisk, code: str
) -> None:
    began = time.monotonic()
    result = run(backend, disk, code)
    assert result.reason == "quota"
    assert time.monotonic() - began < 12
    if disk.quota.held:  # whatever the keeper sees or not, the file system has an end
        found = os.statvfs(disk.quota.folder)
        assert found.f_blocks * found.f_frsize < 30 * MB
        assert found.f_files < 2300


def test_a_sandbox_within_its_quota_is_left_alone(backend: LocalSandbox, disk: WorkspaceDisk) -> None:
    code = """
import os, time
for number in range(1000): open(f'/workspace/{number}', 'w').close()
with open('/workspace/big', 'wb') as file: file.write(bytes(12 << 20))
with open('/workspace/sparse', 'wb') as file: file.truncate(1 << 29)
time.sleep(0.6)
print('done')
"""
    result = run(backend, disk, code)
    assert (result.reason, result.exit_code, result.stdout) == ("exited", 0, b"done\n")


def test_the_supervisor_sees_and_writes_the_same_files(backend: LocalSandbox, disk: WorkspaceDisk) -> None:
    (disk.workspace / "given").write_text("from outside")
    os.chown(disk.workspace / "given", *[disk.workspace.stat().st_uid] * 2)
    code = "text = open('/workspace/given').read(); open('/workspace/made', 'w').write(text + ' and back')"
    assert run(backend, disk, code).exit_code == 0
    assert (disk.workspace / "made").read_text() == "from outside and back"


def test_a_folder_that_hides_what_it_holds_counts_as_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hidden").mkdir()
    watch = Watch({"folder": str(tmp_path), "bytes": MB, "files": 1000, "held": False})
    look = os.scandir

    def scan(path: str) -> object:
        if path.endswith("hidden"):
            raise PermissionError(path)
        return look(path)

    monkeypatch.setattr(os, "scandir", scan)
    said = []
    for _ in range(3):
        watch._next = watch._late = 0.0
        said.append(watch.passed())
    assert said == ["", "", "uncounted"]


def test_a_tree_deeper_than_a_path_is_long_is_not_taken_as_counted(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=fd)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    assert count(str(tmp_path), 1 << 30, 1000)[2] is False
    remove_tree(tmp_path)


def test_counting_stops_at_the_ceiling_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/usr")
    for number in range(50):
        (tmp_path / f"{number}").write_bytes(b"x" * 5000)
    assert count(str(tmp_path), 1 << 30, 10)[1] == 11
    size, files, whole = count(str(tmp_path), 1 << 30, 1000)
    assert (files, whole) == (51, True)
    assert size >= 50 * 5000


def test_without_the_right_to_mount_the_quota_is_counted_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    disk = WorkspaceDisk(tmp_path, megabytes=8, files=100)
    assert not disk.quota.held
    assert disk.why == "only root may mount"
    disk.close()


@pytest.mark.skipif(not ROOT, reason="only root may mount")
@pytest.mark.parametrize("broken", ["mkfs.ext4", "mount"])
def test_a_disk_that_cannot_be_made_is_counted_instead_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("mkfs.ext4", "mount"):
        text = "exit 1" if name == broken else f'exec {shutil.which(name, path=disks._PROGRAMS)} "$@"'
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(disks, "_PROGRAMS", str(programs))
    folder = tmp_path / "attempt"
    folder.mkdir()
    disk = WorkspaceDisk(folder, megabytes=8, files=100)
    assert not disk.quota.held
    assert "ended with 1" in disk.why
    assert not (folder / "image").exists()
    disk.close()


def test_a_folder_that_cannot_be_written_refuses(tmp_path: Path) -> None:
    with pytest.raises(DependencyDown, match="cannot be written"):
        WorkspaceDisk(tmp_path / "missing", megabytes=8, files=100)


_DIES = """
import os, sys, time
from pathlib import Path
from vestibule.sandbox.quota import WorkspaceDisk
from vestibule.sandbox.removal import remove_tree
disk = WorkspaceDisk(Path(sys.argv[1]), megabytes=8, files=100)
assert disk.quota.held, disk.why
print(os.path.ismount(disk.quota.folder), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not ROOT, reason="only root may mount")
def test_a_supervisor_that_is_killed_leaves_nothing_mounted(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_DIES), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == "True\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    deadline = time.monotonic() + 10
    while os.path.ismount(tmp_path / "vestibule-disk") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not os.path.ismount(tmp_path / "vestibule-disk")
    child.stdin.close()
    child.stdout.close()
    loops = subprocess.run(["/usr/sbin/losetup", "-a"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in loops


@pytest.mark.skipif(not ROOT, reason="only root may mount")
def test_what_a_wholly_dead_supervisor_left_is_unmounted_by_who_clears_up(tmp_path: Path) -> None:
    disk = WorkspaceDisk(tmp_path, megabytes=8, files=100)
    assert disk.quota.held
    disks.clear(tmp_path)
    assert not os.path.ismount(disk.quota.folder)
    disk.close()


@pytest.mark.skipif(not ROOT, reason="only root may mount")
def test_a_disk_ends_while_another_sandbox_lives(backend: LocalSandbox, tmp_path: Path, workspace: Path) -> None:
    """No copy of it stays in the mount namespace of a launcher."""
    folder = tmp_path / "other"
    folder.mkdir()
    disk = WorkspaceDisk(folder, megabytes=8, files=100)
    sandbox = backend.create(specification("sleep 20", workspace))
    try:
        sandbox.go()
        disk.close()
        deadline = time.monotonic() + 5
        while True:
            loops = subprocess.run(["/usr/sbin/losetup", "-a"], capture_output=True, text=True, check=True).stdout
            if str(folder) not in loops or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        assert str(folder) not in loops
    finally:
        sandbox.kill()


def test_a_quota_is_of_bytes_files_and_a_folder() -> None:
    assert Quota(folder=Path("/x"), bytes=1, files=1, held=False).model_dump(mode="json") == {
        "folder": "/x",
        "bytes": 1,
        "files": 1,
        "held": False,
    }
