"""What happens at every crossing, in one place: decide, record before the effect, then act.

Rules it keeps:
1. No effect without an allow, and no allow without a durable intent.
2. A policy or log that fails is a deny; the caller gets a typed refusal, never a bare exception.
3. The outcome follows the effect, whether it went well or not.
4. What a step shows the agent joins the run's label before the intent is written, and so durably before a byte of it
   is released; what was decided for an outward effect under a lower label is decided again.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from vestibule.core.canonical import digest
from vestibule.core.errors import DependencyDown, Refused, VestibuleError
from vestibule.core.labels import Label, RunLabel, joined
from vestibule.core.model import Event, Receipt, Subject
from vestibule.core.pending import Wake
from vestibule.core.ports import AuditSink, Decider, PolicyInput
from vestibule.core.refusal import Refusal, refusal
from vestibule.core.verdict import Ruling, Verdict, strictest_ruling

T = TypeVar("T")

MAX_JUDGEMENTS = 8
"""How often an outward effect is judged anew because the run read something meanwhile."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a SPIFFE id or `local:NAME`, what kind, and in which attempt of which run."""

    run: str
    id: str
    kind: Subject
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Step:
    """One of the decisions that an effect needs. `resource["id"]` names it in the log.

    `reads` is the label of what the effect shows the agent. `resource["outward"]` says that something leaves, and
    `resource["call"]` which call exactly it is: both stand in the policy's input, the latter in the log too.
    """

    action: str
    resource: dict[str, Any]
    facts: dict[str, Any]
    reads: Label | None = None


class Held(Refused):
    """A refusal that a person can turn into an allow."""


@dataclass(slots=True)
class Crossing:
    """Decides and records. One per run, or several that share `labels`; safe to use from many tasks and threads."""

    decider: Decider
    audit: AuditSink
    task: dict[str, Any] = field(default_factory=dict)
    labels: RunLabel = field(default_factory=RunLabel)

    def judge(self, actor: Actor, action: str, resource: dict[str, Any], facts: dict[str, Any]) -> tuple[Verdict, str]:
        """The verdict and the digest of the policy's input. `resource["id"]` names it in the log."""
        label = self.labels.current
        document: dict[str, Any] = {
            "action": action,
            "subject": {"id": actor.id, "kind": actor.kind},
            "resource": resource,
            "task": self.task,
            "labels": {"integrity": label.integrity.value, "confidentiality": label.confidentiality.value},
            "facts": facts,
        }
        request = PolicyInput(**document)
        verdict = self.decider.decide(request)
        try:
            return verdict, digest(document)
        except TypeError:  # a value that only the noun can write as JSON
            return verdict, digest(request.model_dump(mode="json"))

    def prepared(
        self, actor: Actor, action: str, resource: dict[str, Any], facts: dict[str, Any], label: Label
    ) -> tuple[PolicyInput, str]:
        """The input of a decision and its digest, to be decided as often as the very same is asked (`ask`)."""
        document: dict[str, Any] = {
            "action": action,
            "subject": {"id": actor.id, "kind": actor.kind},
            "resource": resource,
            "task": self.task,
            "labels": {"integrity": label.integrity.value, "confidentiality": label.confidentiality.value},
            "facts": facts,
        }
        return PolicyInput(**document), digest(document)

    def ask(self, request: PolicyInput) -> Verdict:
        """Policy's verdict on a prepared input; whatever goes wrong inside is a deny that can be recorded."""
        try:
            return self.decider.decide(request)
        except Exception as error:  # noqa: BLE001 - a policy that raises has not allowed anything
            return _policy_down(error)

    def safely(self, actor: Actor, action: str, resource: dict[str, Any], facts: dict[str, Any]) -> tuple[Verdict, str]:
        """`judge`, with whatever goes wrong inside turned into a deny that can be recorded."""
        try:
            return self.judge(actor, action, resource, facts)
        except Exception as error:  # noqa: BLE001 - a policy that raises has not allowed anything
            return _policy_down(error), ""

    def intent(
        self,
        actor: Actor,
        action: str,
        resource: str,
        verdict: Verdict,
        *,
        input_digest: str = "",
        details: dict[str, Any] | None = None,
    ) -> Event:
        """The intent event of a verdict, not yet in the log. A hold or deny carries the refusal in its typed form."""
        found = dict(details or {})
        if not verdict.allowed:
            found["refusal"] = first_refusal(verdict, action, resource).as_json()
        return Event(
            run=actor.run,
            phase="intent",
            action=action,
            resource=resource,
            subject=actor.kind,
            actor=actor.id,
            verdict=verdict.ruling,
            reasons=verdict.reasons,
            attempt=actor.attempt,
            policy_digest=verdict.policy_digest,
            input_digest=input_digest,
            labels=self.labels.current,
            details=found,
        )

    def outcome(self, intent: Event, receipt: Receipt, *, ok: bool, details: dict[str, Any] | None = None) -> Event:
        """The outcome event that closes an intent."""
        return intent.model_copy(
            update={
                "phase": "outcome",
                "intent": receipt.seq,
                "result": "ok" if ok else "failed",
                "details": details or {},
            }
        )

    async def cross_all(
        self,
        actor: Actor,
        steps: Sequence[Step],
        effect: Callable[[], Awaitable[tuple[T, bool, dict[str, Any]]]],
    ) -> T:
        """One effect that several decisions must allow: all are decided and durable before it begins.

        `effect` returns its value, whether it went well, and the outcomes' details. When one step is
        not allowed nothing happens, and the intents of the others are closed as failed.

        Raises:
            Refused: the first hold or deny; `Held` when no step was denied.
            DependencyDown: the policy or the log did not answer.
            ValueError: no steps, for nothing would have been decided.
        """
        if not steps:
            raise ValueError("an effect needs a decision")
        own = joined(step.reads for step in steps if step.reads is not None)
        outward = any(step.resource.get("outward") for step in steps)
        for _ in range(MAX_JUDGEMENTS):
            before = self.labels.current
            intents = await self._decided(actor, steps, own)
            if not outward or self.labels.current == before.join(own):
                break
            # Something was read between the decision and its record: what leaves is judged by the label of now.
            for intent, receipt in intents:
                self._close(intent, receipt, ok=False, details={"error": "labels.moved"})
        else:
            raise DependencyDown("labels", "The run's label does not come to rest.")
        try:
            value, ok, details = await effect()
        except BaseException as error:
            for intent, receipt in intents:
                self._close(intent, receipt, ok=False, details=error_details(error))
            raise
        for intent, receipt in intents:
            self._close(intent, receipt, ok=ok, details=details)
        return value

    async def _decided(self, actor: Actor, steps: Sequence[Step], own: Label) -> list[tuple[Event, Receipt]]:
        """Every step allowed, its label joined and its intent durable; raises `Refused` when one was not."""
        judged = [(step, *self.safely(actor, step.action, step.resource, step.facts)) for step in steps]
        refused = next(((step, v) for step, v, _ in judged if not v.allowed), None)
        if refused is None:
            self.labels.join(own)
        intents = [
            self.intent(
                actor,
                step.action,
                str(step.resource.get("id", "")),
                verdict,
                input_digest=found,
                details={"call": step.resource["call"]} if "call" in step.resource else None,
            )
            for step, verdict, found in judged
        ]
        receipts = await self._durable(intents)
        done = list(zip(intents, receipts, strict=True))
        if refused is None:
            return done
        step, verdict = refused
        why = first_refusal(verdict, step.action, str(step.resource.get("id", "")))
        for intent, receipt in done:
            if intent.verdict is Ruling.ALLOW:
                self._close(intent, receipt, ok=False, details={"error": why.rule})
        raise Held(why) if strictest_ruling(v.ruling for _, v, _ in judged) is Ruling.HOLD else Refused(why)

    async def _durable(self, intents: Sequence[Event]) -> list[Receipt]:
        waiting: list[concurrent.futures.Future[Receipt]] = []
        try:
            # All are handed over before the first is waited for, so that one commit takes them.
            waiting.extend(self.audit.submit(intent) for intent in intents)
            return [await durable(future) for future in waiting]
        except asyncio.CancelledError:
            for future in waiting:
                future.cancel()
            raise
        except Refused:
            raise
        except Exception as error:
            raise _audit_down(error) from error

    def _close(self, intent: Event, receipt: Receipt, *, ok: bool, details: dict[str, Any]) -> None:
        try:
            self.audit.submit(self.outcome(intent, receipt, ok=ok, details=details))
        except Refused:
            raise
        except Exception as error:
            raise _audit_down(error) from error

    def cross_sync(
        self,
        actor: Actor,
        action: str,
        resource: dict[str, Any],
        facts: dict[str, Any],
        effect: Callable[[], tuple[T, dict[str, Any]]],
        *,
        details: dict[str, Any] | None = None,
    ) -> T:
        """The same for a thread; the outcome is durable when it returns."""
        name = str(resource.get("id", ""))
        verdict, input_digest = self.safely(actor, action, resource, facts)
        intent = self.intent(actor, action, name, verdict, input_digest=input_digest, details=details)
        receipt = self.record(intent)
        if not verdict.allowed:
            raise Refused(first_refusal(verdict, action, name))
        try:
            value, found = effect()
        except BaseException as error:
            self.record(self.outcome(intent, receipt, ok=False, details=error_details(error)))
            raise
        self.record(self.outcome(intent, receipt, ok=True, details=found))
        return value

    def record(self, event: Event) -> Receipt:
        """Durable when it returns. Raises `DependencyDown("audit")` for whatever goes wrong with the log."""
        try:
            return self.audit.submit(event).result()
        except Refused:
            raise
        except Exception as error:
            raise _audit_down(error) from error


def _policy_down(error: Exception) -> Verdict:
    down = DependencyDown("policy", "The policy could not be asked.", fact=type(error).__name__)
    return Verdict(ruling=Ruling.DENY, reasons=(down.refusal.rule,), refusals=(down.refusal,))


def first_refusal(verdict: Verdict, action: str, resource: str) -> Refusal:
    """The refusal to show for a hold or deny; there always is one."""
    if verdict.refusals:
        return verdict.refusals[0]
    rule = verdict.reasons[0] if verdict.reasons else "policy.undefined"
    word = "waits for a person" if verdict.ruling is Ruling.HOLD else "is not allowed"
    return refusal(
        rule,
        f"{action} {word} here.",
        fact=resource,
        agent="Go on with what the task's scope allows, or say in your answer what you would have needed.",
        person="See which rule decided with `vestibule policy explain`, or widen the role's scope.",
    )


async def durable(future: concurrent.futures.Future[T]) -> T:
    """What a writer's own thread (the log's, the ledger's) answers. Raises what the future failed with.

    What `asyncio.wrap_future` does, with fewer callbacks, and one for all that a batch of a writer answers.
    """
    if not future.done():
        loop = asyncio.get_running_loop()
        written = loop.create_future()
        future.add_done_callback(Wake(loop, written))
        await written
    return future.result()


def _audit_down(error: Exception) -> DependencyDown:
    return DependencyDown("audit", "The audit log took no entry, so nothing may happen.", fact=type(error).__name__)


def error_details(error: BaseException) -> dict[str, Any]:
    """What an outcome event says of a failure, without data of the agent's."""
    if isinstance(error, Refused):
        return {"error": error.refusal.rule}
    if isinstance(error, VestibuleError):
        return {"error": error.what[:500]}
    return {"error": type(error).__name__}
