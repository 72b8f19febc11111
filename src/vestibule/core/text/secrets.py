"""Known values that must not leave, and how much of one tells it. Pure.

Rules it keeps:
1. A value is named, never shown: not in a `repr`, not in what a search gives back.
2. What everybody's tokens of a kind begin with is no part of a value.
3. Parts tell: any 12 characters in a row, or half of the value in pieces of six.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

WINDOW, GRAM = 12, 6
PIECED = 16
"""A value of fewer characters is found as a whole or by a window only."""

PUBLIC_PREFIX = re.compile(
    rb"(?:gh[pousr]_|github_pat_|gl[a-z]{2,5}-|xox[abeprs]-|xapp-|[sr]k_(?:live|test|prod)_|whsec_|AIza|GOCSPX-|ya29\.|npm_|"
    rb"pypi-AgEIcHlwaS5vcmc|sk-ant-(?:[a-z0-9]{2,8}-)?|sk-(?:proj-|svcacct-|admin-|or-v1-)?|hf_|SG\.|dop_v1_|dapi|hv[sbr]\.|"
    rb"AKIA|ASIA|eyJ[A-Za-z0-9_-]+\.|Bearer |Basic )"
)
"""Beginnings that are the same in everybody's tokens."""


@dataclass(frozen=True, slots=True)
class KnownSecret:
    """A value that must not leave. `name` is what a finding calls it; the value is never shown."""

    name: str
    value: bytes

    def __repr__(self) -> str:
        return f"KnownSecret({self.name!r})"


def secret_core(value: bytes) -> bytes:
    """The value without what everybody's token of its kind begins with."""
    match = PUBLIC_PREFIX.match(value)
    return value[match.end() :] if match else value


def part_of(core: bytes, data: bytes) -> int | None:
    """Where `data` holds `core` or a telling part of it, else None.

    Telling: the whole; 12 characters in a row with at least 6 different ones; or pieces of 6 that cover half of it
    (values of 16 characters and more).
    """
    at = window_of(core, data)
    if at is not None or len(core) < PIECED:
        return at
    covered, first = pieces_of(core, data)
    return first if covered.bit_count() * 2 >= len(core) else None


def window_of(core: bytes, data: bytes) -> int | None:
    """Where `data` holds `core`, or 12 characters in a row of it with at least 6 different ones."""
    whole = data.find(core)
    if whole >= 0 or len(core) < WINDOW:
        return whole if whole >= 0 else None
    # Every window of 12 holds one whole gram of 6 that starts at a multiple of 6.
    for start in range(0, len(core) - GRAM + 1, GRAM):
        gram = core[start : start + GRAM]
        at = data.find(gram)
        while at >= 0:
            low, high = start, start + GRAM
            left, right = at, at + GRAM
            while low > 0 and left > 0 and core[low - 1] == data[left - 1]:
                low, left = low - 1, left - 1
            while high < len(core) and right < len(data) and core[high] == data[right]:
                high, right = high + 1, right + 1
            if high - low >= WINDOW and len(set(core[low:high])) >= GRAM:
                return left
            at = data.find(gram, at + 1)
    return None


def pieces_of(core: bytes, data: bytes) -> tuple[int, int | None]:
    """Which characters of `core` stand in `data` within pieces of 6, as bits, and where the first piece is."""
    covered, first = 0, None
    for start in range(len(core) - GRAM + 1):
        gram = core[start : start + GRAM]
        if len(set(gram)) < 4:
            continue
        at = data.find(gram)
        if at >= 0:
            covered |= ((1 << GRAM) - 1) << start
            first = at if first is None else min(first, at)
    return covered, first
