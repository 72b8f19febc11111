"""What CI runs is as protected as what configures it."""

from __future__ import annotations

from pathlib import Path

from changes_repos import commit, new_repo
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.boundary.changes.changeset import read_changeset
from vestibule.boundary.changes.guards import GuardContext
from vestibule.boundary.changes.reachable import references
from vestibule.boundary.changes.rules import examine
from vestibule.git import Git

WORKFLOW = b"""on: push
jobs:
  a:
    steps:
      - uses: ./tools/action
      - run: bash ./scripts/ci/build.sh
      - run: python scripts/gen.py --out x
      - run: pytest tests/test_a.py src/app.py docs/a.md
      - working-directory: sub/dir
        run: ./inner.sh
"""
FILES: dict[str, bytes | None] = {
    ".github/workflows/ci.yml": WORKFLOW,
    "scripts/ci/build.sh": b'#!/bin/sh\n. "$(dirname $0)/common.sh"\n../../lib/deep.sh\n',
    "scripts/ci/common.sh": b"true\n",
    "lib/deep.sh": b"true\n",
    "scripts/gen.py": b"x = 1\n",
    "scripts/unused.sh": b"true\n",
    "sub/dir/inner.sh": b"true\n",
    "tools/action/action.yml": b"runs: {using: node20, main: index.js}\n",
    "tools/action/index.js": b"x\n",
    "src/app.py": b"x = 1\n",
    "tests/test_a.py": b"x = 1\n",
    "docs/a.md": b"x\n",
}


def test_scripts_that_ci_runs_directly_or_in_turn_are_refused(tmp_path: Path) -> None:
    folder = new_repo(tmp_path / "r")
    base = commit(folder, FILES)
    head = commit(folder, {name: (data or b"") + b"# more\n" for name, data in FILES.items() if "github" not in name})
    items = examine(read_changeset(Git.open(folder), base, head), GuardContext(write=("**",)))
    found = {f.place.path: f.verdict.value for f in items if f.rule == "change.ci_script" and f.place}
    assert found == {
        "scripts/ci/build.sh": "deny",
        "scripts/ci/common.sh": "deny",
        "lib/deep.sh": "deny",
        "scripts/gen.py": "deny",
        "sub/dir/inner.sh": "deny",
        "tools/action/index.js": "deny",
        "src/app.py": "hold",
    }


def test_a_new_file_at_a_place_that_ci_already_calls_is_refused(tmp_path: Path) -> None:
    folder = new_repo(tmp_path / "r")
    base = commit(folder, {name: data for name, data in FILES.items() if name != "scripts/ci/build.sh"})
    head = commit(folder, {"scripts/ci/build.sh": b"curl x\n"})
    items = examine(read_changeset(Git.open(folder), base, head), GuardContext(write=("**",)))
    assert "change.ci_script" in {f.rule for f in items}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_text_names_only_files_of_the_tree(text: bytes) -> None:
    tree = {b"a/b.sh": "1", b"c.py": "2"}
    assert references(text, b"a", tree) <= set(tree)
