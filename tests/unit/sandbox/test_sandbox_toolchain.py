"""Kept results of set-ups: whole or not at all, unchanged or refused, pruned only when nobody uses them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from vestibule.core.errors import DependencyDown
from vestibule.sandbox import toolchain
from vestibule.sandbox.local import tools
from vestibule.sandbox.toolchain import Store, Unusable, copy, tree_digest

KEY = "ab" * 32


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    (folder / "node_modules" / ".bin").mkdir(parents=True)
    (folder / "node_modules" / ".bin" / "tool").symlink_to("../tool.js")
    (folder / "node_modules" / "tool.js").write_text("#!/usr/bin/node\n")
    (folder / "node_modules" / "tool.js").chmod(0o6755)
    (folder / "data").write_bytes(b"\0" * 10)
    (folder / "outside").symlink_to("/etc/passwd")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "toolchains")


def test_a_result_is_kept_sealed_and_found_again(store: Store, made: Path) -> None:
    kept = store.keep(KEY, made)
    assert Store(store.folder).find(KEY) == kept
    tool = kept.tree / "node_modules" / "tool.js"
    assert tool.stat().st_mode & 0o7777 == 0o555  # no set-uid bit, written by nobody
    assert (kept.tree / "data").stat().st_mode & 0o7777 == 0o444
    assert (kept.tree / "outside").readlink() == Path("/etc/passwd")
    assert store.find("cd" * 32) is None
    assert store.folder.stat().st_mode & 0o777 == 0o700


def _write(tree: Path) -> None:
    (tree / "data").chmod(0o644)
    (tree / "data").write_bytes(b"other")


@pytest.mark.parametrize(
    "change",
    [
        _write,
        lambda tree: (tree / "new").write_text("more"),
        lambda tree: (tree / "data").unlink(),
        lambda tree: (tree / "data").chmod(0o555),
        lambda tree: ((tree / "outside").unlink(), (tree / "outside").symlink_to("/etc/shadow")),
        lambda tree: (tree / "data").rename(tree / "other"),
        lambda tree: (tree.parent / "manifest.json").write_text("{}"),
        lambda tree: (tree.parent / "manifest.json").unlink(),
        lambda tree: os.mkfifo(tree / "pipe"),
    ],
)
def test_whatever_changed_is_refused(store: Store, made: Path, change: Callable[[Path], object]) -> None:
    kept = store.keep(KEY, made)
    change(kept.tree)
    with pytest.raises(DependencyDown, match="not what was kept") as refused:
        Store(store.folder).find(KEY)
    assert refused.value.refusal.rule == "dependency.toolchain"


def test_a_manifest_of_another_key_is_refused(store: Store, made: Path) -> None:
    store.keep(KEY, made)
    (store.folder / KEY).rename(store.folder / ("cd" * 32))
    with pytest.raises(DependencyDown):
        Store(store.folder).find("cd" * 32)


def test_sockets_and_pipes_cannot_be_kept_and_nothing_half_made_stays(store: Store, made: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(made / "s"))
        with pytest.raises(Unusable, match="no file, folder or link"):
            store.keep(KEY, made)
    assert list(store.folder.iterdir()) == []


def test_too_many_files_cannot_be_kept(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "MAX_RESULT_FILES", 3)
    (tmp_path / "target").mkdir()
    with pytest.raises(Unusable, match="more than 3"):
        copy(made, tmp_path / "target")


def test_a_store_that_cannot_be_written_is_a_broken_dependency(tmp_path: Path, made: Path) -> None:
    (tmp_path / "toolchains").write_text("a file")
    with pytest.raises(DependencyDown, match="cannot be kept"):
        Store(tmp_path / "toolchains").keep(KEY, made)


def test_two_that_make_the_same_get_one(store: Store, made: Path) -> None:
    first = store.keep(KEY, made)
    second = Store(store.folder).keep(KEY, made)
    assert first == second
    assert [item.name for item in store.folder.iterdir()] == [KEY]


def test_the_longest_unused_goes_first_and_one_in_use_stays(store: Store, made: Path) -> None:
    keys = [f"{number:02d}" * 32 for number in range(toolchain.KEPT + 3)]
    for number, key in enumerate(keys):
        maker = Store(store.folder)
        maker.keep(key, made)
        maker.close()
        os.utime(store.folder / key, (number, number))
    user = Store(store.folder)
    assert user.find(keys[0]) is not None
    os.utime(store.folder / keys[0], (0, 0))
    (store.folder / f".half-{2**22 + 1}").mkdir()  # of a process that cannot be
    store.prune()
    left = {item.name for item in store.folder.iterdir()}
    assert keys[0] in left  # in use
    assert left - {keys[0]} == set(keys[3:])
    user.close()
    store.prune()
    assert {item.name for item in store.folder.iterdir()} == set(keys[3:])


def test_names_kinds_modes_and_contents_are_in_the_digest(made: Path) -> None:
    before, count = tree_digest(made)
    assert count == 6
    os.utime(made / "data", (1, 1))
    assert tree_digest(made)[0] == before
    (made / "data").chmod(0o600)
    assert tree_digest(made)[0] != before


def test_programs_of_node_packages_are_on_path(made: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (made / "bin").mkdir()
    assert tools.bins((made, tmp_path / "plain", tmp_path / "missing")) == (
        str(made / "bin"),
        str(made / "node_modules" / ".bin"),
        str(tmp_path / "plain"),
    )
