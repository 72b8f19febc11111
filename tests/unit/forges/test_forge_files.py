"""Files of a work tree are written whole, below their root, through no link."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from vestibule.forges.files import Change, Entry, Files, plain_path


def entry(content: bytes, mode: str = "100644") -> Entry:
    sha = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return Entry(mode=mode, sha=sha)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    (tmp_path / "root").mkdir()
    return Files(tmp_path / "root", tmp_path / "stage")


def test_a_link_in_the_path_leads_nowhere(files: Files, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_bytes(b"secret")
    (tmp_path / "root/folder").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError):
        files.put(b"folder/file", entry(b"x"), b"x")
    with pytest.raises(OSError):
        files.put(b"folder/file", None, b"")
    assert (tmp_path / "outside/file").read_bytes() == b"secret"
    change = Change(path=b"folder/file", old=entry(b"secret"), new=None)
    assert files.seen(change) == "other"


def test_a_link_at_the_end_is_replaced_and_not_followed(files: Files, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    (tmp_path / "root/file").symlink_to(tmp_path / "outside")
    files.put(b"file", entry(b"x"), b"x")
    assert (tmp_path / "outside").read_bytes() == b"secret"
    assert (tmp_path / "root/file").read_bytes() == b"x"
    assert not (tmp_path / "root/file").is_symlink()


def test_a_hard_link_is_not_written_through(files: Files, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"other")
    (tmp_path / "root/file").hardlink_to(tmp_path / "outside")
    files.put(b"file", entry(b"x"), b"x")
    assert (tmp_path / "outside").read_bytes() == b"other"


@pytest.mark.parametrize(
    ("now", "seen"),
    [(b"old", "old"), (b"new", "new"), (b"ol", "other"), (b"", "other"), (None, "other")],
)
def test_a_path_is_old_new_or_something_else(files: Files, tmp_path: Path, now: bytes | None, seen: str) -> None:
    if now is not None:
        (tmp_path / "root/f").write_bytes(now)
    assert files.seen(Change(path=b"f", old=entry(b"old"), new=entry(b"new"))) == seen


def test_sha256_repositories_compare_too(files: Files, tmp_path: Path) -> None:
    (tmp_path / "root/f").write_bytes(b"x")
    sha = hashlib.sha256(b"blob 1\0x").hexdigest()
    assert files.seen(Change(path=b"f", old=Entry(mode="100644", sha=sha), new=None)) == "old"


def test_the_executable_bit_counts_where_the_file_system_has_it(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "f").chmod(0o755)
    change = Change(path=b"f", old=entry(b"x"), new=None)
    assert Files(tmp_path, tmp_path / "s").seen(change) == "other"
    assert Files(tmp_path, tmp_path / "s", executable_bit=False).seen(change) == "old"


@pytest.mark.parametrize(
    "path", [b"", b"/abs", b"a//b", b"./a", b"a/../b", b"..", b".git/config", b"sub/.GIT/hooks/x", b"a\0b", b"a/"]
)
def test_paths_that_no_tree_should_hold_are_not_plain(path: bytes) -> None:
    assert not plain_path(path)


@pytest.mark.parametrize("path", [b"a", b"a/b.c", b".gitignore", b"new\nline", "ü".encode(), b"\xff", b"a/.gitx/b"])
def test_odd_but_honest_paths_are_plain(path: bytes) -> None:
    assert plain_path(path)
