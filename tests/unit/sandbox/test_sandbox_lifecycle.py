"""A sandbox ends when it should, wholly, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sandbox_helpers import PREFIX, RUN, Inside, leftovers, python, specification

from vestibule.core.errors import DependencyDown, UsageError
from vestibule.core.ports import Limits, Mount, SandboxSpec
from vestibule.sandbox.local import LocalSandbox, blueprint, keeper, limits, own_workspace, wire
from vestibule.sandbox.local.client import SERVER, LaunchServer

_DAEMON = (
    "import os,time\n"
    "if os.fork() == 0:\n"
    "  os.setsid()\n"
    "  if os.fork() == 0:\n"
    "    open('/workspace/daemon', 'w').write('alive')\n"
    "    time.sleep(600)\n"
    "  os._exit(0)\n"
    "while not os.path.exists('/workspace/daemon'): time.sleep(0.01)\n"
)


def _gone(pid: int, seconds: float = 10) -> bool:
    """Whether a process ends in time, by its pidfd."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)


def test_streams_and_exit_code_come_back_as_they_are(inside: Inside) -> None:
    result = inside("cat; echo err >&2; exit 7", stdin=b"in\0put")
    assert (result.exit_code, result.reason, result.stdout, result.stderr) == (7, "exited", b"in\0put", b"err\n")


def test_a_signal_is_told(inside: Inside) -> None:
    result = inside("kill -TERM $$")
    assert (result.exit_code, result.reason) == (143, "signal")


def test_no_signal_is_ignored_by_inheritance(inside: Inside) -> None:
    result = inside("grep -E 'SigIgn|SigBlk' /proc/self/status")
    _, blocked, _, ignored = result.stdout.split()
    # 32 and 33 are the C library's own: make's children ignore them, no program can ask for that or be hurt by it.
    own = 1 << 31 | 1 << 32
    assert int(blocked, 16) & ~own == 0
    assert int(ignored, 16) & ~own == 0


def test_a_missing_program_is_127_and_says_so(inside: Inside) -> None:
    result = inside(("no-such-program",))
    assert result.exit_code == 127
    assert b"no-such-program" in result.stderr


def test_nothing_runs_before_go(backend: LocalSandbox, workspace: Path) -> None:
    sandbox = backend.create(specification("touch /workspace/started", workspace))
    sandbox.probe_egress()
    sandbox.kill()
    assert not (workspace / "started").exists()


def test_nothing_runs_when_the_keeper_is_killed_before_go(backend: LocalSandbox, workspace: Path, state: Path) -> None:
    sandbox = backend.create(specification("touch /workspace/started", workspace))
    keeper = _parent(sandbox.ready["bwrap"])
    os.kill(keeper, signal.SIGKILL)
    assert sandbox.wait().reason == "killed"
    assert _gone(sandbox.ready["inside"])
    assert not (workspace / "started").exists()
    assert leftovers(state) == []


def test_everything_dies_when_the_keeper_is_killed(backend: LocalSandbox, workspace: Path, state: Path) -> None:
    sandbox = backend.create(specification(python(_DAEMON + "time.sleep(600)"), workspace))
    sandbox.go()
    _until((workspace / "daemon").exists)
    os.kill(_parent(sandbox.ready["bwrap"]), signal.SIGKILL)
    assert sandbox.wait().reason == "killed"
    assert _gone(sandbox.ready["inside"])
    assert leftovers(state) == []


def test_a_process_that_detached_itself_dies_with_the_program(
    backend: LocalSandbox, workspace: Path, state: Path
) -> None:
    sandbox = backend.create(specification(python(_DAEMON), workspace))
    sandbox.go()
    result = sandbox.wait()
    assert result.exit_code == 0
    assert (workspace / "daemon").read_text() == "alive"
    assert _gone(sandbox.ready["inside"], 0)
    assert leftovers(state) == []


def test_kill_ends_everything_and_may_be_called_again(backend: LocalSandbox, workspace: Path, state: Path) -> None:
    sandbox = backend.create(specification(python(_DAEMON + "time.sleep(600)"), workspace))
    sandbox.go()
    _until((workspace / "daemon").exists)
    waiter = threading.Thread(target=sandbox.wait)
    waiter.start()
    sandbox.kill()
    assert _gone(sandbox.ready["inside"], 0)
    sandbox.kill()
    waiter.join(5)
    assert sandbox.wait().reason == "killed"
    assert leftovers(state) == []


def test_wall_clock_ends_a_program_that_ignores_signals(inside: Inside, state: Path) -> None:
    began = time.monotonic()
    code = "import signal,time\nfor n in (2, 15): signal.signal(n, signal.SIG_IGN)\ntime.sleep(600)"
    result = inside(python(code), limits=Limits(wall_seconds=0.5))
    assert result.reason == "wall-clock"
    assert time.monotonic() - began < 10
    assert leftovers(state) == []


def test_output_is_bounded_and_the_program_is_not_blocked(state: Path, workspace: Path, backend: LocalSandbox) -> None:
    small = LocalSandbox(state=state, output_limit=1000)
    small._walls = backend._proof()
    small._leases = backend._leases
    sandbox = small.create(specification("head -c 5000000 /dev/zero; echo end >&2", workspace))
    sandbox.go()
    result = sandbox.wait()
    assert (len(result.stdout), result.truncated, result.stderr) == (1000, True, b"end\n")


def test_no_descriptor_is_left_open_in_the_supervisor(backend: LocalSandbox, workspace: Path, inside: Inside) -> None:
    inside("true")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        inside("true")
        sandbox = backend.create(specification("true", workspace, names=("a.example.com",)))
        sandbox.kill()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_launch_server_that_died_is_started_again(inside: Inside) -> None:
    inside("true")
    assert SERVER._process is not None
    SERVER._process.kill()
    SERVER._process.wait()
    assert inside("true").exit_code == 0


_SUPERVISOR = """
import json, sys
from pathlib import Path
from vestibule.core.ports import Mount, SandboxSpec
from vestibule.sandbox.local import LocalSandbox, own_workspace
given = json.loads(sys.argv[1])
backend = LocalSandbox(tools=given["tools"], state=Path(given["state"]))
own_workspace(Path(given["workspace"]), backend.workspace_uid("r0tests"))
sandbox = backend.create(SandboxSpec(run="r0tests", argv=given["argv"],
    mounts=(Mount(source=Path(given["workspace"]), target="/workspace", write=True),)))
sandbox.go()
print(json.dumps(sandbox.ready), flush=True)
sys.stdin.read()
"""


def _supervise(state: Path, workspace: Path) -> tuple[subprocess.Popen[bytes], dict[str, int]]:
    """Another supervisor, in its own process, with a sandbox full of detached processes."""
    given = {
        "tools": [] if Path("/usr") == PREFIX else [str(PREFIX)],
        "state": str(state),
        "workspace": str(workspace),
        "argv": python(_DAEMON + "time.sleep(600)"),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", _SUPERVISOR, json.dumps(given)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    _until((workspace / "daemon").exists)
    return process, ready


def test_sandbox_dies_with_a_supervisor_that_is_killed(backend: LocalSandbox, workspace: Path, tmp_path: Path) -> None:
    backend.report()
    state = tmp_path / "state"
    process, ready = _supervise(state, workspace)
    keeper = _parent(ready["bwrap"])
    process.kill()
    process.wait()
    assert _gone(keeper)
    assert _gone(ready["inside"])
    assert leftovers(state) == []


def test_reap_ends_what_supervisor_and_keeper_left(backend: LocalSandbox, workspace: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    process, ready = _supervise(state, workspace)
    keeper = _parent(ready["bwrap"])
    os.kill(process.pid, signal.SIGSTOP)  # it must not clean up when the keeper dies
    os.kill(keeper, signal.SIGKILL)
    process.kill()
    process.wait()
    assert len(list((state / "sandboxes").glob("*.json"))) == 1
    after = LocalSandbox(state=state)
    assert len(after.reap(RUN)) == 1
    assert _gone(ready["inside"])
    assert leftovers(state) == []
    assert after.reap(RUN) == []


def test_reap_never_kills_a_process_that_only_has_an_old_number(tmp_path: Path) -> None:
    folder = tmp_path / "sandboxes"
    folder.mkdir()
    with subprocess.Popen(["sleep", "60"]) as bystander:
        started = wire.start_time(bystander.pid)
        assert started is not None
        entry = {"name": "vestibule-r0tests-0", "folders": [str(tmp_path)], "processes": [[bystander.pid, started - 1]]}
        (folder / "vestibule-r0tests-0.json").write_text(json.dumps(entry))
        assert LocalSandbox(state=tmp_path).reap() == ["vestibule-r0tests-0"]
        assert bystander.poll() is None
        bystander.kill()
    assert tmp_path.is_dir()  # a folder that does not bear the group's name is not removed


def test_reap_refuses_a_record_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "sandboxes").mkdir()
    (tmp_path / "sandboxes" / "vestibule-r0tests-0.json").write_text("{")
    with pytest.raises(DependencyDown):
        LocalSandbox(state=tmp_path).reap(RUN)


def test_an_end_that_left_something_is_never_reported_as_an_end(backend: LocalSandbox, workspace: Path) -> None:
    sandbox = backend.create(specification("true", workspace))
    inside = Path(sandbox.ready["folders"][0]) / "kept" if sandbox.ready["folders"] else None
    if inside is None:
        sandbox.kill()
        return  # without control groups there is nothing that could stay
    inside.mkdir()  # a group below ours keeps it from being removed
    try:
        with pytest.raises(DependencyDown):
            sandbox.kill()
    finally:
        inside.rmdir()
        assert backend.reap(RUN)


def test_two_supervisors_never_share_a_uid(backend: LocalSandbox) -> None:
    if os.geteuid() != 0:
        pytest.skip("own uids need a supervisor that is root")
    held = {backend.workspace_uid(f"r0tests-{number}") for number in range(20)}
    assert len(held) == 20
    for number in range(20):
        backend.release(f"r0tests-{number}")


def test_one_run_keeps_its_uid_over_several_sandboxes(backend: LocalSandbox, workspace: Path, inside: Inside) -> None:
    inside("echo one > /workspace/shared")
    assert inside("cat /workspace/shared && echo two >> /workspace/shared").exit_code == 0
    assert (workspace / "shared").read_text() == "one\ntwo\n"


def test_ownership_changes_never_follow_a_link(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    outside = tmp_path / "outside"
    outside.write_text("x")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    own_workspace(folder, 61200)
    assert outside.stat().st_uid == 0
    assert (folder / "link").lstat().st_uid == 61200


def test_read_only_mounts_stay_so_under_a_writable_one(backend: LocalSandbox, workspace: Path) -> None:
    (workspace / "fixed").mkdir()
    spec = specification("touch /workspace/new && ! touch /workspace/fixed/new", workspace)
    spec = spec.model_copy(
        update={"mounts": (Mount(source=workspace / "fixed", target="/workspace/fixed"), *spec.mounts)}
    )
    sandbox = backend.create(spec)
    sandbox.go()
    assert sandbox.wait().exit_code == 0
    assert not (workspace / "fixed" / "new").exists()


def test_a_link_is_no_mount_source(backend: LocalSandbox, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    spec = SandboxSpec(run=RUN, argv=("true",), mounts=(Mount(source=tmp_path / "link", target="/workspace"),))
    with pytest.raises(UsageError, match="symbolic link"):
        backend.create(spec)


@pytest.mark.parametrize("target", ["/", "relative", "/a/../b"])
def test_a_mount_has_a_plain_place(backend: LocalSandbox, workspace: Path, target: str) -> None:
    with pytest.raises(UsageError):
        backend.create(SandboxSpec(run=RUN, argv=("true",), mounts=(Mount(source=workspace, target=target),)))


def test_the_state_folder_is_never_shown(backend: LocalSandbox, state: Path) -> None:
    for source in (state, state.parent):
        with pytest.raises(UsageError, match="never shown"):
            backend.create(SandboxSpec(run=RUN, argv=("true",), mounts=(Mount(source=source, target="/workspace"),)))


def test_a_mount_point_that_cannot_be_made_refuses_at_creation(backend: LocalSandbox, workspace: Path) -> None:
    spec = specification("true", workspace)
    mounts = (
        Mount(source=workspace, target="/workspace"),
        Mount(source=workspace, target="/workspace/none", write=True),
    )
    with pytest.raises(DependencyDown) as error:
        backend.create(spec.model_copy(update={"mounts": mounts}))
    assert error.value.refusal.rule == "dependency.sandbox"


def test_limits_say_which_mechanism_holds(backend: LocalSandbox, workspace: Path) -> None:
    sandbox = backend.create(specification("true", workspace))
    assert sandbox.ready["mechanism"] in ("cgroup2", "cgroup1", "rlimit")
    assert (sandbox.report.walls["cgroup"].state == "up") == (sandbox.ready["mechanism"] != "rlimit")
    sandbox.kill()


def test_a_group_is_entered_by_every_process(backend: LocalSandbox, workspace: Path) -> None:
    sandbox = backend.create(specification("true", workspace))
    folders = [Path(item) for item in sandbox.ready["folders"]]
    for folder in folders:
        assert str(sandbox.ready["inside"]) in (folder / "cgroup.procs").read_text().split()
    sandbox.kill()
    assert not [folder for folder in folders if folder.exists()]
    assert limits.own_place() is not None


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _until(condition: object, seconds: float = 10) -> None:
    """Wait for a fact on the file system that another process makes true."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_keeper_that_waits_warm_goes_with_its_server(workspace: Path) -> None:
    before = _keepers()
    server = LaunchServer()
    server.start()
    _until(lambda: _keepers() - before)
    waiting = _keepers() - before
    server.stop()
    assert all(_gone(pid) for pid in waiting)


def test_a_warm_keeper_that_was_killed_is_replaced(inside: Inside) -> None:
    inside("true")
    assert SERVER._process is not None
    _until(lambda: _children(SERVER._process.pid))
    for pid in _children(SERVER._process.pid):
        with contextlib.suppress(ProcessLookupError):  # the keeper of the first one may just be leaving
            os.kill(pid, signal.SIGKILL)
        assert _gone(pid)
    assert inside("true").exit_code == 0


def _children(pid: int) -> set[int]:
    return {int(item) for item in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def _keepers() -> set[int]:
    """Processes whose grandparent is this one: keepers of our launch servers."""
    return {keeper for server in _children(os.getpid()) for keeper in _children(server)}


def _statvfs(space: int, free: int, files: int, free_files: int) -> os.statvfs_result:
    return os.statvfs_result((4096, 4096, space >> 12, free >> 12, free >> 12, files, free_files, free_files, 0, 255))


@pytest.mark.parametrize(
    ("found", "full"),
    [
        (_statvfs(100 << 30, 1 << 30, 1_000_000, 500_000), False),
        (_statvfs(100 << 30, 511 << 20, 1_000_000, 500_000), True),
        (_statvfs(100 << 30, 1 << 30, 1_000_000, 9_999), True),
        (_statvfs(1 << 30, 22 << 20, 1_000, 21), False),
        (_statvfs(1 << 30, 20 << 20, 1_000, 21), True),
        (_statvfs(1 << 30, 22 << 20, 1_000, 19), True),
        (_statvfs(100 << 30, 1 << 30, 0, 0), False),
    ],
)
def test_a_disk_is_full_before_nobody_else_can_write(
    found: os.statvfs_result, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    assert limits.disk_is_full("/anywhere") is full


def test_a_sandbox_that_fills_the_disk_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def full(folder: str) -> bool:
        asked.append(folder)
        return len(asked) == 3

    monkeypatch.setattr(limits, "disk_is_full", full)
    monkeypatch.setattr(keeper, "DISK_SECONDS", 0.01)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = subprocess.Popen(["sleep", "600"])
    try:
        kept = keeper.Keeper()
        kept.control, kept.bwrap_fd = theirs, os.pidfd_open(child.pid)
        kept.floor = str(tmp_path)
        kept.deadline = time.monotonic() + 30
        kept.serve()
        assert kept.reason == "disk"
        assert asked == [str(tmp_path)] * 3
    finally:
        child.kill()
        child.wait()
        os.close(kept.bwrap_fd)
        ours.close()
        theirs.close()


def test_the_folder_that_a_sandbox_writes_is_the_one_that_is_watched(tmp_path: Path) -> None:
    def watched(*mounts: Mount) -> object:
        spec = SandboxSpec(run=RUN, argv=("true",), mounts=mounts)
        drawn = blueprint.draw(spec, name="n", uid=None, record=None, tool_paths=(), tool_binds=(), forbidden=())
        return drawn["disk"]

    (tmp_path / "src").mkdir()
    shown = Mount(source=tmp_path, target="/workspace")
    assert watched(shown) is None
    assert watched(shown, Mount(source=tmp_path / "src", target="/workspace/src", write=True)) == str(tmp_path / "src")


def test_who_waits_for_a_sandbox_that_filled_the_disk_is_refused(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = wire.receive

    def told(sock: socket.socket) -> tuple[dict[str, object], list[int]]:
        message, fds = real(sock)
        if "end" in message:
            message["end"]["reason"] = "disk"
        return message, fds

    assert inside("true").exit_code == 0  # the sandboxes that prove the walls have ended
    monkeypatch.setattr(wire, "receive", told)
    with pytest.raises(DependencyDown) as caught:
        inside("true")
    assert caught.value.name == "disk"


def test_an_end_handed_to_another_sandbox_keeps_no_dead_one_waiting(backend: LocalSandbox, workspace: Path) -> None:
    """A socket in the shared workspace carries descriptors from one sandbox of a run to the next."""
    receiver = (
        "import array, socket, time; s = socket.socket(socket.AF_UNIX); s.bind('/workspace/s'); s.listen(1)\n"
        "got = s.accept()[0].recvmsg(1, 100)[1]; time.sleep(600)"
    )
    sender = (
        "import array, os, socket, time; s = socket.socket(socket.AF_UNIX)\n"
        "while not os.path.exists('/workspace/s'): time.sleep(0.01)\n"
        "s.connect('/workspace/s'); print('said', flush=True)\n"
        "s.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [1, 2]))])"
    )
    holder = backend.create(specification(python(receiver), workspace))
    try:
        holder.go()
        other = backend.create(specification(python(sender), workspace))
        other.go()
        ended: list[bytes] = []
        waiter = threading.Thread(target=lambda: ended.append(other.wait().stdout), daemon=True)
        waiter.start()
        waiter.join(20)
        assert ended == [b"said\n"]
    finally:
        holder.kill()
