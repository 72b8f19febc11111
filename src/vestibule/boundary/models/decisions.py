"""Deciding and recording what a model is asked and what it asks for: where the gateway meets policy and the log.

Rules it keeps:
1. A policy that breaks is a deny, and the log says so. A log that breaks is a refusal, whatever policy said.
2. Our own refusals are joined with policy's verdict by the strictest; neither can be lifted by the other.
3. Nothing of a request is recorded but counts, its digest, and a model's name if it looks like one; of a call its
   tool, its path, its size and digest.
4. A hold is a deny here: nobody waits within a model's answer. Calls that a person can allow cross again elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from vestibule.boundary.models import rules
from vestibule.boundary.models.call_rules import House, judge_call, replacement
from vestibule.boundary.models.formats.base import Asked
from vestibule.boundary.models.hold.base import Decided, Held
from vestibule.boundary.models.providers import Upstream
from vestibule.boundary.models.rules import Facts
from vestibule.core.canonical import digest_bytes
from vestibule.core.crossing import Actor, Crossing, durable, first_refusal
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.labels import Confidentiality
from vestibule.core.model import Event, Receipt
from vestibule.core.ports import PolicyInput
from vestibule.core.refusal import Refusal
from vestibule.core.verdict import Ruling, Verdict, strictest

GOOD = Facts()
"""Nothing of ours speaks against the request."""
MAX_INPUTS = 64


class Decisions:
    """Decides and records for one run. `names` are the models that the task may ask for."""

    def __init__(
        self, crossing: Crossing, names: tuple[str, ...], house: House, on_failure: Callable[[Refusal], None]
    ) -> None:
        self._crossing = crossing
        self._names = frozenset(names)
        self._house = house
        self._on_failure = on_failure
        self._inputs: dict[tuple[Any, ...], tuple[PolicyInput, str]] = {}

    def outcome(self, intent: Event, receipt: Receipt, *, ok: bool, details: dict[str, Any]) -> None:
        """Write the outcome; not waited for."""
        try:
            self._crossing.audit.submit(self._crossing.outcome(intent, receipt, ok=ok, details=details))
        except DependencyDown as error:
            # The effect is past; the log's own failure refuses every next intent, the reconciler closes this one.
            self._on_failure(error.refusal)

    async def record(
        self, actor: Actor, facts: Facts, asked: Asked | None, upstream: Upstream | None, details: dict[str, Any]
    ) -> tuple[Verdict, Event, Receipt]:
        """Decide a request for `upstream` and write the intent. Durable when it returns.

        Raises:
            DependencyDown: `audit`.
        """
        if facts is GOOD and asked is not None and upstream is not None:
            verdict, input_digest = self._usual(actor, asked, upstream)
            name = f"{upstream.provider}/{upstream.model}"
        else:
            resource = self._resource(asked, upstream)
            clearance = upstream.clearance if upstream else Confidentiality.SECRET
            flow = {"label_cleared": self._crossing.labels.current.flows_to(clearance)}
            verdict, input_digest = self._crossing.safely(actor, "model.request", resource, facts.as_input() | flow)
            verdict, name = rules.joined(verdict, facts), resource["id"]
        intent = self._crossing.intent(
            actor, "model.request", name, verdict, input_digest=input_digest, details=details
        )
        return verdict, intent, await self._written(intent)

    def _usual(self, actor: Actor, asked: Asked, upstream: Upstream) -> tuple[Verdict, str]:
        """The verdict on a request that nothing of ours speaks against: few different inputs, each made once."""
        label = self._crossing.labels.current
        key = (actor.id, asked.format, asked.stream, upstream.provider, upstream.model, label.integrity)
        found = self._inputs.get((*key, label.confidentiality))
        if found is None:
            # A request holds only what was read before it.
            facts = GOOD.as_input() | {"label_cleared": label.flows_to(upstream.clearance)}
            resource = self._resource(asked, upstream)
            try:
                found = self._crossing.prepared(actor, "model.request", resource, facts, label)
            except Exception:  # noqa: BLE001 - an input that cannot be written is decided, and denied, like any other
                return self._crossing.safely(actor, "model.request", resource, facts)
            if len(self._inputs) >= MAX_INPUTS:
                self._inputs.clear()
            self._inputs[*key, label.confidentiality] = found
        return self._crossing.ask(found[0]), found[1]

    async def key_exchange(self, actor: Actor, provider: str) -> Callable[[bool], None]:
        """The intent to exchange a provider's key for a token, durable; what it gives writes the outcome.

        Raises:
            DependencyDown: `audit`: the key may not leave.
        """
        allowed = Verdict(ruling=Ruling.ALLOW, reasons=())
        intent = self._crossing.intent(actor, "model.key", provider, allowed)
        receipt = await self._written(intent)
        return lambda ok: self.outcome(intent, receipt, ok=ok, details={})

    async def judge_calls(
        self, actor: Actor, asked: Asked, calls: Sequence[Held], against: Sequence[Refusal | None] = ()
    ) -> list[Decided]:
        """Decide each call and write its event, all durable when it returns: only then may one of them be released.

        `against` is what the guards have against each call, if anything.

        Raises:
            DependencyDown: `audit`: no call may be released.
        """
        waiting = []
        for call, guarded in zip(calls, against or [None] * len(calls), strict=True):
            found = judge_call(call, asked, self._house)
            if guarded is not None and found.refusal is None:
                found.facts.update(call_ok=False, call_rule="model.call.guard")
                found = replace(found, refusal=guarded)
            verdict, input_digest = self._crossing.safely(actor, "model.tool_call", found.resource, found.facts)
            if found.refusal is not None:
                own = Verdict(ruling=Ruling.DENY, reasons=(found.refusal.rule,), refusals=(found.refusal,))
                verdict = strictest((own, verdict))
            name = found.resource["id"]
            details = {
                "call": digest_bytes(call.arguments),
                "bytes": len(call.arguments),
                "spelling": found.resource["spelling"],
                "api": asked.format,
                **({"path": found.resource["path"]} if found.resource["path"] else {}),
            }
            intent = self._crossing.intent(
                actor, "model.tool_call", name, verdict, input_digest=input_digest, details=details
            )
            waiting.append((verdict, intent, self._submit(intent)))
        decided = []
        for verdict, intent, future in waiting:
            receipt = await self._durable(future)
            if verdict.allowed:
                decided.append(Decided(True))
                self.outcome(intent, receipt, ok=True, details={"released": True})
            else:
                found_refusal = first_refusal(verdict, "model.tool_call", intent.resource)
                decided.append(Decided(False, replacement(found_refusal)))
        return decided

    def _resource(self, asked: Asked | None, upstream: Upstream | None) -> dict[str, Any]:
        provider = upstream.provider if upstream else ""
        model = upstream.model if upstream else ""
        if asked is not None and asked.model not in self._names:
            # A foreign name is the agent's text: bounded, and only if it looks like a model's name.
            model = asked.model[:80] if asked.model[:80].isprintable() else "unprintable"
        return {
            "id": f"{provider}/{model}",
            "provider": provider,
            "model": model,
            "api": asked.format if asked else "",
            "stream": bool(asked and asked.stream),
        }

    def _submit(self, event: Event) -> Any:
        try:
            return self._crossing.audit.submit(event)
        except Refused:
            raise
        except Exception as error:  # noqa: BLE001 whatever the log's trouble is: unrecorded is refused
            raise DependencyDown("audit", "The audit log does not accept entries.", fact=type(error).__name__) from None

    async def _durable(self, future: Any) -> Receipt:
        try:
            receipt: Receipt = await durable(future)
            return receipt
        except Refused:
            raise
        except Exception as error:  # noqa: BLE001 whatever the log's trouble is: unrecorded is refused
            raise DependencyDown("audit", "The audit log does not accept entries.", fact=type(error).__name__) from None

    async def _written(self, event: Event) -> Receipt:
        return await self._durable(self._submit(event))
