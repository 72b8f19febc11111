"""The one list of agent-control files: every entry works, in any case and place, for links in place of folders too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.hostile import Planted, every_path, examples, in_another_case

from vestibule.core.control_files import CONTROL_FILES, PROTECTED, control_file, control_link, protected_path
from vestibule.core.text.globs import first_match
from vestibule.core.text.paths import fold, normalise_path


@pytest.mark.parametrize("pattern", CONTROL_FILES)
def test_every_entry_is_found_in_any_case_and_place(pattern: str) -> None:
    found = list(examples(pattern))
    assert found
    for path in found:
        assert normalise_path(path) == path
        for text in (path, in_another_case(path), path.upper()):
            assert control_file(text), text
            assert protected_path(text), text


@pytest.mark.parametrize("pattern", CONTROL_FILES)
def test_a_link_in_place_of_a_control_folder_is_neither_shown_nor_written(pattern: str) -> None:
    """Else `.agents -> src/mine` would put a folder of the agent's own where programs look."""
    for path in examples(pattern):
        parts = path.split("/")
        hidden = [n for n, part in enumerate(parts) if part.startswith(".") or (n and parts[n - 1] == ".github")]
        for number in hidden:
            folder = "/".join(parts[: number + 1])
            assert control_link(folder), folder
            assert protected_path(folder), folder


def test_entries_are_written_folded_and_once() -> None:
    entries = (*CONTROL_FILES, *PROTECTED)
    assert [entry for entry in entries if fold(entry) != entry] == []
    assert len(entries) == len(set(entries))


@given(st.sampled_from(every_path()), st.text(alphabet="abc./-", max_size=8))
def test_the_short_cut_never_misses_what_the_patterns_match(path: str, more: str) -> None:
    for text in (path, path + more, more + path, path.replace("a", more)):
        assert control_file(text) == first_match(fold(text), CONTROL_FILES)


@pytest.mark.parametrize(
    "path",
    [
        "README.md",
        "docs/codex.md",
        "docs/warp.md",
        ".gitignore",
        ".dockerignore",
        ".editorconfig",
        ".github/workflows/ci.yml",
        "src/agents/base.py",
        "src/claude.py",
        "rules/x.md",
        "src/mcp/server.json",
    ],
)
def test_ordinary_files_are_shown(path: str) -> None:
    assert control_file(path) is None


def test_what_tests_plant_is_on_the_list_and_every_word_is_its_own() -> None:
    planted = Planted("/tmp/mark")
    assert [path for path in planted.files if control_file(path) is None] == []
    assert [path for path in planted.ordinary if control_file(path) is not None] == []
    assert len(planted.canaries) == len(set(planted.canaries)) >= len(CONTROL_FILES)
    folders = {path.rpartition("/")[0] for path in planted.files}
    assert not folders & set(planted.files)
