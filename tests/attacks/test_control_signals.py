"""Ctrl-C and SIGTERM: the sandbox is gone, the person is told what to do, and the run goes on or is cancelled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import House, house, make_house

__all__ = ["house", "make_house"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_agent_works_reaps_it_and_says_how_to_go_on(house: House, number: signal.Signals) -> None:
    seconds = 1_000_000 + os.getpid() * 100 + int(number)  # found by this test alone
    process = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("vestibule")),
            *("run", house.ticket(), "--repo", str(house.repo), "--agent", "command"),
            *("--", "sh", "-c", f"echo 'print(1)' >> src/app.py; [ -e /workspace/again ] || sleep {seconds}"),
        ],
        env=house.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    run = process.stderr.readline().split()[-1]
    try:
        _until(lambda: _alive(seconds))
        process.send_signal(number)
        said = process.stderr.read()
        assert process.wait(30) == 130, said
    finally:
        process.kill()
        process.wait()
    _until(lambda: not _alive(seconds))
    assert f"vestibule resume {run}" in said
    assert f"vestibule cancel {run}" in said
    assert house.vestibule("show", run, "--json").json["state"] == "working"
    cancelled = house.vestibule("cancel", run, "--json")
    assert cancelled.code == 0, cancelled.err
    assert cancelled.json["state"] == "cancelled"


def _alive(seconds: int) -> bool:
    return subprocess.run(["pgrep", "-f", "-x", f"sleep {seconds}"], capture_output=True, check=False).returncode == 0


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
