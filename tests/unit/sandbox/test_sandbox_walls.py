"""The walls report says up only for what an attack proved, and one result turned brings its wall down."""

from __future__ import annotations

import copy
import shutil
import tempfile
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from sandbox_helpers import RUN, specification

from vestibule.core.errors import DependencyDown
from vestibule.core.model import Wall, WallsReport
from vestibule.sandbox.local import LocalSandbox, blueprint, walls
from vestibule.sandbox.local import backend as local_backend

GOOD: dict[str, Any] = {
    "fds": ["0", "1", "2"],
    "caps": dict.fromkeys(("CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh"), "0" * 16),
    "seccomp_mode": "2",
    "no_new_privs": "1",
    "clear_no_new_privs": "EINVAL",
    "setuid_0": "EINVAL",
    "chroot": "EPERM",
    "processes": 2,
    "kill_supervisor": "ESRCH",
    "read_canary": "ENOENT",
    "home": [".pyenv"],
    "home_shown": [".pyenv"],
    "writes": {"/x": "EROFS"},
    "write_sysctl": "EROFS",
    "write_tmp": "ok",
    "tcp_canary": "ECONNREFUSED",
    "abstract_canary": "ECONNREFUSED",
    "interfaces": ["lo"],
    "denied": {"ptrace": "EPERM"},
    "clone3": "ENOSYS",
    "unshare_user": "EPERM",
    "clone_user": "EPERM",
    "tiocsti": "EPERM",
    "sockets": {"packet": "EPERM"},
    "route 192.0.2.1": "ENETUNREACH",
    "route 2001:db8::1": "ENETUNREACH",
    "resolve": "gaierror",
    "fork_bomb": [8, "EAGAIN"],
    "hog": "signal 9",
    "x32": "signal 31",
    "egress": {"tcp": "ENETUNREACH"},
    "list_root": "EACCES",
    "signal_first": "EPERM",
    "first_memory": "EACCES",
}
READY = {"mechanism": "cgroup1", "landlock": 7}
BAD = {
    "fds": (["0", "1", "2", "5"], "descriptors"),
    "caps": ({"CapEff": "00000000a80425fb"}, "caps"),
    "seccomp_mode": ("0", "seccomp"),
    "no_new_privs": ("0", "no_new_privs"),
    "clear_no_new_privs": ("ok", "no_new_privs"),
    "setuid_0": ("ok", "no_new_privs"),
    "chroot": ("ok", "caps"),
    "processes": (90, "pids"),
    "kill_supervisor": ("ok", "pids"),
    "read_canary": ("ok", "mounts"),
    "home": ([".pyenv", ".ssh"], "mounts"),
    "writes": ({"/x": "EROFS", "/usr/x": "ok"}, "mounts"),
    "write_sysctl": ("ok", "mounts"),
    "tcp_canary": ("ok", "network"),
    "abstract_canary": ("EPROTO", "network"),
    "interfaces": (["lo", "eth0"], "network"),
    "denied": ({"ptrace": "EPERM", "unshare": "ok"}, "seccomp"),
    "clone3": ("EINVAL", "seccomp"),
    "unshare_user": ("ok", "userns"),
    "clone_user": ("ok", "userns"),
    "tiocsti": ("ENOTTY", "seccomp"),
    "sockets": ({"packet": "EPERM", "vsock": "ok"}, "seccomp"),
    "route 192.0.2.1": ("TimeoutError", "network"),
    "route 2001:db8::1": ("TimeoutError", "network"),
    "resolve": ("ok", "network"),
    "fork_bomb": ([48, "ok"], "cgroup"),
    "hog": ("exit 0", "cgroup"),
    "x32": ("exit 0", "seccomp"),
    "egress": ({"tcp": "connected"}, "network"),
    "list_root": ("ok", "landlock"),
    "signal_first": ("ok", "landlock"),
    "first_memory": ("ok", "first_process"),
}


def _down(found: dict[str, Any], ready: dict[str, Any] = READY) -> set[str]:
    judged = walls.judge(found, ready, root=True)
    return {name for name, wall in judged.items() if wall.state == "down"} - {"monitor"}


def test_all_attacks_repelled_means_all_walls_up_but_those_not_built() -> None:
    assert _down(GOOD) == set()
    judged = walls.judge(GOOD, READY, root=True)
    assert judged["monitor"].state == "down"
    assert set(judged) == set(walls.NAMES)


@pytest.mark.parametrize("key", sorted(BAD))
def test_one_attack_that_gets_through_brings_its_wall_down(key: str) -> None:
    value, wall = BAD[key]
    assert _down({**copy.deepcopy(GOOD), key: value}) == {wall}


def test_a_kernel_without_landlock_has_no_such_wall() -> None:
    assert _down(GOOD, {**READY, "landlock": 0}) == {"landlock"}
    # Before ABI 6 signals are not Landlock's: other walls keep them in.
    assert _down({**GOOD, "signal_first": "ok"}, {**READY, "landlock": 5}) == set()


@pytest.mark.parametrize("key", sorted(set(GOOD) - {"home_shown"}))
def test_an_attack_that_did_not_run_proves_nothing(key: str) -> None:
    assert _down({name: value for name, value in GOOD.items() if name != key})


def test_an_empty_report_has_no_wall() -> None:
    assert _down({}, {}) == set(walls.NAMES) - {"monitor", "own_uid"}


@pytest.mark.parametrize("mechanism", ["rlimit", "", None])
def test_rlimits_are_no_control_group(mechanism: str | None) -> None:
    assert _down(GOOD, {**READY, "mechanism": mechanism}) == {"cgroup"}


def test_this_machine_has_the_walls_every_program_needs(backend: LocalSandbox) -> None:
    report = backend.report()
    assert report.tier in ("root", "user")
    assert (
        report.missing(("mounts", "network", "seccomp", "no_new_privs", "pids", "userns", "caps", "descriptors")) == ()
    )
    assert all(wall.proved_by for wall in report.walls.values())


def test_a_sandbox_without_a_group_says_so_although_the_machine_has_them() -> None:
    report = WallsReport(tier="root", walls={"cgroup": Wall(state="up", proved_by="attack")})
    assert walls.for_sandbox(report, {"mechanism": "cgroup1"}).walls["cgroup"].state == "up"
    assert walls.for_sandbox(report, {"mechanism": "rlimit"}).walls["cgroup"].state == "down"


@pytest.mark.parametrize(
    "wall", ["mounts", "network", "seccomp", "no_new_privs", "pids", "userns", "caps", "descriptors"]
)
def test_no_program_starts_when_a_needed_wall_is_down(
    backend: LocalSandbox, workspace: Path, state: Path, wall: str
) -> None:
    report = backend.report()
    broken = report.model_copy(update={"walls": {**report.walls, wall: Wall(state="down", proved_by="it fell")}})
    found: Future[WallsReport] = Future()
    found.set_result(broken)
    fallen = LocalSandbox(state=state)
    fallen._walls, fallen._leases = found, backend._leases
    sandbox = fallen.create(specification("touch /workspace/started", workspace))
    with pytest.raises(DependencyDown) as error:
        sandbox.go()
    assert wall in error.value.refusal.reason
    assert sandbox.wait().reason == "killed"
    assert not (workspace / "started").exists()


def test_missing_bubblewrap_refuses_and_nothing_weaker_runs(
    monkeypatch: pytest.MonkeyPatch, workspace: Path, state: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(blueprint, "_PROGRAMS", str(tmp_path))
    bare = LocalSandbox(state=state)
    with pytest.raises(DependencyDown) as error:
        bare.create(specification("touch /workspace/started", workspace))
    assert error.value.refusal.rule == "dependency.sandbox"
    assert "bubblewrap" in error.value.refusal.reason
    report = bare.report()
    assert report.tier == "none"
    assert {wall.state for wall in report.walls.values()} == {"down"}
    assert not (workspace / "started").exists()


@pytest.mark.parametrize(
    "script",
    [
        "echo 'bwrap: No permissions to create new namespace' >&2; exit 1",
        "exit 0",
        "kill -9 $$",
        # a bubblewrap that isolates nothing and says that all is well
        r"""S=$(tr '\0' '\n' <&$2 | grep -A1 json-status-fd | tail -1);
        echo "{ \"child-pid\": $$ }" >&$S; exec sleep 60""",
    ],
)
def test_a_bubblewrap_that_makes_no_namespaces_refuses(
    monkeypatch: pytest.MonkeyPatch, backend: LocalSandbox, workspace: Path, script: str, state: Path
) -> None:
    backend.report()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)  # reachable by the dedicated uid, so that the fake really runs
        fake = Path(folder) / "bwrap"
        fake.write_text(f"#!/bin/bash\ntouch {folder}/ran\n{script}\n")
        fake.chmod(0o755)
        monkeypatch.setattr(blueprint, "_PROGRAMS", folder)
        with pytest.raises(DependencyDown) as error:
            backend.create(specification("touch /workspace/started", workspace))
        assert (Path(folder) / "ran").exists()
    assert error.value.refusal.rule == "dependency.sandbox"
    assert not (workspace / "started").exists()
    assert list((state / "sandboxes").glob("*")) == []


def test_an_architecture_without_a_filter_refuses(
    monkeypatch: pytest.MonkeyPatch, backend: LocalSandbox, workspace: Path
) -> None:
    backend.report()
    monkeypatch.setattr(blueprint.platform, "machine", lambda: "riscv64")
    with pytest.raises(DependencyDown, match="riscv64"):
        backend.create(specification("true", workspace))


def test_a_server_that_cannot_start_refuses(
    monkeypatch: pytest.MonkeyPatch, backend: LocalSandbox, workspace: Path
) -> None:
    from vestibule.sandbox.local import client

    backend.report()
    broken = client.LaunchServer()
    monkeypatch.setattr("vestibule.sandbox.local.backend.SERVER", broken)
    monkeypatch.setattr(client.sys, "executable", "/nonexistent/python")
    with pytest.raises(DependencyDown):
        backend.create(specification("true", workspace))


def test_the_probe_is_a_sandbox_of_its_own_and_leaves_nothing(tmp_path: Path) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    fresh = LocalSandbox(state=tmp_path)
    fresh.report()
    assert list((tmp_path / "sandboxes").glob("*")) == []
    assert fresh.reap(RUN) == []


def test_a_proof_is_used_again_for_the_same_kernel_and_make_only(
    backend: LocalSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    good = backend.report()
    proofs = local_backend._Proofs()
    monkeypatch.setattr(local_backend, "_PROOFS", proofs)
    monkeypatch.setattr(walls, "prove", lambda _: (asked.append(1), good)[1])
    first, second = LocalSandbox(state=tmp_path), LocalSandbox(state=tmp_path)
    assert first.report() == second.report() == good
    assert len(asked) == 1
    (tmp_path / "tool").mkdir()
    LocalSandbox(tools=(tmp_path / "tool",)).report()
    assert len(asked) == 2
    monkeypatch.setattr(local_backend.os, "geteuid", lambda: 4711)
    LocalSandbox(state=tmp_path).report()
    assert len(asked) == 3


def test_a_proof_with_a_needed_wall_down_is_not_used_again(
    backend: LocalSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    nothing = walls.nothing_proved("a moment's trouble")
    monkeypatch.setattr(local_backend, "_PROOFS", local_backend._Proofs())
    monkeypatch.setattr(walls, "prove", lambda _: (asked.append(1), nothing)[1])
    for _ in range(2):
        assert LocalSandbox(state=tmp_path).report().tier == "none"
    assert len(asked) == 2
