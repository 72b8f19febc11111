"""What the monitor saw of one attempt, for the run's row; and where it and the exported patch disagree. Pure.

Rules it keeps:
1. A changed file that no watched process and no gateway wrote is told: it holds the change.
2. When something of the account is missing (cut short, or not kept), that is told too: an incomplete account agrees
   with nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vestibule.boundary.host.seen import Program, Summary
from vestibule.core.base import Noun
from vestibule.core.model import Finding, Place
from vestibule.core.text.sanitize import one_line
from vestibule.core.verdict import Ruling

MAX_NAMED = 50
"""Files of one disagreement that are named one by one; the rest is counted."""
MAX_PROGRAMS = 200
WORKSPACE = "/workspace/"


class Seen(Noun):
    """A match and what policy answered."""

    behaviour: str
    action: str
    verdict: str
    rule: str = ""
    program: str
    what: str


class HostReport(Noun):
    """`rung` is `tracepoints` or `none` (`why` says what proved it, or why there is none). `sha256` names the event
    stream, `file` where it is kept in the run's folder."""

    rung: str
    why: str = ""
    events: int = 0
    lost: int = 0
    sha256: str = ""
    file: str = ""
    cut: bool = False
    programs: tuple[Program, ...] = ()
    matches: tuple[Seen, ...] = ()
    alarms: tuple[Finding, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For `show --json`."""
        found = self.model_dump(mode="json", exclude={"alarms"})
        return {**found, "alarms": [item.as_json() for item in self.alarms]}

    def as_details(self) -> dict[str, Any]:
        """For the outcome of `agent.start`: integers and texts only."""
        return {
            "rung": self.rung,
            "events": self.events,
            "lost": self.lost,
            "sha256": self.sha256,
            "file": self.file,
            "cut": self.cut,
            "matches": len(self.matches),
        }


def held(seen: Seen, words: str) -> Finding:
    """The finding of a match that policy holds."""
    return Finding(
        rule=seen.rule or "host.suspicious",
        severity="error",
        verdict=Ruling.HOLD,
        message=f"{words} {one_line(seen.program)}: {one_line(seen.what)}",
        tool="monitor",
    )


def unexplained(changed: Iterable[tuple[str, str]], summary: Summary, gateway: Iterable[str]) -> tuple[Finding, ...]:
    """`changed` is (path in the workspace, status) of the patch; `gateway` the paths that our own tools wrote.

    A folder that was moved brings all that is in it; one that was moved away takes it along.
    """
    if summary.full:
        return (_finding("host.account", "The monitor saw more files than it keeps account of."),)
    by_tools = set(gateway)
    written, gone = _below(summary.writes), _below(summary.gone)
    moved = _below(summary.moved)
    missing = []
    for path, status in changed:
        known = path in by_tools
        known = known or path in (gone if status == "deleted" else written)
        if not known and not any(parent in (gone if status == "deleted" else moved) for parent in _parents(path)):
            missing.append(path)
    named = [
        _finding("host.unwritten", "The patch changes a file that no watched program was seen to write.", path)
        for path in missing[:MAX_NAMED]
    ]
    if len(missing) > MAX_NAMED:
        named.append(
            _finding("host.unwritten", f"{len(missing) - MAX_NAMED} more files that no program was seen to write.")
        )
    return tuple(named)


def _below(paths: Iterable[str]) -> set[str]:
    return {path[len(WORKSPACE) :] for path in paths if path.startswith(WORKSPACE)}


def _parents(path: str) -> Iterable[str]:
    parts = path.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts)))


def _finding(rule: str, message: str, path: str = "") -> Finding:
    return Finding(
        rule=rule,
        severity="error",
        verdict=Ruling.HOLD,
        message=message,
        place=Place(path=path) if path else None,
        tool="monitor",
    )
