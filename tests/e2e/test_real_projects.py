"""Useful work on real projects without any model, and the check of a real history."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import House
from tests.e2e.projects import CACHETOOLS, ROOT, adopt, missing, python_prefix, python_with, source_tree
from vestibule.boundary.changes.changeset import read_changeset
from vestibule.boundary.changes.guards import GuardContext
from vestibule.boundary.changes.rules import examine, ruling
from vestibule.config.load import shipped_role
from vestibule.git import Git

CONFIG = """\
version: 1
roles:
  janitor:
    read: ["**"]
    write: ["cachetools/**", "tests/**"]
    budget: {minutes: 2}
gates:
  review: {self_approval: recorded, expires: 1d}
verify:
  commands:
    - [ruff, check, --no-cache, --select, "UP004,UP008,I", cachetools, tests]
    - [pytest, -q, -p, "no:cacheprovider", tests]
"""

RUFF = ("ruff", "check", "--no-cache", "--fix", "--select", "UP004,UP008,I", "cachetools", "tests", "setup.py")
COMMITS = 50


@pytest.mark.slow
def test_a_linter_repairs_a_real_project_without_any_model(
    make_house: Callable[..., House], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = tmp_path_factory.mktemp("made")
    made.chmod(0o755)
    python = python_with(made / "python", "pytest", "ruff")
    house = make_house()
    shutil.rmtree(house.repo)
    house.repo.mkdir()
    house.git("init", "-q", "-b", "main")
    adopt(house, source_tree(CACHETOOLS, made), CONFIG)
    house.operator.write_text(
        yaml.safe_dump({"version": 1, "sandbox": {"tools": [str(python), *python_prefix()]}}), "utf-8"
    )
    ticket = house.ticket("# Old-fashioned Python\n\nClasses inherit from `object`; imports are unsorted. Modernise.\n")

    done = house.run("--agent", "command", "--", *RUFF, ticket=ticket)
    assert done.code == 3, (done.err, done.out[-3000:])
    run = done.json
    assert run["usage"] == dict.fromkeys(run["usage"], 0)
    assert len(run["changed_files"]) >= 3
    assert all(path.startswith(("cachetools/", "tests/")) for path in run["changed_files"])
    assert run["dropped"] == []
    patch = house.git("diff", run["base_commit"], run["head_commit"])
    assert "-class _DefaultSize(object):" in patch
    assert "+class _DefaultSize:" in patch

    done = house.vestibule("review", run["run"], "--approve", "--reason", "Mechanical, and the tests pass.", "--json")
    assert done.code == 0, (done.err, done.out[-3000:])
    assert done.json["state"] == "merged"
    assert len([event for event in done.json["events"] if event["action"] == "verify.command"]) >= 2
    assert "(object)" not in (house.repo / "cachetools/cache.py").read_text()


def _history() -> tuple[Path, list[tuple[str, str]]]:
    """This project's own repository and its last commits with their first parents, newest first."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        missing("This checkout has no history")
    top = Path(done.stdout.strip())
    listing = subprocess.run(
        ["git", "-C", str(top), "rev-list", "--first-parent", "--parents", f"--max-count={COMMITS}", "HEAD"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = [line.split() for line in listing.splitlines()]
    # A root, or the edge of a shallow clone, has no parent to compare with.
    pairs = [(row[1], row[0]) for row in rows if len(row) > 1]
    if not pairs:
        missing("This clone holds one commit only; fetch the history")
    return top, pairs


def _cpu() -> float:
    """Seconds of processor time of this process and of its ended children."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(item.ru_utime + item.ru_stime for item in spent)


def test_check_judges_a_real_history_in_under_a_second_a_commit() -> None:
    top, pairs = _history()
    git = Git.open(top)
    rights = shipped_role()
    context = GuardContext(write=rights.write, read=rights.read)
    spent, verdicts, files = [], [], 0
    for base, head in pairs:
        before = _cpu()
        changes = read_changeset(git, base, head)
        findings = examine(changes, context)
        spent.append(_cpu() - before)
        verdicts.append(ruling(findings).value)
        files += len(changes.files)
    counts = {verdict: verdicts.count(verdict) for verdict in ("allow", "hold", "deny")}
    print(
        f"\ncheck of {len(pairs)} commits, {files} changed files: {counts}; processor time a commit: "
        f"mean {sum(spent) / len(spent) * 1000:.0f} ms, most {max(spent) * 1000:.0f} ms"
    )
    assert max(spent) < 1.0
    assert sum(counts.values()) == len(pairs)


def test_check_command_judges_commits_of_a_real_history() -> None:
    top, pairs = _history()
    vestibule = str(Path(sys.executable).with_name("vestibule"))
    for base, head in pairs[:: max(1, len(pairs) // 3)][:3]:
        before, began = _cpu(), time.monotonic()
        done = subprocess.run(
            [vestibule, "check", "--repo", str(top), "--base", base, "--head", head, "--json"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        took, wall = _cpu() - before, time.monotonic() - began
        assert done.returncode in (0, 3, 4), done.stderr
        found = json.loads(done.stdout)
        assert {0: "allow", 3: "hold", 4: "deny"}[done.returncode] == found["verdict"]
        assert found["head_commit"] == head
        assert "Traceback" not in done.stderr
        print(f"\ncheck {head[:10]}: {found['verdict']}, {took * 1000:.0f} ms of processor time, {wall * 1000:.0f} ms")
        assert took < 1.0
