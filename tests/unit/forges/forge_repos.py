"""Repositories of real git, and changes proposed in them."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from vestibule.core.model import Decision, GateBinding, Person
from vestibule.core.ports import CheckpointRef, MergeRequest
from vestibule.forges.git import GitForge

RUN = "r0123456789abcd"
TARGET = "refs/heads/main"
TIME = "2026-01-02T03:04:05.000Z"

ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_AUTHOR_NAME": "A Person",
    "GIT_AUTHOR_EMAIL": "person@example.com",
    "GIT_COMMITTER_NAME": "A Person",
    "GIT_COMMITTER_EMAIL": "person@example.com",
    "LC_ALL": "C.UTF-8",
}


def git(where: Path, *argv: str, ok: bool = True) -> str:
    """Plain git, as a person runs it: hooks and filters on."""
    done = subprocess.run(["git", "-C", str(where), *argv], env=ENV, capture_output=True, check=False)
    if ok and done.returncode:
        raise AssertionError(done.stderr.decode())
    return (done.stdout + (b"" if ok else done.stderr)).decode().strip()


@dataclass
class Change:
    """A repository with a proposed change in it."""

    place: Path
    forge: GitForge
    base: str
    head: str
    binding: GateBinding
    work: Path

    def request(self, **changes: object) -> MergeRequest:
        decision = Decision(
            id="d-1",
            gate="g-1",
            run=RUN,
            person=Person(id="local:alice", how="uid"),
            choice="approve",
            reason="looked at it",
            binding=self.binding,
            time=TIME,
        )
        values: dict[str, object] = {
            "run": RUN,
            "title": "Fix the thing",
            "binding": self.binding,
            "decisions": (decision,),
            "checkpoint": CheckpointRef(origin="example.com/log", size=7, root="AAAA"),
            "time": TIME,
            **changes,
        }
        return MergeRequest.model_validate(values)


FILES = {
    "src/a.py": b"old a\n",
    "src/b.py": b"old b\n",
    "deep/er/gone.txt": b"gone\n",
    "run.sh": b"#!/bin/sh\n",
    "name\nwith line": b"odd\n",
}


def commit_files(clone: Path, files: dict[str, bytes | None], message: str = "change") -> str:
    for name, content in files.items():
        path = clone / name
        if content is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    git(clone, "add", "-A")
    git(clone, "commit", "-q", "--allow-empty", "-m", message)
    return git(clone, "rev-parse", "HEAD")


EDITS: dict[str, bytes | None] = {
    "src/a.py": b"new a\n",
    "src/new/c.py": b"new c\n",
    "deep/er/gone.txt": None,
    "name\nwith line": b"odd, changed\n",
}


def make_change(
    tmp_path: Path, kind: str = "working", edits: dict[str, bytes | None] | None = None, *, link: bool = True
) -> Change:
    """A repository of that kind on `main`, with `edits` proposed from a clone of it."""
    place = tmp_path / "repo"
    place.mkdir()
    git(place, "init", "-q", "-b", "main")
    base = commit_files(place, dict(FILES), "first")
    if kind == "bare":
        bare = tmp_path / "bare.git"
        git(tmp_path, "clone", "-q", "--bare", str(place), str(bare))
        place = bare
    work = tmp_path / "work"
    git(tmp_path, "clone", "-q", str(place), str(work))
    if link:
        (work / "link").symlink_to("src/a.py")
        (work / "run.sh").chmod(0o755)
    head = commit_files(work, EDITS if edits is None else edits)
    forge = GitForge.open(place, "main")
    forge.propose(RUN, work, head)
    tree = git(work, "rev-parse", "HEAD^{tree}")
    binding = GateBinding(
        head_commit=head, tree=tree, base_commit=base, policy_digest="p", findings_digest="f", target=TARGET
    )
    return Change(place, forge, base, head, binding, work)


def snapshot(place: Path) -> dict[str, object]:
    """Everything a merge could change: refs, index, files, what git says."""
    files = {}
    for path in sorted(place.rglob("*")):
        if ".git" in path.relative_to(place).parts[:1] or path.is_dir():
            continue
        files[str(path.relative_to(place))] = path.readlink() if path.is_symlink() else path.read_bytes()
    return {
        "files": files,
        "refs": git(place, "for-each-ref"),
        "head": git(place, "rev-parse", "--symbolic-full-name", "HEAD"),
        "staged": git(place, "ls-files", "-s", "-z"),
        "lock": (place / ".git" / "index.lock").exists(),
    }
