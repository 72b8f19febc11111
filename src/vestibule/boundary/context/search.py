"""Searching the files in scope, with bounded work whatever the query is.

Rules it keeps:
1. A literal search is a linear scan in this process.
2. A regular expression comes from the agent and may take exponential time, so it runs in a process of
   its own: no environment, no files, no privileges, limited memory and CPU time, killed at the deadline.
   It is given texts and gives back line numbers; it never sees the workspace.
3. Only files that the caller says are readable are opened.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vestibule.boundary.context.file_errors import NotDone
from vestibule.boundary.context.limits import ContextLimits
from vestibule.boundary.context.workspace import Workspace
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.text.sanitize import one_line

LINE_SHOWN = 300
"""Characters of a matching line in the answer."""

BINARY_PROBE = 8192

_WORKER = r"""
import json, os, re, resource, sys
for name, value in (("CPU", SECONDS), ("AS", 1 << 30), ("FSIZE", 0), ("NOFILE", 8), ("CORE", 0)):
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
head = json.loads(sys.stdin.buffer.readline())
try:
    found = re.compile(head["pattern"])
except (re.error, OverflowError, RecursionError, MemoryError) as error:
    print(json.dumps({"error": str(error)[:200]})); sys.exit()
hits = []
for number, size in enumerate(head["sizes"]):
    text = sys.stdin.buffer.read(size).decode("utf-8", "replace")
    for at, line in enumerate(text.split("\n"), 1):
        if found.search(line):
            hits.append([number, at])
            if len(hits) > head["limit"]:
                break
    if len(hits) > head["limit"]:
        break
print(json.dumps({"hits": hits}))
"""


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


def is_binary(data: bytes) -> bool:
    """Whether a person would not call it text: a NUL near the beginning (as git decides)."""
    return b"\0" in data[:BINARY_PROBE]


def search(workspace: Workspace, paths: Iterable[str], query: str, *, regex: bool, limits: ContextLimits) -> Found:
    """Lines that hold `query`.

    Raises:
        NotDone: the expression is no expression, or takes too long.
    """
    texts = _Texts(workspace, paths, limits)
    if regex:
        return _by_expression(texts, query, limits)
    needle = query.encode("utf-8")
    hits: list[Hit] = []
    for path, data in texts:
        if needle not in data and b"\n" not in needle:
            continue
        for at, line in enumerate(data.split(b"\n"), 1):
            if needle in line:
                if len(hits) == limits.search_hits:
                    return Found(tuple(hits), more=True, complete=texts.complete)
                hits.append(_hit(path, at, line))
    return Found(tuple(hits), more=False, complete=texts.complete)


def _hit(path: str, at: int, line: bytes) -> Hit:
    return Hit(path, at, one_line(line[: LINE_SHOWN * 8].decode("utf-8", "replace").rstrip("\r"), LINE_SHOWN))


class _Texts:
    """The readable text files in turn, within the limits. `complete` says whether all were given."""

    def __init__(self, workspace: Workspace, paths: Iterable[str], limits: ContextLimits) -> None:
        self.workspace = workspace
        self.paths = paths
        self.limits = limits
        self.complete = True

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        left = self.limits.search_total_bytes
        deadline = time.monotonic() + self.limits.search_seconds
        for path in self.paths:
            if left <= 0 or time.monotonic() > deadline:
                self.complete = False
                return
            try:
                data = self.workspace.read(path, limit=self.limits.search_file_bytes)
            except NotDone as error:
                self.complete = self.complete and error.code != "too_large"
                continue
            except DependencyDown:
                raise
            except Refused:
                continue
            left -= len(data)
            if not is_binary(data):
                yield path, data


def _by_expression(texts: _Texts, pattern: str, limits: ContextLimits) -> Found:
    files = list(texts)
    head = {"pattern": pattern, "sizes": [len(data) for _, data in files], "limit": limits.search_hits}
    blob = b"".join([json.dumps(head).encode(), b"\n", *(data for _, data in files)])
    script = _WORKER.replace("SECONDS", str(max(1, int(limits.search_seconds))), 1)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-B", "-c", script],
            input=blob,
            capture_output=True,
            env={},
            cwd="/",
            timeout=limits.search_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _too_slow() from None
    except OSError as error:
        raise DependencyDown("search", "The search process could not be started.", fact=type(error).__name__) from error
    if done.returncode != 0:
        raise _too_slow()
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise NotDone("expression", f"The query is no regular expression: {one_line(answer['error'])}.")
    found = answer["hits"]
    lines: dict[int, list[bytes]] = {}
    hits = []
    for number, at in found[: limits.search_hits]:
        path, data = files[number]
        if number not in lines:
            lines = {number: data.split(b"\n")}
        hits.append(_hit(path, at, lines[number][at - 1]))
    return Found(tuple(hits), more=len(found) > limits.search_hits, complete=texts.complete)


def _too_slow() -> NotDone:
    return NotDone("too_slow", "The regular expression took too long; use a simpler one, or a literal query.")
