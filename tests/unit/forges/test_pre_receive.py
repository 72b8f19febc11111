"""The pre-receive rule, installed in a real bare repository and pushed against with plain git."""

from __future__ import annotations

from pathlib import Path

import pytest
from forge_repos import RUN, Change, commit_files, git, make_change

from vestibule.core.errors import DependencyDown, UsageError
from vestibule.forges.pre_receive import MARK, hook_state, hook_text, install_pre_receive
from vestibule.git.repository import Git


@pytest.fixture
def bare(tmp_path: Path) -> Change:
    return make_change(tmp_path, "bare")


def push(change: Change, *refs: str) -> str:
    return git(change.work, "push", "-f", str(change.place), *refs, ok=False)


def test_a_push_to_the_protected_branch_is_refused(bare: Change) -> None:
    install_pre_receive(bare.place, ["refs/heads/main"])
    assert "takes changes through review only" in push(bare, f"{bare.head}:refs/heads/main")
    assert git(bare.place, "rev-parse", "main") == bare.base


def test_a_push_to_a_proposal_is_refused(bare: Change) -> None:
    install_pre_receive(bare.place, ["refs/heads/main"])
    evil = commit_files(bare.work, {"src/a.py": b"evil\n"})
    for ref in (f"refs/heads/vestibule/{RUN}", "refs/heads/vestibule/new", "refs/heads/vestibule"):
        assert "written by vestibule only" in push(bare, f"{evil}:{ref}")
    assert git(bare.place, "rev-parse", f"vestibule/{RUN}") == bare.head


def test_one_refused_ref_refuses_the_whole_push(bare: Change) -> None:
    install_pre_receive(bare.place, ["refs/heads/main"])
    push(bare, f"{bare.head}:refs/heads/mine", f"{bare.head}:refs/heads/main")
    assert "mine" not in git(bare.place, "for-each-ref")


def test_deleting_the_protected_branch_is_refused(bare: Change) -> None:
    install_pre_receive(bare.place, ["refs/heads/main"])
    git(bare.place, "config", "receive.denyDeleteCurrent", "ignore")
    push(bare, ":refs/heads/main")
    assert git(bare.place, "rev-parse", "main") == bare.base


def test_a_symbolic_ref_is_no_way_around(bare: Change) -> None:
    git(bare.place, "symbolic-ref", "refs/heads/alias", "refs/heads/main")
    install_pre_receive(bare.place, ["refs/heads/main"])
    push(bare, f"{bare.head}:refs/heads/alias")
    assert git(bare.place, "rev-parse", "main") == bare.base


def test_pushes_to_other_branches_and_our_merge_go_on(bare: Change) -> None:
    install_pre_receive(bare.place, ["refs/heads/main"])
    push(bare, f"{bare.head}:refs/heads/feature/main", f"{bare.head}:refs/heads/mainly")
    assert git(bare.place, "rev-parse", "feature/main") == bare.head
    assert git(bare.place, "rev-parse", "mainly") == bare.head
    assert bare.forge.merge(bare.request()).state == "merged"


def test_installing_twice_is_installing_once(bare: Change) -> None:
    assert hook_state(Git.open(bare.place)) == "absent"
    hook = install_pre_receive(bare.place, ["refs/heads/main"])
    assert install_pre_receive(bare.place, ["refs/heads/main"]) == hook
    assert hook_state(Git.open(bare.place)) == "installed"
    assert bare.forge.describe()["pre_receive"] == "installed"


@pytest.mark.parametrize("link", [False, True])
def test_an_existing_hook_is_never_replaced(bare: Change, tmp_path: Path, link: bool) -> None:
    hook = bare.place / "hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    if link:
        (tmp_path / "theirs").write_text(hook_text(["refs/heads/main"]))
        hook.symlink_to(tmp_path / "theirs")
    else:
        hook.write_text("#!/bin/sh\nexit 0\n")
    before = hook.read_bytes()
    with pytest.raises(UsageError, match="not replaced"):
        install_pre_receive(bare.place, ["refs/heads/main"])
    assert hook.read_bytes() == before
    assert hook_state(Git.open(bare.place)) == "foreign"


def test_our_hook_for_other_branches_is_not_replaced_silently(bare: Change) -> None:
    install_pre_receive(bare.place, ["refs/heads/main"])
    with pytest.raises(UsageError, match="not replaced"):
        install_pre_receive(bare.place, ["refs/heads/release"])


def test_hooks_configured_elsewhere_are_told_not_ignored(bare: Change) -> None:
    git(bare.place, "config", "core.hooksPath", "/nonexistent/hooks")
    with pytest.raises(UsageError, match=r"core\.hooksPath"):
        install_pre_receive(bare.place, ["refs/heads/main"])
    assert hook_state(Git.open(bare.place)) == "inactive"


def test_a_hook_that_cannot_run_is_not_reported_as_installed(bare: Change) -> None:
    hook = bare.place / "hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\n{MARK}\n")
    hook.chmod(0o644)
    assert hook_state(Git.open(bare.place)) == "foreign"


def test_a_hook_folder_that_cannot_be_written_is_a_dependency_down(bare: Change) -> None:
    for path in (bare.place / "hooks").glob("*"):
        path.unlink()
    if (bare.place / "hooks").exists():
        (bare.place / "hooks").rmdir()
    (bare.place / "hooks").write_text("a file\n")
    with pytest.raises(DependencyDown) as down:
        install_pre_receive(bare.place, ["refs/heads/main"])
    assert down.value.name == "forge"


def test_a_working_clone_gets_no_hook(tmp_path: Path) -> None:
    change = make_change(tmp_path)
    with pytest.raises(UsageError, match="working clone"):
        install_pre_receive(change.place, ["refs/heads/main"])


@pytest.mark.parametrize("ref", ["main", "refs/heads/a;rm -rf x", "refs/heads/$(id)", "refs/heads/*", "refs/tags/v1"])
def test_no_branch_name_becomes_script(ref: str) -> None:
    with pytest.raises(UsageError):
        hook_text([ref])
    with pytest.raises(UsageError):
        hook_text([])
