"""Scanners that a configuration names: this version carries none, and one that did not run is a hold, never a pass."""

from __future__ import annotations

from collections.abc import Iterable

from vestibule.core.model import Finding
from vestibule.core.verdict import Ruling


def not_run(names: Iterable[str]) -> tuple[Finding, ...]:
    """One held finding for each scanner that was asked for and did not look."""
    return tuple(
        Finding(
            rule="scanner.not_run",
            severity="warning",
            verdict=Ruling.HOLD,
            message=f"The scanner {name!r} is configured and did not run: this version runs no external scanners.",
            fix="A person looks in its place, or the name leaves `scanners` of the base branch's configuration.",
        )
        for name in dict.fromkeys(names)
    )
