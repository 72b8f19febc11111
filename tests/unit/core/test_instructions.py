"""Which texts of the base commit are instructions, and in which form they are given."""

from __future__ import annotations

import pytest

from vestibule.core.instructions import MAX_INSTRUCTION_BYTES, MAX_INSTRUCTIONS, instruction, instruction_paths
from vestibule.core.labels import Integrity, LabelRule
from vestibule.core.model import Bound, Scope, ViewRule

COMMIT = "0" * 40


def scope(**more: object) -> Scope:
    return Scope.model_validate({"read": ("src/app/**",), "write": ("src/app/**",), **more})


def found(*paths: str, given: Scope | None = None, mode: str = "100644") -> tuple[str, ...]:
    return instruction_paths([(path, mode) for path in (*paths, "src/app/a.py")], given or scope())


def test_root_and_the_folders_of_the_scope_give_instructions_and_other_folders_do_not() -> None:
    assert found("src/app/AGENTS.md", "CLAUDE.md", "src/CLAUDE.md", "infra/AGENTS.md", "src/other/GEMINI.md") == (
        "CLAUDE.md",
        "src/CLAUDE.md",
        "src/app/AGENTS.md",
    )


@pytest.mark.parametrize(
    "path", ["AGENTS.md", "agents.md", "CLAUDE.md", "GEMINI.md", ".github/copilot-instructions.md", "CONTRIBUTING.md"]
)
def test_known_names_are_instructions_though_no_scope_reads_them(path: str) -> None:
    assert not scope().reads(path)
    assert found(path) == (path,)


@pytest.mark.parametrize("path", ["README.md", "AGENTS.md.txt", ".claude/settings.json", "src/app/.mcp.json", "a.md"])
def test_settings_and_other_files_are_none(path: str) -> None:
    assert found(path) == ()


@pytest.mark.parametrize(
    "folder",
    [
        "node_modules/left-pad",
        "vendor/lib",
        "src/app/Third_Party/x",
        "tests/fixtures",
        "src/app/.venv/lib/site-packages/x",
    ],
)
def test_what_others_wrote_and_what_tests_quote_is_none(folder: str) -> None:
    wide = Scope(read=("**",), write=("**",))
    paths = [(f"{folder}/{name}", "100644") for name in ("AGENTS.md", "CLAUDE.md", "CONTRIBUTING.md", "code.py")]
    assert instruction_paths(paths, wide) == ()
    assert instruction_paths([("src/vendors/AGENTS.md", "100644")], wide) == ("src/vendors/AGENTS.md",)


def test_links_are_none() -> None:
    assert found("AGENTS.md", mode="120000") == ()


def test_what_is_beyond_the_organisations_bound_or_partly_hidden_or_by_outsiders_is_none() -> None:
    assert found("AGENTS.md", given=scope(bounds=(Bound(by="organisation", read=("src/**",)),))) == ()
    assert found("AGENTS.md", given=scope(bounds=(Bound(by="spec", read=("src/**",)),))) == ("AGENTS.md",)
    assert found("AGENTS.md", given=scope(views=(ViewRule(paths=("*.md",), show="redacted"),))) == ()
    outside = LabelRule(paths=("AGENTS.md",), integrity=Integrity.OUTSIDER)
    assert found("AGENTS.md", given=scope(labels=(outside,))) == ()


def test_number_and_size_are_bounded_and_a_cut_is_said() -> None:
    many = [f"src/app/d{number:02}/AGENTS.md" for number in range(40)]
    files = [(path, "100644") for path in (*many, "AGENTS.md")]
    assert len(instruction_paths(files, scope())) == MAX_INSTRUCTIONS
    assert instruction_paths(files, scope())[0] == "AGENTS.md"
    one = instruction("AGENTS.md", COMMIT, "ü".encode() * MAX_INSTRUCTION_BYTES, scope())
    assert one is not None
    assert len(one.text.encode()) < MAX_INSTRUCTION_BYTES + 100
    assert one.text.endswith(f"(cut after {MAX_INSTRUCTION_BYTES} of {2 * MAX_INSTRUCTION_BYTES} bytes)")


def test_hidden_characters_are_written_out_and_what_is_no_text_is_nothing() -> None:
    one = instruction("AGENTS.md", COMMIT, "Be kind\u202e.".encode(), scope())
    assert one is not None
    assert "⟦U+202E⟧" in one.text
    assert "\u202e" not in one.text
    for data in (b"", b" \n", b"\xff\xfe", b"a\0b"):
        assert instruction("AGENTS.md", COMMIT, data, scope()) is None
