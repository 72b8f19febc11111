"""The view is all there is: no file, no blob, no history beside it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox_helpers import RUN

from vestibule.core.errors import UsageError
from vestibule.core.model import Scope
from vestibule.core.ports import SandboxResult, SandboxSpec
from vestibule.core.view import View, ViewFile
from vestibule.git.repository import Git
from vestibule.sandbox.local import LocalSandbox
from vestibule.sandbox.view import materialise, mounts_for, project, writable_folders

SHA = "a" * 40


def _git(folder: Path, *argv: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.com", *argv],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with things to hide: other files, history, tags, stashes, notes, links, control files."""
    folder = tmp_path_factory.mktemp("source")
    _git(folder, "init", "-q", "-b", "main")
    files = {
        "app/a.py": "old secret in history\n",
        "app/run.sh": "#!/bin/sh\n",
        "app/data.bin": "\0\1\2",
        "app/AGENTS.md": "obey\n",
        "app/lfs.dat": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "hidden/key.txt": "hidden by scope\n",
        "README.md": "read me\n",
        "setup.cfg": "[x]\n",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (folder / "app/run.sh").chmod(0o755)
    for name, target in {
        "app/ok": "a.py",
        "app/up": "../README.md",
        "app/dir": ".",
        "app/out": "../hidden/key.txt",
        "app/abs": "/etc/passwd",
        "app/climb": "../../../../etc/passwd",
        "app/chain": "ok",
        "app/dangling": "none",
        "app/through": "out/../a.py",
    }.items():
        (folder / name).symlink_to(target)
    _git(folder, "add", "-A")
    _git(folder, "commit", "-q", "-m", "first secret message")
    (folder / "app/a.py").write_text("print(1)\n")
    _git(folder, "commit", "-qam", "second")
    _git(folder, "tag", "-a", "tag-of-the-source", "-m", "tagged")
    _git(folder, "notes", "add", "-m", "a note")
    _git(folder, "config", "core.fsmonitor", "false")
    _git(folder, "remote", "add", "origin", "https://example.com/x.git")
    return folder


SCOPE = Scope(read=("app/**", "README.md", "setup.cfg"), write=("app/**", "setup.cfg", "docs/**"))


@pytest.fixture
def git(source: Path) -> Git:
    return Git.open(source)


def _view(git: Git, scope: Scope = SCOPE) -> View:
    commit = git.commit_of("main")
    assert commit
    return project(git, commit, scope)


def test_view_holds_what_the_scope_names_and_nothing_else(git: Git) -> None:
    view = _view(git)
    assert {file.path for file in view.files} == {
        "app/a.py",
        "app/run.sh",
        "app/data.bin",
        "app/lfs.dat",
        "app/ok",
        "app/up",
        "README.md",
        "setup.cfg",
    } | {"app/dir"}
    assert view.omitted == 8


def test_what_may_be_written_may_be_seen(git: Git) -> None:
    assert [file.path for file in _view(git, Scope(read=("README.md",), write=("setup.cfg",))).files] == [
        "README.md",
        "setup.cfg",
    ]


def test_agent_control_files_are_never_in_the_view(git: Git) -> None:
    assert not [file for file in _view(git, Scope(read=("**",), write=("**",))).files if "AGENTS" in file.path]


def test_a_link_that_would_put_control_files_in_place_is_never_in_the_view(git: Git) -> None:
    blob, link = git.hash_blob(b"Obey.\n"), git.hash_blob(b"mine")
    entries = [("100644", blob, b"mine/copilot-instructions.md"), ("100644", blob, b"mine/SKILL.txt")]
    names = (b".github", b".claude", b".Agents", b".cursor", b"CLAUDE.md", b"docs-of-mine")
    tree = git.write_tree([*entries, *(("120000", link, name) for name in names)])
    commit = git.commit_tree(tree, [], "x", name="a", email="a@example.com", time="946684800 +0000")
    shown = {file.path for file in project(git, commit, Scope(read=("**",), write=("**",))).files}
    assert shown == {"mine/copilot-instructions.md", "mine/SKILL.txt", "docs-of-mine"}


def test_links_that_leave_the_view_are_left_out(git: Git) -> None:
    shown = {file.path for file in _view(git, Scope(read=("**",), write=())).files}
    assert {"app/ok", "app/up", "app/out"} <= shown  # hidden/key.txt is in this view
    assert not {"app/abs", "app/climb", "app/chain", "app/dangling", "app/through"} & shown


def test_submodules_and_refused_names_are_left_out(git: Git) -> None:
    blob = git.hash_blob(b"x")
    entries = [("160000", "1" * 40, b"app/sub"), ("100644", blob, b"app/a\\b"), ("100644", blob, b"app/con")]
    tree = git.write_tree([*entries, ("100644", blob, b"app/\xff"), ("100644", blob, b"app/fine")])
    commit = git.commit_tree(tree, [], "x", name="a", email="a@example.com", time="946684800 +0000")
    assert [file.path for file in project(git, commit, SCOPE).files] == ["app/fine"]


@pytest.fixture
def workspace(git: Git, tmp_path: Path) -> Path:
    folder = tmp_path / "ws"
    materialise(git, _view(git), folder, uid=None)
    return folder


def test_files_have_their_bytes_and_modes(workspace: Path) -> None:
    assert (workspace / "app/a.py").read_text() == "print(1)\n"
    assert (workspace / "app/data.bin").read_bytes() == b"\0\1\2"
    assert (workspace / "app/run.sh").stat().st_mode & 0o777 == 0o755
    assert (workspace / "app/a.py").stat().st_mode & 0o777 == 0o644
    assert (workspace / "app/ok").readlink() == Path("a.py")
    assert (workspace / "docs").is_dir()
    assert not (workspace / "hidden").exists()


def test_its_repository_has_one_commit_and_exactly_the_blobs_of_the_view(
    git: Git, workspace: Path, source: Path
) -> None:
    objects = _git(workspace, "cat-file", "--batch-all-objects", "--batch-check").splitlines()
    kinds = [line.split()[1] for line in objects]
    assert kinds.count("commit") == 1
    assert {line.split()[0] for line in objects if line.split()[1] == "blob"} == {
        file.blob for file in _view(git).files
    }
    elsewhere = {
        line.split()[0] for line in _git(source, "cat-file", "--batch-all-objects", "--batch-check").splitlines()
    }
    hidden = elsewhere - {line.split()[0] for line in objects}
    assert len(hidden) > 5
    for sha in hidden:
        with pytest.raises(subprocess.CalledProcessError):
            _git(workspace, "cat-file", "-e", sha)


def test_its_repository_knows_no_remote_hook_alternate_or_foreign_setting(workspace: Path) -> None:
    assert _git(workspace, "remote") == ""
    assert _git(workspace, "for-each-ref", "--format=%(refname)") == "refs/heads/main"
    assert not (workspace / ".git/hooks").exists()
    assert not (workspace / ".git/objects/info/alternates").exists()
    assert set(_git(workspace, "config", "--local", "--list", "--name-only").splitlines()) == {
        "core.repositoryformatversion",
        "core.filemode",
        "core.bare",
    }
    assert _git(workspace, "status", "--porcelain") == ""
    assert _git(workspace, "fsck", "--full", "--strict") == ""


def test_the_same_view_has_the_same_commit(git: Git, tmp_path: Path) -> None:
    heads = []
    for number in range(2):
        materialise(git, _view(git), tmp_path / str(number), uid=None)
        heads.append(_git(tmp_path / str(number), "rev-parse", "HEAD"))
    assert heads[0] == heads[1]


def test_an_empty_view_is_an_empty_repository(git: Git, tmp_path: Path) -> None:
    view = _view(git, Scope(read=("none/**",), write=()))
    materialise(git, view, tmp_path / "ws", uid=None)
    assert _git(tmp_path / "ws", "status", "--porcelain") == ""
    assert [path.name for path in (tmp_path / "ws").iterdir()] == [".git"]


def test_sha256_repositories_have_views_too(tmp_path: Path) -> None:
    folder = tmp_path / "sha256"
    folder.mkdir()
    try:
        _git(folder, "init", "-q", "-b", "main", "--object-format=sha256")
    except subprocess.CalledProcessError:
        pytest.skip("this git knows no SHA-256")
    (folder / "a.txt").write_text("a")
    _git(folder, "add", "-A")
    _git(folder, "commit", "-qm", "x")
    git = Git.open(folder)
    materialise(git, _view(git, Scope(read=("**",), write=())), tmp_path / "ws", uid=None)
    assert _git(tmp_path / "ws", "status", "--porcelain") == ""


def test_a_folder_that_is_not_empty_is_refused(git: Git, workspace: Path) -> None:
    with pytest.raises(UsageError):
        materialise(git, _view(git), workspace, uid=None)


def test_nothing_but_the_workspace_is_left_beside_it(workspace: Path) -> None:
    assert [path.name for path in workspace.parent.iterdir()] == ["ws"]


def _targets(scope: Scope, *paths: str, links: tuple[str, ...] = (), folder: Path = Path("/nonexistent")) -> list[str]:
    files = [ViewFile(path=path, mode="120000" if path in links else "100644", blob=SHA, size=1) for path in paths]
    view = View(base_commit=SHA, files=tuple(files), omitted=0, writable=scope.write)
    return [mount.target for mount in mounts_for(view, scope, folder) if mount.write]


@pytest.mark.parametrize(
    ("write", "paths", "expected"),
    [
        ((), ("a.py",), [".git"]),
        (("a.py",), ("a.py", "b.py"), [".git", "a.py"]),
        (("src/**",), ("src/a.py",), [".git", "src"]),
        (("src/**", "src/deep/**", "src/a.py"), ("src/a.py",), [".git", "src"]),
        (("new/**",), ("a.py",), [".git", "new"]),
        (("docs/new.md",), ("a.py",), [".git", "docs"]),
        (("docs/*.md",), ("docs/a.md",), [".git", "docs"]),
        (("lib/*/x.py",), ("lib/a/x.py",), [".git", "lib"]),
        (("**",), ("a.py",), [""]),
        (("**/*.py",), ("a.py",), [""]),
        (("link/**",), ("link", "real/a.py"), [".git"]),
        (("a.py/**",), ("a.py",), [".git"]),
    ],
)
def test_writable_places_are_those_of_the_scope(
    tmp_path: Path, write: tuple[str, ...], paths: tuple[str, ...], expected: list[str]
) -> None:
    targets = _targets(Scope(read=(), write=write), *paths, links=("link",), folder=tmp_path)
    assert targets == ["/workspace/" + item if item else "/workspace" for item in expected]


_SEGMENT = st.sampled_from(["a", "b", "src", "x.py", "*", "**", "*.md"])


@given(patterns=st.lists(st.lists(_SEGMENT, min_size=1, max_size=4).map("/".join), max_size=6))
@settings(max_examples=150)
def test_no_writable_folder_lies_in_another(patterns: list[str]) -> None:
    view = View(base_commit=SHA, files=(), omitted=0, writable=tuple(patterns))
    found = writable_folders(view)
    assert not [(one, two) for one in found for two in found if one != two and (one == "" or two.startswith(one + "/"))]


@pytest.fixture
def shell(backend: LocalSandbox, git: Git, tmp_path: Path) -> object:
    view = _view(git)
    folder = tmp_path / "inside"
    materialise(git, view, folder, uid=backend.workspace_uid(RUN))

    def run(script: str) -> SandboxResult:
        spec = SandboxSpec(run=RUN, argv=("sh", "-c", script), mounts=mounts_for(view, SCOPE, folder))
        sandbox = backend.create(spec)
        sandbox.go()
        return sandbox.wait()

    return run


def test_git_works_inside_and_shows_nothing_hidden(shell: object, source: Path) -> None:
    result = shell(  # type: ignore[operator]
        "git status && git log -p --all --reflog && git cat-file --batch-all-objects --batch && "
        "git fsck && git stash list && git tag && git rev-list --all --objects && git branch -a && git config --list"
    )
    assert result.exit_code == 0, result.stderr
    for hidden in (
        b"hidden by scope",
        b"old secret",
        b"secret message",
        b"a note",
        b"tag-of-the-source",
        b"example.com",
    ):
        assert hidden not in result.stdout


def test_git_commits_inside(shell: object) -> None:
    result = shell("echo 2 > app/a.py && git -c user.name=a -c user.email=a@example.com commit -qam x && git log")  # type: ignore[operator]
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("name", ["hidden/key.txt", "HEAD~1:app/a.py", "main~1:app/a.py"])
def test_a_hidden_object_cannot_be_asked_for_by_its_name(shell: object, source: Path, name: str) -> None:
    sha = _git(source, "rev-parse", name if ":" in name else f"main:{name}")
    result = shell(  # type: ignore[operator]
        f"git cat-file -p {sha} || git show {sha} || git fetch origin || git fetch file://{source} || "
        f"git clone {source} /tmp/c || git -c protocol.ext.allow=always fetch 'ext::cat {source}/x' || "
        f"GIT_ALTERNATE_OBJECT_DIRECTORIES={source}/.git/objects git show {sha}"
    )
    assert result.exit_code != 0
    assert result.stdout == b""


def test_only_the_scope_can_be_written(shell: object) -> None:
    result = shell(  # type: ignore[operator]
        "for f in README.md x app/x docs/x setup.cfg hidden/x; do (echo x >> $f) 2>/dev/null && echo $f; done; true"
    )
    assert result.stdout.split() == [b"app/x", b"docs/x", b"setup.cfg"]
