"""Trusted instructions: texts such as AGENTS.md, as the base commit has them.

Rules this module keeps:
1. The text is the base commit's. What stands in a working tree, or in an agent's branch, is never an instruction.
2. A file outside of the organisation's bound, shown in part only, labelled as written by outsiders, or in a folder of
   what others wrote (`node_modules`, `vendor`, test data) is none.
3. Texts are bounded, and what a reader would not see in them is written out.
"""

from __future__ import annotations

from collections.abc import Iterable

from vestibule.core.base import Noun
from vestibule.core.ids import Sha
from vestibule.core.labels import Integrity, Label, label_of
from vestibule.core.model import Scope
from vestibule.core.projection import rules_for
from vestibule.core.text.globs import first_match
from vestibule.core.text.paths import PathRefused, fold, normalise_path
from vestibule.core.text.sanitize import show_hidden

MAX_INSTRUCTIONS = 16
"""Texts given to one task; those nearest to the root first."""

MAX_INSTRUCTION_BYTES = 32 * 1024
"""Of one text; the rest is cut, and the text says so."""

NAMES = frozenset({"agents.md", "agent.md", "claude.md", "gemini.md", "qwen.md", "contributing.md"})
"""File names that hold instructions, folded, in any folder that the task's files lie below."""

PLACES = frozenset({".github/copilot-instructions.md", ".github/contributing.md", "docs/contributing.md"})
"""Paths that hold instructions for the whole repository, folded."""

FOREIGN = frozenset(
    {
        "node_modules", "bower_components", "jspm_packages", "vendor", "vendored", "_vendor", "third_party",
        "third-party", "thirdparty", "3rdparty", "external", "externals", "extern", "deps", "site-packages", ".venv",
        "dist-packages", "venv", "pods", "carthage", "subprojects", "testdata", "test_data", "fixtures", "__fixtures__",
        "snapshots", "__snapshots__",
    }
)  # fmt: skip
"""Folders, folded, that hold what others wrote or what tests quote: no text below them is an instruction."""

_REGULAR = ("100644", "100664", "100755")


class Instruction(Noun):
    """One text: where it comes from, its label as a file of the repository, and what it says, safe to show."""

    path: str
    commit: Sha
    label: Label
    text: str


def instruction_paths(entries: Iterable[tuple[str, str]], scope: Scope) -> tuple[str, ...]:
    """Which files of the base commit are instructions of a task, nearest to the root first.

    `entries` are paths and modes (git's, six digits) of every file. Links are none: what they lead to is, if it is.
    """
    files = list(entries)
    found = [path for path, mode in files if mode in _REGULAR and _is_one(path, scope)]
    deep = {path.rpartition("/")[0] for path in found if fold(path) not in PLACES} - {""}
    used: set[str] = set()
    if deep:
        used = {
            folder
            for path, _ in files
            if any(path.startswith(f"{folder}/") for folder in deep) and scope.shows(path)
            for folder in _folders(path)
        }
    kept = [path for path in found if "/" not in path or fold(path) in PLACES or path.rpartition("/")[0] in used]
    return tuple(sorted(kept, key=lambda path: (path.count("/"), path))[:MAX_INSTRUCTIONS])


def _is_one(path: str, scope: Scope) -> bool:
    folded = fold(path)
    *folders, name = folded.split("/")
    if (folded not in PLACES and name not in NAMES) or not FOREIGN.isdisjoint(folders):
        return False
    try:
        if normalise_path(path) != path:
            return False
    except PathRefused:
        return False
    within = all(
        not bound.read or first_match(path, bound.read) is not None
        for bound in scope.bounds
        if bound.by == "organisation"
    )
    partial = bool(rules_for(path, scope.views))
    trusted = label_of(path, scope.labels).integrity in (Integrity.OPERATOR, Integrity.MEMBER)
    return within and not partial and trusted


def _folders(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: number + 1]) for number in range(len(parts))]


def instruction(path: str, commit: Sha, data: bytes, scope: Scope) -> Instruction | None:
    """The instruction that a file's bytes are; None when they are no UTF-8 text, or nothing."""
    if b"\0" in data:
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    encoded = text.encode("utf-8")
    if len(encoded) > MAX_INSTRUCTION_BYTES:
        text = encoded[:MAX_INSTRUCTION_BYTES].decode("utf-8", "ignore")
        text += f"\n(cut after {MAX_INSTRUCTION_BYTES} of {len(encoded)} bytes)"
    if not text.strip():
        return None
    return Instruction(path=path, commit=commit, label=label_of(path, scope.labels), text=show_hidden(text))
