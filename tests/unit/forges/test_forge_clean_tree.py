"""A merge moves a checked-out branch only over a clean tree, and otherwise leaves everything as it is."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from forge_repos import RUN, Change, commit_files, git, make_change, snapshot

from vestibule.core.errors import DependencyDown
from vestibule.forges import checkout
from vestibule.git import Git, GitError


def staged(place: Path) -> None:
    (place / "src/b.py").write_text("staged\n")
    git(place, "add", "src/b.py")


def unstaged(place: Path) -> None:
    (place / "src/b.py").write_text("mine\n")


def unstaged_same_file(place: Path) -> None:
    (place / "src/a.py").write_text("mine\n")


def same_size_same_time(place: Path) -> None:
    path = place / "src/b.py"
    before = path.stat()
    path.write_text("OLD b\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def hidden_by_assume_unchanged(place: Path) -> None:
    git(place, "update-index", "--assume-unchanged", "src/a.py")
    (place / "src/a.py").write_text("mine\n")


def hidden_by_skip_worktree(place: Path) -> None:
    git(place, "update-index", "--skip-worktree", "src/a.py")
    (place / "src/a.py").unlink()


def deleted(place: Path) -> None:
    (place / "src/b.py").unlink()


def mode_changed(place: Path) -> None:
    (place / "src/b.py").chmod(0o755)


def untracked_in_the_way(place: Path) -> None:
    (place / "src/new").mkdir()
    (place / "src/new/c.py").write_text("mine\n")


def ignored_in_the_way(place: Path) -> None:
    (place / ".git/info").mkdir(exist_ok=True)
    (place / ".git/info/exclude").write_text("src/new/\n")
    untracked_in_the_way(place)


def file_where_a_folder_belongs(place: Path) -> None:
    (place / "src/new").write_text("mine\n")


def link_where_a_folder_belongs(place: Path) -> None:
    (place.parent / "elsewhere").mkdir()
    (place / "src/new").symlink_to(place.parent / "elsewhere")


def link_instead_of_a_folder(place: Path) -> None:
    elsewhere = place.parent / "moved"
    (place / "src").rename(elsewhere)
    (place / "src").symlink_to(elsewhere)


def fifo_instead_of_a_file(place: Path) -> None:
    (place / "src/a.py").unlink()
    os.mkfifo(place / "src/a.py")


def intent_to_add(place: Path) -> None:
    (place / "other.txt").write_text("x\n")
    git(place, "add", "-N", "other.txt")


def merge_under_way(place: Path) -> None:
    (place / ".git/MERGE_HEAD").write_text(git(place, "rev-parse", "main") + "\n")


def rebase_under_way(place: Path) -> None:
    (place / ".git/rebase-merge").mkdir()


def cherry_pick_under_way(place: Path) -> None:
    (place / ".git/CHERRY_PICK_HEAD").write_text(git(place, "rev-parse", "main") + "\n")


def bisect_under_way(place: Path) -> None:
    (place / ".git/BISECT_LOG").write_text("git bisect start\n")


def another_git_at_work(place: Path) -> None:
    (place / ".git/index.lock").write_text("")


def sparse(place: Path) -> None:
    git(place, "sparse-checkout", "set", "deep")


def damaged_index(place: Path) -> None:
    (place / ".git/index").write_bytes(b"DIRC nonsense")


def no_index(place: Path) -> None:
    (place / ".git/index").unlink()


def work_tree_elsewhere(place: Path) -> None:
    git(place, "config", "core.worktree", str(place.parent))


UNCLEAN: list[tuple[Callable[[Path], None], str]] = [
    (staged, "merge.not_clean"),
    (unstaged, "merge.not_clean"),
    (unstaged_same_file, "merge.not_clean"),
    (hidden_by_assume_unchanged, "merge.not_clean"),
    (hidden_by_skip_worktree, "merge.not_clean"),
    (deleted, "merge.not_clean"),
    (mode_changed, "merge.not_clean"),
    (untracked_in_the_way, "merge.in_the_way"),
    (ignored_in_the_way, "merge.in_the_way"),
    (file_where_a_folder_belongs, "merge.in_the_way"),
    (link_where_a_folder_belongs, "merge.in_the_way"),
    (link_instead_of_a_folder, "merge.not_clean"),
    (fifo_instead_of_a_file, "merge.not_clean"),
    (intent_to_add, "merge.not_clean"),
    (merge_under_way, "merge.under_way"),
    (rebase_under_way, "merge.under_way"),
    (cherry_pick_under_way, "merge.under_way"),
    (bisect_under_way, "merge.under_way"),
    (another_git_at_work, "merge.index_locked"),
    (sparse, "merge.sparse"),
    (work_tree_elsewhere, "merge.worktree"),
]


@pytest.mark.parametrize(("spoil", "rule"), UNCLEAN, ids=lambda value: getattr(value, "__name__", value))
def test_an_unclean_tree_is_left_untouched_with_a_sentence(
    clone: Change, spoil: Callable[[Path], None], rule: str
) -> None:
    spoil(clone.place)
    before = _files_and_refs(clone)
    result = clone.forge.merge(clone.request())
    assert (result.state, result.rule) == ("left", rule)
    assert f"git -C {clone.place} merge --ff-only vestibule/{RUN}" in result.how_to_finish
    assert f"vestibule resume {RUN}" in result.how_to_finish
    assert result.reason
    assert _files_and_refs(clone) == before
    assert not (clone.place / ".git" / checkout.JOURNAL).exists()


def _files_and_refs(change: Change) -> object:
    files = {}
    for path in sorted(change.place.rglob("*")):
        if ".git" in path.relative_to(change.place).parts[:1] or path.is_dir() or path.is_fifo():
            continue
        files[str(path)] = path.readlink() if path.is_symlink() else path.read_bytes()
    index = change.place / ".git/index"
    return (
        files,
        Git(change.place / ".git").text(["for-each-ref"]),
        index.read_bytes() if index.exists() else None,
        (change.place / ".git/index.lock").exists(),
    )


@pytest.mark.parametrize("spoil", [damaged_index, no_index], ids=lambda value: value.__name__)
def test_an_index_that_is_not_understood_moves_nothing(clone: Change, spoil: Callable[[Path], None]) -> None:
    spoil(clone.place)
    before = _files_and_refs(clone)
    try:
        state = clone.forge.merge(clone.request()).state
    except DependencyDown as down:
        state = f"dependency.{down.name}"
    assert state in ("left", "dependency.forge")
    assert _files_and_refs(clone) == before


def test_untracked_files_elsewhere_do_not_hinder_a_merge(clone: Change) -> None:
    (clone.place / "notes.txt").write_text("mine\n")
    (clone.place / "deep/er/notes.txt").write_text("mine\n")
    assert clone.forge.merge(clone.request()).state == "merged"
    assert (clone.place / "deep/er/notes.txt").read_text() == "mine\n"
    assert git(clone.place, "status", "--porcelain").splitlines() == ["?? deep/", "?? notes.txt"]


def test_a_merge_left_once_is_done_when_the_tree_is_clean(clone: Change) -> None:
    unstaged(clone.place)
    assert clone.forge.merge(clone.request()).state == "left"
    git(clone.place, "checkout", "-q", "--", ".")
    assert clone.forge.merge(clone.request()).state == "merged"
    assert git(clone.place, "status", "--porcelain") == ""


def test_no_hook_filter_or_monitor_of_the_repository_runs(clone: Change, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    script = tmp_path / "evil.sh"
    script.write_text(f'#!/bin/sh\necho "$0 $@" >> {ran}\ncat\n')
    script.chmod(0o755)
    hooks = clone.place / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-merge", "post-checkout", "pre-merge-commit", "reference-transaction", "post-index-change"):
        (hooks / name).symlink_to(script)
    git(clone.place, "config", "core.hooksPath", str(hooks))
    for key in ("filter.x.smudge", "filter.x.clean", "filter.x.process", "merge.x.driver", "diff.external"):
        git(clone.place, "config", key, str(script))
    git(clone.place, "config", "core.fsmonitor", str(script))
    git(clone.place, "config", "diff.x.textconv", str(script))
    (clone.place / ".git/info").mkdir(exist_ok=True)
    (clone.place / ".git/info/attributes").write_text("src/b.py filter=x\n* merge=x diff=x\n")
    (clone.place / "src/b.py").touch()
    assert clone.forge.merge(clone.request()).state == "merged"
    assert not ran.exists()


@pytest.mark.parametrize(
    "attributes", ["*.py filter=lfs", "src/a.py working-tree-encoding=UTF-16LE", "*.py eol=crlf", "src/a.py filter"]
)
def test_a_file_that_needs_conversion_is_left_to_the_person(tmp_path: Path, attributes: str) -> None:
    edits: dict[str, bytes | None] = {"src/a.py": b"n\0\n\0", ".gitattributes": attributes.encode() + b"\n"}
    change = make_change(tmp_path, edits=edits)
    before = snapshot(change.place)
    result = change.forge.merge(change.request())
    assert (result.state, result.rule) == ("left", "merge.conversion")
    assert snapshot(change.place) == before


def test_a_text_attribute_needs_no_conversion(tmp_path: Path) -> None:
    edits: dict[str, bytes | None] = {"src/a.py": b"new\n", ".gitattributes": b"* text=auto\n*.py text eol=lf\n"}
    change = make_change(tmp_path, edits=edits)
    assert change.forge.merge(change.request()).state == "merged"
    assert git(change.place, "status", "--porcelain") == ""


def test_content_is_written_and_indexed_as_bytes(tmp_path: Path) -> None:
    change = make_change(tmp_path, edits={"crlf.txt": b"a\r\nb\r\n", "ident.txt": b"$Id$\n"})
    head = commit_files(change.work, {".gitattributes": b"* text=auto\nident.txt ident\n"})
    change.forge.propose(RUN, change.work, head, previous=change.head)
    change.binding = change.binding.model_copy(
        update={"head_commit": head, "tree": git(change.work, "rev-parse", "HEAD^{tree}")}
    )
    assert change.forge.merge(change.request()).state == "merged"
    assert (change.place / "crlf.txt").read_bytes() == b"a\r\nb\r\n"
    assert (change.place / "ident.txt").read_bytes() == b"$Id$\n"
    assert git(change.place, "status", "--porcelain") == ""


def test_a_tree_with_windows_line_ends_is_as_clean_as_its_person_sees_it(tmp_path: Path) -> None:
    change = make_change(tmp_path)
    first = commit_files(change.place, {".gitattributes": b"*.bat text eol=crlf\n", "x.bat": b"a\r\nb\r\n"})
    git(change.work, "fetch", "-q", "origin")
    git(change.work, "checkout", "-q", first)
    head = commit_files(change.work, {"src/a.py": b"new\n"})
    change.forge.propose(RUN, change.work, head, previous=change.head)
    change.binding = change.binding.model_copy(
        update={"head_commit": head, "tree": git(change.work, "rev-parse", "HEAD^{tree}"), "base_commit": first}
    )
    os.utime(change.place / "x.bat", (1, 1))
    assert change.forge.merge(change.request()).state == "merged"
    assert (change.place / "x.bat").read_bytes() == b"a\r\nb\r\n"
    assert git(change.place, "status", "--porcelain") == ""


def test_a_submodule_moved_by_the_change_is_left_to_the_person(tmp_path: Path) -> None:
    change = make_change(tmp_path)
    git(change.work, "update-index", "--add", "--cacheinfo", f"160000,{change.base},sub")
    git(change.work, "commit", "-q", "-m", "sub")
    head = git(change.work, "rev-parse", "HEAD")
    change.forge.propose(RUN, change.work, head, previous=change.head)
    change.binding = change.binding.model_copy(
        update={"head_commit": head, "tree": git(change.work, "rev-parse", "HEAD^{tree}")}
    )
    result = change.forge.merge(change.request())
    assert (result.state, result.rule) == ("left", "merge.submodule")


@pytest.mark.parametrize(
    "edits",
    [{"src/a.py": None, "src/a.py/inner": b"x\n"}, {"deep/er/gone.txt": None, "deep": b"now a file\n"}],
)
def test_a_file_that_becomes_a_folder_is_left_to_the_person(tmp_path: Path, edits: dict[str, bytes | None]) -> None:
    change = make_change(tmp_path, edits={}, link=False)
    for name in [name for name, content in edits.items() if content is None]:
        git(change.work, "rm", "-q", name)
    commit_files(change.work, {name: content for name, content in edits.items() if content is not None})
    git(change.work, "reset", "-q", "--soft", change.base)
    head = commit_files(change.work, {})
    change.forge.propose(RUN, change.work, head, previous=change.head)
    change.binding = change.binding.model_copy(
        update={"head_commit": head, "tree": git(change.work, "rev-parse", "HEAD^{tree}")}
    )
    before = snapshot(change.place)
    result = change.forge.merge(change.request())
    assert (result.state, result.rule) == ("left", "merge.path")
    assert snapshot(change.place) == before


def test_a_target_checked_out_in_a_linked_work_tree_is_left_to_it(clone: Change, tmp_path: Path) -> None:
    git(clone.place, "checkout", "-q", "-b", "other")
    git(clone.place, "worktree", "add", "-q", str(tmp_path / "linked"), "main")
    result = clone.forge.merge(clone.request())
    assert (result.state, result.rule) == ("left", "merge.checked_out_elsewhere")
    assert str(tmp_path / "linked") in result.how_to_finish
    assert git(clone.place, "rev-parse", "main") == clone.base


def test_a_linked_work_tree_of_a_bare_repository_is_seen(tmp_path: Path) -> None:
    change = make_change(tmp_path, "bare")
    git(change.place, "worktree", "add", "-q", str(tmp_path / "linked"), "main")
    assert change.forge.merge(change.request()).rule == "merge.checked_out_elsewhere"


def test_a_merge_works_in_a_linked_work_tree(clone: Change, tmp_path: Path) -> None:
    git(clone.place, "checkout", "-q", "-b", "other")
    linked = tmp_path / "linked"
    git(clone.place, "worktree", "add", "-q", str(linked), "main")
    forge = type(clone.forge).open(linked, "main")
    assert forge.merge(clone.request()).state == "merged"
    assert git(linked, "status", "--porcelain") == ""
    assert (linked / "src/a.py").read_bytes() == b"new a\n"


def test_a_target_in_the_middle_of_a_rebase_is_left(clone: Change) -> None:
    git(clone.place, "checkout", "-q", "--detach")
    (clone.place / ".git/rebase-merge").mkdir()
    (clone.place / ".git/rebase-merge/head-name").write_text("refs/heads/main\n")
    assert clone.forge.merge(clone.request()).rule == "merge.checked_out_elsewhere"
    assert git(clone.place, "rev-parse", "main") == clone.base


def test_a_target_not_checked_out_moves_without_touching_files(clone: Change) -> None:
    git(clone.place, "checkout", "-q", "-b", "other")
    unstaged(clone.place)
    before = snapshot(clone.place)
    assert clone.forge.merge(clone.request()).state == "merged"
    after = snapshot(clone.place)
    assert (after["files"], after["staged"], after["head"]) == (before["files"], before["staged"], before["head"])


def test_two_merges_at_once_do_not_meet(clone: Change) -> None:
    descriptor = os.open(clone.place / ".git" / checkout.LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        assert clone.forge.merge(clone.request()).rule == "merge.busy"
    finally:
        os.close(descriptor)
    assert clone.forge.merge(clone.request()).state == "merged"


def test_a_ref_that_moves_at_the_last_moment_brings_the_files_back(
    clone: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Git.update_ref
    moved: list[str] = []

    def lose_the_race(self: Git, ref: str, new: str, old: str | None) -> None:
        if ref == "refs/heads/main" and not moved:
            moved.append(git(clone.place, "commit-tree", "-m", "other", "-p", clone.base, f"{clone.base}^{{tree}}"))
            real(self, ref, moved[0], clone.base)
        real(self, ref, new, old)

    before = snapshot(clone.place)
    monkeypatch.setattr(Git, "update_ref", lose_the_race)
    result = clone.forge.merge(clone.request())
    assert result.state == "left"
    after = snapshot(clone.place)
    assert (after["files"], after["staged"], after["lock"]) == (before["files"], before["staged"], before["lock"])
    assert git(clone.place, "rev-parse", "main") == moved[0]
    assert git(clone.place, "status", "--porcelain") == ""


@pytest.mark.parametrize("step", range(1, 7))
def test_a_full_disk_at_any_file_brings_everything_back(
    clone: Change, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    before = snapshot(clone.place)
    calls = [0]
    real = checkout.Files.put

    def put(self: object, *args: object, **kwargs: object) -> None:
        calls[0] += 1
        if calls[0] == step:
            raise OSError(28, "No space left on device")
        real(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(checkout.Files, "put", put)
    result = clone.forge.merge(clone.request())
    assert (result.state, result.rule) == ("left", "merge.write")
    assert "No space left" in result.reason
    assert snapshot(clone.place) == before
    assert git(clone.place, "status", "--porcelain") == ""


def test_a_git_that_fails_is_a_dependency_that_is_down(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Git, *args: object, **kwargs: object) -> str:
        raise GitError(["commit-tree"], 128, "fatal: disk full")

    monkeypatch.setattr(Git, "commit_tree", fail)
    with pytest.raises(DependencyDown) as down:
        change.forge.merge(change.request())
    assert down.value.name == "forge"
    assert git(change.place, "rev-parse", "main") == change.base
