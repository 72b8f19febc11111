"""The git wrapper obeys us and nobody else: hostile configuration, attributes and hooks run nothing."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from vestibule.core.errors import DependencyDown, UsageError
from vestibule.git import Git, GitError
from vestibule.git import process as module
from vestibule.git.repository import valid_branch_ref

PLAIN = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.com",
}


def plain(folder: Path, *argv: str) -> str:
    done = subprocess.run(["git", *argv], cwd=folder, env=PLAIN, capture_output=True, check=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    folder = tmp_path / "clone"
    folder.mkdir()
    plain(folder, "init", "-q", "-b", "main")
    (folder / "a.py").write_text("1\n")
    plain(folder, "add", "-A")
    plain(folder, "commit", "-q", "-m", "one")
    (folder / "a.py").write_text("2\n")
    plain(folder, "commit", "-q", "-a", "-m", "two")
    return folder


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "it-ran"


def plant(clone: Path, marker: Path) -> None:
    """Everything in a clone's own files that makes git run a program."""
    program = clone.parent / "program"
    program.write_text(f'#!/bin/sh\necho "$0 $*" >> {marker}\ncat\n')
    program.chmod(0o755)
    hooks = clone / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for name in (
        "pre-commit",
        "post-commit",
        "post-checkout",
        "post-merge",
        "pre-receive",
        "update",
        "post-receive",
        "reference-transaction",
        "fsmonitor-watchman",
        "post-index-change",
        "pre-auto-gc",
        "post-rewrite",
        "proc-receive",
        "push-to-checkout",
        "pre-push",
        "prepare-commit-msg",
        "commit-msg",
        "applypatch-msg",
    ):
        (hooks / name).write_text(program.read_text())
        (hooks / name).chmod(0o755)
    settings = {
        "core.hooksPath": str(hooks),
        "core.fsmonitor": str(program),
        "core.pager": str(program),
        "core.editor": str(program),
        "core.sshCommand": str(program),
        "core.askPass": str(program),
        "core.alternateRefsCommand": str(program),
        "core.attributesFile": str(clone / "evil-attributes"),
        "diff.external": str(program),
        "diff.evil.textconv": str(program),
        "diff.evil.command": str(program),
        "filter.evil.clean": str(program),
        "filter.evil.smudge": str(program),
        "filter.evil.process": str(program),
        "filter.evil.required": "true",
        "merge.evil.driver": str(program),
        "credential.helper": f"!{program}",
        "interactive.diffFilter": str(program),
        "uploadpack.packObjectsHook": str(program),
        "gpg.program": str(program),
        "commit.gpgSign": "true",
        "log.showSignature": "true",
        "alias.diff-tree": f"!{program}",
        "alias.status": f"!{program}",
        "protocol.ext.allow": "always",
        "include.path": str(clone / "included"),
        "trailer.x.command": str(program),
        "sequence.editor": str(program),
        "man.viewer": "x",
        "man.x.cmd": str(program),
        "gc.auto": "1",
        "maintenance.auto": "true",
        "submodule.recurse": "true",
        "diff.submodule": "log",
        "init.templateDir": str(clone / "template"),
    }
    for key, value in settings.items():
        plain(clone, "config", key, value)
    (clone / "included").write_text(
        f"[core]\n\tfsmonitor = {program}\n[diff]\n\texternal = {program}\n"
        f'[filter "included"]\n\tclean = {program}\n\trequired = true\n'
    )
    (clone / "evil-attributes").write_text("* diff=evil filter=evil merge=evil\n")
    (clone / ".gitattributes").write_text("* diff=evil filter=evil merge=evil text eol=crlf\nb.* filter=included\n")
    (clone / "b.txt").write_text("b\n")
    (clone / ".git/info").mkdir(exist_ok=True)
    (clone / ".git/info/attributes").write_text("a.* diff=evil filter=evil merge=evil\n")


def test_the_plant_is_live_with_git_itself(clone: Path, marker: Path) -> None:
    plant(clone, marker)
    subprocess.run(["git", "diff", "HEAD~1", "HEAD"], cwd=clone, env=PLAIN, capture_output=True, check=False)
    assert marker.exists()  # else the next test would prove nothing


def test_nothing_that_a_repository_says_is_run(clone: Path, marker: Path) -> None:
    plant(clone, marker)
    git = Git.open(clone)
    head, before = git.commit_of("HEAD"), git.commit_of("HEAD~1")
    assert head
    assert before
    marker.unlink(missing_ok=True)
    git.run(["status", "--porcelain", "-z"])
    git.run(["diff-tree", "-r", "-p", before, head])
    git.run(["diff", before, head])
    git.run(["log", "-p", "--format=%H", head])
    git.run(["show", head])
    git.run(["grep", "-n", "2", head])
    git.tree("HEAD")
    git.blob(head, "a.py")
    list(git.blobs([git.text(["rev-parse", "HEAD:a.py"])]))
    git.blob_head(git.text(["rev-parse", "HEAD:a.py"]), 1)
    sha = git.hash_blob(b"a\r\nb\r\n")
    assert git.run(["cat-file", "blob", sha]) == b"a\r\nb\r\n"  # no filter, no line-end conversion
    tree = git.write_tree([("100644", sha, b"b.py")])
    commit = git.commit_tree(tree, [head], "m", name="n", email="e@example.com", time="1700000000 +0000")
    git.update_ref("refs/heads/new", commit, None)
    git.run(["ls-files", "-z", "--others", "--exclude-standard"])
    other = Git.init(clone.parent / "other.git", bare=True)
    other.fetch_commit(git, commit)
    assert other.blob(commit, "b.py") == b"a\r\nb\r\n"
    assert not marker.exists(), marker.read_text()


def test_system_and_user_configuration_and_the_environment_are_not_read(
    clone: Path, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\n\tname = FromHome\n[core]\n\tbare = nonsense\n")
    for name, value in {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "GIT_DIR": "/nonexistent",
        "GIT_EXTERNAL_DIFF": "/bin/false",
        "GIT_CONFIG_PARAMETERS": "'core.bare=nonsense'",
        "GIT_INDEX_FILE": "/nonexistent/index",
        "GIT_SSH_COMMAND": f"touch {marker}",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": "/nonexistent",
        "GIT_TRACE": str(marker),
    }.items():
        monkeypatch.setenv(name, value)
    git = Git.open(clone)
    assert git.commit_of("HEAD")
    with pytest.raises(GitError):
        git.run(["config", "user.name"])
    assert not marker.exists()


def test_replaced_objects_are_not_followed(clone: Path) -> None:
    real, other = plain(clone, "rev-parse", "HEAD"), plain(clone, "rev-parse", "HEAD~1")
    plain(clone, "replace", real, other)
    git = Git.open(clone)
    assert git.blob(real, "a.py") == b"2\n"


def lazy(clone: Path, marker: Path, url: str) -> str:
    """Makes it a partial clone that lacks a blob and says where, and by which program, to get it; the blob."""
    program = clone.parent / "upload-pack"
    program.write_text(f'#!/bin/sh\ntouch {marker}\nexec git-upload-pack "$@"\n')
    program.chmod(0o755)
    plain(clone.parent, "clone", "-q", "--bare", str(clone), "remote.git")
    settings = {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.url": url.format(remote=clone.parent / "remote.git", program=program),
        "remote.origin.promisor": "true",
        "remote.origin.partialCloneFilter": "blob:none",
        "remote.origin.uploadpack": str(program),
        "protocol.allow": "always",
        "protocol.ext.allow": "always",
    }
    for key, value in settings.items():
        plain(clone, "config", key, value)
    blob = plain(clone, "rev-parse", "HEAD:a.py")
    (clone / ".git/objects" / blob[:2] / blob[2:]).unlink()
    return blob


URLS = ("file://{remote}", "{remote}", "ext::{program} {remote}")


@pytest.mark.parametrize("url", URLS)
def test_a_missing_object_is_fetched_by_git_itself(clone: Path, marker: Path, url: str) -> None:
    blob = lazy(clone, marker, url)
    subprocess.run(["git", "cat-file", "blob", blob], cwd=clone, env=PLAIN, capture_output=True, check=False)
    assert marker.exists()  # else the next test would prove nothing


@pytest.mark.parametrize("url", URLS)
def test_a_missing_object_is_never_fetched_by_what_a_repository_names(clone: Path, marker: Path, url: str) -> None:
    blob = lazy(clone, marker, url)
    readers = (
        lambda git: list(git.blobs([blob])),
        lambda git: git.blob_head(blob, 4),
        lambda git: git.run_bounded(["cat-file", "blob", blob], 4),
        lambda git: git.blob(git.commit_of("HEAD"), "a.py"),
        lambda git: git.run(["diff", "HEAD~1", "HEAD"]),
        lambda git: git.tree("HEAD"),
    )
    for read in readers:
        with contextlib.suppress(GitError, DependencyDown):
            read(Git.open(clone))  # a wrapper of its own: none may live on what another one learnt
        assert not marker.exists()


def test_a_missing_object_is_a_dependency_that_is_down(clone: Path, marker: Path) -> None:
    lazy(clone, marker, "file://{remote}")
    with pytest.raises(DependencyDown, match="missing"):
        Git.open(clone).tree("HEAD")


def test_every_process_of_git_is_told_what_to_leave_alone(clone: Path, marker: Path) -> None:
    lazy(clone, marker, "file://{remote}")
    told = Git.open(clone)._quiet_env()
    settings = {
        told[f"GIT_CONFIG_KEY_{n}"]: told[f"GIT_CONFIG_VALUE_{n}"] for n in range(int(told["GIT_CONFIG_COUNT"]))
    }
    assert settings["remote.origin.uploadpack"] == ""


def test_no_protocol_is_allowed(clone: Path) -> None:
    git = Git.open(clone)
    for url in (
        "ext::sh -c true",
        "https://git.example.com/x",
        "ssh://git.example.com/x",
        "git://127.0.0.1:1/x",
        f"file://{clone}",
        str(clone),
    ):
        with pytest.raises(GitError, match="not allowed"):
            git.run(["fetch", url])


@pytest.mark.parametrize("revision", ["--all", "-p", "--output=/tmp/x", "", "a\0b", "a\nb", "HEAD:a.py", "nothing"])
def test_a_revision_is_never_an_option_and_only_a_commit(clone: Path, revision: str) -> None:
    assert Git.open(clone).commit_of(revision) is None


def test_trees_and_blobs_with_any_name(tmp_path: Path) -> None:
    git = Git.init(tmp_path / "r.git", bare=True)
    sha = git.hash_blob(b"x")
    names = [b"new\nline", b"-rf", b"bad\xff", b'q"uote', b"\xc3\xbc", b"*", b":(exclude)a"]
    tree = git.write_tree([("100644", sha, name) for name in names])
    assert {entry.path_bytes for entry in git.tree(tree)} == set(names)
    commit = git.commit_tree(tree, [], "m", name="n", email="e@example.com", time="1700000000 +0000")
    for name in names:
        assert git.blob(commit, name.decode("utf-8", "surrogateescape")) == b"x"
    assert git.blob(commit, "nothing") is None


def test_a_link_is_no_file_and_a_large_file_is_refused(clone: Path) -> None:
    (clone / "link").symlink_to("a.py")
    plain(clone, "add", "-A")
    plain(clone, "commit", "-q", "-m", "link")
    git = Git.open(clone)
    head = git.commit_of("HEAD") or ""
    assert git.blob(head, "link") is None
    with pytest.raises(UsageError):
        git.blob(head, "a.py", limit=1)


def test_the_beginning_of_a_large_blob_is_read_without_the_rest(tmp_path: Path) -> None:
    git = Git.init(tmp_path / "r.git", bare=True)
    sha = git.hash_blob(b"head" + bytes(30 << 20))
    assert git.blob_head(sha, 4) == b"head"


def test_a_ref_moves_only_from_where_it_was_seen(clone: Path) -> None:
    git = Git.open(clone)
    head, before = git.commit_of("HEAD") or "", git.commit_of("HEAD~1") or ""
    git.update_ref("refs/heads/x", before, None)
    with pytest.raises(GitError):
        git.update_ref("refs/heads/x", head, None)
    with pytest.raises(GitError):
        git.update_ref("refs/heads/x", head, head)
    git.update_ref("refs/heads/x", head, before)
    assert git.commit_of("refs/heads/x") == head


def test_a_missing_object_ends_the_reading_of_blobs(clone: Path) -> None:
    with pytest.raises(GitError):
        list(Git.open(clone).blobs(["1" * 40]))


def test_a_missing_git_is_a_dependency_that_is_down(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = Git.open(clone)
    monkeypatch.setattr(module.shutil, "which", lambda *_, **__: None)
    with pytest.raises(DependencyDown) as error:
        git.run(["status"])
    assert error.value.refusal.rule == "dependency.git"


def test_a_git_that_takes_too_long_or_prints_too_much_is_down(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = Git.open(clone)
    with pytest.raises(DependencyDown):
        git.run(["cat-file", "--batch"], timeout=0)
    monkeypatch.setattr(module, "MAX_OUTPUT", 3)
    with pytest.raises(DependencyDown):
        git.run(["rev-parse", "HEAD"])


def test_the_default_branch_is_the_remotes_then_main_or_master(clone: Path) -> None:
    git = Git.open(clone)
    assert (git.default_branch_commit() or ("",))[0] == "refs/heads/main"
    plain(clone, "checkout", "-q", "-b", "work")
    plain(clone, "branch", "-D", "main")
    assert git.default_branch_commit() is None
    plain(clone, "update-ref", "refs/remotes/origin/main", "HEAD")
    assert (git.default_branch_commit() or ("",))[0] == "refs/remotes/origin/main"
    plain(clone, "branch", "master")
    assert (git.default_branch_commit() or ("",))[0] == "refs/heads/master"


@pytest.mark.parametrize(
    ("ref", "good"),
    [
        ("refs/heads/vestibule/r1", True),
        ("refs/heads/../x", False),
        ("refs/heads/-x", False),
        ("refs/heads/a.lock", False),
        ("refs/heads/a\n", False),
        ("refs/tags/x", False),
        ("refs/heads/a//b", False),
    ],
)
def test_only_plain_branch_names_are_ever_written(ref: str, good: bool) -> None:
    assert valid_branch_ref(ref) is good


def test_a_configuration_that_cannot_be_looked_at_refuses_every_time(clone: Path) -> None:
    git = Git.open(clone)
    fresh = Git(git.git_dir, git.work_tree)
    (clone / ".git/config").write_bytes(b'[filter "x"]\n' + b"#" * (5 << 20))
    for _ in range(2):
        with pytest.raises(DependencyDown):
            fresh.run(["status"])
