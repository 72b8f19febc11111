"""The diff reader: nothing lost, nothing taken for what it is not."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from console_fake import PATCH, patch_for, sample_view
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.console.diff import FileDiff, Patch, parse_patch
from vestibule.console.marks import Part, may_hide, parts, scripts_note
from vestibule.console.review import AUTO_PAGE_LINES, PAGE_LINES, change_of
from vestibule.core.text.sanitize import find_hidden

RUN = "r0123456789abcd"


def text_of(patch: Patch, file: FileDiff, *kinds: str) -> list[str]:
    return [
        row.content if isinstance(row.content, str) else "".join(part.text for part in row.content)
        for row in patch.rows(file)
        if row.kind in kinds
    ]


def test_a_patch_becomes_numbered_lines() -> None:
    patch = parse_patch(PATCH)
    assert patch.problems == []
    cart, test = patch.files
    assert (cart.path, cart.status, cart.added, cart.deleted, cart.problems) == (
        "src/shop/cart.py",
        "modified",
        6,
        2,
        [],
    )
    assert (test.path, test.status, test.added, test.deleted, test.problems) == (
        "tests/test_cart.py",
        "added",
        8,
        0,
        [],
    )
    rows = list(patch.rows(cart))
    assert [(row.kind, row.old, row.new) for row in rows[:5]] == [
        ("hunk", 0, 0),
        ("ctx", 10, 10),
        ("ctx", 11, 11),
        ("del", 12, 0),
        ("add", 0, 12),
    ]
    assert (rows[-1].old, rows[-1].new) == (42, 46)
    assert [row.new for row in patch.rows(test)][1:] == list(range(1, 9))


def test_content_that_imitates_a_diff_stays_content() -> None:
    lines = ["diff --git a/x b/x", "-- a/x", "++ b/x", "@@ -1 +1 @@", "GIT binary patch", "new file mode 100644"]
    for sign in "+-":
        patch = parse_patch(patch_for("src/a.py", lines, sign=sign) + patch_for("src/b.py", ["y"]))
        assert [file.path for file in patch.files] == ["src/a.py", "src/b.py"]
        assert text_of(patch, patch.files[0], "add", "del") == lines
        assert not patch.problems
        assert not any(file.problems for file in patch.files)


@pytest.mark.parametrize(
    "change",
    [
        (b"@@ -0,0 +1,8 @@", b"@@ -0,0 +1,9 @@"),
        (b"@@ -0,0 +1,8 @@", b"@@ -0,0 +1,7 @@"),
        (b"@@ -0,0 +1,8 @@", b"@@ -0,0 +1,x @@"),
        (b"--- /dev/null\n", b"surprise /dev/null\n"),
        (b"+    assert cart", b"?    assert cart"),
        (b"diff --git a/src", b"diff --cc src"),
        (b"diff --git a/src", b"note\ndiff --git a/src"),
    ],
)
def test_what_cannot_be_read_is_said(change: tuple[bytes, bytes]) -> None:
    patch = parse_patch(PATCH.replace(*change, 1))
    assert patch.problems or any(file.problems for file in patch.files)


def git(folder: Path, *argv: str) -> bytes:
    env = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8"}
    who = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    return subprocess.run(["git", *who, *argv], cwd=folder, env=env, check=True, capture_output=True).stdout


@pytest.mark.parametrize("quote", ["true", "false"])
def test_what_git_prints_is_read_completely(tmp_path: Path, quote: str) -> None:
    names = ["plain.py", "with space.py", 'quote".py', "tab\there", "line\nfeed", "größe.py", "back\\slash", " b/x b/x"]
    git(tmp_path, "init", "-q")
    for name in [*names, "gone.py", "old name.py", "mode.sh", "bin.dat"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"one\ntwo\nthree " + name.encode() + b"\n" + b"same\n" * 20)
    (tmp_path / "bin.dat").write_bytes(bytes(range(256)))
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "a")
    for name in names:
        (tmp_path / name).write_bytes(b"one\r\n2\nthree\n" + b"same\n" * 20 + b"no end")
    (tmp_path / "gone.py").unlink()
    (tmp_path / "old name.py").rename(tmp_path / "new name.py")
    (tmp_path / "mode.sh").chmod(0o755)
    (tmp_path / "bin.dat").write_bytes(bytes(range(255, -1, -1)))
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "link").symlink_to("/etc/passwd")
    git(tmp_path, "add", "-A")
    argv = ["-c", f"core.quotePath={quote}", "diff", "--cached", "-M", "--no-color", "--full-index"]
    for more in ([], ["--binary"]):
        patch = parse_patch(git(tmp_path, *argv, *more))
        assert patch.problems == []
        found = {file.path: file for file in patch.files}
        assert not [file.problems for file in patch.files if file.problems]
        expected = {*names, "gone.py", "new name.py", "mode.sh", "bin.dat", "empty", "link"}
        assert set(found) == expected
        assert found["gone.py"].status == "deleted"
        assert (found["new name.py"].status, found["new name.py"].old_path) == ("renamed", "old name.py")
        assert found["mode.sh"].notes == ["becomes executable"]
        assert found["bin.dat"].binary
        assert found["link"].notes == ["symbolic link"]
        stat = git(tmp_path, "-c", "core.quotePath=false", "diff", "--cached", "-M", "--numstat", "-z").split(b"\0")
        counts = {tuple(item.split(b"\t")[:2]) for item in stat if b"\t" in item}
        ours = {(str(file.added).encode(), str(file.deleted).encode()) for file in patch.files if not file.binary}
        assert ours == counts - {(b"-", b"-")}


@given(st.binary(max_size=400))
def test_any_bytes_give_an_answer(data: bytes) -> None:
    patch = parse_patch(data)
    for file in patch.files:
        list(patch.rows(file))


_LINE = st.binary(max_size=30).filter(lambda line: b"\n" not in line)
_PIECE = st.sampled_from(
    [b"diff --git a/x b/x", b"--- a/x", b"+++ b/x", b"@@ -1,2 +1,2 @@", b"GIT binary patch", b"index 1..2"]
)


@given(st.lists(st.one_of(_PIECE, _LINE.map(lambda line: b"+" + line), _LINE), max_size=30))
def test_every_line_is_shown_or_is_a_header_or_is_a_problem(lines: list[bytes]) -> None:
    data = b"\n".join(lines)
    patch = parse_patch(data)
    shown = sum(hunk.end - hunk.start for file in patch.files for hunk in file.hunks)
    problems = patch.problems + [problem for file in patch.files for problem in file.problems]
    headers = (
        b"diff --git ",
        b"--- ",
        b"+++ ",
        b"@@ ",
        b"GIT binary patch",
        b"index ",
        b"old ",
        b"new ",
        b"similarity",
    )
    unread = [line for line in lines if line and not line.startswith(headers)]
    if unread and not problems and not any(file.binary for file in patch.files):
        assert shown >= len(unread)


@settings(max_examples=60)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), max_size=40),
        min_size=1,
        max_size=20,
    )
)
def test_shown_text_is_the_text_with_hidden_characters_written_out(lines: list[str]) -> None:
    patch = parse_patch(patch_for("src/a.py", lines))
    assert patch.files[0].added == len(lines)
    for line, row in zip(lines, [row for row in patch.rows(patch.files[0]) if row.kind == "add"], strict=True):
        stretches = [Part("text", row.content)] if isinstance(row.content, str) else row.content
        back = "".join(chr(int(part.text[3:-1], 16)) if part.kind == "hidden" else part.text for part in stretches)
        assert back == line


@given(st.text(max_size=40))
def test_the_quick_look_never_misses_a_hidden_character(text: str) -> None:
    assert may_hide(text) or not find_hidden(text)


def test_the_quick_look_knows_every_character_that_hides() -> None:
    for point in range(0x110000):
        char = chr(point)
        if not may_hide(char):
            assert not find_hidden(char), hex(point)
            assert not find_hidden("a" + char + "b"), hex(point)


@given(st.text(max_size=60))
def test_marked_text_always_encodes(text: str) -> None:
    found = parts(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    "".join(part.text for part in ([Part("text", found)] if isinstance(found, str) else found)).encode("utf-8")


def test_mixed_words_are_marked_and_honest_scripts_are_not() -> None:
    assert parts("раypal")[0].kind == "mixed"  # type: ignore[union-attr]
    for honest in ("привет мир", "größe = 1", "naïve", "日本語 text", "Łukasz", "µs", "Ελλάδα"):
        assert parts(honest) == honest
    assert scripts_note("jan\u0435") == "Latin + Cyrillic letters"
    assert scripts_note("привет") == "Cyrillic letters"


def test_no_script_makes_marking_slow() -> None:
    data = patch_for("src/a.txt", ["漢字仮名交じり文" * 20 + "е"] * 10_000)
    start = time.process_time()
    patch = parse_patch(data)
    assert sum(1 for _ in patch.rows(patch.files[0])) == 10_001
    assert time.process_time() - start < 2.5


def test_many_files_are_all_listed_and_the_page_stays_bounded() -> None:
    count = 3_500
    patch = b"".join(patch_for(f"src/f{number}.py", ["a", "b"]) for number in range(count))
    view = sample_view(RUN, patch=patch, changed_files=tuple(f"src/f{number}.py" for number in range(count)))
    change = change_of(view)
    assert len(change.files) == len(change.touched) == count
    assert sum(item.file.length for item in change.files if item.rows is not None) <= AUTO_PAGE_LINES
    left = change.not_shown(change.shown)
    assert left
    assert change_of(view, expand_all=True).not_shown(set()) == change_of(view, expand_all=True).files
    assert not change_of(view, expand_all=True).not_shown(change_of(view, expand_all=True).shown)


def test_a_file_beyond_every_page_can_only_be_reviewed_elsewhere() -> None:
    view = sample_view(RUN, patch=patch_for("src/a.py", ["x"] * (PAGE_LINES + 1)), changed_files=("src/a.py",))
    change = change_of(view, {0}, expand_all=True)
    assert change.shown == set()
    assert not change.files[0].can_expand


def test_a_minified_line_is_not_shown_at_once() -> None:
    view = sample_view(RUN, patch=patch_for("src/a.js", ["x" * 5000]), changed_files=("src/a.js",))
    assert change_of(view).files[0].why == "a line of 5001 bytes"
    assert change_of(view, {0}).shown == {0}
