"""Whether an agent version is paused, by what the log and the database say of it. Pure.

Rules they keep:
1. A pause that the log knows stands until the log knows its release, whatever the database says: a row that was
   deleted or changed frees nothing.
2. A row that says paused, of which the log knows nothing, pauses all the same: something is wrong, and what is in doubt
   starts no new work. Either way the standing says what does not agree.
3. An intent counts from when it is in the log, unless its outcome says that it failed: what was cut off is finished.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from vestibule.core.base import Noun
from vestibule.core.verdict import Ruling
from vestibule.cost.spikes import Evidence

if TYPE_CHECKING:
    from vestibule.audit.entry import Entry

ALERT, PAUSE, RELEASE = "agent.alert", "agent.pause", "agent.release"
HOLD, FREE, RETURN = "change.hold", "change.release", "agent.return"
Cause = Literal["spend", "person"]
Act = Literal["pause", "rollback"]


class GoodVersion(Noun):
    """The last good version of an agent in a role of a repository: `version` is empty when there is none."""

    repo: str
    role: str
    agent: str
    version: str = ""
    run: str = ""
    """The merged run that shows it."""


class Pause(Noun):
    """New work of one agent version is paused: since when, by whom and why. Times are RFC 3339."""

    id: str
    version: str
    agent: str
    act: Act
    cause: Cause
    by: str
    reason: str
    time: str
    evidence: Evidence | None = None
    returns: tuple[GoodVersion, ...] = ()


class Release(Noun):
    """A person let the version work again."""

    pause: str
    by: str
    reason: str
    time: str


class Row(Noun):
    """What the table holds of a version. `complete`: every step of the pause is in the log."""

    pause: Pause
    release: Release | None = None
    complete: bool = False

    @property
    def state(self) -> str:
        return "paused" if self.release is None else "released"


class Standing(Noun):
    """Where a version stands. `problem` says what log and database do not agree on; then it is paused."""

    version: str
    paused: bool = False
    pause: Pause | None = None
    problem: str = ""
    released: str = ""
    """When a person last released it; empty when nobody did."""
    complete: bool = True

    @property
    def fact(self) -> str:
        """The fact `agent_paused` of `task.admit`: empty when new work may start."""
        if not self.paused:
            return ""
        return "task.agent_paused.evidence" if self.problem else "paused"

    def words(self, back: str = "") -> str:
        """Why, in one line for people: first what matters most, for the line may be cut. `back`: where its roles go."""
        if self.pause is None:
            return f"{self.version}: {self.problem}" if self.paused else ""
        known = ", ".join(dict.fromkeys(item.version for item in self.pause.returns if item.version))
        parts = (
            f"{self.version}, since {self.pause.time}",
            self.problem,
            back or (f"last good version {known}" if known else ""),
            self.pause.reason,
        )
        return "; ".join(part for part in parts if part)


def standings(entries: Iterable[Entry], rows: Mapping[str, Row]) -> dict[str, Standing]:
    """Every version that the log or the table knows. `entries` are those of no run, in the log's order."""
    said: dict[str, list[Pause | Release | None]] = {}
    for event in happened(entries, (PAUSE, RELEASE)):
        word = _word(event.action, event.details)
        if word is not None or event.action == PAUSE:
            said.setdefault(event.resource, []).append(word)
    return {name: _standing(name, said.get(name, []), rows.get(name)) for name in {*said, *rows}}


def happened(entries: Iterable[Entry], actions: tuple[str, ...]) -> list[Any]:
    """Allowed intents of these actions that are not known to have failed, in order."""
    found: dict[int, Any] = {}
    for entry in entries:
        event = entry.event
        if event.action not in actions:
            continue
        if event.phase == "outcome":
            if event.result == "failed":
                found.pop(event.intent or 0, None)
        elif event.verdict is Ruling.ALLOW and event.subject in ("system", "person"):
            found[entry.seq] = event
    return [found[seq] for seq in sorted(found)]


def _word(action: str, details: dict[str, Any]) -> Pause | Release | None:
    """What the entry says; None: it cannot be read."""
    kind: type[Pause | Release] = Pause if action == PAUSE else Release
    try:
        return kind.model_validate_json(json.dumps(details.get(kind.__name__.lower())))
    except ValidationError:
        return None


def _standing(version: str, said: list[Pause | Release | None], row: Row | None) -> Standing:
    found = Standing(
        version=version,
        released=next((word.time for word in reversed(said) if isinstance(word, Release)), ""),
    )
    paused = {"paused": True, "complete": False}
    if said and said[-1] is None:
        return found.model_copy(update={**paused, "problem": "its entry in the log cannot be read"})
    last = said[-1] if said else None
    if isinstance(last, Pause):
        agrees = row is not None and row.pause == last and row.release is None
        problem = "" if agrees else "the database does not hold the pause that the log knows"
        done = agrees and row is not None and row.complete
        return found.model_copy(update={**paused, "pause": last, "problem": problem, "complete": done})
    if row is not None and row.release is None:
        known = isinstance(last, Release) and last.pause == row.pause.id
        problem = "its row says paused, the log says released" if known else "the log knows of no such pause"
        return found.model_copy(update={**paused, "pause": row.pause, "problem": problem})
    return found
