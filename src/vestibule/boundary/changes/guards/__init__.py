"""One guard a file, behind one small protocol (`base.Guard`). The order is the order of the report."""

from __future__ import annotations

from vestibule.boundary.changes.guards import (
    binaries,
    links,
    modes,
    paths,
    pipeline,
    protected,
    review,
    scope,
    secrets,
    size,
    startup,
    submodules,
    unicode,
)
from vestibule.boundary.changes.guards.base import Guard, GuardContext

GUARDS: tuple[tuple[str, Guard], ...] = (
    ("paths", paths.examine),
    ("protected", protected.examine),
    ("scope", scope.examine),
    ("pipeline", pipeline.examine),
    ("submodules", submodules.examine),
    ("links", links.examine),
    ("modes", modes.examine),
    ("secrets", secrets.examine),
    ("unicode", unicode.examine),
    ("binaries", binaries.examine),
    ("size", size.examine),
    ("startup", startup.examine),
    ("review", review.examine),
)

__all__ = ["GUARDS", "Guard", "GuardContext"]
