"""From spend that is an alarm to new work that does not start: alert, pause, hold, return; and how people undo it.

Rules it keeps:
1. Each step is in the log before its effect, names the version and its evidence, and is done once: what a killed
   process left undone is done by whoever looks next (`look`), from what the log says.
2. A pause is decided by the shipped and the organisation's policy (`agent.pause`). A repository's policy has no say: it
   could only loosen. A hold or a deny of it leaves the alert; a policy that cannot be asked admits no run either.
3. Whether a version is paused is what log and database say together (`pause_rules`). What cannot be read refuses.
4. Only people release, each with a reason (`agent.release`); one release undoes pause, held changes and return.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from sqlalchemy import delete, insert, select

from vestibule.core import clock
from vestibule.core.canonical import canonical_json
from vestibule.core.crossing import Actor, Crossing, first_refusal
from vestibule.core.errors import DependencyDown, Refused, UsageError
from vestibule.core.ids import new_id
from vestibule.core.model import Event, State, Subject
from vestibule.core.text.sanitize import one_line
from vestibule.core.verdict import Ruling, Verdict
from vestibule.cost.spend_watch import SpendSeries, terms_of
from vestibule.cost.spikes import Evidence, Reading
from vestibule.pipeline import last_good
from vestibule.pipeline.lease import Lease
from vestibule.pipeline.pause_rules import (
    ALERT,
    FREE,
    HOLD,
    PAUSE,
    RELEASE,
    RETURN,
    Cause,
    Pause,
    Release,
    Row,
    Standing,
    happened,
    standings,
)
from vestibule.pipeline.record import RunRecord
from vestibule.store import tables

if TYPE_CHECKING:
    from vestibule.audit.entry import Entry
    from vestibule.core.model import Receipt
    from vestibule.pipeline.services import Services

OPEN = (State.AWAITING_REVIEW, State.APPROVED, State.VERIFYING, State.MERGING)
"""States of a run whose change is not merged yet."""
TURN_SECONDS = 10.0
REASON_CHARS = 500
MAX_RETURNS = 20
"""Roles that one pause names; further ones are found when a run asks for them."""
NO_RUN = ""
"""Entries about a version are of no run."""
PAUSES = tables.agent_pauses


class PauseBook:
    """What is paused, and the steps that lead there and back."""

    def __init__(self, services: Services, *, now: Callable[[], str] = clock.now) -> None:
        self.services = services
        self._now = now

    # --- what stands --------------------------------------------------------------------------------------

    def standing(self, version: str) -> Standing:
        """Where a version stands. Raises DependencyDown: log or database."""
        return self.standings().get(version, Standing(version=version))

    def standings(self) -> dict[str, Standing]:
        return standings(self._entries(), self._rows())

    def paused(self) -> list[Standing]:
        """Versions whose new work is paused, by name."""
        return sorted((item for item in self.standings().values() if item.paused), key=lambda item: item.version)

    def look(self, agent: str, version: str) -> Standing:
        """Judge what the version spends now, do what follows, and finish what was begun; where it stands then.

        Raises:
            DependencyDown: log, database or policy folder.
        """
        standing = self.standing(version)
        if standing.paused:
            if not standing.complete and standing.pause is not None:
                with self._turn():
                    self._finish(self.standing(version))
                return self.standing(version)
            return standing
        reading = self._reading(agent, version, standing)
        if reading.evidence is None:
            return standing
        with self._turn():
            standing = self.standing(version)
            if not standing.paused:
                self._alarm(agent, version, reading)
        return self.standing(version)

    def open_changes(self, version: str) -> list[RunRecord]:
        """Runs of the version whose change waits for people or for its merge, oldest first."""
        runs = self.services.runs.in_states(OPEN)
        return sorted((item for item in runs if item.agent.version == version), key=lambda item: item.id)

    # --- by people ----------------------------------------------------------------------------------------

    def pause(self, version: str, reason: str) -> Standing:
        """A person pauses a version.

        Raises:
            UsageError: no such version ever ran, or it is paused. Refused: policy says no.
        """
        _reasoned(reason)
        with self._turn():
            if self.standing(version).paused:
                raise UsageError(f"{one_line(version)} is paused already.", next_step="See `vestibule agents paused`.")
            agent = self._agent_of(version)
            if not agent:
                raise UsageError(
                    f"No run of {one_line(version)} is known here.",
                    next_step="`vestibule agents` lists the versions that worked.",
                )
            refused = self._pause(agent, version, one_line(reason, REASON_CHARS))
        if refused is not None:
            raise Refused(first_refusal(refused, PAUSE, version))
        self.services.remember_head()
        return self.standing(version)

    def release(self, version: str, reason: str) -> tuple[Release, list[str]]:
        """A person lets it work again: its pause, its held changes and the return of its roles are undone together.

        Gives the release, and the runs whose changes were held.

        Raises:
            UsageError: it is not paused. Refused: policy says no.
        """
        _reasoned(reason)
        with self._turn():
            standing = self.standing(version)
            if not standing.paused:
                raise UsageError(f"{one_line(version)} is not paused.", next_step="See `vestibule agents paused`.")
            person = self.services.person
            pause = standing.pause.id if standing.pause else ""
            release = Release(pause=pause, by=person.id, reason=one_line(reason, REASON_CHARS), time=self._now())
            changes = [item.id for item in self.open_changes(version)]
            details = {"release": release.model_dump(mode="json"), "changes": changes, "problem": standing.problem}
            facts = {"paused": True, "reason_given": True, "permitted": self._permitted()}
            verdict = self._decided(RELEASE, version, Actor(NO_RUN, person.id, "person"), facts, details)
            if not verdict[0].allowed:
                raise Refused(first_refusal(verdict[0], RELEASE, version))
            with self._closing(*verdict[1:]):
                self._forget_pause(version, standing.pause, release)
            for run in changes:
                self._step(FREE, run, {"version": version, "pause": pause}, run=run, by=person.id)
        self.services.remember_head()
        return release, changes

    # --- the chain ----------------------------------------------------------------------------------------

    def _alarm(self, agent: str, version: str, reading: Reading) -> None:
        watch = self.services.operator.spend
        entries = list(self._entries())
        evidence = reading.evidence
        if evidence is None:
            return
        if not self._told_lately(entries, ALERT, version):
            details = {"agent": agent, "level": reading.level, "evidence": evidence.model_dump(mode="json")}
            self._step(ALERT, version, details)
        if reading.level != "pause" or watch.act == "alert" or self._told_lately(entries, PAUSE, version, refused=True):
            return
        self._pause(agent, version, words_of(evidence), evidence)

    def _pause(self, agent: str, version: str, reason: str, evidence: Evidence | None = None) -> Verdict | None:
        """Decide and pause: for spend with its evidence, else for this person. The verdict when policy says no."""
        cause: Cause = "person" if evidence is None else "spend"
        kind: Subject = "person" if evidence is None else "system"
        by = self.services.person.id if evidence is None else self._system()
        good = last_good.of_version(self.services.audit.entries(), version, self._avoided(version))
        pause = Pause(
            id=new_id("p"),
            version=version,
            agent=agent,
            act="rollback" if self.services.operator.spend.act == "rollback" else "pause",
            cause=cause,
            by=by,
            reason=reason,
            time=self._now(),
            evidence=evidence,
            returns=tuple(good[:MAX_RETURNS]),
        )
        facts = {
            "cause": cause,
            "version_known": True,
            "reason_given": bool(reason.strip()),
            "permitted": self._permitted() if cause == "person" else True,
        }
        details = {"pause": pause.model_dump(mode="json")}
        verdict, intent, receipt = self._decided(PAUSE, version, Actor(NO_RUN, by, kind), facts, details)
        if not verdict.allowed:
            return verdict
        with self._closing(intent, receipt):
            self._write(Row(pause=pause))
        self.services.say(f"New work of {version} is paused: {reason}")
        self._finish(self.standing(version))
        return None

    def _finish(self, standing: Standing) -> None:
        """The steps after a pause that the log does not hold yet. What is there is not done again."""
        pause = standing.pause
        if not standing.paused or pause is None or standing.complete:
            return
        if standing.problem and not self._in_log(pause):
            return  # the database alone says so: nothing is done on its word
        self._write(Row(pause=pause))
        for record in self.open_changes(pause.version):
            self.hold_change(record, pause)
        if pause.act == "rollback":
            known = happened(self._entries(), (RETURN,))
            done = {(event.details.get("pause"), event.resource) for event in known}
            for good in pause.returns:
                name = f"{good.role} in {good.repo}"
                if (pause.id, name) not in done:
                    details = {"pause": pause.id, "from": pause.version, "good": good.model_dump(mode="json")}
                    self._step(RETURN, name, details)
        self._write(Row(pause=pause, complete=True))

    def hold_change(self, record: RunRecord, pause: Pause) -> None:
        """The entry that an open change is held. Nobody can approve it from the pause on, entry or not."""
        held = happened(self.services.audit.entries(run=record.id), (HOLD,))
        if any(event.details.get("pause") == pause.id for event in held):
            return
        details = {"version": pause.version, "pause": pause.id, "reason": pause.reason, "round": record.round}
        self._step(HOLD, record.id, details, run=record.id)

    # --- the log ------------------------------------------------------------------------------------------

    def _decided(
        self, action: str, version: str, actor: Actor, facts: dict[str, Any], details: dict[str, Any]
    ) -> tuple[Verdict, Event, Receipt]:
        """Policy's answer, durable in the log."""
        from vestibule.pipeline.policies import load_policy

        policy = load_policy(self.services.operator, self.services.environ, {})
        crossing = Crossing(decider=policy, audit=self.services.audit)
        verdict, found = crossing.safely(actor, action, {"id": version}, facts)
        intent = crossing.intent(actor, action, version, verdict, input_digest=found, details=details)
        return verdict, intent, crossing.record(intent)

    @contextlib.contextmanager
    def _closing(self, intent: Event, receipt: Receipt) -> Iterator[None]:
        """The outcome of an intent, after the block. Another process's reconciler may have closed it already."""
        try:
            yield
        except BaseException:
            self._close(intent, receipt, "failed")
            raise
        self._close(intent, receipt, "ok")

    def _close(self, intent: Event, receipt: Receipt, result: str) -> None:
        from vestibule.audit.sequencer import OutcomeExists

        outcome = intent.model_copy(update={"phase": "outcome", "intent": receipt.seq, "result": result, "details": {}})
        try:
            self.services.audit.submit(outcome).result()
        except DependencyDown as error:
            if not isinstance(error.__cause__, OutcomeExists):
                raise

    def _step(self, action: str, resource: str, details: dict[str, Any], *, run: str = NO_RUN, by: str = "") -> None:
        """An entry whose effect is that it stands there: the pipeline's, or of the person `by`."""
        event = Event(
            run=run,
            phase="intent",
            action=action,
            resource=resource,
            subject="person" if by else "system",
            actor=by or self._system(),
            verdict=Ruling.ALLOW,
            details=details,
        )
        with self._closing(event, self.services.audit.submit(event).result()):
            pass

    def _entries(self) -> Iterator[Entry]:
        return self.services.audit.entries(run=NO_RUN)

    def _in_log(self, pause: Pause) -> bool:
        found = standings(self._entries(), {}).get(pause.version)
        return found is not None and found.paused and found.pause == pause

    def _told_lately(self, entries: list[Entry], action: str, version: str, *, refused: bool = False) -> bool:
        """Whether an intent of this action stands in the log since the quiet hours began (`refused`: a refused one)."""
        hours = self.services.operator.spend.quiet_hours
        since = clock.rfc3339(clock.parse_rfc3339(self._now()) - timedelta(hours=hours))
        return any(
            entry.event.action == action
            and entry.event.phase == "intent"
            and entry.event.resource == version
            and entry.time >= since
            and (entry.event.verdict is not Ruling.ALLOW) is refused
            for entry in entries
        )

    # --- rows ---------------------------------------------------------------------------------------------

    def _rows(self) -> dict[str, Row]:
        with self.services.db.read() as connection:
            rows = connection.execute(select(PAUSES)).all()
        return {row.version: _row_of(row.version, row.state, row.document) for row in rows}

    def _write(self, row: Row) -> None:
        document = canonical_json(row.model_dump(mode="json")).decode()
        with self.services.db.write() as connection:
            connection.execute(delete(PAUSES).where(PAUSES.c.version == row.pause.version))
            connection.execute(insert(PAUSES).values(version=row.pause.version, state=row.state, document=document))

    def _forget_pause(self, version: str, pause: Pause | None, release: Release) -> None:
        if pause is not None:
            self._write(Row(pause=pause, release=release, complete=True))
            return
        with self.services.db.write() as connection:
            connection.execute(delete(PAUSES).where(PAUSES.c.version == version))

    # --- what both need -----------------------------------------------------------------------------------

    def _reading(self, agent: str, version: str, standing: Standing) -> Reading:
        series = SpendSeries(self.services.db)
        terms = terms_of(self.services.operator.spend)
        return series.read(agent, version, at=self._now(), terms=terms, accepted=standing.released)

    def _turn(self) -> Lease:
        """One process at a time goes through the steps. Raises DependencyDown: `state`."""
        from vestibule.store.database import make_private_folder

        try:
            return Lease(make_private_folder(self.services.home / "pauses"), "pauses", patience=TURN_SECONDS)
        except (UsageError, OSError) as error:
            raise DependencyDown(
                "state", "What is paused cannot be looked at: another process holds it.", fact=str(error)[:200]
            ) from None

    def _permitted(self) -> bool:
        from vestibule.pipeline.admission import may_write_state

        return may_write_state(self.services.home)

    def _system(self) -> str:
        return f"spiffe://{self.services.operator.trust_domain}/pipeline"

    def _avoided(self, version: str) -> frozenset[str]:
        return frozenset({version, *(item.version for item in self.paused())})

    def _agent_of(self, version: str) -> str:
        """The name under which the version worked last; empty when it never did."""
        found = ""
        for entry in self.services.audit.entries():
            event = entry.event
            if event.action == "agent.start" and event.phase == "intent" and event.resource == version:
                found = str(event.details.get("agent", ""))
        return found


def words_of(evidence: Evidence) -> str:
    """The evidence in one sentence."""
    from vestibule.core.money import format_usd

    what = "a run's price in an hour" if evidence.measure == "run" else "spend in an hour"
    whose = "its own" if evidence.against == "own" else "the agent's earlier"
    return (
        f"{what} is {evidence.percent} % of {whose} moving average of 24 hours "
        f"({format_usd(evidence.spent_nano_usd)} in {evidence.window_hours} h; "
        f"{format_usd(evidence.nano_usd_per_minute)} a minute now)"
    )


def _reasoned(reason: str) -> None:
    if not reason.strip():
        raise UsageError("Pausing and releasing say why.", next_step="Give --reason TEXT.")


def _row_of(version: str, state: str, document: str) -> Row:
    try:
        row = Row.model_validate_json(document)
    except ValidationError:
        row = None
    if row is None or (row.pause.version, row.state) != (version, state):
        raise DependencyDown(
            "database",
            "A pause in the state database is not what this program wrote.",
            fact=version[:200],
            person="Find out what else writes to the state database; restore it from a backup.",
        )
    return row
