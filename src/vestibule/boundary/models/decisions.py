"""Deciding and recording model requests: the one place where the gateway meets policy and the log.

Rules it keeps:
1. A policy that breaks is a deny, and the log says so. A log that breaks is a refusal, whatever policy said.
2. Our own refusals are joined with policy's verdict by the strictest; neither can be lifted by the other.
3. Nothing of a request is recorded but counts, its digest, and a model's name if it looks like one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from vestibule.boundary.models import rules
from vestibule.boundary.models.providers import Upstream
from vestibule.boundary.models.rules import Facts, ModelRequest
from vestibule.core.canonical import digest_bytes
from vestibule.core.crossing import Actor, Crossing
from vestibule.core.errors import DependencyDown
from vestibule.core.labels import Confidentiality
from vestibule.core.model import Event, Receipt
from vestibule.core.refusal import Refusal
from vestibule.core.verdict import Ruling, Verdict


class Decisions:
    """Decides and records for one run. `model` is the task's model as configured."""

    def __init__(
        self, crossing: Crossing, upstream: Upstream | None, model: str, on_failure: Callable[[Refusal], None]
    ) -> None:
        self._crossing = crossing
        self._upstream = upstream
        self._model = model
        self._on_failure = on_failure

    def names(self) -> tuple[str, ...]:
        """The task's model as configured, and as its provider knows it (`provider/model` and `model`)."""
        return (self._model, self._upstream.model) if self._upstream else ()

    def outcome(self, intent: Event, receipt: Receipt, *, ok: bool, details: dict[str, Any]) -> None:
        """Write the outcome; not waited for."""
        self._submit(self._crossing.outcome(intent, receipt, ok=ok, details=details))

    def _resource(self, request: ModelRequest | None) -> dict[str, Any]:
        provider = self._upstream.provider if self._upstream else ""
        model = self._upstream.model if self._upstream else ""
        if request is not None and request.model not in self.names():
            # A foreign name is the agent's text: bounded, and only if it looks like a model's name.
            model = request.model[:80] if request.model[:80].isprintable() else "unprintable"
        return {
            "id": f"{provider}/{model}",
            "provider": provider,
            "model": model,
            "api": "anthropic",
            "stream": bool(request and request.stream),
        }

    def _flow(self) -> dict[str, Any]:
        """Whether what the run has read may go to the provider: a request holds only what was read before it."""
        clearance = self._upstream.clearance if self._upstream else Confidentiality.SECRET
        return {"label_cleared": self._crossing.labels.current.flows_to(clearance)}

    async def record(
        self, actor: Actor, facts: Facts, request: ModelRequest | None, details: dict[str, Any]
    ) -> tuple[Verdict, Event, Receipt]:
        """Decide and write the intent. Durable when it returns.

        Raises:
            DependencyDown: `audit`.
        """
        resource = self._resource(request)
        try:
            verdict, input_digest = await asyncio.to_thread(
                self._crossing.judge, actor, "model.request", resource, {**facts.as_input(), **self._flow()}
            )
        except Exception as error:  # noqa: BLE001 a policy that breaks is a deny, and the log says so
            down = DependencyDown("policy", "The policy could not be asked.", fact=type(error).__name__).refusal
            verdict, input_digest = Verdict(ruling=Ruling.DENY, reasons=(down.rule,), refusals=(down,)), ""
        verdict = rules.joined(verdict, facts)
        if request is not None:
            details = {
                **details,
                "request": digest_bytes(request.body),
                "bytes": len(request.body),
                "max_tokens": request.max_tokens,
                "messages": request.messages,
                "tools": request.tools,
            }
        intent = self._crossing.intent(
            actor, "model.request", resource["id"], verdict, input_digest=input_digest, details=details
        )
        try:
            receipt = await asyncio.wrap_future(self._crossing.audit.submit(intent))
        except DependencyDown:
            raise
        except Exception as error:  # noqa: BLE001 whatever the log's trouble is: unrecorded is refused
            raise DependencyDown("audit", "The audit log does not accept entries.", fact=type(error).__name__) from None
        return verdict, intent, receipt

    def _submit(self, event: Event) -> None:
        try:
            self._crossing.audit.submit(event)
        except DependencyDown as error:
            # The effect is past; the log's own failure refuses every next intent, the reconciler closes this one.
            self._on_failure(error.refusal)
