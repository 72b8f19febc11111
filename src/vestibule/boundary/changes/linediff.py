"""Which lines of a file are new. Pure, bounded, and blind to attributes, drivers and configuration.

git's own diff obeys `.gitattributes` (`*.py -diff` hides a file), so guards never read its output.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher

Line = tuple[int, bytes]
"""Line number in the new file (from 1) and its bytes without the line end."""

_EXACT_CELLS = 250_000


@dataclass(frozen=True, slots=True)
class LineDiff:
    """Added lines and the number of removed ones. `eol_only`: nothing but line ends and the last one differ."""

    added: tuple[Line, ...]
    removed: int
    eol_only: bool


def split_lines(data: bytes) -> list[bytes]:
    """Lines without their ends (LF or CRLF); a last line without an end counts."""
    lines = data.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines]


def diff_lines(old: bytes, new: bytes) -> LineDiff:
    """Lines of `new` that are not in `old`.

    Exact (longest matching blocks) up to 250,000 cells of comparison; beyond, by counting equal lines, which
    never calls a line old that `old` does not contain.
    """
    before, after = split_lines(old), split_lines(new)
    if before == after:
        return LineDiff((), 0, eol_only=old != new)
    start = 0
    shortest = min(len(before), len(after))
    while start < shortest and before[start] == after[start]:
        start += 1
    end = 0
    while end < shortest - start and before[-1 - end] == after[-1 - end]:
        end += 1
    left, right = before[start : len(before) - end], after[start : len(after) - end]
    if not left:
        return LineDiff(tuple(enumerate(right, start + 1)), 0, eol_only=False)
    if not right:
        return LineDiff((), len(left), eol_only=False)
    if len(left) * len(right) <= _EXACT_CELLS:
        added, removed = _exact(left, right, start)
    else:
        added, removed = _counted(left, right, start)
    return LineDiff(tuple(added), removed, eol_only=False)


def _exact(left: list[bytes], right: list[bytes], start: int) -> tuple[list[Line], int]:
    added: list[Line] = []
    removed = 0
    for tag, a0, a1, b0, b1 in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if tag != "equal":
            removed += a1 - a0
            added.extend((start + index + 1, right[index]) for index in range(b0, b1))
    return added, removed


def _counted(left: list[bytes], right: list[bytes], start: int) -> tuple[list[Line], int]:
    known = Counter(left)
    added: list[Line] = []
    for index, line in enumerate(right):
        if known[line] > 0:
            known[line] -= 1
        else:
            added.append((start + index + 1, line))
    return added, sum(known.values())
