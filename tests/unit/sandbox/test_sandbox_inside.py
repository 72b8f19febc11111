"""Behind the first process: Landlock holds what mounts let through, refused calls are told, nobody reads process 1."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_helpers import Inside, python, specification

from vestibule.core.errors import DependencyDown
from vestibule.sandbox.local import LocalSandbox, blueprint, calls, landlock, seccomp

ROOT = Path(__file__).parents[3]

CALLS = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
found = []
for number in {numbers}:
    ctypes.set_errno(0)
    found.append((libc.syscall(ctypes.c_long(number), 0, 0, 0, 0, 0, 0), ctypes.get_errno()))
print(found)
"""


def number(name: str) -> int:
    found = seccomp.NUMBERS[name][seccomp.ARCHES[platform.machine()].column]
    assert found is not None
    return found


def test_refused_calls_are_told_by_name_and_number(inside: Inside) -> None:
    numbers = [number(name) for name in ("io_uring_setup", "bpf", "bpf", "keyctl", "ptrace")]
    result = inside(python(CALLS.format(numbers=numbers)))
    assert result.stdout.decode().strip() == str([(-1, 1)] * 5)
    assert result.refused_calls == {"io_uring_setup": 1, "bpf": 2, "keyctl": 1, "ptrace": 1}


def test_an_ordinary_program_is_not_reported(inside: Inside) -> None:
    result = inside(python("import os, socket, subprocess, tempfile, threading; print(os.listdir('/tmp'))"))
    assert (result.exit_code, result.refused_calls) == (0, {})


def test_a_call_that_a_later_kernel_adds_does_not_exist(inside: Inside) -> None:
    result = inside(python(CALLS.format(numbers=[999, 1500])))
    assert result.stdout.decode().strip() == str([(-1, 38)] * 2)


def test_a_storm_of_refused_calls_is_counted_and_ends_with_the_program(inside: Inside) -> None:
    storm = f"""
import ctypes
libc = ctypes.CDLL(None)
for _ in range({calls.AT_ONCE + 50}):
    libc.syscall(ctypes.c_long({number("bpf")}), 0, 0, 0)
print("over")
"""
    result = inside(python(storm))
    assert result.stdout.decode().strip() == "over"
    assert result.refused_calls == {"bpf": calls.AT_ONCE + 50}


@pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock: not a tool that could be installed")
def test_landlock_gives_no_right_that_no_mount_asked_for(inside: Inside) -> None:
    result = inside(
        "ls / ; ls /home; ls /usr > /dev/null && echo usr; echo x > /tmp/x && echo tmp; rm -r /tmp/x && echo rm"
    )
    assert result.stdout.decode().split() == ["usr", "tmp", "rm"]
    assert result.stderr.decode().count("Permission denied") == 2


def test_files_move_and_are_linked_between_folders_that_may_be_written(inside: Inside) -> None:
    shell = "mkdir -p a/b d && mv a/b c && mv hello.txt d/x && ln d/x a/y && ls"
    assert inside(shell, cwd="/workspace").stdout.decode().split() == ["a", "c", "d"]


@pytest.mark.parametrize("name", ["mem", "environ", "maps", "fd", "root", "cwd", "exe"])
def test_the_first_process_is_closed(inside: Inside, name: str) -> None:
    result = inside(f"cat /proc/1/{name} > /dev/null 2>&1 || ls /proc/1/{name}/ > /dev/null 2>&1 || echo closed")
    assert result.stdout.decode().strip() == "closed"


def test_a_program_that_does_not_exist_ends_with_127(inside: Inside) -> None:
    assert inside(("no-such-program",)).exit_code == 127
    assert b"no such program" in inside(("no-such-program",)).stderr
    assert inside(("/etc/hosts",)).exit_code == 127


def test_the_first_process_ends_when_the_program_does(inside: Inside) -> None:
    assert inside("sleep 100 & exit 7").exit_code == 7
    assert inside("kill -9 $$").exit_code == 137


def test_without_its_first_process_there_is_no_sandbox(
    backend: LocalSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blueprint, "_NATIVE", tmp_path / "nowhere")
    blueprint._first.cache_clear()
    try:
        with pytest.raises(DependencyDown, match="first process"):
            backend.create(specification("true", tmp_path))
    finally:
        blueprint._first.cache_clear()


ARGUMENTS: list[Callable[[list[str]], list[str]]] = [
    lambda _: [],
    lambda good: good[:-1],
    lambda good: ["x", *good[1:]],
    lambda good: [good[0], "99", *good[2:]],
    lambda good: [item for item in good if item != "--"],
]


@pytest.mark.parametrize("spoil", ARGUMENTS)
def test_the_first_process_starts_nothing_when_something_is_wrong(
    spoil: Callable[[list[str]], list[str]], tmp_path: Path
) -> None:
    program = tmp_path / "first"
    shutil.copy(ROOT / f"src/vestibule/sandbox/native/inside.{platform.machine()}", program)
    program.chmod(0o755)
    good = ["-1", "98", "97", "0", "0", "0", "--", "/bin/echo", "ran"]
    done = subprocess.run([str(program), *spoil(good)], capture_output=True, check=False)
    assert done.returncode == 126
    assert b"ran" not in done.stdout


@given(st.integers(1, 12))
def test_rules_ask_for_no_right_that_the_kernel_does_not_know(version: int) -> None:
    places = [landlock.Place("/a", landlock.WRITE), landlock.Place("/f", landlock.DEVICES, folder=False)]
    found = landlock.ruleset(places, version)
    assert all(rights & ~found.fs == 0 for rights, _ in found.rules)
    assert (found.scoped != 0) == (version >= 6)
    file_rights = {path: rights for rights, path in found.rules}["/f"]
    assert file_rights & landlock.READ_DIR == 0


def test_no_landlock_means_no_rules() -> None:
    assert landlock.ruleset([landlock.Place("/a", landlock.WRITE)], 0) == landlock.Ruleset()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_what_is_shipped_is_what_the_source_gives() -> None:
    """Byte for byte, where the compiler is the one it was built with."""
    version = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()
    if version != "12.2.0":
        pytest.skip(f"gcc {version} is another compiler than the one it was built with")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/build_native.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_listener_that_nobody_can_ask_any_more_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.11 the ioctl would wait for ever, and with it the keeper."""
    read, write = os.pipe()
    os.close(write)  # as a listener whose last program ended: POLLHUP without POLLIN
    monkeypatch.setattr(calls.fcntl, "ioctl", lambda *_: pytest.fail("asked for a call that nobody made"))
    listener = calls.Calls(read, "x86_64")
    assert listener.answer() == []
    listener.close()
