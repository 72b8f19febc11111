"""Which agents there are here: each adapter, its program, and what of it was verified. Starts nothing.

`verified` is said of exact versions only, by a table that ships with the release; what a program says of itself is
not taken into account.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from vestibule.agents.base import find_program
from vestibule.agents.registry import ADAPTERS, adapter
from vestibule.agents.verified import Verified
from vestibule.core.base import Noun
from vestibule.core.control_files import CONTROL_FILES
from vestibule.core.errors import UsageError

Standing = Literal["verified", "not verified", "not installed", "any program"]


class Listed(Noun):
    """One adapter as it stands on this machine. `path` is empty when the program is not there, or comes with us."""

    adapter: str
    needs_model: bool
    modes: tuple[str, ...]
    program: str
    path: str = ""
    version: str = ""
    standing: Standing
    problem: str = ""
    """Why it could not run, in one sentence for people."""
    verified: tuple[Verified, ...] = ()
    """Versions that this release was tested with."""
    control_files: tuple[str, ...] = ()
    """Entries of the one list that the program would obey; none is ever in a view."""


def inventory(tools: tuple[Path, ...]) -> tuple[Listed, ...]:
    """Every adapter, with what is found in the operator's tool folders. Errors are part of the answer."""
    return tuple(_listed(name, tools) for name in ADAPTERS)


def _listed(name: str, tools: tuple[Path, ...]) -> Listed:
    found = adapter(name)
    about = found.about
    known = Listed(
        adapter=name,
        needs_model=found.needs_model,
        modes=about.modes,
        program=about.program,
        standing="any program",
        verified=about.verified,
        control_files=tuple(entry for entry in CONTROL_FILES if entry in about.reads),
    )
    try:
        version = found.program_version(tools)
    except UsageError as error:
        problem = " ".join(part for part in (error.what, error.next_step) if part)
        return known.model_copy(update={"standing": "not installed", "problem": problem})
    path = find_program(about.program, tools) if about.program else None
    standing: Standing = "any program"
    if about.verified:
        standing = "verified" if version in {item.version for item in about.verified} else "not verified"
    return known.model_copy(update={"version": version, "path": str(path or ""), "standing": standing})
