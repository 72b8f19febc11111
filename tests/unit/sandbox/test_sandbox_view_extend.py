"""Files that a person granted appear in a workspace that an agent is changing at the same time."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from vestibule.core.model import Scope
from vestibule.core.view import View
from vestibule.git.repository import Git
from vestibule.sandbox.view import extend, materialise, project

NARROW = Scope(read=("app/**",), write=("app/**", "docs/**"))
WIDE = NARROW.model_copy(update={"granted_read": ("lib/**",)})


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Git:
    folder = tmp_path_factory.mktemp("source")
    run = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run([*run, "init", "-q", "-b", "main"], check=True)
    for name in ("app/a.py", "lib/b.py", "lib/deep/er/c.sh", "docs/d.md", "docs/deep/e.md", "other/f.py"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}\n")
    (folder / "lib/deep/er/c.sh").chmod(0o755)
    (folder / "lib/link").symlink_to("b.py")
    subprocess.run([*run, "add", "-A"], check=True)
    subprocess.run([*run, "commit", "-q", "-m", "all"], check=True)
    return Git.open(folder)


@pytest.fixture
def begun(git: Git, tmp_path: Path) -> tuple[View, Path]:
    commit = git.commit_of("main")
    assert commit
    view = project(git, commit, NARROW)
    materialise(git, view, tmp_path / "workspace", uid=None)
    return view, tmp_path / "workspace"


def test_granted_files_appear_and_join_the_view(git: Git, begun: tuple[View, Path]) -> None:
    view, folder = begun
    wider = extend(git, view, WIDE, folder, uid=None)
    added = {file.path for file in wider.files} - {file.path for file in view.files}
    assert added == {"lib/b.py", "lib/link", "lib/deep/er/c.sh"}
    assert (folder / "lib/b.py").read_text() == "content of lib/b.py\n"
    assert os.access(folder / "lib/deep/er/c.sh", os.X_OK)
    assert (folder / "lib/link").readlink() == Path("b.py")
    assert not (folder / "other").exists()
    assert wider.omitted == 1


def test_extending_twice_changes_nothing(git: Git, begun: tuple[View, Path]) -> None:
    view, folder = begun
    wider = extend(git, view, WIDE, folder, uid=None)
    (folder / "lib/b.py").write_text("changed by the agent\n")
    assert extend(git, wider, WIDE, folder, uid=None) == wider
    assert (folder / "lib/b.py").read_text() == "changed by the agent\n"


def test_what_the_agent_put_there_stays_and_never_becomes_a_change_of_the_file(
    git: Git, begun: tuple[View, Path], tmp_path: Path
) -> None:
    view, folder = begun
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "er").mkdir()
    (folder / "lib").mkdir()
    (folder / "lib/b.py").write_text("mine\n")
    (folder / "lib/deep").symlink_to(outside)
    (folder / "lib/link").symlink_to(outside / "new")
    wider = extend(git, view, WIDE, folder, uid=None)
    assert (folder / "lib/b.py").read_text() == "mine\n"
    assert not list(outside.rglob("*.*"))
    assert not (outside / "new").exists()
    assert not [file.path for file in wider.files if file.path.startswith("lib/")]


def test_a_folder_exchanged_for_a_link_meanwhile_leads_nowhere(
    git: Git, begun: tuple[View, Path], tmp_path: Path
) -> None:
    view, folder = begun
    outside = tmp_path / "outside"
    (outside / "deep/er").mkdir(parents=True)
    (folder / "lib").mkdir()
    stop = threading.Event()

    def swap() -> None:
        spare, old, lib = folder / "spare", folder / "old", folder / "lib"
        for turn in itertools.cycle((True, False)):
            if stop.is_set():
                return
            with contextlib.suppress(OSError):  # what it exchanges is being written at the same time
                if turn:
                    spare.symlink_to(outside)
                else:
                    spare.mkdir()
                lib.rename(old)
                spare.rename(lib)
            for path in (spare, old):
                if path.is_symlink():
                    path.unlink()
                else:
                    shutil.rmtree(path, ignore_errors=True)

    agent = threading.Thread(target=swap)
    agent.start()
    try:
        for _ in range(60):
            extend(git, view, WIDE, folder, uid=None)
    finally:
        stop.set()
        agent.join()
    assert [path for path in outside.rglob("*") if not path.is_dir()] == []
    assert sorted(str(path.relative_to(outside)) for path in outside.rglob("*")) == ["deep", "deep/er"]
