"""Start to first exec of a sandbox, beside plain bubblewrap and the namespaces alone, in one run."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vestibule.core.ports import Mount, SandboxSpec
from vestibule.sandbox.local import LocalSandbox, own_workspace

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

    figures = _medians({"unshare": _call(_UNSHARE), "bwrap": _call(_BWRAP), "ours": ours})
    backend.release("r0bench")
    print(
        f"\nsandbox start, run `true`, wait (median of {ROUNDS}, ms): unshare {figures['unshare']:.1f}, "
        f"plain bwrap {figures['bwrap']:.1f}, ours with filter, groups, uid, listeners {figures['ours']:.1f} "
        f"(up in {statistics.median(ready):.1f}); ours / bwrap = {figures['ours'] / figures['bwrap']:.2f}, "
        f"ours / unshare = {figures['ours'] / figures['unshare']:.2f}; walls proved once in {proof:.0f}"
    )
    assert report.tier in ("root", "user")
