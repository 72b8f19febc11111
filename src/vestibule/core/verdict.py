"""Verdicts and how they join: the strictest wins, and nothing at all is a deny."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from vestibule.core.base import Noun
from vestibule.core.refusal import Refusal, refusal


class Ruling(StrEnum):
    """What a decision says. Ordered: allow < hold < deny."""

    ALLOW = "allow"
    HOLD = "hold"
    DENY = "deny"

    @property
    def strictness(self) -> int:
        return ("allow", "hold", "deny").index(self.value)


class Verdict(Noun):
    """A decision with machine-readable reasons and the digest of the policy that made it.

    `reasons` are stable dotted rule names, most telling first.
    """

    ruling: Ruling
    reasons: tuple[str, ...]
    policy_digest: str = ""
    refusals: tuple[Refusal, ...] = ()

    @property
    def allowed(self) -> bool:
        return self.ruling is Ruling.ALLOW


def strictest_ruling(rulings: Iterable[Ruling]) -> Ruling:
    """The strictest of them; of none: deny (no answer is no permission)."""
    return max(rulings, key=lambda r: r.strictness, default=Ruling.DENY)


def strictest(verdicts: Iterable[Verdict]) -> Verdict:
    """Join verdicts: the strictest ruling, with the reasons and refusals of those that share it."""
    found = list(verdicts)
    ruling = strictest_ruling(v.ruling for v in found)
    if not found:
        return Verdict(
            ruling=ruling,
            reasons=("policy.undefined",),
            refusals=(
                refusal(
                    "policy.undefined",
                    "No policy gave an answer, and no answer is a deny.",
                    agent="Do something else; this cannot be allowed until a policy names it.",
                    person="Add a rule for this action to the policy, or run `vestibule policy explain`.",
                ),
            ),
        )
    binding = [v for v in found if v.ruling is ruling]
    reasons = tuple(dict.fromkeys(reason for v in binding for reason in v.reasons))
    refusals = tuple(dict.fromkeys(item for v in binding for item in v.refusals))
    digests = "+".join(dict.fromkeys(v.policy_digest for v in found if v.policy_digest))
    return Verdict(ruling=ruling, reasons=reasons, policy_digest=digests, refusals=refusals)
