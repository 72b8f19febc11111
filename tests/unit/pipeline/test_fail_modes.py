"""The fail-mode table is complete and true: each row denies, and names a test that is there."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from vestibule.boundary.context.limits import ContextLimits
from vestibule.boundary.context.rights import Rights
from vestibule.boundary.context.search import search
from vestibule.boundary.context.texts import Texts
from vestibule.boundary.context.tree import Tree
from vestibule.boundary.context.workspace import Workspace
from vestibule.core.errors import DependencyDown
from vestibule.core.model import Scope
from vestibule.pipeline.fail_modes import FAIL_MODES

ROOT = Path(__file__).resolve().parents[3]
NAMED = re.compile(r"DependencyDown\(\s*\"([a-z0-9_-]+)\"")


@cache
def collected(file: str) -> frozenset[str]:
    """Names of the tests of a file, as pytest would collect them."""
    found = set()
    for node in ast.parse((ROOT / file).read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            found.add(node.name)
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            found |= {f"{node.name}::{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return frozenset(found)


@pytest.mark.parametrize("row", FAIL_MODES, ids=lambda row: f"{row.guard}: {row.depends_on}")
def test_every_row_denies_and_names_a_test_that_is_there(row: object) -> None:
    assert row.when_broken == "deny"  # type: ignore[attr-defined]
    assert row.reason  # type: ignore[attr-defined]
    file, _, name = row.tested_by.partition("::")  # type: ignore[attr-defined]
    assert (ROOT / file).is_file(), file
    assert name in collected(file), name


def test_no_row_is_there_twice() -> None:
    keys = [(row.guard, row.depends_on) for row in FAIL_MODES]
    assert len(set(keys)) == len(keys)


def test_every_dependency_that_the_code_can_report_has_a_row() -> None:
    """A new `DependencyDown` without a row, and so without a test that breaks it, is found here."""
    reported = set()
    for path in (ROOT / "src" / "vestibule").rglob("*.py"):
        reported |= set(NAMED.findall(path.read_text("utf-8")))
    told = {row.reason.removeprefix("dependency.") for row in FAIL_MODES}
    processes = {"process"}
    """`cancel` that cannot stop a process: nothing is let through."""
    assert reported - told - processes == set()


def test_search_without_its_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text("one\n")
    files = Workspace(tmp_path)

    def broken(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    limits = ContextLimits()
    texts = Texts(files, Tree(files, Rights(Scope(read=("**",), write=()))), limits)
    monkeypatch.setattr(subprocess, "Popen", broken)
    with pytest.raises(DependencyDown) as caught:
        search(texts, "o.e", regex=True, limits=limits)
    assert caught.value.name == "search"
    files.close()
