"""Reading a change: every name and mode, bounded, blind to attributes and configuration."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
from changes_repos import commit, commit_entries, git, new_repo
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.boundary.changes import changeset
from vestibule.boundary.changes.changeset import Change, parse_raw, read_changeset
from vestibule.boundary.changes.guards import GuardContext
from vestibule.boundary.changes.linediff import diff_lines, split_lines
from vestibule.boundary.changes.rules import examine, ruling
from vestibule.core.errors import DependencyDown
from vestibule.git import Git


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return new_repo(tmp_path / "repo")


def changes(repo: Path, base: str, head: str) -> dict[bytes, Change]:
    return {change.path: change for change in read_changeset(Git.open(repo), base, head).changes}


def test_added_modified_deleted_renamed_and_retyped_entries(repo: Path) -> None:
    long = b"".join(b"line %d\n" % n for n in range(50))
    base = commit(repo, {"keep": b"k\n", "mod": b"1\n2\n3\n", "gone": b"a\nb\n", "old/name.txt": long, "t": b"x\n"})
    (repo / "old/name.txt").unlink()
    (repo / "t").unlink()
    (repo / "t").symlink_to("keep")
    head = commit(
        repo, {"new": b"unlike\nthe\nothers\n", "mod": b"1\nX\n3\n4\n", "gone": None, "moved.txt": long + b"more\n"}
    )
    found = changes(repo, base, head)
    assert {path: change.status for path, change in found.items()} == {
        b"new": "A",
        b"mod": "M",
        b"gone": "D",
        b"moved.txt": "R",
        b"t": "T",
    }
    assert found[b"mod"].added == ((2, b"X"), (4, b"4"))
    assert found[b"mod"].removed == 1
    assert found[b"moved.txt"].old_path == b"old/name.txt"
    assert found[b"moved.txt"].added == ((51, b"more"),)
    assert found[b"moved.txt"].paths == (b"moved.txt", b"old/name.txt")
    assert found[b"t"].new == b"keep"
    assert found[b"t"].is_link
    assert found[b"gone"].removed == 2


def test_any_name_is_read_and_refused_or_judged_but_never_crashes(tmp_path: Path) -> None:
    repo = Git.init(tmp_path / "x.git", bare=True)
    base = commit_entries(repo, [("100644", b"a", b"1\n")], [])
    names = [
        b"new\nline",
        b"esc\x1b[31m",
        b"bad\xff\xfeutf8",
        b"tab\t",
        b'quo"te',
        b"\xe2\x80\xae",
        b" lead",
        b"-rf",
        b"con",
    ]
    entries = [("100644", name, b"x\n") for name in names]
    entries += [("160000", b"sub", b"1" * 40), ("120000", b"link", b"\xff/etc\n"), ("100755", b"run", b"#!/bin/sh\n")]
    entries += [("100644", b"crlf", b"a\r\nb\r\n"), ("100644", b"nul", b"a\0b"), ("100644", b"empty", b"")]
    head = commit_entries(repo, sorted(entries, key=lambda e: e[1]), [base])
    found = read_changeset(repo, base, head)
    assert {change.path for change in found.changes} == {b"a", *(e[1] for e in entries)}
    for shown in found.files:
        assert shown.isprintable()
        assert shown.encode("utf-8")
    items = examine(found, GuardContext(write=("**",)))
    assert ruling(items).value == "deny"
    assert {"path.control", "path.encoding", "change.submodule", "change.symlink.target"} <= {f.rule for f in items}
    back = read_changeset(repo, head, base)
    assert ruling(examine(back, GuardContext(write=("**",)))).value == "deny"  # the removed submodule


def test_attributes_and_configuration_hide_nothing(repo: Path) -> None:
    base = commit(repo, {"a.py": b"x = 1\n"})
    head = commit(repo, {".gitattributes": b"* -diff\n*.py binary\n", "a.py": "x = 1\ny = '\u202e'\n".encode()})
    git(repo, "config", "diff.x.textconv", "true")
    git(repo, "config", "diff.x.binary", "true")
    git(repo, "config", "diff.orderFile", "/nonexistent")
    git(repo, "config", "diff.renames", "false")
    git(repo, "config", "core.bigFileThreshold", "1")
    (repo / ".git/info").mkdir(exist_ok=True)
    (repo / ".git/info/attributes").write_text("* -diff binary diff=x\n")
    found = changes(repo, base, head)
    assert found[b"a.py"].added == ((2, "y = '\u202e'".encode()),)
    assert not found[b"a.py"].binary


def test_a_blob_beyond_the_bound_is_not_loaded_and_is_refused(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = commit(repo, {"a": b"1\n"})
    head = commit(repo, {"big.bin": b"\x7fELF" + bytes(100 << 20), "b": b"2\n"})
    loaded: list[int] = []
    original = Git.blobs

    def counting(self: Git, shas: object) -> object:
        for sha, data in original(self, shas):  # type: ignore[arg-type]
            loaded.append(len(data))
            yield sha, data

    monkeypatch.setattr(Git, "blobs", counting)
    found = read_changeset(Git.open(repo), base, head)
    assert max(loaded) <= 2
    big = next(change for change in found.changes if change.path == b"big.bin")
    assert big.unread
    assert big.new is None
    assert len(big.head) == changeset.HEAD_BYTES
    assert big.new_size == (100 << 20) + 4
    rules = {f.rule for f in examine(found, GuardContext(write=("**",)))}
    assert {"change.size.unread", "change.binary.executable"} <= rules


def test_what_passes_the_total_is_unread_and_refused(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changeset, "MAX_TOTAL", 100)
    base = commit(repo, {"a": b"1\n"})
    head = commit(repo, {f"f{n}": b"%d\n" % n * 20 for n in range(5)})
    found = read_changeset(Git.open(repo), base, head)
    assert sum(change.unread for change in found.changes) >= 2
    assert ruling(examine(found, GuardContext(write=("**",)))).value == "deny"


def test_entries_beyond_the_bound_are_counted_and_refused(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changeset, "MAX_ENTRIES", 3)
    base = commit(repo, {"a": b"1\n"})
    head = commit(repo, {f"f{n}": b"%d\n" % n for n in range(5)})
    found = read_changeset(Git.open(repo), base, head)
    assert found.skipped == 2
    assert "change.size.unread" in {f.rule for f in examine(found, GuardContext(write=("**",)))}


def test_a_rename_to_another_suffix_makes_every_line_new(repo: Path) -> None:
    text = "".join(f"line {n}\n" for n in range(30)) + "x = '\u202e'\n"
    base = commit(repo, {"notes.txt": text.encode()})
    head = commit(repo, {"notes.txt": None, "notes.py": text.encode() + b"1\n"})
    found = changes(repo, base, head)[b"notes.py"]
    assert found.status == "R"
    assert len(found.added) == 32


def test_a_missing_object_refuses(repo: Path) -> None:
    base = commit(repo, {"a": b"1\n"})
    head = commit(repo, {"a": b"22\n"})
    sha = git(repo, "rev-parse", "HEAD:a")
    (repo / ".git/objects" / sha[:2] / sha[2:]).unlink()
    with pytest.raises(DependencyDown) as error:
        read_changeset(Git.open(repo), base, head)
    assert error.value.refusal.rule == "dependency.git"


@pytest.mark.parametrize("junk", [b"x", b":100644 100644 a b M\0", b":100644 100644 a b M\0path", b"\xff\0\0"])
def test_unreadable_lists_of_changes_refuse(junk: bytes) -> None:
    with pytest.raises(DependencyDown):
        parse_raw(junk)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_the_parser_of_raw_entries_answers_or_refuses(data: bytes) -> None:
    with contextlib.suppress(DependencyDown):
        parse_raw(data)


LINES = st.lists(st.sampled_from([b"", b"a", b"b", b"a b", b"\r", b"x\ry"]), max_size=12)


@settings(max_examples=300, deadline=None)
@given(LINES, LINES, st.booleans(), st.booleans())
def test_every_line_of_the_new_file_is_old_or_added(
    left: list[bytes], right: list[bytes], crlf: bool, exact: bool
) -> None:
    from vestibule.boundary.changes import linediff

    old, new = b"\n".join(left), (b"\r\n" if crlf else b"\n").join(right)
    before = linediff._EXACT_CELLS
    linediff._EXACT_CELLS = before if exact else 0
    try:
        found = diff_lines(old, new)
    finally:
        linediff._EXACT_CELLS = before
    old_lines, new_lines = split_lines(old), split_lines(new)
    added = {number for number, _ in found.added}
    assert all(new_lines[number - 1] == line for number, line in found.added)
    kept = [line for number, line in enumerate(new_lines, 1) if number not in added]
    assert all(line in old_lines for line in kept)
    assert len(old_lines) - found.removed == len(kept)


def test_huge_files_of_equal_lines_are_compared_in_linear_time() -> None:
    rng = random.Random(1)
    old = b"\n".join(rng.choice([b"a", b"b", b"c"]) for _ in range(60_000))
    new = b"\n".join(rng.choice([b"a", b"b", b"c"]) for _ in range(60_000)) + b"\nnews"
    assert (60_001, b"news") in diff_lines(old, new).added
