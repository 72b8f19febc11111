"""The way of results: a real repository, its view, the export, the commit, the guards, and people's git after it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.attacks.walls.inside.names import CONTROL_FILES, STARTED_BY_PEOPLE
from tests.attacks.walls.outside import Outside
from vestibule.boundary.changes.apply import apply_export
from vestibule.boundary.changes.changeset import display, read_changeset
from vestibule.boundary.changes.export import export_workspace
from vestibule.boundary.changes.guards import GuardContext
from vestibule.boundary.changes.rules import examine
from vestibule.core.ids import Sha
from vestibule.core.model import Scope
from vestibule.core.verdict import Ruling
from vestibule.core.view import View
from vestibule.git import Git
from vestibule.sandbox.removal import remove_tree
from vestibule.sandbox.view import materialise, project

_FILES = {"src/a.py": "print('a')\n", "README.md": "hello\n", "src/special/keep": "x\n"}
SCOPE = Scope(read=("**",), write=("**",), max_files=500, max_lines=100_000)


def workspace(work: Path, uid: int | None) -> tuple[Path, View, Sha]:
    """A fresh repository and a workspace with its view, owned by `uid`."""
    repo = work / "repo"
    repo.mkdir(parents=True)
    for name, text in _FILES.items():
        path = repo / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for argv in (["init", "-q", "-b", "main"], ["add", "-A"], [*_WHO, "commit", "-q", "-m", "base"]):
        subprocess.run(["git", *argv], cwd=repo, check=True, capture_output=True)
    git = Git.open(repo)
    base = git.commit_of("main")
    assert base is not None
    view = project(git, base, SCOPE)
    folder = work / "workspace"
    materialise(git, view, folder, uid=uid)
    for path in (work, work.parent):
        path.chmod(0o755)
    return folder, view, base


_WHO = ["-c", "user.name=A Person", "-c", "user.email=person@example.com"]


def collect(outside: Outside, work: Path, folder: Path, view: View, base: Sha) -> dict[str, list[str]]:
    """What the results did, case → what went wrong. Marks of programs that ran are left for `Outside.changed`."""
    export = export_workspace(folder, view)
    clone = Git.init(work / "result.git", bare=True)
    clone.fetch_commit(Git.open(work / "repo"), base)
    applied = apply_export(export, clone, base, message="result", time="2026-01-01T00:00:00Z")
    changes = read_changeset(clone, base, applied.commit)
    findings = [*examine(changes, GuardContext.of_scope(SCOPE)), *applied.findings]
    problems: dict[str, list[str]] = {}
    flagged = {item.place.path for item in findings if item.place is not None and item.verdict is not Ruling.ALLOW}
    for case, names in {"F11": CONTROL_FILES, "F12": STARTED_BY_PEOPLE}.items():
        loose = [name for name in names if name in applied.files and name not in flagged]
        if loose:
            problems[case] = [f"left without a finding: {', '.join(loose)}"]
    special = [item.path for item in export.files if item.path.startswith("src/special/") and item.status != "deleted"]
    if special:
        problems["F16"] = [f"left: {', '.join(special)}"]
    told = [*(item.path for item in export.files), *(path for path, _ in export.dropped)]
    shown = [display(name.encode("utf-8", "surrogateescape")) for name in told]
    steering = [text for text in shown if any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text)]
    if steering:
        problems["F18"] = [f"shown as it is: {steering[0]!r}"]
    secret = [item.path for item in export.files if item.content and outside.token.encode() in item.content]
    if secret:
        problems["F02"] = [f"a secret left in {secret[0]}"]
    _people(work, applied.commit)
    return problems


def _people(work: Path, commit: str) -> None:
    """What a person's git does with the result: whatever it starts leaves a mark."""
    work.joinpath("result.git").chmod(0o755)
    result = Git(work / "result.git")
    result.run(["update-ref", "refs/heads/result", commit])
    clone = work / "person"
    environment = {
        **os.environ,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
    }
    subprocess.run(
        ["git", "clone", "-q", "--no-checkout", str(work / "result.git"), str(clone)],
        check=True,
        capture_output=True,
        env=environment,
    )
    for argv in (
        ["checkout", "-q", "result"],
        ["status"],
        ["diff", "HEAD~1"],
        ["submodule", "update", "--init"],
        [*_WHO, "commit", "-q", "--allow-empty", "-m", "x"],
        ["merge", "-q", "HEAD~1"],
    ):
        subprocess.run(["git", *argv], cwd=clone, check=False, capture_output=True, env=environment, timeout=20)
    ours = Git.open(clone)
    head = ours.commit_of("HEAD")
    assert head is not None
    project(ours, head, SCOPE)
    ours.run(["status", "--porcelain"])


def remove(work: Path) -> None:
    """Nothing of it stays."""
    for name in ("workspace", "repo", "result.git", "person", "control"):
        path = work / name
        if path.exists():
            remove_tree(path) if name == "workspace" else shutil.rmtree(path)
