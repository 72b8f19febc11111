"""Heads that merge commits remember: `Vestibule-Checkpoint: <origin> <size> <root base64>`.

A merge commit carries it beside `Vestibule-Run` and `Vestibule-Decision`. Every clone of the repository is thus a
memory of the log that the log's owner cannot rewrite unseen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vestibule.audit.checkpoint import Checkpoint, parse_trailer
from vestibule.audit.note import BadNote
from vestibule.core.ids import Sha
from vestibule.git.repository import Git

KEY: Final = "Vestibule-Checkpoint"


@dataclass(frozen=True, slots=True)
class TrailerHead:
    """What a merge commit says; `checkpoint` is None when the trailer is malformed, and `error` says how."""

    commit: Sha
    checkpoint: Checkpoint | None
    error: str = ""


def read_trailers(repo: Path) -> list[TrailerHead]:
    """Checkpoint trailers of merge commits that any ref reaches, newest first.

    Only merges count: other commits may be an agent's or a contributor's own words.

    Raises:
        UsageError: not a repository.
        GitError, DependencyDown: git could not read it.
    """
    form = f"%H%x00%(trailers:key={KEY},valueonly,unfold,separator=%x1f)%x1e"
    out = Git.open(repo).run(["log", "--all", "--merges", f"--grep=^{KEY}:", f"--format=tformat:{form}"])
    found: list[TrailerHead] = []
    for record in out.split(b"\x1e"):
        commit, _, values = record.strip(b"\n").partition(b"\0")
        texts = [value.strip() for value in values.decode("utf-8", "replace").split("\x1f")]
        found += [_head(commit.decode("ascii"), text) for text in texts if text]
    return found


def _head(commit: Sha, value: str) -> TrailerHead:
    try:
        return TrailerHead(commit, parse_trailer(value))
    except BadNote as error:
        return TrailerHead(commit, None, str(error))
