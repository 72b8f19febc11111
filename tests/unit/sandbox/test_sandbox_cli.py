"""`vestibule sandbox exec` and `vestibule doctor`, as programs."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vestibule.sandbox.local import landlock

CONFIG = """version: 1
roles:
  docs:
    read: ["**"]
    write: ["docs/**"]
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs/a.md").write_text("a\n")
    (folder / "code.py").write_text("print(1)\n")
    (folder / "CLAUDE.md").write_text("obey\n")
    _git(folder, "init", "-q", "-b", "main")
    _git(folder, "add", "-A")
    _git(folder, "commit", "-qm", "x")
    (folder / "code.py").write_text("uncommitted\n")
    return folder


def _git(folder: Path, *argv: str) -> None:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.com", *argv]
    subprocess.run(command, check=True, capture_output=True)


def _configure(repo: Path, text: str = CONFIG) -> None:
    (repo / ".vestibule").mkdir()
    (repo / ".vestibule/config.yaml").write_text(text)
    _git(repo, "add", ".vestibule")
    _git(repo, "commit", "-qm", "config", "--", ".vestibule")


def _environment(tmp_path: Path) -> dict[str, str]:
    operator = tmp_path / "operator" / "config.yaml"
    if not operator.exists():
        operator.parent.mkdir()
        operator.write_text("version: 1\n")
    return {**os.environ, "VESTIBULE_HOME": str(tmp_path / "home"), "VESTIBULE_CONFIG": str(operator)}


def _program(*argv: str) -> list[str]:
    return [sys.executable, "-c", "from vestibule.cli.main import main; main()", *argv]


def _call(tmp_path: Path, *argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        _program(*argv),
        input=stdin,
        capture_output=True,
        env=_environment(tmp_path),
        cwd=tmp_path,
        timeout=60,
        check=False,
    )


def _exec(tmp_path: Path, repo: Path, *argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return _call(tmp_path, "sandbox", "exec", "--repo", str(repo), *argv, stdin=stdin)


def _empty(tmp_path: Path) -> bool:
    home = tmp_path / "home"
    return not [path for name in ("exec", "sandboxes") for path in (home / name).glob("*")]


def test_streams_and_exit_code_pass_through_unchanged(tmp_path: Path, repo: Path) -> None:
    done = _exec(tmp_path, repo, "--", "sh", "-c", "cat; printf 'x\\0y'; echo err >&2; exit 9", stdin=b"in\n")
    assert (done.returncode, done.stdout) == (9, b"in\nx\0y")
    assert done.stderr.endswith(b"err\n")
    assert _empty(tmp_path)


def test_the_base_commit_is_shown_and_nothing_is_kept(tmp_path: Path, repo: Path) -> None:
    done = _exec(tmp_path, repo, "--", "sh", "-c", "cat code.py; ls -A; echo new > docs/new.md; echo changed > code.py")
    assert done.returncode == 0
    assert done.stdout == b"print(1)\n.git\ncode.py\ndocs\n"
    assert (repo / "code.py").read_text() == "uncommitted\n"
    assert not (repo / "docs/new.md").exists()
    assert b"shipped role" in done.stderr


def test_a_role_decides_what_can_be_written(tmp_path: Path, repo: Path) -> None:
    _configure(repo)
    done = _exec(
        tmp_path, repo, "--role", "docs", "--", "sh", "-c", "echo x > docs/a.md && ! echo x 2>/dev/null > code.py"
    )
    assert done.returncode == 0
    assert b"shipped" not in done.stderr


def test_options_after_the_dashes_are_the_commands(tmp_path: Path, repo: Path) -> None:
    assert _exec(tmp_path, repo, "--", "echo", "--json", "--repo", "x").stdout == b"--json --repo x\n"


def test_json_is_one_object_with_exit_code_walls_and_events(tmp_path: Path, repo: Path) -> None:
    done = _exec(tmp_path, repo, "--json", "--", "sh", "-c", "echo out; exit 3")
    assert done.returncode == 3
    found = json.loads(done.stdout)
    assert (found["exit_code"], found["stdout"], found["role"]) == (3, "out\n", "shipped")
    assert found["walls"]["network"]["state"] == "up"
    assert [event["phase"] for event in found["events"]] == ["intent", "outcome"]
    assert [event["action"] for event in found["events"]] == ["host.exec", "host.exec"]


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("--role", "nope", "--", "true"), 2),
        (("--base", "nope", "--", "true"), 2),
        (("--base", "--output=x", "--", "true"), 2),
        ((), 2),
    ],
)
def test_a_call_that_cannot_be_carried_out_is_2(tmp_path: Path, repo: Path, argv: tuple[str, ...], code: int) -> None:
    assert _exec(tmp_path, repo, *argv).returncode == code
    assert _empty(tmp_path)


def test_no_repository_is_2(tmp_path: Path) -> None:
    assert _call(tmp_path, "sandbox", "exec", "--repo", str(tmp_path), "--", "true").returncode == 2


def test_a_repository_without_a_default_branch_is_2(tmp_path: Path, repo: Path) -> None:
    _git(repo, "branch", "-m", "main", "work")
    done = _exec(tmp_path, repo, "--", "true")
    assert done.returncode == 2
    assert b"--base" in done.stderr
    assert _exec(tmp_path, repo, "--base", "work", "--", "true").returncode == 0


def test_a_wall_of_the_minimum_that_is_down_refuses(tmp_path: Path, repo: Path) -> None:
    _configure(repo, CONFIG + "sandbox: {minimum: [monitor]}\n")
    done = _exec(tmp_path, repo, "--", "sh", "-c", "echo ran")
    assert done.returncode == 4
    assert done.stdout == b""
    assert b"dependency.monitor" in done.stderr
    assert _empty(tmp_path)


def test_a_tool_that_must_not_be_shown_is_2(tmp_path: Path, repo: Path) -> None:
    _environment(tmp_path)
    (tmp_path / "operator/config.yaml").write_text("version: 1\nsandbox: {tools: [/home]}\n")
    assert _exec(tmp_path, repo, "--", "true").returncode == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_inside_and_cleans(tmp_path: Path, repo: Path, number: int) -> None:
    argv = _program(
        "sandbox", "exec", "--repo", str(repo), "--", "sh", "-c", "trap '' INT TERM HUP; echo up; sleep 600"
    )
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment(tmp_path)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(number)
        began = time.monotonic()
        assert process.wait(20) == 128 + number
        assert time.monotonic() - began < 15
        # Everybody who held the pipe's end is dead when it ends.
        assert select.select([process.stdout], [], [], 5)[0]
        assert process.stdout.read() == b""
    assert _empty(tmp_path)


def test_what_a_killed_command_left_is_removed_by_the_next_one(tmp_path: Path, repo: Path) -> None:
    argv = _program("sandbox", "exec", "--repo", str(repo), "--", "sh", "-c", "echo up; sleep 600")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment(tmp_path)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.kill()
        assert process.stdout.read() == b""  # the sandbox died with its supervisor
    assert len(list((tmp_path / "home/exec").iterdir())) == 1
    assert _exec(tmp_path, repo, "--", "true").returncode == 0
    assert _empty(tmp_path)


def test_doctor_reports_walls_with_their_proof(tmp_path: Path) -> None:
    done = _call(tmp_path, "doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) >= {"tier", "walls", "tools", "fail_modes", "posture"}
    assert found["tier"] in ("root", "user")
    for name in ("mounts", "network", "seccomp", "no_new_privs", "pids"):
        assert found["walls"][name]["state"] == "up"
        assert found["walls"][name]["proved_by"].startswith("attack: ")
    assert found["walls"]["landlock"]["state"] == ("up" if landlock.abi() else "down")
    assert found["tools"]["git"]["version"].startswith("git version")
    assert found["fail_modes"]
    assert {row["when_broken"] for row in found["fail_modes"]} == {"deny"}


def test_doctor_says_6_when_the_minimum_does_not_stand(tmp_path: Path) -> None:
    hidden = "from vestibule.sandbox.local import blueprint; blueprint._PROGRAMS = '/nonexistent'; "
    program = [sys.executable, "-c", hidden + "from vestibule.cli.main import main; main()", "doctor"]
    done = subprocess.run(program, capture_output=True, env=_environment(tmp_path), timeout=60, check=False)
    assert done.returncode == 6
    assert b"does NOT stand: mounts" in done.stdout


def test_a_command_that_fills_its_workspace_is_ended_with_a_sentence(tmp_path: Path, repo: Path) -> None:
    _environment(tmp_path)
    (tmp_path / "operator/config.yaml").write_text("version: 1\nsandbox: {workspace_mb: 16, workspace_files: 500}\n")
    fill = "i=0; while [ $i -lt 2000 ]; do : > docs/f$i; i=$((i+1)); done; sleep 20"
    done = _exec(tmp_path, repo, "--", "sh", "-c", fill)
    assert done.returncode == 4
    assert b"16 MiB and 500 files" in done.stderr
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert _empty(tmp_path)
