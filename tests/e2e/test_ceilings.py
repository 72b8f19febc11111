"""A run ends, with a sentence, when its agent fills its workspace or does nothing; nothing of it stays."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.e2e.conftest import House
from vestibule.core.ports import SandboxSpec
from vestibule.pipeline.idle import IdleWatch, Requests
from vestibule.sandbox.local import LocalSandbox


def _no_disk_is_left(house: House) -> None:
    assert str(house.folder) not in Path("/proc/self/mountinfo").read_text()
    assert not list(house.home.glob("runs/*/attempt-*"))


@pytest.mark.parametrize(
    "shell",
    [
        "cd src; while :; do head -c 1000000 /dev/zero >> big || break; done; sleep 30",
        "cd src; i=0; while i=$((i+1)); do mkdir d$i || break; : > d$i/a; : > d$i/b; done; sleep 30",
    ],
    ids=["fill", "storm"],
)
def test_an_agent_that_fills_its_workspace_is_stopped_and_the_run_refused(house: House, shell: str) -> None:
    house.operate(sandbox=", workspace_mb: 20, workspace_files: 1000")
    done = house.change(shell)
    assert done.code == 4, done.err
    assert done.json["refusals"][0]["rule"] == "sandbox.quota"
    assert "20 MiB and 1,000 files" in done.json["refusals"][0]["fact"]
    _no_disk_is_left(house)


def test_a_repository_that_does_not_fit_is_refused_before_the_agent(house: House) -> None:
    house.operate(sandbox=", workspace_mb: 4, workspace_files: 1000")
    house.commit({"src/big.bin": bytes(range(256)) * (60 << 10)})
    done = house.change("true")
    assert done.code == 4, done.err
    assert done.json["refusals"][0]["rule"] == "sandbox.quota"
    _no_disk_is_left(house)


def test_a_run_within_its_quota_leaves_nothing_mounted_and_says_what_held(house: House) -> None:
    done = house.change()
    assert done.code == 3, done.err
    start = next(item for item in done.json["events"] if item["action"] == "agent.start")
    assert start["details"]["limits"]["workspace"] in ("mount", "counted")
    _no_disk_is_left(house)


def test_a_program_that_waits_for_ever_is_seen_as_idle_and_one_that_works_is_not(tmp_path: Path) -> None:
    backend = LocalSandbox(state=tmp_path / "state")
    for program, expected in (("sleep 60", True), ("while :; do :; done", False)):
        spec = SandboxSpec(run="r0idle", argv=("sh", "-c", program), cwd="/tmp")
        sandbox, said = backend.create(spec), threading.Event()
        watch = IdleWatch(sandbox, Requests(), seconds=1.0, idle=said.set)
        try:
            sandbox.go()
            watch.start()
            assert said.wait(2.5) is expected
        finally:
            watch.stop()
            sandbox.kill()
