"""Gates and decisions as rows: nothing waits in a process for a person.

Rules it keeps:
1. A decision is decided by policy and durable in the log before its row exists (`core.crossing`), and `review.rules`
   objects on its own wherever a policy would be looser.
2. The row is written in one transaction that reads gate and decisions again under its lock: what changed since the
   policy saw it (a new commit, another person's reject, the clock) refuses the decision.
3. Opening a gate closes every older one of its run; superseding closes an approved one too: an approval dies with
   the commit it was given for.
4. Approvals are counted from signed decisions each time, never from the gate's state column alone. A signature that
   does not hold is `VerificationFailed`, not a missing vote.
5. Saying the same thing again changes nothing and returns the first answer. An approval can be withdrawn only by
   asking for changes or rejecting; these two are final at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import Any, Literal

from pydantic import ValidationError
from sqlalchemy import Connection, insert, select, update

from vestibule.core import clock
from vestibule.core.base import Noun
from vestibule.core.canonical import canonical_json, digest
from vestibule.core.crossing import Actor, Crossing
from vestibule.core.errors import DependencyDown, Refused, UsageError
from vestibule.core.ids import new_id
from vestibule.core.model import Choice, Decision, Gate, GateBinding, Person
from vestibule.core.refusal import Refusal, refusal
from vestibule.review import rules
from vestibule.review.rows import damaged, gate_id, gate_of, load, must, of_run, row_of, store_state
from vestibule.review.rules import GateOutcome
from vestibule.review.signing import ReviewKey, SignedDecision, verify_decision
from vestibule.store.database import Database
from vestibule.store.tables import decisions, gates


class Decided(Noun):
    """A recorded decision and where its gate stands now. `repeated`: it was there already, nothing was written."""

    decision: Decision
    gate: Gate
    outcome: GateOutcome
    repeated: bool = False


class _Answer(Noun):
    """What a person says, before anything looked at it."""

    person: Person
    choice: Choice
    reason: str
    channel: Literal["cli", "console"]


class Gates:
    """The gates of a database. `clock` gives RFC 3339 and is handed in by tests."""

    def __init__(self, database: Database, key: ReviewKey, *, now: Callable[[], str] = clock.now) -> None:
        self._database = database
        self._key = key
        self._now = now

    def open(
        self,
        *,
        run: str,
        round: int,  # noqa: A002  the noun's own word
        binding: GateBinding,
        requester: str,
        approvals: int = 1,
        eligible: Sequence[str] = (),
        self_approval: Literal["never", "recorded"] = "never",
        expires_seconds: int = 7 * 86400,
    ) -> Gate:
        """The gate of this run and round; the same one when it was opened before. Older rounds are superseded.

        Raises:
            Refused: `review.gate_conflict`, when the round's gate is bound to something else.
        """
        opened = self._now()
        expires = clock.rfc3339(clock.parse_rfc3339(opened) + timedelta(seconds=expires_seconds))
        gate = Gate(
            id=gate_id(run, round),
            run=run,
            kind="review",
            round=round,
            approvals=approvals,
            eligible=tuple(eligible),
            self_approval=self_approval,
            requester=requester,
            binding=binding,
            opened=opened,
            expires=expires,
        )
        with self._database.write() as connection:
            known = load(connection, gate.id)
            if known is not None:
                if known.binding != binding:
                    raise Refused(_conflict(known))
                return known
            for older in of_run(connection, run):
                if older.state in ("open", "approved"):
                    store_state(connection, older, "superseded")
            connection.execute(insert(gates).values(**row_of(gate)))
        return gate

    def get(self, gate: str) -> Gate | None:
        with self._database.read() as connection:
            return load(connection, gate)

    def of_run(self, run: str) -> tuple[Gate, ...]:
        """The run's gates, by round."""
        with self._database.read() as connection:
            return of_run(connection, run)

    def current(self, run: str) -> Gate | None:
        """The gate of the latest round, whatever its state."""
        found = self.of_run(run)
        return found[-1] if found else None

    def waiting(self) -> tuple[Gate, ...]:
        """Every open gate, the one that runs out first at the front."""
        with self._database.read() as connection:
            rows = connection.execute(select(gates).where(gates.c.state == "open").order_by(gates.c.expires)).all()
            return tuple(gate_of(row.id, row.state, row.document) for row in rows)

    def decisions(self, gate: str) -> tuple[SignedDecision, ...]:
        """Each person's latest decision at a gate, signatures checked.

        Raises:
            VerificationFailed: a row was changed by something else than this program.
        """
        with self._database.read() as connection:
            return self._decisions(connection, gate)

    def outcome(
        self, gate: str, current_binding: GateBinding | None, *, agent_ids: Collection[str] = ()
    ) -> GateOutcome:
        """Where the gate stands against what is there now; ask again right before a merge.

        A binding that differs, or could not be read, is `superseded` whatever was approved before.
        """
        with self._database.read() as connection:
            found = must(connection, gate)
            given = self._decisions(connection, gate)
        result = rules.evaluate(found, [item.decision for item in given], self._now(), agent_ids=agent_ids)
        if current_binding != found.binding and result.state in ("open", "approved"):
            return result.model_copy(update={"state": "superseded"})
        return result

    def supersede(self, run: str, *, current: GateBinding | None = None) -> tuple[Gate, ...]:
        """Close the run's open and approved gates, except one bound to `current`. Those that were closed."""
        with self._database.write() as connection:
            return tuple(
                store_state(connection, gate, "superseded")
                for gate in of_run(connection, run)
                if gate.state in ("open", "approved") and (current is None or gate.binding != current)
            )

    def expire(self) -> tuple[Gate, ...]:
        """Close every open gate whose time has run out. Those that were closed."""
        due = select(gates).where(gates.c.state == "open", gates.c.expires <= self._now()).with_for_update()
        with self._database.write() as connection:
            return tuple(
                store_state(connection, gate_of(row.id, row.state, row.document), "expired")
                for row in connection.execute(due).all()
            )

    def decide(
        self,
        crossing: Crossing,
        *,
        gate: str,
        person: Person,
        choice: Choice,
        reason: str,
        current_binding: GateBinding | Callable[[], GateBinding | None] | None,
        channel: Literal["cli", "console"] = "cli",
        agent_ids: Collection[str] = (),
    ) -> Decided:
        """One person's answer. The gate's id is the idempotency key of what follows it.

        `current_binding` is what is there now, read just before (a callable is read again inside the transaction).
        `agent_ids` are identities known to be agents', besides those whose form says so.

        Raises:
            UsageError: no such gate, or a reason without a UTF-8 form.
            Refused: `review.*`, with the next step for the person; or what the policy said.
            DependencyDown: policy, log, database or key.
        """
        _usable(reason)
        read = current_binding if callable(current_binding) else lambda: current_binding
        with self._database.read() as connection:
            found = must(connection, gate)
            given = self._decisions(connection, gate)
        binding = read()
        again = self._repeated(found, given, person, choice, binding)
        if again is not None:
            return again
        facts = rules.may_decide(
            person,
            found,
            reason=reason,
            current_binding=binding,
            now=self._now(),
            agent_ids=agent_ids,
        )
        actor = Actor(run=found.run, id=person.id, kind="agent" if facts["is_agent"] else "person")
        details = {
            "gate": found.id,
            "round": found.round,
            "choice": choice,
            "reason": reason[: rules.MAX_REASON],
            "channel": channel,
            "how": person.how,
            "binding": found.binding.model_dump(mode="json"),
            "terms": {
                "approvals": found.approvals,
                "eligible": list(found.eligible),
                "self_approval": found.self_approval,
                "requester": found.requester,
                "expires": found.expires,
            },
        }

        def effect() -> tuple[Decided, dict[str, Any]]:
            answer = _Answer(person=person, choice=choice, reason=reason, channel=channel)
            decided = self._record(gate, answer, read, agent_ids)
            return decided, _outcome_details(decided, self._key.id)

        try:
            return crossing.cross_sync(
                actor,
                "review.decide",
                {"id": found.id, "choice": choice},
                facts,
                effect,
                details=details,
            )
        except DependencyDown:
            raise
        except Refused as error:
            # The policy's answer stands; where we know the fact behind it, the person gets the better sentence.
            specific = rules.objection(person, found, facts, choice)
            if specific is None or error.refusal.rule.startswith("policy."):
                raise
            raise Refused(specific) from None
        finally:
            if facts["expired"]:
                self.expire()

    def _record(
        self, gate_name: str, answer: _Answer, read: Callable[[], GateBinding | None], agent_ids: Collection[str]
    ) -> Decided:
        """The row, under the database's lock, after looking at everything again."""
        person = answer.person
        with self._database.write() as connection:
            gate = must(connection, gate_name, lock=True)
            given = self._decisions(connection, gate_name)
            binding = read()
            again = self._repeated(gate, given, person, answer.choice, binding)
            if again is not None:
                return again
            moment = self._now()
            facts = rules.may_decide(
                person, gate, reason=answer.reason, current_binding=binding, now=moment, agent_ids=agent_ids
            )
            objection = rules.objection(person, gate, facts, answer.choice)
            if objection is not None:
                raise Refused(objection)
            decision = Decision(
                id=new_id("d"),
                gate=gate.id,
                run=gate.run,
                person=person,
                choice=answer.choice,
                reason=answer.reason,
                binding=gate.binding,
                self_review=facts["is_requester"],
                channel=answer.channel,
                time=moment,
            )
            self._write(connection, decision, given)
            others = [item.decision for item in given if item.decision.person.id != person.id]
            outcome = rules.evaluate(gate, [*others, decision], moment, agent_ids=agent_ids)
            if outcome.state != gate.state:
                gate = store_state(connection, gate, outcome.state)
        return Decided(decision=decision, gate=gate, outcome=outcome)

    def _write(self, connection: Connection, decision: Decision, given: Sequence[SignedDecision]) -> None:
        """A new row, or the person's row with its earlier answer kept inside."""
        before = next((item for item in given if item.decision.person.id == decision.person.id), None)
        earlier = (*before.earlier, before.model_copy(update={"earlier": ()})) if before else ()
        signed = SignedDecision(decision=decision, signature=self._key.sign(decision), earlier=earlier)
        document = canonical_json(signed.model_dump(mode="json")).decode("utf-8")
        if before is None:
            row = {"id": decision.id, "gate": decision.gate, "person": decision.person.id, "document": document}
            connection.execute(insert(decisions).values(**row))
            return
        same = decisions.c.id == before.decision.id
        connection.execute(update(decisions).where(same).values(id=decision.id, document=document))

    def _repeated(
        self,
        gate: Gate,
        given: Sequence[SignedDecision],
        person: Person,
        choice: Choice,
        binding: GateBinding | None,
    ) -> Decided | None:
        """The same answer by the same person on the same thing, given before."""
        for item in given:
            same = item.decision.person.id == person.id and item.decision.choice == choice
            if (
                same
                and item.decision.binding == gate.binding == binding
                and gate.state not in ("superseded", "expired")
            ):
                outcome = rules.evaluate(gate, [one.decision for one in given], self._now())
                return Decided(decision=item.decision, gate=gate, outcome=outcome, repeated=True)
        return None

    def _decisions(self, connection: Connection, gate: str) -> tuple[SignedDecision, ...]:
        rows = connection.execute(select(decisions).where(decisions.c.gate == gate).order_by(decisions.c.id)).all()
        found = []
        for row in rows:
            try:
                signed = SignedDecision.model_validate_json(row.document)
            except ValidationError:
                raise damaged("decision", row.id) from None
            for item in (signed, *signed.earlier):
                verify_decision(item.decision, item.signature, self._key.public)
            if (signed.decision.id, signed.decision.gate, signed.decision.person.id) != (row.id, row.gate, row.person):
                raise damaged("decision", row.id)
            found.append(signed)
        return tuple(found)


def any_decisions(database: Database) -> bool:
    """Whether anything was ever decided here."""
    with database.read() as connection:
        return connection.execute(select(decisions.c.id).limit(1)).first() is not None


def _usable(reason: str) -> None:
    try:
        reason.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(
            "The reason holds bytes that are no text.", next_step="Write it as UTF-8: --reason TEXT."
        ) from None


def _outcome_details(decided: Decided, key: str) -> dict[str, Any]:
    return {
        "decision": decided.decision.id,
        "decision_digest": digest(decided.decision.model_dump(mode="json")),
        "key": key,
        "self_review": decided.decision.self_review,
        "gate_state": decided.outcome.state,
        "approvals": decided.outcome.approvals,
        "needed": decided.outcome.needed,
    }


def _conflict(gate: Gate) -> Refusal:
    return refusal(
        "review.gate_conflict",
        "This round's gate was opened for something else.",
        fact=f"{gate.id} is bound to {gate.binding.head_commit[:12]}",
        agent="Stop here; a person has to look.",
        person=f"Cancel the run (`vestibule cancel {gate.run}`) and run its ticket again.",
    )
