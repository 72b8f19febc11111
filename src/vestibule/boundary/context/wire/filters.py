"""Name filters that an agent sends with `list_files` and `search_files`: `**/*.py`, `*.{ts,tsx}`, `[a-c]?.md`.

Role globs come from people and are matched by `core.text.globs`. A filter comes from the agent, so it is
matched without backtracking: the work is at most the product of both lengths, whatever is sent.
The meaning is the same where both accept a pattern (a test compares them), with one convenience: a
filter without a slash applies to the last name at any depth.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_FILTER = 256
MAX_ALTERNATIVES = 16

_TOKEN = re.compile(r"\[(!?)((?:[^\[\]\\/-]|[^\[\]\\/-]-[^\[\]\\/-])+)\]|.", re.DOTALL)


class BadFilter(ValueError):
    """The filter cannot be understood; the text says what to write instead."""


@dataclass(frozen=True, slots=True)
class _One:
    """One character: any, or one of `ranges` (or none of them)."""

    ranges: tuple[tuple[str, str], ...] = ()
    negated: bool = False

    def fits(self, char: str) -> bool:
        if not self.ranges:
            return True
        return any(low <= char <= high for low, high in self.ranges) is not self.negated


_STAR = None
_Segment = tuple[_One | None, ...]
_DEEP: _Segment = (_STAR, _STAR)


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter."""

    alternatives: tuple[tuple[_Segment, ...], ...]

    def matches(self, path: str) -> bool:
        """Whether the normalised `path` passes."""
        names = path.split("/")
        return any(_path_fits(pattern, names) for pattern in self.alternatives)


def parse_filter(text: str) -> Filter:
    """Reads a filter.

    Raises:
        BadFilter: too long, too many alternatives, absolute, or a bracket left open.
    """
    if not text or len(text) > MAX_FILTER:
        raise BadFilter(f"A glob has 1 to {MAX_FILTER} characters.")
    if text.startswith(("/", "!", "~")) or "\\" in text:
        raise BadFilter("A glob is relative to the workspace, without '!', '~' or backslashes.")
    found = []
    for alternative in _expand(text):
        pattern = alternative if "/" in alternative else f"**/{alternative}"
        found.append(tuple(_segment(part) for part in pattern.split("/") if part not in ("", ".")))
    return Filter(tuple(found))


def _expand(text: str) -> list[str]:
    """`a.{b,c}` → `a.b`, `a.c`; braces do not nest."""
    done, rest = [""], text
    while (start := rest.find("{")) >= 0:
        end = rest.find("}", start)
        inside = rest[start + 1 : end] if end > 0 else "{"
        if "{" in inside or "," not in inside:
            raise BadFilter("Braces hold alternatives, such as {a,b}, and do not nest.")
        choices = inside.split(",")
        done = [f"{head}{rest[:start]}{choice}" for head in done for choice in choices]
        if len(done) > MAX_ALTERNATIVES:
            raise BadFilter(f"A glob has at most {MAX_ALTERNATIVES} alternatives.")
        rest = rest[end + 1 :]
    if "}" in rest:
        raise BadFilter("A brace is closed that was not opened.")
    return [head + rest for head in done]


def _segment(part: str) -> _Segment:
    if part == "**":
        return _DEEP
    out: list[_One | None] = []
    for match in _TOKEN.finditer(part):
        token = match.group()
        if match.group(2):
            out.append(_One(_ranges(match.group(2)), negated=bool(match.group(1))))
        elif token == "*":
            if not out or out[-1] is not _STAR:
                out.append(_STAR)
        elif token == "?":
            out.append(_One())
        elif token in "[]":
            raise BadFilter("A bracket holds characters or ranges, such as [a-c].")
        else:
            out.append(_One(((token, token),)))
    return tuple(out)


def _ranges(text: str) -> tuple[tuple[str, str], ...]:
    found = []
    index = 0
    while index < len(text):
        if text[index + 1 : index + 2] == "-":
            found.append((text[index], text[index + 2]))
            index += 3
        else:
            found.append((text[index], text[index]))
            index += 1
    return tuple(found)


def _path_fits(pattern: tuple[_Segment, ...], names: list[str]) -> bool:
    """Which prefixes of the names the pattern's prefix can have used up, one segment after the other."""
    reached = {0}
    for segment in pattern:
        if segment == _DEEP:
            reached = set(range(min(reached), len(names) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(names) and _name_fits(segment, names[at])}
        if not reached:
            return False
    return len(names) in reached


def _name_fits(segment: _Segment, name: str) -> bool:
    """Greedy matching with one point to return to: the last star."""
    at = used = 0
    star = back = -1
    while used < len(name):
        token = segment[at] if at < len(segment) else ...
        if token is _STAR:
            star, back = at, used
            at += 1
        elif isinstance(token, _One) and token.fits(name[used]):
            at += 1
            used += 1
        elif star >= 0:
            back += 1
            at, used = star + 1, back
        else:
            return False
    return all(token is _STAR for token in segment[at:])
