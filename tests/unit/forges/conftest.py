"""Fixtures: a change proposed in a bare repository, in a working clone, or in each."""

from __future__ import annotations

from pathlib import Path

import pytest
from forge_repos import Change, make_change


@pytest.fixture(params=["working", "bare"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def change(tmp_path: Path, kind: str) -> Change:
    return make_change(tmp_path, kind)


@pytest.fixture
def clone(tmp_path: Path) -> Change:
    """In a working clone with `main` checked out."""
    return make_change(tmp_path)
