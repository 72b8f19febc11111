"""What a paused agent version means for runs: where new ones go, and which changes wait.

Rules it keeps:
1. A new run of a paused version is given to the role's last good version when that can still be started, and the log
   says so before the run exists; else it stays as it is, and admission refuses it.
2. A change that a paused version worked on is not approved, sent back or merged until a person releases the version;
   rejecting it is always open. Which versions worked on it is what the log says, besides the run's row.
3. A round that was cut off after it was admitted does not begin again while its version is paused: it waits.
4. A pause that cannot be read holds: `DependencyDown`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vestibule.core.errors import Refused
from vestibule.core.model import State
from vestibule.core.refusal import Refusal, refusal
from vestibule.pipeline import last_good
from vestibule.pipeline.admission import is_admitted
from vestibule.pipeline.pause import PauseBook
from vestibule.pipeline.pause_rules import GoodVersion, Standing
from vestibule.pipeline.record import RunRecord

if TYPE_CHECKING:
    from vestibule.core.model import Choice
    from vestibule.pipeline.services import Services

BEGINS = (State.RECEIVED, State.SPECIFIED, State.CHANGES_REQUESTED, State.WORKING)
"""States of a run whose round has an agent to start, or to start again."""


def returned(services: Services, record: RunRecord) -> RunRecord:
    """The run as it starts: of the last good version when its own is paused and the role goes back.

    Raises:
        DependencyDown: log or database.
    """
    book = PauseBook(services)
    standing = book.look(record.agent.name, record.agent.version)
    good = good_for(services, record, standing)
    if good is None or not good.version:
        return record
    other = last_good.started_as(services, record, good)
    if other is None:
        return record
    paused = standing.pause.id if standing.pause else ""
    details = {"from": record.agent.version, "pause": paused, "good": good.model_dump(mode="json")}
    services.note(other, "agent.return", good.version, details=details)
    services.say(f"{record.agent.version} is paused; the run is given to the last good version {good.version}.")
    return other


def good_for(services: Services, record: RunRecord, standing: Standing) -> GoodVersion | None:
    """Where the run's role goes back to; None when it does not."""
    if not standing.paused or standing.problem or standing.pause is None or standing.pause.act != "rollback":
        return None
    avoid = {item.version for item in PauseBook(services).paused()}
    return last_good.of_role(services.audit.entries(), record, avoid)


def paused_words(services: Services, record: RunRecord, standing: Standing) -> str:
    """Why new work of the run's version is refused, for the refusal: since when, by whom, and what the role had."""
    good = good_for(services, record, standing)
    if good is None:
        return standing.words()
    if not good.version:
        return standing.words("this role has no last good version here")
    return standing.words(f"the last good version {good.version} cannot be started here any more")


def holder_of(services: Services, record: RunRecord) -> Standing | None:
    """The paused version that worked on the run's change; None when none did.

    Raises:
        DependencyDown: log or database.
    """
    standings = PauseBook(services).standings()
    if not any(item.paused for item in standings.values()):
        return None
    versions = dict.fromkeys([record.agent.version])
    for entry in services.audit.entries(run=record.id):
        if entry.event.action == "agent.start" and entry.event.phase == "intent":
            versions[entry.event.resource] = None
    found = (standings.get(version) for version in versions)
    return next((item for item in found if item is not None and item.paused), None)


def kept_waiting(services: Services, record: RunRecord) -> str:
    """Why a round that is due does not begin again, for people. Empty: it does, or admission is asked first.

    Raises:
        DependencyDown: log, database or policy folder.
    """
    if record.state not in BEGINS or not is_admitted(services.audit.entries(run=record.id), record):
        return ""
    standing = PauseBook(services).look(record.agent.name, record.agent.version)
    if not standing.paused:
        return ""
    return (
        f"The round was cut off, and new work of its agent version is paused: {standing.words()[:500]}. Let it work "
        f"again with `vestibule agents release {standing.version} --reason …`, then resume; or cancel the run."
    )


def held_refusal(record: RunRecord, standing: Standing) -> Refusal:
    return refusal(
        "change.held",
        "The change is held: new work of the agent version that made it is paused.",
        fact=standing.words()[:500],
        agent="Stop here; only a person can go on from this point.",
        person=f"Look at it with `vestibule show {record.id}`. Reject it, or let the version work again with "
        f"`vestibule agents release {standing.version} --reason …`.",
    )


def require_free(services: Services, record: RunRecord, choice: Choice) -> None:
    """Before a person's decision. Raises Refused: `change.held`."""
    if choice == "reject":
        return
    standing = holder_of(services, record)
    if standing is None:
        return
    refused = held_refusal(record, standing)
    services.note_refusal(record, refused, "review.refused")
    raise Refused(refused)


def note_held(services: Services, record: RunRecord) -> None:
    """The entry for a change that is proposed while its version is paused already."""
    standing = holder_of(services, record)
    if standing is not None and standing.pause is not None:
        PauseBook(services).hold_change(record, standing.pause)
