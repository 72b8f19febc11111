"""What a model request must be to leave, and the most it can cost. Pure.

Rules it keeps:
1. The facts for `model.request` are computed here and nowhere else; what is not evaluated is not claimed.
2. Own refusals are joined with policy's verdict by the strictest: policy can add a refusal, never lift one.
3. The model is the task's, by its exact name; nothing in a request can choose another, or another host.
4. A hold covers the whole `max_tokens` of output, with a thinking budget that goes beyond it, and of input an
   estimate: bytes times the largest ratio of tokens to bytes that the provider has reported in this run, with a
   margin. A settled request corrects the books to what was really used, and the next hold to what was really seen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from vestibule.boundary.models.fieldkit import FieldRefused
from vestibule.boundary.models.fields import check_betas, check_fields
from vestibule.boundary.models.wire.strict_json import BadJson, dump
from vestibule.core.refusal import Refusal, refusal
from vestibule.core.verdict import Ruling, Verdict, strictest

VERSION = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
IMAGE_TOKENS = 5_000
"""More than the largest image is billed at (about 4,800)."""
DOCUMENT_TOKENS = 100_000
OVERHEAD_TOKENS = 1_000
"""System text that the provider adds for tools, and the frame around messages."""
FIRST_RATIO = 500
"""Tokens per 1,000 bytes before anything was seen: twice what code and English need."""
LEAST_RATIO = 300
MOST_RATIO = 1_000
"""A token has at least one byte."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A request that passed the field rules: what is sent on, and what the hold needs to know.

    `max_tokens` is the most output that it can be billed.
    """

    model: str
    body: bytes
    stream: bool
    max_tokens: int
    messages: int
    tools: int
    fixed_tokens: int
    text_bytes: int
    hour_cache: bool

    def input_tokens(self, ratio: int) -> int:
        """The most input tokens to expect; `ratio` is tokens per 1,000 bytes."""
        return self.fixed_tokens + -(-self.text_bytes * ratio // 1000)


def read_request(body: dict[str, Any], *, model: str, upstream_model: str, run: str) -> ModelRequest:
    """Check a parsed body and write the one to send. `model` must be the one named in it to be allowed later.

    What was checked is what is sent: the bytes are written anew from the checked value. `metadata.user_id` becomes
    the run's id, so that neither a device nor data leaves in it.

    Raises:
        FieldRefused: `model.field.*`.
    """
    seen = check_fields(body)
    name = body["model"]
    send = {**body, "model": upstream_model if name == model else name}
    if "metadata" in body:
        send["metadata"] = {"user_id": run}
    try:
        data = dump(send)
    except BadJson as error:
        raise FieldRefused("json", str(error)) from None
    return ModelRequest(
        model=name,
        body=data,
        stream=bool(body.get("stream")),
        max_tokens=_most_output(body),
        messages=len(body["messages"]),
        tools=len(body.get("tools") or ()),
        fixed_tokens=OVERHEAD_TOKENS + seen.images * IMAGE_TOKENS + seen.documents * DOCUMENT_TOKENS,
        # Data of images counts as bytes as well: a bound needs no precision there.
        text_bytes=len(data),
        hour_cache=seen.hour_cache,
    )


def _most_output(body: dict[str, Any]) -> int:
    """`max_tokens`; a thinking budget beyond it, which interleaved thinking allows, comes on top."""
    most = int(body["max_tokens"])
    thinking = (body.get("thinking") or {}).get("budget_tokens") or 0
    return most + thinking if thinking > most else most


def next_ratio(largest_seen: int) -> int:
    """Tokens per 1,000 bytes for the next hold, from the largest ratio the provider has reported (0: none yet)."""
    if largest_seen <= 0:
        return FIRST_RATIO
    return max(LEAST_RATIO, min(MOST_RATIO, -(-largest_seen * 5 // 4)))


def seen_ratio(input_tokens: int, request: ModelRequest) -> int:
    """Tokens per 1,000 bytes of one settled request."""
    counted = max(0, input_tokens - (request.fixed_tokens - OVERHEAD_TOKENS))
    return -(-counted * 1000 // max(1, request.text_bytes))


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of `model.request`, with the refusal that the first bad one means."""

    field_rule: str = ""
    model_allowed: bool = True
    price_known: bool = True
    budget_rule: str = ""
    refusal: Refusal | None = None

    def as_input(self) -> dict[str, Any]:
        return {
            "fields_ok": not self.field_rule,
            "field_rule": self.field_rule,
            "model_allowed": self.model_allowed,
            "price_known": self.price_known,
            # Nothing is reserved for a request that is refused before its price is known.
            "budget_ok": not self.budget_rule,
            "budget_rule": self.budget_rule,
        }


def joined(policy: Verdict, facts: Facts) -> Verdict:
    """Policy's verdict and ours, by the strictest; our refusal, being the precise one, stands first."""
    if facts.refusal is None:
        return policy
    own = Verdict(ruling=Ruling.DENY, reasons=(facts.refusal.rule,), refusals=(facts.refusal,))
    return strictest((own, policy))


def field_refusal(error: FieldRefused) -> Refusal:
    """What the agent reads when a field may not pass."""
    return refusal(
        error.rule,
        f"The model request was not sent: {error.what}.",
        fact=error.rule.removeprefix("model.field."),
        agent="Leave it out and send the request again; files, searches and commands go through the context tools.",
        person="Fields that may pass are listed in the model gateway's reference; what a provider would do itself is "
        "egress and stays refused.",
    )


def model_refusal(asked: str, allowed: str) -> Refusal:
    """The model is not the task's."""
    shown = asked if len(asked) <= 80 and asked.isprintable() else "an unprintable name"
    return refusal(
        "model.not_allowed",
        "The model request was not sent: this task may use one model only.",
        fact=f"asked for {shown}, allowed is {allowed or 'none'}",
        agent=f"Use the model {allowed}." if allowed else "Work without a model; this task has none.",
        person="Name the model in the agent's configuration, and its provider in the operator's.",
    )


def price_refusal(model: str) -> Refusal:
    """Nobody knows what the model costs."""
    return refusal(
        "model.unknown_price",
        "The model request was not sent: the price of this model is not known, so that no budget could hold.",
        fact=model[:80] if model.isprintable() else "",
        agent="Stop here; a person has to choose a model with a known price.",
        person="Use a model that the price table knows, or a later version of vestibule that knows this one.",
    )


__all__ = [
    "VERSION",
    "Facts",
    "FieldRefused",
    "ModelRequest",
    "check_betas",
    "field_refusal",
    "joined",
    "model_refusal",
    "next_ratio",
    "price_refusal",
    "read_request",
    "seen_ratio",
]
