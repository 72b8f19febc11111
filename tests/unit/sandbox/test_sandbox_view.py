"""The view is all there is: no file, no blob, no history beside it."""

from __future__ import annotations

import os
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox_helpers import RUN

from vestibule.core.errors import UsageError
from vestibule.core.model import Scope, ViewRule
from vestibule.core.ports import SandboxResult, SandboxSpec
from vestibule.core.view import View, ViewFile
from vestibule.git.repository import Git
from vestibule.sandbox.local import LocalSandbox
from vestibule.sandbox.view import extend, materialise, mounts_for, project, writable_folders

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


# --- files shown in part ------------------------------------------------------------------------------------

RECORD = "zzRECORDzz"
IN_PART = Scope(
    read=("data/**", "src/**"),
    write=("data/**", "src/**"),
    views=(ViewRule(paths=("data/**",), show="schema"), ViewRule(paths=("src/notes.txt",), show="redacted")),
)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Git:
    folder = tmp_path_factory.mktemp("records")
    _git(folder, "init", "-q", "-b", "main")
    files: dict[str, str] = {f"data/many/{number}.json": f'{{"n": "{RECORD}"}}' for number in range(20)}
    files |= {
        "data/one.json": f'{{"a": "{RECORD}"}}',
        "data/broken.json": f'{{"a": "{RECORD}"',
        "data/run.json": f'{{"x": "{RECORD}"}}',
        "src/a.py": "x = 1\n",
        "src/notes.txt": "Nothing to hide.\n",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "data/run.json").chmod(0o755)
    (folder / "src/to-broken").symlink_to("../data/broken.json")
    (folder / "src/to-one").symlink_to("../data/one.json")
    _git(folder, "add", "-A")
    _git(folder, "commit", "-q", "-m", "all")
    return Git.open(folder)


def test_the_original_of_a_partial_file_is_in_no_file_and_no_object_of_the_view(records: Git, tmp_path: Path) -> None:
    view = _view(records, IN_PART)
    folder = tmp_path / "workspace"
    materialise(records, view, folder, uid=None)
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert RECORD.encode() not in data
            if "objects" in path.parts and path.suffix == "" and len(path.name) == 38:
                assert RECORD.encode() not in zlib.decompress(data)
    everything = subprocess.run(
        ["git", "-C", str(folder), "cat-file", "--batch-all-objects", "--batch"], check=True, capture_output=True
    ).stdout
    assert b'"type": "string"' in everything
    assert RECORD.encode() not in everything
    assert _git(folder, "status", "--porcelain") == ""
    assert _git(folder, "fsck", "--strict", "--no-dangling") == ""
    original = records.blob(view.base_commit, "data/one.json")
    assert original is not None
    assert view.model_dump_json().find(RECORD) < 0


def test_a_file_of_which_no_part_can_be_shown_is_left_out_with_what_links_to_it(records: Git) -> None:
    view = _view(records, IN_PART)
    shown = {file.path for file in view.files}
    assert "data/broken.json" not in shown
    assert "src/to-broken" not in shown
    assert "src/to-one" in shown
    assert view.unshowable == ("data/broken.json",)


def test_a_redacted_file_with_nothing_to_replace_is_a_whole_file(records: Git) -> None:
    view = _view(records, IN_PART)
    assert "src/notes.txt" not in view.partial
    assert "data/one.json" in view.partial


def test_partial_files_are_mounted_read_only_on_top_of_writable_folders(records: Git, tmp_path: Path) -> None:
    view = _view(records, IN_PART)
    folder = tmp_path / "workspace"
    materialise(records, view, folder, uid=None)
    sealed = {mount.target for mount in mounts_for(view, IN_PART, folder) if not mount.write}
    assert sealed == {"/workspace", "/workspace/data/one.json", "/workspace/data/run.json", "/workspace/data/many"}
    assert not (folder / "data/one.json").stat().st_mode & 0o222
    assert (folder / "data/run.json").stat().st_mode & 0o777 == 0o555
    whole = IN_PART.model_copy(update={"write": ("**",)})
    assert {mount.target for mount in mounts_for(view, whole, folder) if not mount.write} == sealed - {"/workspace"}


@pytest.mark.parametrize("begun", [False, True])
def test_a_writable_folder_with_many_partial_files_is_read_only_as_a_whole(tmp_path: Path, begun: bool) -> None:
    def shown(prefix: str, *write: str) -> dict[str, bool]:
        files = tuple(
            ViewFile(path=f"{prefix}{number}.csv", mode="100644", blob=SHA, size=1, partial=True, content=b"x")
            for number in range(3000)
        )
        view = View(base_commit=SHA, files=files, omitted=0, writable=write)
        found = mounts_for(view, Scope(read=("**",), write=write), tmp_path, begun=begun)
        return {mount.target: mount.write for mount in found}

    assert shown("data/", "data/**", "src/**") == {"/workspace": False, "/workspace/.git": True, "/workspace/src": True}
    assert shown("", "**") == {"/workspace": True}


def test_while_an_agent_works_nothing_is_mounted_below_what_it_can_write(records: Git, tmp_path: Path) -> None:
    view = _view(records, IN_PART)
    folder = tmp_path / "workspace"
    materialise(records, view, folder, uid=None)
    begun = {mount.target for mount in mounts_for(view, IN_PART, folder, begun=True)}
    assert begun == {"/workspace", "/workspace/.git", "/workspace/data", "/workspace/src"}


def test_a_partial_file_that_the_scope_names_to_write_is_not_writable(records: Git, tmp_path: Path) -> None:
    scope = IN_PART.model_copy(update={"write": ("data/one.json",)})
    view = _view(records, scope)
    folder = tmp_path / "workspace"
    materialise(records, view, folder, uid=None)
    assert [mount.target for mount in mounts_for(view, scope, folder) if mount.write] == ["/workspace/.git"]


def test_a_partial_file_is_never_given_to_who_owns_its_folder(
    records: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: set[str] = set()

    def give(fd: int, uid: int, gid: int) -> None:
        assert (uid, gid) == (61184, 61184)
        given.add(str(Path(f"/proc/self/fd/{fd}").readlink()))

    monkeypatch.setattr(os, "fchown", give)
    monkeypatch.setattr(os, "chown", lambda *args, **kwargs: None)
    view = _view(records, IN_PART)
    folder = tmp_path / "workspace"
    materialise(records, view, folder, uid=61184)
    assert {str(folder / name) for name in ("src/a.py", "src", "data", "data/many")} <= given
    assert not {str(folder / path) for path in view.partial} & given


def test_what_an_agent_makes_of_a_partial_file_is_refused(records: Git, tmp_path: Path) -> None:
    from vestibule.boundary.changes.apply import apply_export
    from vestibule.boundary.changes.export import export_workspace

    view = _view(records, IN_PART)
    folder = tmp_path / "workspace"
    materialise(records, view, folder, uid=None)
    clone = Git.init(tmp_path / "clone", bare=True)
    clone.fetch_commit(records, view.base_commit)
    assert export_workspace(folder, view).files == ()

    (folder / "data/one.json").unlink()
    (folder / "data/one.json").write_text("mine")
    (folder / "data/run.json").rename(folder / "data/moved.json")
    (folder / "data/many/1.json").unlink()
    (folder / "data/many/1.json").mkdir()
    (folder / "data/many/1.json/x").write_text("in its place")
    (folder / "data/new.json").write_text("[]")
    (folder / "data/broken.json").write_text("[]")
    export = export_workspace(folder, view)
    applied = apply_export(export, clone, view.base_commit, message="m", time="2025-01-01T00:00:00Z")
    refused = {(item.rule, item.place.path) for item in applied.findings if item.place}
    assert refused == {
        ("change.partial_view", "data/one.json"),
        ("change.partial_view", "data/run.json"),
        ("change.partial_view", "data/many/1.json"),
        ("change.unseen_file", "data/many/1.json/x"),
        ("change.unseen_file", "data/broken.json"),
    }
    assert set(applied.files) == {"data/moved.json", "data/new.json"}
    for name in ("data/one.json", "data/run.json", "data/many/1.json", "data/broken.json"):
        assert clone.blob(applied.commit, name) == records.blob(view.base_commit, name)


def test_a_granted_file_is_extended_in_part(records: Git, tmp_path: Path) -> None:
    narrow = IN_PART.model_copy(update={"read": ("src/**",), "write": ("src/**",)})
    view = _view(records, narrow)
    folder = tmp_path / "workspace"
    materialise(records, view, folder, uid=None)
    wider = extend(records, view, narrow.model_copy(update={"granted_read": ("data/**",)}), folder, uid=None)
    assert "data/one.json" in wider.partial
    assert RECORD not in (folder / "data/one.json").read_text()
    assert not (folder / "data/broken.json").exists()
    assert wider.unshowable == ("data/broken.json",)
