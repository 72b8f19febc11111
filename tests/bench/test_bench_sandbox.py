"""Sandboxes beside their peers in one run: start to first exec, fifty at once, and what proving the walls takes.

Plain bubblewrap, the namespaces alone, and sandbox-runtime from npm where `make bench` installed it.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vestibule.core.ports import Mount, SandboxSpec
from vestibule.sandbox.local import LocalSandbox, own_workspace, walls
from vestibule.sandbox.local.running import Running

ROUNDS = 15
NAMES = ("context.vestibule.internal", "models.vestibule.internal")
_BWRAP = [
    "bwrap",
    "--unshare-all",
    "--die-with-parent",
    "--new-session",
    "--cap-drop",
    "ALL",
    "--ro-bind",
    "/usr",
    "/usr",
]
_BWRAP += ["--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"]
_BWRAP += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "true"]
_RUNTIME = Path(__file__).parents[2] / "build/sandbox-runtime/node_modules/.bin/srt"
FIFTY = 50
_UNSHARE = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--net", "--ipc", "--uts", "true"]


def _call(argv: list[str]) -> Callable[[], None]:
    def run() -> None:
        assert subprocess.run(argv, stdin=subprocess.DEVNULL, check=False).returncode == 0

    return run


def _medians(actions: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Milliseconds of each, in turns, so that a machine that is busy for a while is busy for all."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(ROUNDS):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            times[name].append((time.perf_counter() - began) * 1000)
    return {name: statistics.median(found) for name, found in times.items()}


@pytest.mark.bench
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_start_to_first_exec_beside_plain_bubblewrap(tmp_path: Path) -> None:
    backend = LocalSandbox(state=tmp_path / "state")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    own_workspace(workspace, backend.workspace_uid("r0bench"))
    began = time.perf_counter()
    report = backend.report()
    proof = (time.perf_counter() - began) * 1000
    spec = SandboxSpec(
        run="r0bench",
        argv=("true",),
        mounts=(Mount(source=workspace, target="/workspace", write=True),),
        names=NAMES,
    )
    ready: list[float] = []

    def ours() -> None:
        sandbox = backend.create(spec)
        ready.append(sandbox.start_ms)
        sandbox.go()
        assert sandbox.wait().exit_code == 0

    peers = {"unshare": _call(_UNSHARE), "bwrap": _call(_BWRAP)}
    if os.environ.get("VESTIBULE_BENCH_PEERS") and _RUNTIME.exists():
        peers["sandbox-runtime"] = _call([str(_RUNTIME), "true"])
    figures = _medians({**peers, "ours": ours})
    runtime = (
        f"sandbox-runtime (with the start of its node) {figures['sandbox-runtime']:.0f} = "
        f"{figures['sandbox-runtime'] / figures['ours']:.1f} x ours"
        if "sandbox-runtime" in figures
        else "sandbox-runtime: not installed (`make bench` does)"
    )
    backend.release("r0bench")
    print(
        f"\nsandbox start, run `true`, wait (median of {ROUNDS}, ms): unshare {figures['unshare']:.1f}, "
        f"plain bwrap {figures['bwrap']:.1f}, ours with filter, groups, uid, listeners {figures['ours']:.1f} "
        f"(up in {statistics.median(ready):.1f}); ours / bwrap = {figures['ours'] / figures['bwrap']:.2f}, "
        f"ours / unshare = {figures['ours'] / figures['unshare']:.2f}; walls proved once in {proof:.0f}; {runtime}"
    )
    assert report.tier in ("root", "user")


def _pss(pid: int | str) -> int:
    """KiB of memory that a process accounts for, shared pages by their share."""
    return int(re.findall(r"(?m)^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())[0])


def _beyond_its_program(sandboxes: Iterable[Running]) -> float:
    """MiB of one sandbox's own processes on average: keeper, bubblewrap, first process."""
    found = [sum(_pss(pid) for pid, _ in sandbox.ready["processes"]) for sandbox in sandboxes]
    return statistics.mean(found) / 1024


@pytest.mark.bench
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_fifty_sandboxes_at_once(tmp_path: Path) -> None:
    backend = LocalSandbox(state=tmp_path / "state")
    assert backend.report().tier in ("root", "user")
    before = _pss("self")

    def start(number: int) -> Running:
        spec = SandboxSpec(run=f"r0fifty{number}", argv=("sleep", "600"), cwd="/tmp", names=NAMES, resolver=True)
        sandbox = backend.create(spec)
        sandbox.go()
        return sandbox

    began = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        live = list(pool.map(start, range(FIFTY)))
    took = time.perf_counter() - began
    try:
        mine = _beyond_its_program(live)
        supervisor = (_pss("self") - before) / 1024 / FIFTY
    finally:
        for sandbox in live:
            sandbox.kill()
    print(
        f"\n{FIFTY} sandboxes at once: all up in {took:.2f} s, {mine:.1f} MiB each beyond the program "
        f"(and {supervisor:.2f} in the supervisor); {mine / 6:.2f} of the 6 MiB that are allowed"
    )
    assert len({sandbox.ready["inside"] for sandbox in live}) == FIFTY


@pytest.mark.bench
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_proving_the_walls_beside_a_bare_sandbox(tmp_path: Path) -> None:
    backend = LocalSandbox(state=tmp_path / "state")
    assert backend.report().tier in ("root", "user")
    spec = SandboxSpec(run="r0walls", argv=("true",), cwd="/tmp")

    def bare() -> None:
        sandbox = backend.create(spec)
        sandbox.go()
        assert sandbox.wait().exit_code == 0

    def prove() -> None:
        assert walls.prove(backend).walls["mounts"].state == "up"

    figures = _medians({"bare": bare, "proof": prove})
    print(
        f"\nwalls proved (median of {ROUNDS}, ms): {figures['proof']:.0f}, a sandbox that runs `true` "
        f"{figures['bare']:.0f}: {figures['proof'] / figures['bare']:.1f} x"
    )
