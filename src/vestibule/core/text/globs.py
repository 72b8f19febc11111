"""The one glob matcher: `*`, `?`, `[…]`, `{a,b}` within a segment, `**` for any number of segments.

`src/**` matches everything below `src` (dot files too); `docs/**/*.md` matches `docs/a.md`.
Matching is exact on case; the protected-path guard compares folded paths instead (`paths.fold`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from wcmatch import glob
from wcmatch._wcparse import PatternLimitException, expand_braces

from vestibule.core.text.paths import PathRefused, normalise_path

_FLAGS = glob.GLOBSTAR | glob.DOTGLOB | glob.BRACE | glob.CASE | glob.FORCEUNIX
_LIMIT = 64


class ImpossibleGlob(ValueError):
    """The pattern can never match a path in a repository."""


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> tuple[re.Pattern[str], ...]:
    include, exclude = glob.translate(pattern, flags=_FLAGS, limit=_LIMIT)
    if exclude:
        raise ImpossibleGlob(f"{pattern!r}: exclusions are not supported here")
    return tuple(re.compile(item) for item in include)


def check_glob(pattern: str) -> None:
    """Raises ImpossibleGlob with a sentence that says what to write instead."""
    if not pattern or pattern != pattern.strip():
        raise ImpossibleGlob(f"{pattern!r} is empty or has spaces around it")
    if pattern.startswith("/"):
        raise ImpossibleGlob(f"{pattern!r} is absolute; write it relative to the repository: {pattern.lstrip('/')!r}")
    if pattern.startswith(("!", "~")):
        raise ImpossibleGlob(f"{pattern!r}: exclusions and home folders are not supported; list what is allowed")
    probe = re.sub(r"[*?\[\]{},!]", "x", pattern)
    try:
        normalise_path(probe)
    except PathRefused as error:
        raise ImpossibleGlob(f"{pattern!r} can match nothing: {error.reason}") from None
    try:
        _compiled(pattern)
    except (re.error, ValueError, PatternLimitException) as error:
        raise ImpossibleGlob(f"{pattern!r} is no usable pattern: {error}") from None


def check_given_glob(pattern: str) -> None:
    """`check_glob` for a pattern that a ticket or an agent wrote: it must also end soon on any path (CWE-1333).

    Each `**` before the last segment multiplies the ways in which a path can be tried, and so does each brace.
    """
    check_glob(pattern)
    deep = pattern.split("/")[:-1].count("**")
    if deep > 1 or len(re.findall(r"[*?\[]", pattern)) > 16 or pattern.count("{") > 1:
        raise ImpossibleGlob(
            f"{pattern!r} is too involved; use one '**' on the way, one brace, and at most 16 other wildcards"
        )


@lru_cache(maxsize=1024)
def alternatives(pattern: str) -> tuple[str, ...]:
    """The patterns without alternatives that a usable pattern stands for: `{a,b}/*` is `a/*` and `b/*`."""
    return tuple(expand_braces(pattern, _FLAGS, _LIMIT))


@lru_cache(maxsize=4096)
def _needle(pattern: str) -> str:
    """Text that every match contains. Most questions end here, before an expression has to be compiled."""
    if "\\" in pattern or re.search(r"\{[^{}]*\{|\[[^\]]*[{}]", pattern):
        return ""
    parts = re.split(r"\{[^{}]*\}|\[[^\]]*\]|[*?]", pattern)
    if any(char in part for part in parts for char in "{}[]"):
        return ""
    return max((part.strip("/") for part in parts), key=len)


def expressions(patterns: Iterable[str]) -> list[str]:
    """The same as regular expressions over a whole path, for a process that matches without this module."""
    return [regex.pattern for pattern in patterns for regex in _compiled(pattern)]


def literal_text(pattern: str) -> str:
    """Text that every path that `pattern` matches contains; may be empty."""
    return _needle(pattern)


def matches(path: str, pattern: str) -> bool:
    """Whether the normalised `path` is matched by `pattern`."""
    if _needle(pattern) not in path:
        return False
    if path.count("/") > DEEP and pattern.count("**") > 1:
        blocks = _blocks(pattern)
        if blocks is not None:
            return any(_fits(path.split("/"), *one) for one in blocks)
    return any(regex.fullmatch(path) for regex in _compiled(pattern))


DEEP = 24
"""Folders from which on a pattern with several `**` is matched without trying them all (CWE-1333): whoever makes a path
may make it thousands of folders deep."""

_Block = tuple[str, ...]


@lru_cache(maxsize=1024)
def _blocks(pattern: str) -> tuple[tuple[tuple[_Block, ...], bool], ...] | None:
    """For each alternative what stands between its `**`, name by name, and whether something must come after the last
    of them. None: a pattern that cannot be taken apart so."""
    found = []
    for one in alternatives(pattern):
        if "\\" in one or one.endswith("/") or any(part.count("[") != part.count("]") for part in one.split("/")):
            return None
        blocks: list[list[str]] = [[]]
        for part in one.split("/"):
            if part != "**":
                blocks[-1].append(part)
            elif len(blocks) == 1 or blocks[-1]:
                blocks.append([])
        found.append((tuple(map(tuple, blocks)), one.endswith("**") and len(one) > 2 and blocks[-1] == []))
    return tuple(found)


def _fits(names: list[str], blocks: tuple[_Block, ...], more: bool) -> bool:
    """The first block at the beginning, the last one at the end, each other where it fits first: a later place for it
    leaves less room for the next."""
    *earlier, last = blocks
    if not earlier:
        return len(last) == len(names) and _stands(last, names, 0)
    at = 0
    for number, block in enumerate(earlier):
        places = range(at, 1 if number == 0 else len(names) - len(block) + 1)
        place = next((place for place in places if _stands(block, names, place)), None)
        if place is None:
            return False
        at = place + len(block)
    end = len(names) - len(last)
    return at + more <= end and _stands(last, names, end)


def _stands(block: _Block, names: list[str], at: int) -> bool:
    return at + len(block) <= len(names) and all(
        any(regex.fullmatch(names[at + number]) for regex in _compiled(part)) for number, part in enumerate(block)
    )


def first_match(path: str, patterns: Iterable[str]) -> str | None:
    """The first pattern that matches the normalised `path`, else None."""
    for pattern in patterns:
        if matches(path, pattern):
            return pattern
    return None


def literal_prefix(pattern: str) -> str:
    """The longest folder that every match of `pattern` lies below; `""` is the root."""
    parts: list[str] = []
    for part in pattern.split("/")[:-1]:
        if any(char in part for char in "*?[{"):
            break
        parts.append(part)
    return "/".join(parts)


def is_whole_folder(pattern: str) -> bool:
    """Whether the pattern is `FOLDER/**`: everything below one literal folder (or `**`)."""
    return pattern == "**" or (pattern.endswith("/**") and literal_prefix(pattern) == pattern[:-3])


def any_match(paths: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Those of `paths` that some pattern matches, in order."""
    return [path for path in paths if first_match(path, patterns) is not None]
