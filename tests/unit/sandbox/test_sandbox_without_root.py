"""The promises hold for a supervisor that is not root, by the same tests; and what is missing refuses."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

import vestibule

HERE = Path(__file__).parent
FILES = ("attacks", "lifecycle", "limits", "listeners", "quota", "whose")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="these tests are running without root already")


def _run(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory(dir="/tmp") as state:
        command = [
            sys.executable,
            str(HERE / "sandbox_unprivileged.py"),
            state,
            str(Path(vestibule.__file__).parent.parent),
            sysconfig.get_paths()["purelib"],
            str(HERE),
            "--",
            *arguments,
        ]
        if code:
            (Path(state) / "test_given.py").write_text(code)
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


@pytest.mark.slow
def test_every_promise_holds_for_a_supervisor_without_root() -> None:
    done = _run("-q", "-x", *(f"/mnt/tests0/test_sandbox_{name}.py" for name in FILES))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


_NO_NAMESPACES = """
import ctypes, os
from pathlib import Path
import pytest
from vestibule.core.errors import DependencyDown
from vestibule.core.ports import SandboxSpec
from vestibule.sandbox.local import LocalSandbox

def test_refused(tmp_path):
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.geteuid(), os.getegid()
    assert libc.unshare(0x10000000) == 0  # a user namespace in which no further one may be made
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    backend = LocalSandbox(state=tmp_path)
    with pytest.raises(DependencyDown) as error:
        backend.create(SandboxSpec(run="r1", argv=("touch", str(tmp_path / "ran")), cwd="/"))
    assert error.value.refusal.rule == "dependency.sandbox"
    assert backend.report().tier == "none"
    assert not (tmp_path / "ran").exists()
    assert not list((tmp_path / "sandboxes").iterdir())
"""


def test_without_user_namespaces_everything_is_refused() -> None:
    done = _run("-q", "/mnt/state/test_given.py", code=_NO_NAMESPACES)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "1 passed" in done.stdout
