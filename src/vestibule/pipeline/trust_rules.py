"""What the record of an agent's runs says about the next step: pure functions from log entries to a proposal.

Rules they keep:
1. The record is read from the audit log alone: what the database says of a run changes nothing here.
2. A step up needs an unbroken row of clean runs of exactly this agent version, on the rung where it stands. One
   rollback or rejection of it proposes the step back; whatever is in doubt is not clean: a run that was stopped by a
   guard or by a person breaks the row.
3. What was merged into another branch is no evidence for this one: its configuration chose other reviewers.
4. Answers of a script are no record of a model, and what nobody but the requester reviewed counts only where the
   configuration says so.
5. Nothing here applies anything. People do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from vestibule.core.base import Noun
from vestibule.core.model import Event
from vestibule.core.verdict import Ruling

Ended = Literal["merged", "rejected", "refused", "rolled_back", "cancelled", "open"]


class Deed(Noun):
    """What the log holds of one run. `open`: nothing in it says how it ended."""

    run: str
    repo: str
    agent: str
    version: str
    role: str
    target: str = ""
    """The branch that its change was proposed for; "" when it never got that far."""
    scripted: bool = False
    ended: Ended = "open"
    rework: int = 0
    """How often a reviewer sent it back."""
    denials: int = 0
    holds: int = 0
    self_reviewed: bool = False


class Record(Noun):
    """The record of one agent version in one role, scripted runs apart."""

    agent: str
    version: str
    role: str
    runs: int = 0
    clean: int = 0
    streak: int = 0
    """Clean runs in a row, up to the newest."""
    merged: int = 0
    rejected: int = 0
    refused: int = 0
    rework: int = 0
    denials: int = 0
    holds: int = 0
    rollbacks: int = 0
    scripted: int = 0
    behind: tuple[str, ...] = ()
    """The runs of the streak, oldest first."""
    against: tuple[str, ...] = ()
    """Runs since the last clean one that speak against it."""


class Proposal(Noun):
    """What a person could do: `up` or `back` to `role`, or `stay` there, and why."""

    step: Literal["up", "back", "stay"]
    role: str
    why: str
    runs: tuple[str, ...] = ()


class Terms(Noun):
    """When a run is clean, and how many in a row propose a step up."""

    clean_runs: int = 10
    max_denials: int = 5
    count_self_reviewed: bool = False


def deeds(events: Iterable[Event]) -> list[Deed]:
    """The runs in the order in which their agents first started; runs whose agent never started are left out.

    `events` are intents and outcomes in the log's order.
    """
    found: dict[str, Deed] = {}
    choices: dict[str, str] = {}
    for event in events:
        if event.action == "agent.start" and event.phase == "intent" and event.subject == "system":
            found.setdefault(event.run, _started(event))
            continue
        deed = found.get(event.run)
        if deed is None:
            continue
        if event.phase == "intent":
            if event.subject == "agent":
                found[event.run] = _asked(deed, event.verdict)
            elif event.action in ("change.propose", "run.refused") and event.verdict is Ruling.DENY:
                found[event.run] = deed.model_copy(update={"ended": "refused"})
            elif event.action == "gate.open" and event.subject == "system":
                found[event.run] = deed.model_copy(update={"target": _target(event)})
            elif event.action == "review.decide":
                choices[event.run] = str(event.details.get("choice", ""))
        elif event.result == "ok" and event.subject not in ("agent", "probe"):
            found[event.run] = _closed(deed, event, choices.get(event.run, ""))
    return list(found.values())


def _started(event: Event) -> Deed:
    details = event.details
    return Deed(
        run=event.run,
        repo=str(details.get("repo", "")),
        agent=str(details.get("agent", "")),
        version=event.resource,
        role=str(details.get("role", "")),
        # An entry that does not say so is from before it was said: no evidence.
        scripted=details.get("scripted") is not False,
    )


def _target(event: Event) -> str:
    binding = event.details.get("binding")
    return str(binding.get("target", "")) if isinstance(binding, dict) else ""


def about(found: Iterable[Deed], repo: str, target: str) -> list[Deed]:
    """Those that are evidence for a branch: what was merged into another one was judged by other rules and people.

    What did not go well counts wherever it was meant to go.
    """
    return [deed for deed in found if deed.repo == repo and (deed.target == target or deed.ended != "merged")]


def _asked(deed: Deed, verdict: Ruling | None) -> Deed:
    if verdict is Ruling.DENY:
        return deed.model_copy(update={"denials": deed.denials + 1})
    if verdict is Ruling.HOLD:
        return deed.model_copy(update={"holds": deed.holds + 1})
    return deed


def _closed(deed: Deed, event: Event, choice: str) -> Deed:
    if event.action == "review.decide":
        if choice == "request-changes":
            return deed.model_copy(update={"rework": deed.rework + 1})
        if choice == "reject":
            return deed.model_copy(update={"ended": "rejected"})
        if event.details.get("self_review") is not False:
            return deed.model_copy(update={"self_reviewed": True})
    elif event.action == "run.cancel":
        return deed if deed.ended != "open" else deed.model_copy(update={"ended": "cancelled"})
    elif event.action == "release.rollback":
        return deed.model_copy(update={"ended": "rolled_back"})
    elif event.action == "merge.found" or (event.action == "merge" and event.details.get("state") == "merged"):
        return deed if deed.ended == "rolled_back" else deed.model_copy(update={"ended": "merged"})
    return deed


def clean(deed: Deed, terms: Terms) -> bool:
    """Merged at the first look, by another person's approval, and within the bound of refused calls."""
    return (
        deed.ended == "merged"
        and deed.rework == 0
        and deed.denials <= terms.max_denials
        and (terms.count_self_reviewed or not deed.self_reviewed)
    )


def records(found: Sequence[Deed], terms: Terms) -> list[Record]:
    """One record per agent, version and role, in the order of their first run."""
    groups: dict[tuple[str, str, str], list[Deed]] = {}
    for deed in found:
        groups.setdefault((deed.agent, deed.version, deed.role), []).append(deed)
    return [_record(group, terms) for group in groups.values()]


def _record(group: Sequence[Deed], terms: Terms) -> Record:
    counted = [deed for deed in group if not deed.scripted]
    # A run that is under way says nothing yet, unless it was refused too much already.
    ended = [deed for deed in counted if deed.ended != "open" or deed.denials > terms.max_denials]
    streak: list[str] = []
    against: list[str] = []
    for deed in ended:
        if clean(deed, terms):
            streak.append(deed.run)
            against.clear()
        else:
            streak.clear()
            if deed.ended in ("rejected", "rolled_back"):
                against.append(deed.run)
    first = group[0]
    return Record(
        agent=first.agent,
        version=first.version,
        role=first.role,
        runs=len(counted),
        clean=sum(clean(deed, terms) for deed in ended),
        streak=len(streak),
        merged=sum(deed.ended == "merged" for deed in counted),
        rejected=sum(deed.ended == "rejected" for deed in counted),
        refused=sum(deed.ended == "refused" for deed in counted),
        rework=sum(deed.rework for deed in counted),
        denials=sum(deed.denials for deed in counted),
        holds=sum(deed.holds for deed in counted),
        rollbacks=sum(deed.ended == "rolled_back" for deed in counted),
        scripted=len(group) - len(counted),
        behind=tuple(streak),
        against=tuple(against),
    )


def propose(rungs: Sequence[str], at: int, record: Record | None, terms: Terms) -> Proposal:
    """The next step of an agent version that stands on `rungs[at]`, from its record in that role.

    Raises:
        IndexError: `at` is no rung.
    """
    here = rungs[at]
    if record is None:
        return Proposal(step="stay", role=here, why="No run of this version in this role yet.")
    if record.against:
        many = "run was" if len(record.against) == 1 else "runs were"
        words = f"{len(record.against)} {many} rejected or rolled back since the last clean one."
        if at == 0:
            return Proposal(step="stay", role=here, why=f"{words} It stands on the first rung.", runs=record.against)
        return Proposal(step="back", role=rungs[at - 1], why=words, runs=record.against)
    row = f"{record.streak} clean run{'' if record.streak == 1 else 's'} in a row"
    if record.streak < terms.clean_runs:
        return Proposal(step="stay", role=here, why=f"{row}; {terms.clean_runs} are needed.", runs=record.behind)
    if at == len(rungs) - 1:
        return Proposal(step="stay", role=here, why=f"{row}, on the last rung.", runs=record.behind)
    return Proposal(step="up", role=rungs[at + 1], why=f"{row}.", runs=record.behind)
