"""Searching the files in scope, with bounded work whatever the query is.

Rules it keeps:
1. What is searched is a copy that nobody inside can reach (`texts`); no program ever runs in the agent's tree.
2. A literal search is a linear scan in this process.
3. A regular expression comes from the agent and may take exponential time, so it runs in a process of its own:
   no environment, no files, no privileges, limited memory and CPU time, killed at the deadline with whatever it
   started. It is given texts and gives back offsets; it never sees the workspace or a path.
4. ripgrep, where it is installed, makes that process faster. It never changes what is found.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vestibule.boundary.context.file_errors import NotDone
from vestibule.boundary.context.limits import ContextLimits
from vestibule.boundary.context.texts import Snapshot, Texts, joined
from vestibule.core.errors import DependencyDown
from vestibule.core.text.sanitize import one_line

LINE_SHOWN = 300
"""Characters of a matching line in the answer."""

RIPGREP = ("/usr/bin/rg", "/usr/local/bin/rg")
"""Where ripgrep is looked for: places that only the system's owner writes to."""

_CHUNK = 8 << 20


@dataclass(frozen=True, slots=True)
class Hit:
    """One matching line, counted from 1; `text` is safe to show."""

    path: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Found:
    """The first hits in order of path. `more` when there were others, `complete` False when not all text was seen."""

    hits: tuple[Hit, ...]
    more: bool
    complete: bool
    engine: str = "scan"
    """What found them: `scan`, `python` or `ripgrep`."""


Wanted = Callable[[str], bool]
"""Whether a path that is shown anyway is to be searched."""

_Ranges = list[tuple[int, int]]


def ripgrep() -> str | None:
    """The ripgrep that is used, if one is installed."""
    return next((path for path in RIPGREP if os.access(path, os.X_OK)), None)


def search(
    texts: Texts,
    query: str,
    *,
    folder: str = "",
    wanted: Wanted | None = None,
    regex: bool,
    limits: ContextLimits,
    program: str | None = None,
) -> Found:
    """Lines that hold `query`, at or below `folder`, in files that are `wanted`. `program` is a ripgrep.

    Raises:
        NotDone: the expression is no expression, or takes too long.
        DependencyDown: `search`, `workspace`, `openat2`.
    """
    deadline = time.monotonic() + limits.search_seconds
    snapshot = texts.snapshot(folder, deadline)
    plain, odd = _ranges(snapshot, folder, wanted)
    engine = "scan"
    if not plain and not odd and not regex:
        offsets: list[int] = []
    elif regex:
        offsets, engine = _by_expression(snapshot, plain, odd, query, limits, program)
    else:
        offsets = _by_text(snapshot, sorted([*plain, *odd]), query.encode("utf-8"), limits.search_hits + 1)
    hits = tuple(_hit(snapshot, offset) for offset in offsets[: limits.search_hits])
    return Found(hits, more=len(offsets) > len(hits), complete=snapshot.complete, engine=engine)


def _ranges(snapshot: Snapshot, folder: str, wanted: Wanted | None) -> tuple[_Ranges, _Ranges]:
    """The parts of the text that are searched: valid UTF-8, and what is none."""
    if not folder and wanted is None:
        return snapshot.plain, snapshot.odd
    prefix = f"{folder}/" if folder else ""
    return joined(
        span
        for path, span in snapshot.spans.items()
        if (path.startswith(prefix) or path == folder) and (wanted is None or wanted(path))
    )


def _by_text(snapshot: Snapshot, ranges: _Ranges, needle: bytes, limit: int) -> list[int]:
    """One offset for each of the first lines that hold `needle`. In chunks, so that other threads come in between."""
    if b"\n" in needle:
        return []
    find = re.compile(re.escape(needle)).search
    text = snapshot.text
    offsets: list[int] = []
    for begin, end in ranges:
        at = begin
        while at < end:
            stop = min(end, at + _CHUNK)
            match = find(text, at, min(end, stop + len(needle) - 1))
            if match is None:
                at = stop
                continue
            offsets.append(match.start())
            if len(offsets) == limit:
                return offsets
            at = _line_end(text, match.end(), end)
    return offsets


def _line_end(text: Any, at: int, end: int) -> int:
    """Where the next line begins."""
    step = 1 << 10
    while at < end:
        found = text[at : min(end, at + step)].find(b"\n")
        if found >= 0:
            return int(at + found + 1)
        at += step
        step = 1 << 16
    return end


def _hit(snapshot: Snapshot, offset: int) -> Hit:
    path, line, text = snapshot.place(offset)
    return Hit(path, line, one_line(text[: LINE_SHOWN * 8].decode("utf-8", "replace").rstrip("\r"), LINE_SHOWN))


@cache
def _worker() -> str:
    return Path(__file__).with_name("search_worker.py").read_text("utf-8")


def _by_expression(  # noqa: PLR0917
    snapshot: Snapshot, plain: _Ranges, odd: _Ranges, pattern: str, limits: ContextLimits, program: str | None
) -> tuple[list[int], str]:
    """The first offsets, and the engine that found them."""
    head: dict[str, Any] = {"pattern": pattern, "limit": limits.search_hits + 1, "ranges": plain, "odd": odd}
    if not plain and not odd:
        answer = _ask_worker({**head, "text": -1, "source": -1, "ripgrep": None}, (), limits)
    else:
        # A description of its own: two processes that read one would move each other's offset.
        source = os.open(f"/proc/self/fd/{snapshot.fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            given = {**head, "text": snapshot.fd, "source": source, "ripgrep": program if plain else None}
            answer = _ask_worker(given, (snapshot.fd, source), limits)
        finally:
            os.close(source)
    if "error" in answer:
        raise NotDone("expression", f"The query is no regular expression: {one_line(answer['error'])}.")
    return answer["hits"], answer["engine"]


def _ask_worker(head: dict[str, Any], descriptors: tuple[int, ...], limits: ContextLimits) -> dict[str, Any]:
    seconds = max(1, int(limits.search_seconds))
    room = max(descriptors, default=0) + 32  # a number beyond the limit could not be handed on to ripgrep
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-c", _worker(), str(seconds), str(room)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            pass_fds=descriptors,
            start_new_session=True,
        )
    except OSError as error:
        raise DependencyDown("search", "The search process could not be started.", fact=type(error).__name__) from error
    try:
        out, _ = process.communicate(json.dumps(head).encode(), timeout=limits.search_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with whatever it started
        process.communicate()
        raise _too_slow() from None
    if process.returncode != 0:
        raise _too_slow()
    answer: dict[str, Any] = json.loads(out)
    return answer


def _too_slow() -> NotDone:
    return NotDone("too_slow", "The regular expression took too long; use a simpler one, or a literal query.")
