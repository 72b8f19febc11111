"""What a model request must be to leave, and the most it can cost. Pure.

Rules it keeps:
1. The facts for `model.request` are computed here and nowhere else; what is not evaluated is not claimed.
2. Own refusals are joined with policy's verdict by the strictest: policy can add a refusal, never lift one.
3. The model is one of the task's, by its exact name; nothing in a request can choose another, or another host.
4. A hold covers the whole `max_tokens` of output, with a thinking budget that goes beyond it, and of input an
   estimate: bytes times the largest ratio of tokens to bytes that the provider has reported in this run, with a
   margin. A settled request corrects the books to what was really used, and the next hold to what was really seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vestibule.boundary.models.fields.kit import FieldRefused
from vestibule.boundary.models.formats.base import Asked
from vestibule.core.refusal import Refusal, refusal
from vestibule.core.verdict import Ruling, Verdict, strictest

OVERHEAD_TOKENS = 1_000
"""System text that the provider adds for tools, and the frame around messages."""
FIRST_RATIO = 500
"""Tokens per 1,000 bytes before anything was seen: twice what code and English need."""
LEAST_RATIO = 300
MOST_RATIO = 1_000
"""A token has at least one byte."""


def input_tokens(asked: Asked, size: int, ratio: int) -> int:
    """The most input tokens to expect of `size` bytes; `ratio` is tokens per 1,000 bytes.

    Data of images counts as bytes as well: a bound needs no precision there.
    """
    return OVERHEAD_TOKENS + asked.fixed_tokens + -(-size * ratio // 1000)


def next_ratio(largest_seen: int) -> int:
    """Tokens per 1,000 bytes for the next hold, from the largest ratio the provider has reported (0: none yet)."""
    if largest_seen <= 0:
        return FIRST_RATIO
    return max(LEAST_RATIO, min(MOST_RATIO, -(-largest_seen * 5 // 4)))


def seen_ratio(counted: int, asked: Asked, size: int) -> int:
    """Tokens per 1,000 bytes of one settled request."""
    return -(-max(0, counted - asked.fixed_tokens) * 1000 // max(1, size))


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


def endpoint_refusal() -> Refusal:
    """A path that is not served."""
    return refusal(
        "model.field.endpoint",
        "The model gateway serves answers of a model, token counts and the list of models only; files, batches and "
        "other endpoints of a provider stay closed.",
        agent="Use the messages, responses, chat completions or generateContent endpoint.",
        person="Nothing to do: what a provider stores or does itself is outside the walls.",
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
        person="Use a model that the price table knows, name its price in the operator's overlay, or set "
        "budget.unknown_price_usd to hold a ceiling for each such request.",
    )


__all__ = [
    "Facts",
    "FieldRefused",
    "endpoint_refusal",
    "field_refusal",
    "input_tokens",
    "joined",
    "model_refusal",
    "next_ratio",
    "price_refusal",
    "seen_ratio",
]
