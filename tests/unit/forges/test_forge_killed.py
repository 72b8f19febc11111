"""Killed anywhere in a merge, the next attempt finishes it or the tree is as before; nothing in between stays."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forge_repos import RUN, Change, git, make_change, snapshot

from vestibule.forges import checkout
from vestibule.forges.git import GitForge
from vestibule.git.repository import Git

STEPS = ("rename", "unlink", "link", "symlink", "mkdir", "rmdir")


def killed_at(step: int, act: Callable[[], object]) -> bool:
    """Run `act` in a child that dies by SIGKILL right before its step-th change of the file system or ref.

    Whether it died; a child that ends by itself had fewer steps.
    """
    child = os.fork()
    if child == 0:
        count = [0]

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                count[0] += 1
                if count[0] == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)

            return wrapper

        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        Git.update_ref = counted(Git.update_ref)  # type: ignore[method-assign]
        Git.run = _counting_writes(Git.run, counted)  # type: ignore[method-assign]
        try:
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _counting_writes(real: Callable[..., Any], counted: Callable[..., Any]) -> Callable[..., Any]:
    writing = counted(real)

    def run(self: Git, argv: Any, **kwargs: Any) -> bytes:
        return (writing if argv[0] in ("update-index", "commit-tree") else real)(self, argv, **kwargs)

    return run


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Change:
    edits: dict[str, bytes | None] = {"src/a.py": b"new a\n", "src/new/c.py": b"new c\n", "deep/er/gone.txt": None}
    change = make_change(tmp_path_factory.mktemp("killed"), edits=edits, link=False)
    shutil.rmtree(change.place / ".git/hooks")
    return change


def copy_of(template: Change, folder: Path) -> Change:
    place = folder / "repo"
    shutil.copytree(template.place, place, symlinks=True)
    return Change(place, GitForge.open(place, "main"), template.base, template.head, template.binding, template.work)


def every_step(template: Change, tmp_path: Path) -> list[Change]:
    """One clone for each step, killed right before it."""
    found = []
    for step in range(1, 100):
        change = copy_of(template, tmp_path / str(step))
        request = change.request()
        if not killed_at(step, lambda change=change, request=request: change.forge.merge(request)):  # type: ignore[misc]
            assert git(change.place, "status", "--porcelain") == ""
            return found
        found.append(change)
    raise AssertionError("a merge has a bounded number of steps")


def leftovers(place: Path) -> list[str]:
    names = [path.name for path in place.rglob("*vestibule-*")]
    return [*[name for name in names if name != checkout.LOCK], *[p.name for p in place.glob(".git/index.lock")]]


def test_killed_at_any_step_a_merge_is_finished_or_undone(template: Change, tmp_path: Path) -> None:
    killed = every_step(template, tmp_path)
    assert len(killed) > 12
    for change in killed:
        # The ref is the last to move: seen as moved, everything is there.
        if git(change.place, "rev-parse", "main") != change.base:
            assert git(change.place, "status", "--porcelain") == ""
        elif git(change.place, "status", "--porcelain"):
            # Half made: git itself refuses to commit until somebody settles it.
            assert (change.place / ".git/index.lock").exists()
            assert "index.lock" in git(change.place, "commit", "-am", "oops", ok=False)
        # Whoever retries with a later checkpoint and clock gets one merge, whatever was there.
        result = change.forge.merge(change.request(time="2026-02-02T00:00:00.000Z"))
        assert result.state == "merged"
        assert git(change.place, "status", "--porcelain") == ""
        assert git(change.place, "rev-parse", "main^{tree}") == change.binding.tree
        assert git(change.place, "rev-list", "--count", "--merges", "main") == "1"
        assert (change.place / "src/a.py").read_bytes() == b"new a\n"
        assert leftovers(change.place) == []
    commits = {git(change.place, "log", "-1", "--format=%cI", "main") for change in killed}
    assert len(commits) == 2  # killed after the journal: the first attempt's commit went on


def test_killed_twice_still_ends_in_one_merge(template: Change, tmp_path: Path) -> None:
    for first in (9, 13):
        for second in (2, 6):
            change = copy_of(template, tmp_path / f"{first}-{second}")
            killed_at(first, lambda change=change: change.forge.merge(change.request()))  # type: ignore[misc]
            killed_at(second, lambda change=change: change.forge.merge(change.request()))  # type: ignore[misc]
            assert change.forge.merge(change.request()).state == "merged"
            assert git(change.place, "status", "--porcelain") == ""
            assert git(change.place, "rev-list", "--count", "--merges", "main") == "1"
            assert leftovers(change.place) == []


def test_an_interrupted_merge_that_is_no_longer_wanted_is_undone(template: Change, tmp_path: Path) -> None:
    before = snapshot(copy_of(template, tmp_path / "before").place)
    undone = 0
    for step in range(3, 40, 3):
        change = copy_of(template, tmp_path / str(step))
        if not killed_at(step, lambda change=change: change.forge.merge(change.request())):  # type: ignore[misc]
            break
        work = checkout.Checkout(change.forge.git)
        with work.exclusive():
            journal = work.pending()
            if journal is not None:
                work.finish(journal, forward=False)
                work.clear_stale()
                if git(change.place, "rev-parse", "main") == change.base:
                    undone += 1
                    assert snapshot(change.place) == before
                    assert leftovers(change.place) == []
    assert undone >= 3


@pytest.fixture(scope="module")
def half_made(template: Change, tmp_path_factory: pytest.TempPathFactory) -> Change:
    """Killed with a journal, some files new and some old. Work on a copy."""
    folder = tmp_path_factory.mktemp("half")
    for step in range(6, 60):
        change = copy_of(template, folder / str(step))
        killed_at(step, lambda change=change: change.forge.merge(change.request()))  # type: ignore[misc]
        if len(git(change.place, "status", "--porcelain").splitlines()) >= 2:
            return change
    raise AssertionError("no step leaves a half-made tree")


def test_work_done_since_an_interruption_is_never_overwritten(half_made: Change, tmp_path: Path) -> None:
    change = copy_of(half_made, tmp_path)
    (change.place / "src/a.py").write_text("my own words\n")
    (change.place / "src/b.py").write_text("mine too\n")
    result = change.forge.merge(change.request())
    assert (result.state, result.rule) == ("left", "merge.interrupted")
    assert (change.place / "src/a.py").read_text() == "my own words\n"
    assert (change.place / "src/b.py").read_text() == "mine too\n"
    assert git(change.place, "rev-parse", "main") == change.base
    # The lock was given back, the person puts their work aside, and the merge goes on.
    git(change.place, "stash", "-q", "-u")
    assert change.forge.merge(change.request()).state == "merged"
    assert git(change.place, "status", "--porcelain") == ""


@pytest.mark.parametrize("name", ["src/a.py", "src/new/c.py", "deep/er/gone.txt"])
def test_own_words_in_a_file_of_the_merge_are_never_overwritten(half_made: Change, tmp_path: Path, name: str) -> None:
    change = copy_of(half_made, tmp_path)
    (change.place / name).parent.mkdir(parents=True, exist_ok=True)
    (change.place / name).write_text("my own words\n")
    assert change.forge.merge(change.request()).rule == "merge.interrupted"
    assert (change.place / name).read_text() == "my own words\n"
    assert git(change.place, "rev-parse", "main") == change.base


def test_a_person_who_removed_the_lock_and_went_on_is_respected(half_made: Change, tmp_path: Path) -> None:
    change = copy_of(half_made, tmp_path)
    (change.place / ".git/index.lock").unlink()
    git(change.place, "add", "-A")
    git(change.place, "commit", "-q", "-m", "went on")
    mine = snapshot(change.place)
    assert change.forge.merge(change.request()).rule == "merge.base_moved"
    assert snapshot(change.place) == mine
    assert leftovers(change.place) == []


def test_another_program_s_lock_is_never_removed(half_made: Change, tmp_path: Path) -> None:
    change = copy_of(half_made, tmp_path)
    lock = change.place / ".git/index.lock"
    lock.write_text("")
    before = snapshot(change.place)
    assert change.forge.merge(change.request()).rule == "merge.index_locked"
    assert snapshot(change.place) == before


def test_a_damaged_journal_moves_nothing(template: Change, tmp_path: Path) -> None:
    change = copy_of(template, tmp_path)
    (change.place / ".git" / checkout.JOURNAL).write_bytes(b"{")
    before = snapshot(change.place)
    assert change.forge.merge(change.request()).rule == "merge.journal"
    assert snapshot(change.place) == before


def test_a_journal_of_a_merge_that_was_not_approved_goes_back(half_made: Change, tmp_path: Path) -> None:
    """A journal in the git directory is no approval: its commit is compared with what was approved."""
    change = copy_of(half_made, tmp_path)
    journal = change.place / ".git" / checkout.JOURNAL
    text = journal.read_text()
    journal.write_text(text.replace(RUN, "r0000000000000"))
    lock = change.place / ".git/index.lock"
    lock.write_bytes(lock.read_bytes().replace(RUN.encode(), b"r0000000000000"))
    result = change.forge.merge(change.request(time="2026-02-02T00:00:00.000Z"))
    assert result.state == "merged"
    assert git(change.place, "log", "-1", "--format=%cI", "main") == "2026-02-02T00:00:00+00:00"
