"""The patch parser: strict, exact, and in agreement with git."""

from __future__ import annotations

import difflib
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.boundary.context.wire.patch import BadPatch, DoesNotApply, FilePatch, parse_patch

LINE = st.text(st.sampled_from("ab \t-+@\\\r"), max_size=3)
LINES = st.lists(LINE, max_size=12)


def diff(old: list[str], new: list[str], *, context: int, ended: bool = True) -> str:
    """A unified diff of one file, made by the standard library, with git's marker for a missing line feed."""
    a = [line + "\n" for line in old]
    b = [line + "\n" for line in new]
    if not ended:
        a, b = _unended(a), _unended(b)
    out = []
    for line in difflib.unified_diff(a, b, "a/f" if a else "/dev/null", "b/f" if b else "/dev/null", n=context):
        out.append(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n")
    return "".join(out)


def _unended(lines: list[str]) -> list[str]:
    return [*lines[:-1], lines[-1][:-1]] if lines and lines[-1] != "\n" else lines


@settings(max_examples=300, deadline=None)
@given(old=LINES, new=LINES, context=st.integers(0, 4), ended=st.booleans())
def test_a_diff_takes_the_old_text_to_the_new(old: list[str], new: list[str], context: int, ended: bool) -> None:
    patch = diff(old, new, context=context, ended=ended)
    if not patch:
        return
    before, after = "".join(f"{x}\n" for x in old), "".join(f"{x}\n" for x in new)
    if not ended:
        before = "".join(_unended([f"{x}\n" for x in old]))
        after = "".join(_unended([f"{x}\n" for x in new]))
    (found,) = parse_patch(patch)
    got = found.apply(before.encode() if old else None)
    assert (got or b"") == after.encode()
    assert found.path == "f"


@settings(max_examples=200, deadline=None)
@given(old=LINES, new=LINES, above=st.lists(st.sampled_from("xyz"), max_size=5))
def test_lines_added_above_move_the_hunks_along(old: list[str], new: list[str], above: list[str]) -> None:
    if not old or not new or old == new:
        return
    (found,) = parse_patch(diff(old, new, context=20))
    head = "".join(f"{x}\n" for x in above)
    before = head + "".join(f"{x}\n" for x in old)
    try:
        got = found.apply(before.encode())
    except DoesNotApply:
        return  # the old lines stand twice: guessing would be wrong
    assert got == (head + "".join(f"{x}\n" for x in new)).encode()


@settings(max_examples=500, deadline=None)
@given(st.text(st.sampled_from('-+@ ,0123ab/\\\n\r"dev/null'), max_size=120), st.binary(max_size=60))
def test_any_text_is_parsed_or_refused_with_a_sentence(text: str, before: bytes) -> None:
    for prefix in (
        "",
        "--- a/f\n+++ b/f\n",
        "--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n",
        "--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n",
    ):
        try:
            files = parse_patch(prefix + text)
        except BadPatch as error:
            assert str(error)  # noqa: PT017 - either is fine
            continue
        for item in files:
            try:
                item.apply(before)
            except DoesNotApply as error:
                assert str(error)  # noqa: PT017


@settings(max_examples=40, deadline=None)
@given(
    old=st.lists(st.sampled_from("abcd"), min_size=1, max_size=10),
    new=st.lists(st.sampled_from("abxy"), min_size=1, max_size=10),
)
def test_git_reads_a_diff_the_same_way(
    tmp_path_factory: pytest.TempPathFactory, old: list[str], new: list[str]
) -> None:
    if old == new:
        return
    folder = tmp_path_factory.mktemp("git")
    for name, lines in (("a", old), ("b", new)):
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    made = subprocess.run(
        ["git", "diff", "--no-index", "--no-ext-diff", "--no-color", "a", "b"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "PATH": "/usr/bin:/bin"},
    ).stdout
    patch = made.replace("--- a/a", "--- a/f").replace("+++ b/b", "+++ b/f")
    (found,) = parse_patch(patch)
    assert found.apply((folder / "a").read_bytes()) == (folder / "b").read_bytes()


REFUSED = {
    "rename": "diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to y\n",
    "two names": "--- a/x\n+++ b/y\n@@ -1 +1 @@\n-a\n+b\n",
    "symlink": "diff --git a/x b/x\nnew file mode 120000\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+/etc/passwd\n",
    "submodule": "diff --git a/x b/x\nnew file mode 160000\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+0\n",
    "setuid": "new file mode 104755\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+x\n",
    "mode change": "diff --git a/x b/x\nold mode 100644\nnew mode 100755\n",
    "binary": "diff --git a/x b/x\nindex 0000000..1111111\nGIT binary patch\nliteral 1\n",
    "mode of nothing new": "new file mode 100644\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n",
    "nowhere": "--- /dev/null\n+++ /dev/null\n@@ -0,0 +1 @@\n+x\n",
    "no hunks": "--- a/x\n+++ b/x\n",
    "no new name": "--- a/x\n",
    "empty name": "--- a/\n+++ b/\n@@ -1 +1 @@\n-a\n+b\n",
    "quote left open": '--- "a/x\n+++ b/x\n',
    "unknown escape": '--- "a/\\q"\n+++ "b/\\q"\n@@ -1 +1 @@\n-a\n+b\n',
    "counts too small": "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n-b\n+c\n",
    "counts too large": "--- a/x\n+++ b/x\n@@ -1,3 +1 @@\n-a\n+c\n",
    "new file with old lines": "--- /dev/null\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n",
    "deleted file with new lines": "--- a/x\n+++ /dev/null\n@@ -1 +1 @@\n-a\n+b\n",
    "two hunks of a new file": "--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+a\n@@ -0,0 +1 @@\n+b\n",
    "empty": "\n\n",
    "other format": "*** Begin Patch\n*** Update File: x\n*** End Patch\n",
    "no feed in the middle": "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-a\n\\ No newline at end of file\n-b\n+c\n+d\n",
}


@pytest.mark.parametrize("patch", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_plain_change_of_text_is_refused(patch: str) -> None:
    with pytest.raises(BadPatch):
        parse_patch(patch)


def test_names_are_read_as_git_writes_them() -> None:
    hunk = "@@ -1 +1 @@\n-a\n+b\n"
    for written, name in (
        ("a/src/with space.py", "src/with space.py"),
        ('"a/caf\\303\\251.py"', "café.py"),
        ("a/x.py\t2026-01-01 00:00:00", "x.py"),
        ('"a/\\056\\056/x"', "../x"),
        ("src/no prefix.py", "src/no prefix.py"),
    ):
        new = written.replace("a/", "b/", 1)
        assert parse_patch(f"--- {written}\n+++ {new}\n{hunk}")[0].path == name


def test_executable_files_can_be_added() -> None:
    (found,) = parse_patch("new file mode 100755\n--- /dev/null\n+++ b/x.sh\n@@ -0,0 +1 @@\n+x\n")
    assert found == FilePatch("x.sh", "add", found.hunks, executable=True)


def test_hunk_that_fits_two_places_is_not_guessed() -> None:
    (found,) = parse_patch("--- a/x\n+++ b/x\n@@ -9 +9 @@\n-same\n+other\n")
    with pytest.raises(DoesNotApply, match="several places"):
        found.apply(b"same\nx\nsame\n")
    assert found.apply(b"x\nsame\n") == b"x\nother\n"


def test_crlf_and_odd_bytes_stay_as_they_are() -> None:
    (found,) = parse_patch("--- a/x\n+++ b/x\n@@ -2 +2 @@\n-b\r\n+c\r\n")
    assert found.apply(b"\xff\xfe\r\nb\r\nlone\rreturn\n") == b"\xff\xfe\r\nc\r\nlone\rreturn\n"


def test_placing_takes_linear_time() -> None:
    """A hunk of many equal lines in a file of many equal lines, at no place: quadratic work would take minutes."""
    old = "".join("-a\n" for _ in range(20_000)) + "-b\n"
    (found,) = parse_patch(f"--- a/x\n+++ b/x\n@@ -1,20001 +1 @@\n{old}+c\n")
    with pytest.raises(DoesNotApply):
        found.apply(b"a\n" * 1_000_000)
