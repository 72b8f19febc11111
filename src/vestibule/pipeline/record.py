"""A run's row: one document, written by compare-and-swap, read by everyone."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import insert, select, update

from vestibule.boundary.host.report import HostReport
from vestibule.boundary.network.report import EgressReport
from vestibule.core import clock
from vestibule.core.base import Noun
from vestibule.core.errors import DependencyDown, UsageError
from vestibule.core.ids import RUN_ID, Sha
from vestibule.core.labels import Label
from vestibule.core.model import AgentRef, Budget, Finding, Scope, Spec, State, Task, Ticket, Timings, WallsReport
from vestibule.core.refusal import Refusal
from vestibule.core.verdict import Ruling
from vestibule.store import tables
from vestibule.store.database import Database


class Feedback(Noun):
    """What a reviewer sent back: words and the findings of the round they were about."""

    words: str
    by: str
    findings: tuple[Finding, ...] = ()


class Cause(Noun):
    """What set off the round of work that is due: how, and by whom. `id` tells causes of one kind apart."""

    trigger: str
    by: str
    id: str = ""


class RunRecord(Noun):
    """Everything about a run that is not an event, a gate, a decision or a hold."""

    id: str
    state: State = State.RECEIVED
    created: str
    updated: str
    version: int = 0

    ticket: Ticket
    requester: str
    role: str
    agent: AgentRef
    command: tuple[str, ...] = ()
    native: bool = False
    provider: str = ""
    scripted: bool = False
    repo: Path
    target: str
    base_commit: Sha
    scope: Scope
    budget: Budget
    egress: Literal["named", "learn"] = "named"
    """Which names the agent reaches: those that are listed, or also others, to learn what it would need."""

    spec: Spec | None = None
    round: int = 1
    cause: Cause = Cause(trigger="", by="")
    """Who or what asked for this round. Each round is admitted for its own cause (`admission`)."""
    attempt: int = 0
    worked: str = ""
    """When the last attempt ended: the date of its commit, the same however often the result is applied."""
    feedback: tuple[Feedback, ...] = ()

    verdict: Ruling | None = None
    reasons: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    findings: tuple[Finding, ...] = ()
    dropped: tuple[tuple[str, str], ...] = ()
    changed_files: tuple[str, ...] = ()
    branch: str = ""
    head_commit: str = ""
    tree: str = ""
    policy_digest: str = ""
    verified_tree: str = ""
    """The tree on which every verify command passed after the approval; a merge takes no other."""
    merge_commit: str = ""
    note: str = ""
    exit_code: int | None = None
    agent_exit: int | None = None
    agent_message: str = ""
    agent_denials: tuple[str, ...] = ()
    """Calls that the agent program says it refused itself. Untrusted, for display."""

    labels: Label | None = None
    """What the run had read when its last attempt ended; None before. The next round starts with it."""
    down: tuple[Refusal, ...] = ()
    """Refusals of dependencies that the agent met in its last attempt: why there may be no change."""
    network: EgressReport | None = None
    """What the last attempt did at the network crossing."""
    host: HostReport | None = None
    """What the runtime monitor saw of the last attempt."""
    walls: WallsReport | None = None
    timings: Timings = Timings()


def task_of(record: RunRecord) -> Task | None:
    """The task that a run carries out; None before its spec stands."""
    if record.spec is None:
        return None
    return Task(
        run=record.id,
        spec=record.spec,
        role=record.role,
        scope=record.scope,
        budget=record.budget,
        agent=record.agent,
        requester=record.requester,
        base_commit=record.base_commit,
    )


class RunStore:
    """Rows of runs."""

    def __init__(self, db: Database) -> None:
        self.db = db

    def create(self, record: RunRecord) -> None:
        with self.db.write() as connection:
            connection.execute(insert(tables.runs).values(**_row(record)))

    def find(self, run: str) -> RunRecord | None:
        with self.db.read() as connection:
            row = connection.execute(select(tables.runs.c.document).where(tables.runs.c.id == run)).scalar()
        return _parse(run, row) if row is not None else None

    def get(self, run: str) -> RunRecord:
        """The run, by its id or an unambiguous beginning of it.

        Raises:
            UsageError: no such run.
        """
        found = self.find(run) if RUN_ID.match(run) else None
        if found is None and run and run.isalnum():
            with self.db.read() as connection:
                ids = connection.execute(
                    select(tables.runs.c.id).where(tables.runs.c.id.startswith(run, autoescape=True)).limit(2)
                ).scalars()
                matches = list(ids)
            found = self.find(matches[0]) if len(matches) == 1 else None
        if found is None:
            raise UsageError(f"There is no run {run!r}.", next_step="`vestibule runs` lists them.")
        return found

    def all(self, limit: int = 1000) -> list[RunRecord]:
        """Newest first."""
        query = select(tables.runs.c.id, tables.runs.c.document).order_by(tables.runs.c.id.desc()).limit(limit)
        with self.db.read() as connection:
            return [_parse(run, document) for run, document in connection.execute(query)]

    def in_states(self, states: Collection[State]) -> list[RunRecord]:
        """Every run in one of these states, newest first."""
        query = (
            select(tables.runs.c.id, tables.runs.c.document)
            .where(tables.runs.c.state.in_([state.value for state in states]))
            .order_by(tables.runs.c.id.desc())
        )
        with self.db.read() as connection:
            return [_parse(run, document) for run, document in connection.execute(query)]

    def with_commit(self, commit: Sha) -> list[RunRecord]:
        """Runs that proposed or merged `commit`, newest first."""
        query = (
            select(tables.runs.c.id, tables.runs.c.document)
            .where(tables.runs.c.document.contains(commit, autoescape=True))
            .order_by(tables.runs.c.id.desc())
        )
        with self.db.read() as connection:
            found = [_parse(run, document) for run, document in connection.execute(query)]
        return [record for record in found if commit in (record.head_commit, record.merge_commit)]

    def change(self, run: str, change: Callable[[RunRecord], dict[str, Any]]) -> RunRecord:
        """Apply `change` (record → changed fields) atomically, trying again when another writer was faster."""
        for _ in range(50):
            with self.db.write() as connection:
                row = connection.execute(
                    select(tables.runs.c.document).where(tables.runs.c.id == run)
                ).scalar_one_or_none()
                if row is None:
                    raise UsageError(f"There is no run {run!r}.")
                old = _parse(run, row)
                fields = change(old)
                if not fields:
                    return old
                new = old.model_copy(update={**fields, "version": old.version + 1, "updated": clock.now()})
                done = connection.execute(
                    update(tables.runs)
                    .where(tables.runs.c.id == run, tables.runs.c.version == old.version)
                    .values(**_row(new))
                )
                if done.rowcount == 1:
                    return new
        raise DependencyDown("database", f"Run {run} is being changed by too many writers at once.")

    def set(self, run: str, **fields: Any) -> RunRecord:
        return self.change(run, lambda _: fields)


def _row(record: RunRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "state": record.state.value,
        "created": record.created,
        "updated": record.updated,
        "version": record.version,
        "document": json.dumps(record.model_dump(mode="json"), ensure_ascii=False),
    }


def _parse(run: str, document: str) -> RunRecord:
    try:
        record = RunRecord.model_validate_json(document)
        if record.id != run:
            raise ValueError(f"it holds the run {record.id}")
        return record
    except ValueError as error:
        raise DependencyDown("database", f"The row of run {run} cannot be read.", fact=str(error)[:300]) from error
