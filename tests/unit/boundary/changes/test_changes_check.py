"""`vestibule check` by its contract: exit codes, where configuration comes from, odd repositories, speed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from changes_helpers import token
from changes_repos import ENV, commit, git, new_repo
from click.testing import CliRunner

from vestibule.cli.check import command
from vestibule.core.errors import ConfigError, UsageError, VestibuleError

CONFIG = b"version: 1\nroles:\n  dev:\n    read: ['**']\n    write: ['src/**']\n"


@pytest.fixture(autouse=True)
def no_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "operator" / "config.yaml"
    path.parent.mkdir()
    path.write_text("version: 1\n")
    monkeypatch.setenv("VESTIBULE_CONFIG", str(path))
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)


def check(repo: Path, *argv: str) -> tuple[int, dict[str, object], str]:
    """(exit code, JSON, stderr); errors for people are raised."""
    done = CliRunner().invoke(command, ["--repo", str(repo), "--json", *argv], standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.return_value, json.loads(done.stdout), done.stderr


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    repo = new_repo(tmp_path / "repo")
    commit(repo, {"src/a.py": b"x = 1\n", ".vestibule/config.yaml": CONFIG})
    git(repo, "checkout", "-q", "-b", "work")
    return repo


def test_the_exit_code_is_the_verdict(repo: Path) -> None:
    code, found, _ = check(repo)
    assert (code, found["verdict"], found["changed_files"]) == (0, "allow", [])
    commit(repo, {"src/a.py": b"x = 2\n"})
    code, found, _ = check(repo)
    assert (code, found["verdict"], found["changed_files"], found["findings"]) == (0, "allow", ["src/a.py"], [])
    assert set(found["timings_ms"]) >= {"total"}  # type: ignore[call-overload]
    commit(repo, {"src/conftest.py": b"x = 1\n"})
    assert check(repo)[0] == 3
    commit(repo, {"lib/a.py": b"x = 1\n"})
    code, found, _ = check(repo)
    assert (code, found["verdict"]) == (4, "deny")
    finding = found["findings"][0]  # type: ignore[index]
    assert set(finding) >= {"rule", "severity", "verdict", "path", "line", "message"}


def test_configuration_comes_from_the_bases_tip_and_never_from_the_head(repo: Path) -> None:
    wide = CONFIG.replace(b"src/**", b"**")
    commit(repo, {".vestibule/config.yaml": wide, "lib/a.py": b"x = 1\n"})
    code, found, _ = check(repo)
    assert code == 4
    assert {"change.scope", "change.protected.vestibule"} <= {f["rule"] for f in found["findings"]}  # type: ignore[attr-defined]
    git(repo, "checkout", "-q", "main")
    commit(repo, {".vestibule/config.yaml": CONFIG.replace(b"src/**", b"lib/**")})
    git(repo, "checkout", "-q", "work")
    commit(repo, {".vestibule/config.yaml": CONFIG, "src/b.py": b"1\n"})
    rules = {(f["rule"], f["path"]) for f in check(repo)[1]["findings"]}  # type: ignore[attr-defined]
    assert ("change.scope", "src/b.py") in rules  # the tip's narrower role, although the fork had the wider one


def test_the_change_is_read_from_the_merge_base(repo: Path) -> None:
    commit(repo, {"src/b.py": b"1\n"})
    git(repo, "checkout", "-q", "main")
    commit(repo, {"src/other.py": b"1\n"})
    git(repo, "checkout", "-q", "work")
    assert check(repo)[1]["changed_files"] == ["src/b.py"]


def test_without_vestibule_a_shipped_role_is_used_and_said(tmp_path: Path) -> None:
    repo = new_repo(tmp_path / "bare-config")
    base = commit(repo, {"a": b"1\n"})
    commit(repo, {"anything/at/all.py": b"1\n"})
    code, _, stderr = check(repo, "--base", base)
    assert code == 0
    assert "shipped role" in stderr
    with pytest.raises(UsageError, match="no role"):
        check(repo, "--base", base, "--role", "dev")


def test_a_configuration_that_is_a_link_or_missing_in_vestibule_never_falls_back(tmp_path: Path) -> None:
    repo = new_repo(tmp_path / "r")
    (repo / ".vestibule").mkdir()
    (repo / ".vestibule/config.yaml").symlink_to("../a")
    base = commit(repo, {"a": CONFIG})
    with pytest.raises(ConfigError):
        check(repo, "--base", base)
    (repo / ".vestibule/config.yaml").unlink()
    base = commit(repo, {".vestibule/other": b""})
    with pytest.raises(ConfigError):
        check(repo, "--base", base)
    base = commit(repo, {".vestibule/config.yaml": b"version: 1\nrolls: {}\n"})
    with pytest.raises(ConfigError, match=r"config\.yaml:2.*roles"):
        check(repo, "--base", base)


def test_several_roles_need_a_choice_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    repo = new_repo(tmp_path / "r")
    base = commit(repo, {".vestibule/config.yaml": CONFIG + b"  docs:\n    read: ['**']\n    write: ['docs/**']\n"})
    commit(repo, {"docs/a.md": b"x\n"})
    with pytest.raises(UsageError, match="--role"):
        check(repo, "--base", base)
    assert check(repo, "--base", base, "--role", "docs")[0] == 0
    assert check(repo, "--base", base, "--role", "dev")[0] == 4
    with pytest.raises(UsageError, match="Did you mean 'docs'"):
        check(repo, "--base", base, "--role", "doc")


def test_the_base_is_never_silently_what_is_checked_out(tmp_path: Path) -> None:
    repo = new_repo(tmp_path / "r", branch="feature")
    commit(repo, {"a": b"1\n"})
    with pytest.raises(UsageError, match="--base"):
        check(repo)
    git(repo, "branch", "master")
    assert check(repo)[1]["base"] == "refs/heads/master"
    git(repo, "update-ref", "refs/remotes/origin/trunk", "HEAD")
    git(repo, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/trunk")
    assert check(repo)[1]["base"] == "refs/remotes/origin/HEAD"


def odd_repositories(tmp_path: Path) -> dict[str, Path]:
    made: dict[str, Path] = {}
    made["missing"] = tmp_path / "nowhere"
    made["no repository"] = tmp_path / "plain"
    made["no repository"].mkdir()
    made["a file"] = tmp_path / "file"
    made["a file"].write_text("x")
    made["empty"] = new_repo(tmp_path / "empty")
    made["empty bare"] = tmp_path / "empty.git"
    made["empty bare"].mkdir()
    git(made["empty bare"], "init", "-q", "--bare")
    unborn = new_repo(tmp_path / "unborn")
    commit(unborn, {"a": b"1\n"})
    git(unborn, "symbolic-ref", "HEAD", "refs/heads/nothing-yet")
    made["unborn branch"] = unborn
    unrelated = new_repo(tmp_path / "unrelated")
    commit(unrelated, {"a": b"1\n"})
    git(unrelated, "checkout", "-q", "--orphan", "other")
    commit(unrelated, {"b": b"1\n"})
    made["unrelated histories"] = unrelated
    broken = new_repo(tmp_path / "broken")
    (broken / ".git/HEAD").write_bytes(b"\0\xff")
    made["damaged"] = broken
    source = new_repo(tmp_path / "source")
    for n in range(4):
        commit(source, {"a": b"%d\n" % n})
    git(source, "branch", "side", "HEAD~3")
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "-q", "--depth", "1", "--no-single-branch", f"file://{source}", str(shallow))
    made["shallow"] = shallow
    return made


def test_odd_repositories_end_with_a_sentence_and_exit_code_2(tmp_path: Path) -> None:
    for kind, path in odd_repositories(tmp_path).items():
        argv = ["--base", "origin/side"] if kind == "shallow" else []
        with pytest.raises(VestibuleError) as error:
            check(path, *argv)
        assert error.value.exit_code == 2, kind
        assert error.value.next_step or error.value.why, kind
        if kind == "shallow":
            assert "shallow" in error.value.why


def test_a_detached_head_a_bare_repository_and_a_worktree_are_fine(repo: Path, tmp_path: Path) -> None:
    head = commit(repo, {"src/b.py": b"1\n"})
    git(repo, "checkout", "-q", head)
    assert check(repo)[0] == 0
    bare = tmp_path / "bare.git"
    git(tmp_path, "clone", "-q", "--bare", str(repo), str(bare))
    assert check(bare, "--base", "main", "--head", head)[0] == 0
    git(repo, "worktree", "add", "-q", str(tmp_path / "tree"), "work")
    assert check(tmp_path / "tree")[0] == 0


def test_revisions_are_never_options(repo: Path) -> None:
    for argv in (["--base=--output=/tmp/x"], ["--head=--all"], ["--base=main", "--head=-p"], ["--base=a\0b"]):
        with pytest.raises(UsageError):
            check(repo, *argv)


def test_the_operators_key_is_found_in_a_change(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = "internal-" + token("alnum", 40, 5)
    monkeypatch.setenv("ANTHROPIC_API_KEY", value)
    commit(repo, {"src/b.py": f"k = '{value[::-1]}'\n".encode()})
    code, found, _ = check(repo)
    assert code == 4
    assert "change.secret.value" in {f["rule"] for f in found["findings"]}  # type: ignore[attr-defined]
    assert value not in json.dumps(found)


def test_people_see_escaped_names_and_what_to_do(repo: Path) -> None:
    commit(repo, {"src/a\x1b[31m.py": b"1\n"})
    done = CliRunner().invoke(command, ["--repo", str(repo)], standalone_mode=False)
    assert done.return_value == 4
    assert "\x1b[31m" not in done.stdout
    assert "path.control" in done.stdout
    assert "→" in done.stdout


def test_sarif_goes_to_stdout(repo: Path) -> None:
    commit(repo, {"lib/a.py": b"1\n"})
    done = CliRunner().invoke(command, ["--repo", str(repo), "--sarif"], standalone_mode=False)
    assert done.return_value == 4
    assert json.loads(done.stdout)["version"] == "2.1.0"


def test_every_commit_of_a_history_is_checked_within_a_second(tmp_path: Path) -> None:
    repo = new_repo(tmp_path / "history")
    commit(repo, {f"src/m{n}.py": b"x = 1\n" * 50 for n in range(60)})
    for n in range(30):
        commit(repo, {f"src/m{n}.py": b"x = 1\n" * 50 + b"y = %d\n" % n, f"tests/test_{n}.py": b"def test(): ...\n"})
    for n in range(30):
        started = time.monotonic()
        code, found, _ = check(repo, "--base", f"HEAD~{n + 1}", "--head", f"HEAD~{n}")
        assert code == 0
        assert len(found["changed_files"]) == 2  # type: ignore[arg-type]
        assert time.monotonic() - started < 1


def test_the_whole_command_starts_without_database_and_policy_engine(repo: Path) -> None:
    commit(repo, {"src/b.py": b"1\n"})
    script = (
        "import sys, json\nfrom vestibule.cli.check import command\n"
        f"code = command.main(['--repo', {str(repo)!r}, '--json'], standalone_mode=False)\n"
        "heavy = [m for m in ('sqlalchemy', 'regopy', 'dbos', 'aiohttp', 'mcp', 'uvicorn') if m in sys.modules]\n"
        "sys.stderr.write(json.dumps([code, heavy]))\n"
    )
    env = {**ENV, "VESTIBULE_CONFIG": os.environ["VESTIBULE_CONFIG"]}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, check=True)
    assert json.loads(done.stderr) == [0, []]


def test_git_missing_is_a_refusal(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(VestibuleError) as error:
        check(repo)
    assert error.value.exit_code == 4
