"""What counts at a gate, as pure functions.

Rules it keeps:
1. A decision counts only for the gate, run and binding (head, tree, base, target, policy, findings) it was given on.
2. One reject or request for changes outweighs any number of approvals.
3. Of each person only the latest decision counts; a withdrawn approval never comes back.
4. An agent, a bot or a workload never counts, whatever a configuration lists.
5. The requester counts only where `self_approval` is `recorded`, and then the decision says so.
6. A gate that runs out is a reject, never an approval.
7. Closed is closed: superseded, expired, rejected and changes-requested gates never open again.

Who may answer: with an empty `eligible` list any local person (`local:NAME`); the requester falls under
rule 5 there too. Otherwise a person listed by id, or a member of a listed group. Identities are compared
as whole strings (OpenID Connect issuer and subject), never as display names, so a look-alike name is a stranger.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any, Literal

from vestibule.core.base import Noun
from vestibule.core.clock import parse_rfc3339
from vestibule.core.model import Decision, Gate, GateBinding, Person
from vestibule.core.refusal import Refusal, refusal
from vestibule.core.text.sanitize import find_hidden, one_line

MAX_REASON = 4000
"""Characters of a reason."""

_PERSON = re.compile(r"(?:local:[^\s:#/\[\]]+|oidc:https?://[^\s#]+#[^\s\[\]]+)\Z")

GateState = Literal["open", "approved", "changes_requested", "rejected", "expired", "superseded"]


class Vote(Noun):
    """One person's latest answer and whether it counts; `why` is a rule's name when it does not."""

    person: str
    choice: Literal["approve", "request-changes", "reject"]
    counted: bool
    why: str = ""
    self_review: bool = False


class GateOutcome(Noun):
    """Where a gate stands: `approvals` of `needed`, and each person's vote with the reason it counts or not."""

    state: GateState
    approvals: int
    needed: int
    votes: tuple[Vote, ...] = ()

    @property
    def approved(self) -> bool:
        return self.state == "approved"


def is_agent(person: Person, agent_ids: Collection[str] = ()) -> bool:
    """Whether this identity is anything but a person's: the form decides, before any list is looked at."""
    return person.id in agent_ids or not _PERSON.match(person.id)


def is_eligible(person: Person, gate: Gate) -> bool:
    """Whether the gate's list names this person or one of their groups; an empty list names every local person."""
    return is_named(person, gate.eligible)


def is_named(person: Person, eligible: Collection[str]) -> bool:
    """The same for a list of its own."""
    if not eligible:
        return person.id.startswith("local:")
    return person.id in eligible or any(group in eligible for group in person.groups)


def is_expired(gate: Gate, now: str) -> bool:
    """From the instant of `expires` on."""
    return parse_rfc3339(now) >= parse_rfc3339(gate.expires)


def visible_reason(reason: str) -> bool:
    """Whether a reader sees at least one letter or digit of it."""
    hidden = {item.offset for item in find_hidden(reason)}
    return any(char.isalnum() for offset, char in enumerate(reason) if offset not in hidden)


def may_decide(
    person: Person,
    gate: Gate,
    *,
    reason: str,
    current_binding: GateBinding | None,
    now: str,
    agent_ids: Collection[str] = (),
) -> dict[str, Any]:
    """The facts of `review.decide` in the policy's words. A binding that cannot be read (None) is not current."""
    return {
        "is_agent": is_agent(person, agent_ids),
        "is_requester": person.id == gate.requester,
        "self_approval": gate.self_approval,
        "eligible": is_eligible(person, gate),
        "binding_current": current_binding is not None and current_binding == gate.binding,
        "gate_open": gate.state == "open",
        "expired": is_expired(gate, now),
        "reason_given": visible_reason(reason) and len(reason) <= MAX_REASON,
    }


def objection(person: Person, gate: Gate, facts: dict[str, Any], choice: str) -> Refusal | None:
    """Why these facts forbid a decision, as a refusal that helps; None when they do not.

    The policy decides first; this holds even where a policy would be looser.
    """
    who = one_line(person.id)
    if facts["is_agent"]:
        return _refuse("review.agent", "Only people decide at a gate; an agent or a bot never does.", who, _ASK_PERSON)
    if not facts["gate_open"] or facts["expired"]:
        return _closed(gate, expired=facts["expired"])
    if not facts["binding_current"]:
        return _refuse(
            "review.stale",
            "What this gate was opened for is not what is there now: the change, its base or the policy moved.",
            f"approved would be {gate.binding.head_commit[:12]} on {gate.binding.base_commit[:12]}",
            f"Look at the run again with `vestibule show {gate.run}` and decide on what it shows then.",
        )
    if not facts["eligible"]:
        named = ", ".join(one_line(item, 80) for item in gate.eligible[:5]) or "any local person"
        return _refuse(
            "review.not_eligible",
            f"{who} is not among those who may decide here.",
            f"the gate names: {named}",
            "Ask one of them, or name this person under gates.review.from in the base branch's .vestibule/config.yaml.",
        )
    if facts["is_requester"] and facts["self_approval"] != "recorded" and choice == "approve":
        return _refuse(
            "review.self_approval",
            "Whoever asked for a change does not approve it.",
            f"{who} is the requester",
            "Ask another person; for solo work set `gates.review.self_approval: recorded` in the base branch's "
            ".vestibule/config.yaml and run the ticket again.",
        )
    if not facts["reason_given"]:
        return _refuse(
            "review.no_reason",
            "A decision needs a reason that a reader can see.",
            f"{MAX_REASON} characters at most",
            "Say in a sentence what you looked at: --reason TEXT.",
        )
    return None


def evaluate(gate: Gate, decisions: Iterable[Decision], now: str, *, agent_ids: Collection[str] = ()) -> GateOutcome:
    """Where the gate stands. `decisions` may hold anything ever given at it, in any order.

    A gate row that says `approved` without the quorum to show for it comes out as open or expired: the row is
    a projection, the decisions are what counts.
    """
    votes = tuple(
        _vote(gate, decision, agent_ids)
        for _, decision in sorted(_latest(decision for decision in decisions if decision.gate == gate.id).items())
    )
    counted = [vote for vote in votes if vote.counted]
    approvals = sum(vote.choice == "approve" for vote in counted)
    return GateOutcome(
        state=_state(gate, {vote.choice for vote in counted}, approvals, now),
        approvals=approvals,
        needed=gate.approvals,
        votes=votes,
    )


def _state(gate: Gate, choices: set[str], approvals: int, now: str) -> GateState:
    if gate.state in ("superseded", "expired", "rejected", "changes_requested"):
        return gate.state
    if "reject" in choices:
        return "rejected"
    if "request-changes" in choices:
        return "changes_requested"
    if approvals >= max(gate.approvals, 1):
        return "approved"
    return "expired" if is_expired(gate, now) else "open"


def _latest(decisions: Iterable[Decision]) -> dict[str, Decision]:
    latest: dict[str, Decision] = {}
    for decision in decisions:
        known = latest.get(decision.person.id)
        if known is None or _order(decision) > _order(known):
            latest[decision.person.id] = decision
    return latest


_STRICTNESS = {"approve": 0, "request-changes": 1, "reject": 2}


def _order(decision: Decision) -> tuple[str, int]:
    """By time; at the same instant the stricter answer is the later one."""
    return decision.time, _STRICTNESS[decision.choice]


def _vote(gate: Gate, decision: Decision, agent_ids: Collection[str]) -> Vote:
    why = _discounted(gate, decision, agent_ids)
    return Vote(
        person=decision.person.id,
        choice=decision.choice,
        counted=not why,
        why=why,
        self_review=decision.self_review,
    )


def _discounted(gate: Gate, decision: Decision, agent_ids: Collection[str]) -> str:
    """The rule by which a decision does not count, else empty."""
    if is_agent(decision.person, agent_ids):
        return "review.agent"
    if decision.run != gate.run or decision.binding != gate.binding:
        return "review.stale"
    if not is_eligible(decision.person, gate):
        return "review.not_eligible"
    if is_expired(gate, decision.time):
        return "review.expired"
    if not visible_reason(decision.reason) or len(decision.reason) > MAX_REASON:
        return "review.no_reason"
    own = decision.person.id == gate.requester
    if own and decision.choice == "approve" and (gate.self_approval != "recorded" or not decision.self_review):
        return "review.self_approval"
    return ""


_ASK_PERSON = "Ask a person to decide, under their own account."


def _closed(gate: Gate, *, expired: bool) -> Refusal:
    if expired and gate.state in ("open", "expired"):
        return _refuse(
            "review.expired",
            "This gate ran out of time, and running out is a reject.",
            f"expired {gate.expires}",
            "Run the ticket again; gates.review.expires sets how long a gate waits.",
        )
    return _refuse(
        "review.closed",
        f"This gate is closed: {gate.state.replace('_', ' ')}.",
        gate.id,
        f"See where the run stands with `vestibule show {gate.run}`.",
    )


def _refuse(rule: str, reason: str, fact: str, person: str) -> Refusal:
    return refusal(rule, reason, fact=fact, agent="Stop here; only a person can go on from this point.", person=person)
