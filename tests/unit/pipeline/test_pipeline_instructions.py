"""Trusted instructions are the base commit's, whatever lies in working trees and later commits."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.attacks.control_world import git

from vestibule.core.labels import Integrity, LabelRule
from vestibule.core.model import Scope
from vestibule.git import Git
from vestibule.pipeline.instructions import READ_BYTES, as_details, instructions_of, label_of_all

SCOPE = Scope(read=("src/**",), write=("src/**",))


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    (folder / "src").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "src" / "app.py").write_text("x = 1\n")
    (folder / "AGENTS.md").write_text("Base words.\n")
    (folder / "src" / "CLAUDE.md").write_text("Deeper words.\u202e\n")
    (folder / "GEMINI.md").symlink_to("src/app.py")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Base")
    return folder


def _texts(repo: Path, commit: str, scope: Scope = SCOPE) -> dict[str, str]:
    return {item.path: item.text for item in instructions_of(Git.open(repo), commit, scope)}


def test_the_base_commits_texts_are_given_and_no_others(repo: Path) -> None:
    base = git(repo, "rev-parse", "HEAD")
    (repo / "AGENTS.md").write_text("Words of a working tree.\n")
    (repo / "CLAUDE.md").write_text("New words of a working tree.\n")
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", "Later")
    (repo / "QWEN.md").write_text("Uncommitted.\n")
    found = _texts(repo, base)
    assert found == {"AGENTS.md": "Base words.\n", "src/CLAUDE.md": "Deeper words.⟦U+202E⟧\n"}
    assert _texts(repo, git(repo, "rev-parse", "HEAD"))["AGENTS.md"] == "Words of a working tree.\n"


def test_huge_files_and_files_without_text_are_none(repo: Path) -> None:
    (repo / "AGENTS.md").write_bytes(b"a" * (READ_BYTES + 1))
    (repo / "src" / "CLAUDE.md").write_bytes(b"\xff\xfe")
    (repo / "CLAUDE.md").write_bytes(b"")
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", "Odd")
    assert _texts(repo, "HEAD") == {}


def test_what_was_told_is_recorded_without_its_text_and_with_its_label(repo: Path) -> None:
    rule = LabelRule(paths=("AGENTS.md",), integrity=Integrity.OPERATOR)
    found = instructions_of(
        Git.open(repo), git(repo, "rev-parse", "HEAD"), SCOPE.model_copy(update={"labels": (rule,)})
    )
    details = as_details(found)
    assert [item["path"] for item in details] == ["AGENTS.md", "src/CLAUDE.md"]
    assert all(item["digest"].startswith("sha256:") for item in details)
    assert "words" not in str(details)
    assert label_of_all(found).integrity is Integrity.MEMBER
    assert label_of_all(()).integrity is Integrity.OPERATOR
