"""Bounds narrow a scope and never widen it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule.core.model import Bound, Scope
from vestibule.core.text.globs import ImpossibleGlob, check_given_glob, matches

GLOBS = st.lists(
    st.sampled_from(["**", "src/**", "src/a.py", "src/app/**", "tests/*.py", "docs/**", "*.md", "infra/{a,b}/**"]),
    max_size=3,
).map(tuple)
PATHS = st.sampled_from(
    ["src/a.py", "src/app/x.py", "tests/t.py", "docs/d.md", "README.md", "infra/a/x", "infra/c/x", "other/y"]
)


@given(GLOBS, GLOBS, GLOBS, GLOBS, PATHS)
def test_what_a_ticket_names_only_ever_narrows(
    read: tuple[str, ...], write: tuple[str, ...], above: tuple[str, ...], files: tuple[str, ...], path: str
) -> None:
    wide = Scope(read=read, write=write, bounds=(Bound(by="organisation", read=above, write=above),))
    narrow = wide.within(files)
    assert not narrow.reads(path) or wide.reads(path)
    assert not narrow.writes(path) or wide.writes(path)
    assert narrow.within(files) == narrow
    if not files:
        assert narrow == wide


def test_a_scope_within_files_reads_and_writes_those_only() -> None:
    scope = Scope(read=("src/**", "docs/**"), write=("src/**",)).within(("src/app/**", "infra/**"))
    assert [scope.reads(path) for path in ("src/app/a.py", "src/b.py", "docs/d.md", "infra/x")] == [
        True,
        False,
        False,
        False,
    ]
    assert (scope.writes("src/app/a.py"), scope.writes("src/b.py"), scope.writes("infra/x")) == (True, False, False)


@pytest.mark.parametrize(
    "pattern", ["**/a/**/b", "**/**/**/x", "{a,b}/{c,d}", "src/" + "*a" * 20, "[a][b][c][d]" * 5, "../x", "/x"]
)
def test_a_glob_that_a_ticket_or_an_agent_wrote_must_end_soon(pattern: str) -> None:
    with pytest.raises(ImpossibleGlob):
        check_given_glob(pattern)


@pytest.mark.parametrize("pattern", ["src/**", "src/**/tests/**", "**/*.py", "{a,b}/*.c", "docs/*-*.md"])
def test_plain_globs_of_a_ticket_are_taken_and_quick(pattern: str) -> None:
    check_given_glob(pattern)
    began = time.perf_counter()
    for path in ("a/" * 2000 + "x", "src/" * 1000 + "a" * 200, "docs/" + "-" * 250):
        matches(path, pattern)
    assert time.perf_counter() - began < 1
