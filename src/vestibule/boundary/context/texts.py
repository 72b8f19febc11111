"""The texts that a search looks through: one copy outside the workspace, brought up to date before each use.

Rules it keeps:
1. Only files that the tree shows are opened, beneath their folder's descriptor (`workspace`), once for each content.
2. A copy is sealed when it is made: whoever is given its descriptor can read it and no more (memfd_create(2)).
3. Memory is bounded, all copies that are in use together too; what does not fit is searched folder by folder, or is
   said to be left out.
4. A file that changed less than a clock tick ago is read again next time: its ctime could be the same after a change.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import queue
import threading
import time
import weakref
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from vestibule.boundary.context.file_errors import NotDone
from vestibule.boundary.context.limits import ContextLimits
from vestibule.boundary.context.tree import Item, Key, Tree, key_of
from vestibule.boundary.context.workspace import Workspace
from vestibule.core.errors import DependencyDown, Refused

BINARY_PROBE = 8192

RACY_NS = 50_000_000
"""How old a change must be for its ctime to tell it from the next one. Kernels tick every 1 to 10 ms."""

COPIES = 3
"""Copies at a time: the one that is kept, the one that takes its place, and one that a search still looks through."""

_BUFFER = 4 << 20
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


def is_binary(data: bytes) -> bool:
    """Whether a person would not call it text: a NUL near the beginning (as git decides)."""
    return b"\0" in data[:BINARY_PROBE]


@dataclass(frozen=True, slots=True)
class Span:
    """Where a file's text is: bytes `begin` to `end`, which end with a line feed. Empty for what is no text."""

    key: Key | None
    begin: int
    end: int
    odd: bool = False
    """Not valid UTF-8."""
    left_out: bool = False
    """Too large."""


@dataclass(slots=True, weakref_slot=True)
class Snapshot:
    """Texts as they were. `spans` in order of path; `complete` says whether all were taken."""

    fd: int = -1
    text: mmap.mmap | bytes = b""
    spans: dict[str, Span] = field(default_factory=dict)
    complete: bool = True
    settled: bool = False
    """Whether another look at the same table could bring nothing new."""
    plain: list[tuple[int, int]] = field(default_factory=list)
    """All texts that are valid UTF-8, neighbours joined."""
    odd: list[tuple[int, int]] = field(default_factory=list)
    """All others."""
    paths: list[str] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)

    def place(self, offset: int) -> tuple[str, int, bytes]:
        """Path, line (from 1) and bytes of the line that holds `offset`."""
        at = bisect_right(self.begins, offset) - 1
        path = self.paths[at]
        span = self.spans[path]
        text = self.text[span.begin : span.end]
        inside = offset - span.begin
        start = text.rfind(b"\n", 0, inside) + 1
        return path, text.count(b"\n", 0, start) + 1, text[start : text.find(b"\n", inside)]


def joined(spans: Iterable[Span]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Where texts are, neighbours joined: those that are valid UTF-8, and the others. `spans` in order."""
    plain: list[tuple[int, int]] = []
    odd: list[tuple[int, int]] = []
    for span in spans:
        if span.end == span.begin:
            continue
        found = odd if span.odd else plain
        if found and found[-1][1] == span.begin:
            found[-1] = (found[-1][0], span.end)
        else:
            found.append((span.begin, span.end))
    return plain, odd


class Texts:
    """The copy of one task. Thread-safe; a snapshot that was given stays as it is."""

    def __init__(self, workspace: Workspace, tree: Tree, limits: ContextLimits) -> None:
        self._workspace = workspace
        self._tree = tree
        self._limits = limits
        self._lock = threading.Lock()
        self._kept = Snapshot()
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()
        """One item for each further copy. Unlike a semaphore's, its `put` may interrupt itself, as finalizers do."""
        for _ in range(COPIES):
            self._room.put(None)
        self._seen: list[Item] | None = None
        """The table that the copy was made from: the tree gives the same list as long as nothing changed."""

    def snapshot(self, folder: str, deadline: float) -> Snapshot:
        """The texts at or below `folder`, and of the whole scope when they fit; reads until `deadline` (monotonic).

        Raises:
            NotDone: other searches still use as many copies as there may be.
            DependencyDown: `workspace`, `openat2`.
        """
        items = self._tree.items()
        with self._lock:
            if items is self._seen and self._kept.settled:
                return self._kept
            files = [item for item in items if item.kind == "file"]
            if sum(min(item.size, self._limits.search_file_bytes) for item in files) <= self._limits.search_total_bytes:
                self._kept = self._build(self._kept, files, deadline)
                self._seen = items
                return self._kept
        prefix = f"{folder}/" if folder else ""
        below = [item for item in files if item.path == folder or item.path.startswith(prefix)]
        return self._build(Snapshot(), below, deadline)

    def _build(self, old: Snapshot, files: list[Item], deadline: float) -> Snapshot:
        """A copy, which gives its place back when nothing refers to it any more."""
        try:
            self._room.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise NotDone("busy", "Other searches are still going on; wait for their answers.") from None
        made = Snapshot()
        weakref.finalize(made, self._room.put, None)
        return _Builder(self._workspace, self._limits, old, made).build(files, deadline)


class _Builder:
    """Makes one snapshot, from what an earlier one holds and from the files that changed."""

    def __init__(self, workspace: Workspace, limits: ContextLimits, old: Snapshot, made: Snapshot) -> None:
        self.workspace = workspace
        self.limits = limits
        self.old = old
        self.made = made
        self.size = 0
        self.buffer: list[bytes] = []
        self.waiting = 0
        self.copied = (0, 0)
        """The part of the old text that is to be copied next: neighbours are copied together."""

    def build(self, files: list[Item], deadline: float) -> Snapshot:
        """The snapshot of `files`, which are in order."""
        made = self.made
        made.fd = os.memfd_create("texts", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        weakref.finalize(made, os.close, made.fd)
        folder, at = -1, ""
        try:
            for item in files:
                span = self.old.spans.get(item.path)
                if span is not None and span.key == item.key:
                    self._keep(item.path, span)
                    continue
                if time.monotonic() > deadline or self.size >= self.limits.search_total_bytes:
                    made.complete = False
                    continue
                here = item.path.rpartition("/")[0]
                if folder < 0 or here != at:
                    if folder >= 0:
                        os.close(folder)
                    folder, at = self.workspace.open_folder(here), here
                self._take(item, folder)
        finally:
            if folder >= 0:
                os.close(folder)
        self._flush()
        fcntl.fcntl(made.fd, fcntl.F_ADD_SEALS, _SEALS)
        if self.size:
            made.text = mmap.mmap(made.fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        full = [(path, span.begin) for path, span in made.spans.items() if span.end > span.begin]
        made.paths, made.begins = [path for path, _ in full], [begin for _, begin in full]
        made.plain, made.odd = joined(span for span in made.spans.values())
        made.settled = made.complete and all(span.key is not None for span in made.spans.values())
        made.complete = made.complete and not any(span.left_out for span in made.spans.values())
        return made

    def _keep(self, path: str, span: Span) -> None:
        length = span.end - span.begin
        self.made.spans[path] = replace(span, begin=self.size, end=self.size + length)
        if not length:
            return
        begin, end = self.copied
        if span.begin != end or self.buffer:
            self._flush()
            begin = span.begin
        self.copied = (begin, span.end)
        self.size += length

    def _take(self, item: Item, folder: int) -> None:
        path, limit = item.path, min(self.limits.search_file_bytes, self.limits.search_total_bytes - self.size - 1)
        data, key, left_out = b"", None, False
        if folder >= 0:
            try:
                data, found = self.workspace.read_in(folder, path, limit=limit)
                key = _settled(key_of(found))
            except NotDone as error:
                left_out = error.code == "too_large"
                key = _settled(item.key) if left_out else None
            except DependencyDown:
                raise
            except Refused:
                key = _settled(item.key)
        if is_binary(data):
            data = b""
        if data and not data.endswith(b"\n"):
            data += b"\n"
        self.made.spans[path] = Span(key, self.size, self.size + len(data), not _is_utf8(data), left_out)
        if data:
            if self.copied[1]:
                self._flush()
            self.buffer.append(data)
            self.size += len(data)
            self.waiting += len(data)
            if self.waiting > _BUFFER:
                self._flush()

    def _flush(self) -> None:
        begin, end = self.copied
        if end > begin:
            _write(self.made.fd, memoryview(self.old.text)[begin:end])
        if self.buffer:
            _write(self.made.fd, memoryview(b"".join(self.buffer)))
        self.copied, self.buffer, self.waiting = (0, 0), [], 0


def _settled(key: Key) -> Key | None:
    """The key, unless a change within the same clock tick could go unseen."""
    return key if time.time_ns() - key[1] > RACY_NS else None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _write(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]
