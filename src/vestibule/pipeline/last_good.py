"""The last good version of an agent in a role, from the log; and a run that is given to it.

Rules it keeps:
1. Good is what the log shows: the newest version of the same agent, role and repository whose run was merged and not
   rolled back, other than those that are paused.
2. How that version is started is taken from the run that shows it, and only when it makes that very version: the digest
   in a version's name is of its adapter, mode, model, provider and command, and the program must be the one installed
   now. What is not there any more is not put in place of anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from vestibule.core.errors import Refused, UsageError
from vestibule.pipeline.pause_rules import GoodVersion
from vestibule.pipeline.record import RunRecord
from vestibule.pipeline.trust_rules import Deed, deeds

if TYPE_CHECKING:
    from vestibule.audit.entry import Entry
    from vestibule.pipeline.services import Services


def of_version(entries: Iterable[Entry], version: str, avoid: Collection[str]) -> list[GoodVersion]:
    """For each role in which the version worked, newest first: where that role goes back to."""
    found = deeds(entry.event for entry in entries)
    places = dict.fromkeys((deed.repo, deed.role, deed.agent) for deed in reversed(found) if deed.version == version)
    return [_newest(found, *place, avoid) for place in places]


def of_role(entries: Iterable[Entry], record: RunRecord, avoid: Collection[str]) -> GoodVersion:
    """The last good version for a run that is about to start."""
    found = deeds(entry.event for entry in entries)
    return _newest(found, str(record.repo), record.role, record.agent.name, avoid)


def _newest(found: list[Deed], repo: str, role: str, agent: str, avoid: Collection[str]) -> GoodVersion:
    place = GoodVersion(repo=repo, role=role, agent=agent)
    for deed in reversed(found):
        here = (deed.repo, deed.role, deed.agent) == (repo, role, agent)
        if here and deed.ended == "merged" and deed.version not in avoid:
            return place.model_copy(update={"version": deed.version, "run": deed.run})
    return place


def started_as(services: Services, record: RunRecord, good: GoodVersion) -> RunRecord | None:
    """`record` with the agent of the good version; None when that version cannot be started here any more."""
    from vestibule.pipeline.prepare import settings_digest, version_now
    from vestibule.pipeline.providers import routes_of

    shown = services.runs.find(good.run) if good.version else None
    if shown is None or shown.agent.version != good.version or shown.agent.name != record.agent.name:
        return None
    fields = {name: getattr(shown, name) for name in ("agent", "command", "native", "provider", "scripted")}
    other = record.model_copy(update=fields)
    try:
        same = version_now(other, services.operator) == good.version
        routes = routes_of(services, other)[1] if shown.provider else ()
    except (UsageError, Refused):
        return None
    if shown.provider and {route.provider.api == "scripted" for route in routes} != {shown.scripted}:
        return None
    mode = "native" if other.native else "mcp"
    settings = settings_digest(other.agent.adapter, mode, other.agent.model, other.provider, other.command)
    return other if same and good.version.endswith(f"+{settings}") else None
