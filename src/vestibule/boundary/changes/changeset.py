"""A change between two commits, read once, bounded, so that guards can be pure.

Rules it keeps:
1. Nothing of the repository steers the reading: entries come from `diff-tree --raw -z`, contents from objects,
   lines from our own comparison. Attributes, drivers, text conversion and configuration have no say.
2. Bounded: a blob beyond `MAX_FILE` or past `MAX_TOTAL` in all is not loaded. It is marked `unread`,
   which a guard denies; it never passes unread.
3. Any bytes may be a name. Names stay bytes; `display` is how they are shown.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from vestibule.boundary.changes.linediff import Line, diff_lines
from vestibule.boundary.changes.reachable import MAX_BYTES, ci_reachable
from vestibule.core.errors import DependencyDown
from vestibule.core.ids import SHA, Sha
from vestibule.core.text.sanitize import one_line
from vestibule.git import Git, GitError

MAX_FILE = 4 << 20
"""Bytes of one blob that guards read."""
MAX_TOTAL = 64 << 20
"""Bytes of all blobs of one change that guards read."""
MAX_ENTRIES = 20_000
"""Files of one change; beyond, the rest is counted and not read."""
HEAD_BYTES = 8192
"""How much of an unread blob is looked at, to name what it is."""

Status = Literal["A", "M", "D", "R", "T"]
LINK, GITLINK, NOTHING = "120000", "160000", "000000"


def decode_path(raw: bytes) -> str:
    """The path as text for matching; bytes that are no UTF-8 become surrogates, which the normaliser refuses."""
    return raw.decode("utf-8", "surrogateescape")


def display(raw: bytes) -> str:
    """The path as text for people and reports: one line, valid Unicode, nothing hidden."""
    return one_line(raw.decode("utf-8", "backslashreplace"), 4096)


@dataclass(frozen=True)
class Change:
    """One entry. `old`/`new` are contents, None when absent or unread; `path` is the new name (the old one of a D)."""

    status: Status
    path: bytes
    old_path: bytes | None = None
    old_mode: str = NOTHING
    new_mode: str = NOTHING
    old_blob: Sha = ""
    new_blob: Sha = ""
    old_size: int | None = None
    new_size: int | None = None
    old: bytes | None = None
    new: bytes | None = None
    head: bytes = b""
    unread: bool = False
    binary: bool = False
    added: tuple[Line, ...] = ()
    removed: int = 0
    eol_only: bool = False

    @cached_property
    def name(self) -> str:
        return decode_path(self.path)

    @cached_property
    def shown(self) -> str:
        return display(self.path)

    @property
    def paths(self) -> tuple[bytes, ...]:
        """Every name this entry touches: both sides of a rename."""
        return (self.path,) if self.old_path is None or self.old_path == self.path else (self.path, self.old_path)

    @property
    def introduces(self) -> bool:
        """Whether `path` did not exist before."""
        return self.status in ("A", "R")

    @property
    def is_link(self) -> bool:
        return self.new_mode == LINK

    @property
    def is_file(self) -> bool:
        """Whether there is a regular file afterwards."""
        return self.new_mode.startswith("100")

    @property
    def lines(self) -> int:
        return len(self.added) + self.removed


@dataclass(frozen=True)
class ChangeSet:
    """All entries, the names (with modes) of the tree that results, and which of its files CI runs.

    `skipped` counts entries beyond `MAX_ENTRIES`; it is a reason to refuse, never a reason to pass.
    """

    base: Sha
    head: Sha
    changes: tuple[Change, ...]
    tree: dict[bytes, str] = field(default_factory=dict)
    skipped: int = 0
    ci_reachable: frozenset[bytes] = frozenset()

    @property
    def files(self) -> tuple[str, ...]:
        """Shown names of changed files, new names first, each once."""
        return tuple(dict.fromkeys(change.shown for change in self.changes))

    @cached_property
    def folders(self) -> frozenset[bytes]:
        """Every folder of the resulting tree."""
        found: set[bytes] = set()
        for path in self.tree:
            cut = path.rfind(b"/")
            while cut > 0 and path[:cut] not in found:
                found.add(path[:cut])
                cut = path.rfind(b"/", 0, cut)
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class _Raw:
    status: Status
    path: bytes
    old_path: bytes | None
    old_mode: str
    new_mode: str
    old_blob: Sha
    new_blob: Sha


def read_changeset(git: Git, base: Sha, head: Sha) -> ChangeSet:
    """What changes between two commits (or trees).

    Raises:
        DependencyDown: git failed, or an object is missing (a shallow or damaged repository).
    """
    try:
        raw = parse_raw(
            git.run(
                [
                    "diff-tree",
                    "-r",
                    "-z",
                    "--raw",
                    "--full-index",
                    "--no-abbrev",
                    "--find-renames=50%",
                    "-l1000",
                    "--no-ext-diff",
                    "--no-textconv",
                    "--ignore-submodules=none",
                    "--end-of-options",
                    base,
                    head,
                ]
            )
        )
        tree, blobs = _tree(git, head)
        kept, skipped = raw[:MAX_ENTRIES], max(0, len(raw) - MAX_ENTRIES)
        sizes = _sizes(git, kept)
        changes = _contents(git, kept, sizes)
        reachable = ci_reachable(blobs, lambda wanted: _small(git, wanted)) if changes else frozenset()
    except GitError as error:
        raise DependencyDown(
            "git",
            "The change could not be read from the repository.",
            fact=error.stderr.strip()[:200],
            person="Run `git fsck`; fetch the whole history if the clone is shallow (`git fetch --unshallow`).",
        ) from None
    return ChangeSet(base, head, tuple(changes), tree, skipped, reachable)


def parse_raw(data: bytes) -> list[_Raw]:
    """Records of `diff-tree --raw -z` (git-diff-tree(1), "RAW OUTPUT FORMAT").

    Raises:
        DependencyDown: the output is not what the manual says.
    """
    parts = data.split(b"\0")
    found: list[_Raw] = []
    index = 0
    while index < len(parts) and parts[index]:
        fields = parts[index].decode("ascii", "replace").split(" ")
        if len(fields) != 5 or not fields[0].startswith(":"):
            raise DependencyDown("git", "git's list of changes could not be read.")
        letter = fields[4][:1]
        names = 2 if letter in "RC" else 1
        if index + names >= len(parts):
            raise DependencyDown("git", "git's list of changes is cut short.")
        first, last = parts[index + 1], parts[index + names]
        status = _STATUS.get(letter)
        if status is None or not (SHA.match(fields[2]) and SHA.match(fields[3])) or not last:
            raise DependencyDown("git", "git's list of changes holds an entry of an unknown kind.")
        found.append(
            _Raw(status, last, first if letter == "R" else None, fields[0][1:], fields[1], fields[2], fields[3])
        )
        index += 1 + names
    return found


_STATUS: dict[str, Status] = {"A": "A", "C": "A", "M": "M", "D": "D", "R": "R", "T": "T"}


def _tree(git: Git, treeish: str) -> tuple[dict[bytes, str], dict[bytes, Sha]]:
    """Modes of everything, and object names of regular files, by path."""
    modes: dict[bytes, str] = {}
    files: dict[bytes, Sha] = {}
    for record in git.run(["ls-tree", "-r", "-z", "--full-tree", "--end-of-options", treeish]).split(b"\0"):
        meta, tab, path = record.partition(b"\t")
        if tab:
            mode, _, sha = meta.decode("ascii", "replace").split(" ")
            modes[path] = mode
            if mode.startswith("100"):
                files[path] = sha
    return modes, files


def _small(git: Git, wanted: Iterable[Sha]) -> dict[Sha, bytes]:
    """Contents of those blobs that are at most `reachable.MAX_BYTES` long."""
    asked = list(dict.fromkeys(wanted))
    out = git.run(["cat-file", "--batch-check"], stdin="".join(f"{sha}\n" for sha in asked).encode())
    rows = [line.split(" ") for line in out.decode("ascii", "replace").splitlines()]
    return dict(git.blobs(row[0] for row in rows if len(row) == 3 and row[1] == "blob" and int(row[2]) <= MAX_BYTES))


def _sizes(git: Git, entries: list[_Raw]) -> dict[Sha, int]:
    wanted = dict.fromkeys(
        blob
        for entry in entries
        for mode, blob in ((entry.old_mode, entry.old_blob), (entry.new_mode, entry.new_blob))
        if mode not in (NOTHING, GITLINK)
    )
    if not wanted:
        return {}
    out = git.run(["cat-file", "--batch-check"], stdin="".join(f"{blob}\n" for blob in wanted).encode())
    sizes: dict[Sha, int] = {}
    for line in out.decode("ascii", "replace").splitlines():
        fields = line.split(" ")
        if len(fields) == 3 and fields[1] == "blob":
            sizes[fields[0]] = int(fields[2])
    missing = [blob for blob in wanted if blob not in sizes]
    if missing:
        raise GitError(["cat-file"], 128, f"object {missing[0]} is missing")
    return sizes


def _contents(git: Git, entries: list[_Raw], sizes: dict[Sha, int]) -> list[Change]:
    """New contents take precedence over old ones in the total, so that what arrives is read first."""
    budget = MAX_TOTAL
    wanted: dict[Sha, None] = {}
    for blob in [entry.new_blob for entry in entries] + [e.old_blob for e in entries if e.status in "MRTD"]:
        size = sizes.get(blob)
        if size is not None and size <= MAX_FILE and blob not in wanted and size <= budget:
            wanted[blob] = None
            budget -= size
    data = dict(git.blobs(wanted))
    heads_left = 64
    changes: list[Change] = []
    for entry in entries:
        old = data.get(entry.old_blob) if entry.old_mode != GITLINK else None
        new = data.get(entry.new_blob) if entry.new_mode != GITLINK else None
        unread = entry.new_blob in sizes and new is None
        head = (new or b"")[:HEAD_BYTES]
        if unread and heads_left:
            heads_left -= 1
            head = git.blob_head(entry.new_blob, HEAD_BYTES)
        changes.append(_change(entry, sizes, old, new, head, unread=unread))
    return changes


def _change(
    entry: _Raw, sizes: dict[Sha, int], old: bytes | None, new: bytes | None, head: bytes, *, unread: bool
) -> Change:
    binary = b"\0" in head
    added: tuple[Line, ...] = ()
    removed, eol_only = 0, False
    if new is not None and entry.new_blob != entry.old_blob:
        found = diff_lines(old if old is not None and _comparable(entry) else b"", new)
        added, removed, eol_only = (() if binary else found.added), found.removed, found.eol_only and not binary
    if entry.status == "D":
        removed = _count_lines(sizes.get(entry.old_blob), old)
    return Change(
        status=entry.status,
        path=entry.path,
        old_path=entry.old_path,
        old_mode=entry.old_mode,
        new_mode=entry.new_mode,
        old_blob=entry.old_blob,
        new_blob=entry.new_blob,
        old_size=sizes.get(entry.old_blob),
        new_size=sizes.get(entry.new_blob),
        old=old,
        new=new,
        head=head,
        unread=unread,
        binary=binary,
        added=added,
        removed=removed,
        eol_only=eol_only,
    )


def _comparable(entry: _Raw) -> bool:
    """Whether old lines excuse new ones. A new type or a rename to another suffix makes every line new."""
    if entry.status == "R":
        before = entry.old_path or b""
        return posixpath.splitext(before)[1] == posixpath.splitext(entry.path)[1]
    return entry.status == "M"


def _count_lines(size: int | None, old: bytes | None) -> int:
    return old.count(b"\n") if old is not None else (size or 0) // 80


def make_change(
    path: str,
    new: bytes | None,
    old: bytes | None = None,
    *,
    mode: str = "100644",
    old_mode: str = "100644",
    old_path: str | None = None,
) -> Change:
    """A change from contents alone: for the live probe of the guards, and for judging what is no commit yet.

    Object names are stand-ins; they only say whether the contents differ.
    """
    status: Status = "D" if new is None else "R" if old_path is not None else "A" if old is None else "M"
    if status == "M" and mode[:3] != old_mode[:3]:
        status = "T"
    entry = _Raw(
        status,
        path.encode("utf-8", "surrogateescape"),
        None if old_path is None else old_path.encode("utf-8", "surrogateescape"),
        NOTHING if old is None else old_mode,
        NOTHING if new is None else mode,
        "" if old is None else "before",
        "" if new is None else "before" if new == old else "after",
    )
    sizes = {"before": len(old or b""), "after": len(new or b"")}
    return _change(entry, sizes, old, new, (new or b"")[:HEAD_BYTES], unread=False)
