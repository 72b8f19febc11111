"""The battery of a hijacked agent: every attack fails, judged by what it got and not by what it was told."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from sandbox_helpers import PYTHON, RUN, Inside, python, specification

from vestibule.core.ports import Limits, Mount, SandboxSpec
from vestibule.sandbox.local import LocalSandbox, own_workspace, seccomp

BATTERY = Path(__file__).with_name("sandbox_battery.py")
ARCH = seccomp.ARCHES[platform.machine()]
DENIED = sorted(name for name, numbers in seccomp.DENIED.items() if numbers[ARCH.column] is not None)


@pytest.fixture(scope="module")
def found(backend: LocalSandbox, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run of the battery, with live targets outside."""
    outside = tmp_path_factory.mktemp("outside")
    workspace = outside / "workspace"
    workspace.mkdir()
    own_workspace(workspace, backend.workspace_uid(RUN))
    canary = outside / "canary"
    canary.write_text("a secret of the host")
    tcp = socket.create_server(("127.0.0.1", 0))
    abstract, by_path = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    name = f"vestibule-test-{os.getpid()}"
    abstract.bind("\0" + name)
    socket_path = f"/tmp/vestibule-test-{os.getpid()}.sock"
    by_path.bind(socket_path)

    def sing(listener: socket.socket) -> None:
        try:
            while True:
                client, _ = listener.accept()
                client.sendall(b"the host")
                client.close()
        except OSError:
            return

    for listener in (tcp, abstract, by_path):
        listener.listen()
        threading.Thread(target=sing, args=(listener,), daemon=True).start()
    numbers = {key: pair[ARCH.column] for key, pair in seccomp.DENIED.items()}
    numbers |= {"clone": (56, 220)[ARCH.column], "ioctl": (16, 29)[ARCH.column], "clone3": 435}
    numbers |= {"socketpair": (53, 199)[ARCH.column]}
    numbers |= {"personality": (135, 92)[ARCH.column], "getpid": (39, 172)[ARCH.column]}
    given = {
        "numbers": numbers,
        "abi_bit": ARCH.abi_bit,
        "denied": DENIED,
        "tcp": tcp.getsockname()[1],
        "abstract": name,
        "path_socket": socket_path,
        "canary": str(canary),
        "supervisor": os.getpid(),
    }
    spec = SandboxSpec(
        run=RUN,
        argv=(PYTHON, "-I", "-S", "/home/agent/battery.py", json.dumps(given)),
        env={"TOKEN": "worth nothing outside"},
        mounts=(Mount(source=workspace, target="/workspace", write=True),),
        home_files={"battery.py": BATTERY.read_bytes()},
        limits=Limits(wall_seconds=30, memory_bytes=512 << 20, pids=64),
    )
    sandbox = backend.create(spec)
    sandbox.go()
    result = sandbox.wait()
    for listener in (tcp, abstract, by_path):
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    Path(socket_path).unlink()
    assert result.exit_code == 0, result.stderr.decode()
    return dict(json.loads(result.stdout))


def test_nothing_outside_was_ever_heard_or_read(found: dict[str, Any]) -> None:
    assert not [key for key, value in found.items() if "heard" in str(value) or "a secret of the host" in str(value)]


@pytest.mark.parametrize("host", ["192.0.2.1", "169.254.169.254", "10.0.0.1", "2001:db8::1", "fd00:ec2::254"])
def test_no_address_has_a_route(found: dict[str, Any], host: str) -> None:
    assert found[f"tcp {host}"] in ("ENETUNREACH", "EADDRNOTAVAIL")


@pytest.mark.parametrize(
    "key", ["host loopback", "host loopback v6-mapped", "host abstract socket", "host path socket"]
)
def test_listeners_of_the_host_do_not_exist_inside(found: dict[str, Any], key: str) -> None:
    assert found[key] in ("ECONNREFUSED", "ENOENT")


def test_names_fail_at_once_and_nothing_asks_a_resolver(found: dict[str, Any]) -> None:
    for key in ("resolve", "resolve own resolver"):
        result, seconds = found[key]
        assert "[" not in result
        assert seconds < 1
    assert found["udp dns"] == "ENETUNREACH"


def test_only_plain_sockets_can_be_made(found: dict[str, Any]) -> None:
    assert found["netlink route"] == "ok"
    for key in ("packet socket", "raw icmp", "netlink netfilter", *(key for key in found if key.startswith("family "))):
        assert found[key] == "EPERM", key
    assert found["ping icmp"] == "EPROTONOSUPPORT"


def test_only_the_standard_streams_are_open(found: dict[str, Any]) -> None:
    assert found["fds"] == ["0", "1", "2"]
    assert found["sockets in sight"] == []


def test_places_that_can_be_written(found: dict[str, Any]) -> None:
    assert {found[f"write {name}"] for name in ("tmp", "home", "workspace", "shm")} == {"ok"}


def test_all_other_places_cannot(found: dict[str, Any]) -> None:
    tried = [key for key in found if key.startswith(("write /", "overwrite /", "rebind"))]
    assert len(tried) > 12
    assert not [key for key in tried if found[key] not in ("EROFS", "EACCES", "EPERM", "ENOENT")]
    assert found["resolve rebound hosts"] == "EROFS"


def test_kernel_memory_keys_and_devices_cannot_be_read(found: dict[str, Any]) -> None:
    tried = [key for key in found if key.startswith("read /")]
    assert len(tried) == 6
    assert not [key for key in tried if found[key] not in ("EACCES", "EPERM", "ENOENT")]
    assert found["device node"] in ("EPERM", "EACCES")
    assert found["cgroup move"] == "ENOENT"


def test_the_first_process_shows_neither_environment_nor_mounts(found: dict[str, Any]) -> None:
    for key in ("read 1/environ", "read 1/cmdline"):
        assert "TOKEN" not in found[key]
        assert "--bind" not in found[key]


def test_the_first_process_is_as_confined_as_the_agent(found: dict[str, Any]) -> None:
    """Its memory is open to the agent (same uid), so it must hold no more power than the agent has."""
    assert found["first process"] == ["0" * 16, "0" * 16, "1", "2"]
    fds = found["first process fds"]
    assert fds in ("EACCES", "EPERM") or all(
        item.startswith(("pipe:", "/dev/null", "anon_inode:[event")) for item in fds
    )


def test_no_process_outside_can_be_seen_or_signalled(found: dict[str, Any]) -> None:
    assert found["processes"] <= 3
    assert found["signal supervisor"] in ("ESRCH", "EPERM")


def test_nobody_becomes_anybody_else(found: dict[str, Any]) -> None:
    assert found["setuid 0"] in ("EPERM", "EINVAL")
    assert found["setgroups"] == "EPERM"
    assert found["setuid program"] == "(1000, 1000, 1000)"
    assert found["no_new_privs"] == [1, -1]
    assert set(found["caps"]) == {"0" * 16}


@pytest.mark.skipif(os.geteuid() != 0, reason="own uids need a supervisor that is root")
def test_under_root_nothing_inside_is_root_or_a_known_user(
    backend: LocalSandbox, inside: Inside, workspace: Path
) -> None:
    result = inside(python("open('/workspace/made', 'w').close(); open('/tmp/x', 'w').close()"))
    assert result.exit_code == 0
    owner = (workspace / "made").stat().st_uid
    assert owner == backend.workspace_uid(RUN)
    assert 61184 <= owner <= 65519


@pytest.mark.parametrize("name", DENIED)
def test_denied_call_is_refused(found: dict[str, Any], name: str) -> None:
    assert found[f"call {name}"] == "EPERM"


def test_no_namespace_can_be_made_or_entered(found: dict[str, Any]) -> None:
    tried = [key for key in found if key.startswith(("unshare ", "clone ")) or key == "setns"]
    assert len(tried) == 10
    assert {found[key] for key in tried} == {"EPERM"}
    assert found["clone3"] == "ENOSYS"


def test_terminal_injection_is_refused_whatever_the_high_bits(found: dict[str, Any]) -> None:
    assert {found[key] for key in ("tiocsti", "tiocsti high bits", "tioclinux", "personality")} == {"EPERM"}


@pytest.mark.skipif(not ARCH.abi_bit, reason="this architecture has no second ABI")
def test_a_foreign_abi_is_killed(found: dict[str, Any]) -> None:
    assert found["x32"] == -31


@pytest.mark.skipif(not Path("/usr/bin/su").exists(), reason="no setuid program at hand")
def test_a_setuid_program_has_no_effect(inside: Inside) -> None:
    result = inside("stat -c %A /usr/bin/su; su -c id root < /dev/null; grep -E '^Uid' /proc/self/status")
    assert b"uid=0" not in result.stdout + result.stderr


def test_fork_bomb_ends_at_the_ceiling_and_the_host_goes_on(inside: Inside) -> None:
    bomb = (
        "import os\nn = 0\nwhile True:\n  try:\n    if os.fork() == 0: os.read(os.pipe()[0], 1)\n    n += 1\n"
        "  except OSError:\n    print(n); break"
    )
    result = inside(python(bomb), limits=Limits(wall_seconds=20, memory_bytes=512 << 20, pids=50))
    assert result.exit_code == 0
    assert 1 < int(result.stdout) < 50


def test_memory_hog_is_stopped(inside: Inside) -> None:
    limits = Limits(wall_seconds=20, memory_bytes=64 << 20, pids=20)
    result = inside(python("b = bytearray(300 << 20); print(len(b))"), limits=limits)
    assert result.exit_code != 0
    assert result.stdout == b""


def test_memory_in_tmpfs_counts_too(inside: Inside) -> None:
    limits = Limits(wall_seconds=20, memory_bytes=64 << 20, pids=20)
    result = inside("head -c 200000000 /dev/zero > /tmp/big; echo $?", limits=limits)
    assert result.stdout.strip() != b"0"


def test_a_file_cannot_grow_beyond_its_ceiling(inside: Inside, workspace: Path) -> None:
    inside("head -c 9000000 /dev/zero > /workspace/big", limits=Limits(wall_seconds=20, file_bytes=1 << 20))
    assert (workspace / "big").stat().st_size <= 1 << 20


def test_environment_holds_only_what_was_given(inside: Inside) -> None:
    os.environ["VESTIBULE_TEST_CANARY"] = "x"
    try:
        result = inside(("env",), env={"VESTIBULE_RUN": "r1"})
    finally:
        del os.environ["VESTIBULE_TEST_CANARY"]
    names = {line.partition(b"=")[0].decode() for line in result.stdout.splitlines()}
    assert names == {"HOME", "PATH", "LANG", "TERM", "USER", "VESTIBULE_RUN", "PWD"}


def test_a_host_file_on_stdin_cannot_be_opened_again_for_writing(
    backend: LocalSandbox, workspace: Path, tmp_path: Path
) -> None:
    file = tmp_path / "input"
    file.write_text("kept")
    file.chmod(0o666)
    with file.open("r+") as stream:
        sandbox = backend.create(specification("cat; echo changed > /proc/self/fd/0", workspace), stdin=stream.fileno())
        sandbox.go()
        result = sandbox.wait()
    assert result.stdout == b"kept"
    assert file.read_text() == "kept"


def test_interpreter_of_the_tests_is_a_tool(inside: Inside) -> None:
    assert inside(python("import sys; print(sys.version_info[:2])")).stdout.strip().decode() == str(
        sys.version_info[:2]
    )
