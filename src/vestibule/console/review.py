"""What of a change a page shows, what it does not, and whether that stands in the way of an approval.

Rules it keeps:
1. Every file of the change is listed, whatever its size or number.
2. What a page leaves out is counted; an approval is offered only when nothing is left out, or the person
   opened it explicitly (attack class "hidden file in UI").
3. What changed by the trees but is not in the patch, or is in the patch and could not be read, can't be
   opened and so can't be approved here.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from vestibule.console.diff import FileDiff, Patch, Row, parse_patch
from vestibule.console.marks import parts, scripts_note
from vestibule.core.canonical import digest_bytes
from vestibule.core.control_files import control_file, protected_path
from vestibule.core.runs import RunView, binding_digest
from vestibule.core.text.globs import first_match
from vestibule.core.text.paths import PathRefused, fold, normalise_path

MAX_PATCH = 16 << 20
AUTO_FILE_LINES = 800
AUTO_LINE_BYTES = 2_000
AUTO_PAGE_LINES = 4_000
PAGE_LINES = 60_000


@dataclass(slots=True)
class Touched:
    """A touched path against the scope. `allowed_by` is the write glob that allows it, `""` when none does."""

    path: str
    file: FileDiff | None
    allowed_by: str
    flags: list[str]

    @property
    def alarming(self) -> bool:
        return not self.allowed_by or bool(self.flags)


@dataclass(slots=True)
class ShownFile:
    """A file as the page shows it. `rows` is None when it is not shown; `why` says why not."""

    file: FileDiff
    rows: list[Row] | None = None
    why: str = ""
    can_expand: bool = True
    hidden: int = 0
    mixed: int = 0


@dataclass(slots=True)
class Change:
    """The change of one run as one page shows it."""

    view_id: str
    files: list[ShownFile] = field(default_factory=list)
    touched: list[Touched] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)
    added: int = 0
    deleted: int = 0

    @property
    def shown(self) -> set[int]:
        return {item.file.index for item in self.files if item.rows is not None}

    @property
    def hidden(self) -> int:
        return sum(item.hidden for item in self.files)

    @property
    def mixed(self) -> int:
        return sum(item.mixed for item in self.files)

    def not_shown(self, presented: AbstractSet[int]) -> list[ShownFile]:
        """Files that this person has not been sent yet."""
        return [item for item in self.files if item.file.index not in presented]


def view_id(view: RunView) -> str:
    """Names what a page shows: the gate's binding and the bytes of the patch."""
    seen = binding_digest(view.gate) if view.gate else ""
    return f"{view.run}:{seen}:{digest_bytes(view.patch)}"


def change_of(view: RunView, expanded: AbstractSet[int] = frozenset(), *, expand_all: bool = False) -> Change:
    """What to show of `view`: small files at once, large and binary ones when asked for."""
    change = Change(view_id(view))
    if len(view.patch) > MAX_PATCH:
        change.blocked.append(
            f"The diff has {len(view.patch)} bytes, more than the {MAX_PATCH >> 20} MiB that a page can show."
        )
        change.touched = [_touched(view, path, None) for path in view.changed_files]
        return change
    patch = parse_patch(view.patch)
    change.added, change.deleted = patch.added, patch.deleted
    change.blocked += [f"A part of the diff could not be read: {problem}." for problem in patch.problems]
    auto_left, page_left = AUTO_PAGE_LINES, PAGE_LINES
    for file in patch.files:
        change.blocked += [f"{file.path}: {problem}." for problem in file.problems]
        item = ShownFile(file)
        change.files.append(item)
        item.why = _why_collapsed(file, auto_left)
        wanted = not item.why or expand_all or file.index in expanded
        if wanted and file.length > page_left:
            item.can_expand = file.length <= PAGE_LINES
            item.why = (
                "the page is full; open it alone"
                if item.can_expand
                else f"{file.length} lines are more than a page can show; review it with git"
            )
            wanted = False
        if not item.why:
            auto_left -= file.length
        if wanted:
            page_left -= file.length
            item.rows = list(patch.rows(file))
            _count_marks(item)
    _compare_names(view, patch, change)
    return change


def _why_collapsed(file: FileDiff, auto_left: int) -> str:
    if file.binary:
        return "binary: its content cannot be shown as text"
    if file.length > AUTO_FILE_LINES:
        return f"large: {file.length} lines"
    if file.longest > AUTO_LINE_BYTES:
        return f"a line of {file.longest} bytes"
    if file.length > auto_left:
        return f"the page already shows more than {AUTO_PAGE_LINES - auto_left} lines"
    return ""


def _count_marks(item: ShownFile) -> None:
    for row in item.rows or ():
        if not isinstance(row.content, str):
            for part in row.content:
                item.hidden += part.kind == "hidden"
                item.mixed += part.kind == "mixed"


def _compare_names(view: RunView, patch: Patch, change: Change) -> None:
    names = {file.path: file for file in patch.files}
    olds = {file.old_path for file in patch.files if file.old_path}
    listed = dict.fromkeys(view.changed_files)
    change.touched = [_touched(view, path, names.get(path)) for path in listed]
    for path in listed:
        if path not in names and path not in olds:
            change.blocked.append(f"{path} changed, but the diff does not contain it.")
    for path, file in names.items():
        if path not in listed:
            change.touched.append(_touched(view, path, file))
            change.blocked.append(f"{path} is in the diff, but not among the changed files.")
    if len(names) != len(patch.files):
        change.blocked.append("The diff names the same file twice.")


def _touched(view: RunView, path: str, file: FileDiff | None) -> Touched:
    scope = view.task.scope if view.task else None
    flags: list[str] = []
    allowed = ""
    try:
        plain = normalise_path(path)
    except PathRefused as error:
        flags.append(f"unsafe name ({error.rule})")
    else:
        allowed = (first_match(plain, scope.writable) or "") if scope and scope.writes(plain) else ""
        if control_file(plain):
            flags.append("agent-control file")
        elif protected_path(plain) or (scope and first_match(fold(plain), scope.protected)):
            flags.append("protected")
    if not isinstance(parts(path), str):
        flags.append("hidden or mixed characters in its name")
    elif note := scripts_note(path):
        flags.append(note)
    if file:
        flags += [note for note in file.notes if note != "binary" and not note.startswith("mode ")]
    return Touched(path, file, allowed, flags)
