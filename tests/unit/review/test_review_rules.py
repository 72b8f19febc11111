"""Properties of the pure rules, and their agreement with the shipped policy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from review_world import AGENT, BOB, CAROL, REQUESTER, RUN, binding

from vestibule.core.model import Decision, Gate, Person
from vestibule.core.ports import PolicyInput
from vestibule.policy import PolicySet
from vestibule.review import rules

NOW = "2026-01-01T12:00:00.000Z"
LATE = "2026-01-03T00:00:00.000Z"
EXPIRES = "2026-01-02T00:00:00.000Z"
PEOPLE = (REQUESTER, BOB, CAROL, AGENT, Person(id="bot:ci", how="?"), Person(id="local:dan", how="uid"))


def gate(**changes: object) -> Gate:
    values: dict[str, object] = {
        "id": "g-1",
        "run": RUN,
        "kind": "review",
        "round": 1,
        "approvals": 1,
        "eligible": (),
        "self_approval": "never",
        "requester": REQUESTER.id,
        "binding": binding(),
        "opened": "2026-01-01T00:00:00.000Z",
        "expires": EXPIRES,
        **changes,
    }
    return Gate.model_validate(values)


decisions = st.builds(
    Decision,
    id=st.uuids().map(str),
    gate=st.sampled_from(["g-1", "g-1", "g-1", "g-2"]),
    run=st.sampled_from([RUN, RUN, RUN, "r-other"]),
    person=st.sampled_from(PEOPLE),
    choice=st.sampled_from(["approve", "approve", "request-changes", "reject"]),
    reason=st.sampled_from(["fine", "fine", "\u200b", ""]),
    binding=st.sampled_from([binding(), binding(), binding(), binding(2)]),
    self_review=st.booleans(),
    time=st.sampled_from([NOW, "2026-01-01T13:00:00.000Z", "2026-01-01T14:00:00.000Z", EXPIRES, LATE]),
)
gates = st.builds(
    gate,
    approvals=st.integers(1, 3),
    eligible=st.sampled_from([(), ("local:bob", "local:carol"), tuple(person.id for person in PEOPLE)]),
    self_approval=st.sampled_from(["never", "recorded"]),
    state=st.sampled_from(["open", "open", "approved", "rejected", "changes_requested", "expired", "superseded"]),
)


@given(gates, st.lists(decisions, max_size=8), st.sampled_from([NOW, LATE]))
def test_approved_means_a_quorum_of_valid_answers(found: Gate, given_: list[Decision], now: str) -> None:
    outcome = rules.evaluate(found, given_, now)
    if not outcome.approved:
        return
    last: dict[str, Decision] = {}
    for item in sorted((d for d in given_ if d.gate == found.id), key=rules._order):
        last[item.person.id] = item
    valid = [
        item
        for item in last.values()
        if item.choice == "approve"
        and item.run == found.run
        and item.binding == found.binding
        and item.person.id.startswith("local:")
        and (not found.eligible or item.person.id in found.eligible)
        and item.reason == "fine"
        and item.time < EXPIRES
        and (item.person.id != REQUESTER.id or (found.self_approval == "recorded" and item.self_review))
    ]
    assert len(valid) >= found.approvals
    assert found.state in ("open", "approved")


@given(gates, st.lists(decisions, max_size=6), st.randoms())
def test_the_order_of_rows_does_not_matter(found: Gate, given_: list[Decision], random: object) -> None:
    unique = list({(item.person.id, item.time, item.choice): item for item in given_}.values())
    shuffled = list(unique)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert rules.evaluate(found, unique, NOW).state == rules.evaluate(found, shuffled, NOW).state


@given(gates, st.lists(decisions, max_size=6), decisions)
def test_an_objection_never_makes_an_approval(found: Gate, given_: list[Decision], extra: Decision) -> None:
    objection = extra.model_copy(update={"choice": "reject"})
    if not rules.evaluate(found, given_, NOW).approved:
        assert not rules.evaluate(found, [*given_, objection], NOW).approved


@given(gates, st.lists(decisions, max_size=6))
def test_time_never_makes_an_approval(found: Gate, given_: list[Decision]) -> None:
    if not rules.evaluate(found, given_, NOW).approved:
        assert not rules.evaluate(found, given_, LATE).approved


@given(gates, st.lists(decisions, max_size=6))
def test_an_identity_known_as_an_agents_is_never_counted(found: Gate, given_: list[Decision]) -> None:
    known = tuple(person.id for person in PEOPLE)
    outcome = rules.evaluate(found, given_, NOW, agent_ids=known)
    assert not outcome.approved
    assert all(vote.why == "review.agent" for vote in outcome.votes)


def test_a_gate_that_asks_for_nobody_still_asks_for_one() -> None:
    assert rules.evaluate(gate(approvals=0), [], NOW).state == "open"


@given(st.text(max_size=30))
def test_a_visible_reason_has_a_letter_or_a_digit(reason: str) -> None:
    assert rules.visible_reason(reason + "a")
    if rules.visible_reason(reason):
        assert any(char.isalnum() for char in reason)


@given(st.text(max_size=20))
def test_nothing_without_the_form_of_a_person_is_one(identity: str) -> None:
    if not rules.is_agent(Person(id=identity, how="?")):
        assert identity.startswith(("local:", "oidc:"))
        assert not any(char.isspace() for char in identity)
        assert "[bot]" not in identity


@pytest.fixture(scope="module")
def shipped() -> Iterator[PolicySet]:
    policy = PolicySet.load()
    yield policy
    policy.close()


def test_the_shipped_policy_and_the_rules_agree(shipped: PolicySet) -> None:
    """Two locks on one door: neither lets through what the other refuses."""
    cases = itertools.product(
        (BOB, REQUESTER, AGENT),
        ("approve", "reject"),
        ("never", "recorded"),
        ((), ("local:carol",)),
        (binding(), None),
        ("open", "approved"),
        (NOW, LATE),
        ("fine", ""),
    )
    for person, choice, self_approval, eligible, current, state, now, reason in cases:
        found = gate(self_approval=self_approval, eligible=eligible, state=state)
        facts = rules.may_decide(person, found, reason=reason, current_binding=current, now=now)
        verdict = shipped.decide(
            PolicyInput(
                action="review.decide",
                subject={"id": person.id, "kind": "agent" if facts["is_agent"] else "person"},
                resource={"id": found.id, "choice": choice},
                facts=facts,
            )
        )
        objection = rules.objection(person, found, facts, choice)
        assert verdict.allowed == (objection is None), (facts, verdict, objection)
        if objection is not None:
            late = {"review.expired", "review.closed"}  # of a gate that is both, each names one
            assert objection.rule in verdict.reasons or (late & {objection.rule} and late & set(verdict.reasons))


@pytest.mark.parametrize("member", sorted(rules.may_decide(
    BOB, gate(), reason="fine", current_binding=binding(), now=NOW
)))  # fmt: skip
def test_every_fact_is_a_boolean_or_a_known_word(member: str) -> None:
    facts = rules.may_decide(BOB, gate(), reason="fine", current_binding=binding(), now=NOW)
    assert isinstance(facts[member], bool) or facts[member] in ("never", "recorded")


def decision(**changes: object) -> Decision:
    values: dict[str, object] = {
        "id": "d-1",
        "gate": "g-1",
        "run": RUN,
        "person": BOB,
        "choice": "approve",
        "reason": "fine",
        "binding": binding(),
        "time": NOW,
        **changes,
    }
    return Decision.model_validate(values)


def test_a_valid_approval_counts() -> None:
    outcome = rules.evaluate(gate(), [decision()], NOW)
    assert (outcome.state, outcome.approvals, outcome.needed) == ("approved", 1, 1)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"person": AGENT}, "review.agent"),
        ({"run": "r-other"}, "review.stale"),
        *[
            ({"binding": binding().model_copy(update={field: "0" * 40})}, "review.stale")
            for field in type(binding()).model_fields
        ],
        ({"person": Person(id="local:eve", how="uid")}, "review.not_eligible"),
        ({"time": EXPIRES}, "review.expired"),
        ({"time": LATE}, "review.expired"),
        ({"reason": "\u200b"}, "review.no_reason"),
        ({"reason": "x" * 4001}, "review.no_reason"),
        ({"person": REQUESTER, "self_review": True}, "review.self_approval"),
    ],
)
def test_an_answer_that_breaks_one_rule_does_not_count(changes: dict[str, object], why: str) -> None:
    found = gate(eligible=("local:bob", REQUESTER.id, AGENT.id))
    outcome = rules.evaluate(found, [decision(**changes)], NOW)
    assert (outcome.state, outcome.approvals) == ("open", 0)
    assert [vote.why for vote in outcome.votes] == [why]


def test_an_answer_at_another_gate_is_not_seen() -> None:
    assert rules.evaluate(gate(), [decision(gate="g-2")], NOW).votes == ()


def test_solo_work_that_does_not_say_so_does_not_count() -> None:
    found = gate(self_approval="recorded")
    assert not rules.evaluate(found, [decision(person=REQUESTER)], NOW).approved
    assert rules.evaluate(found, [decision(person=REQUESTER, self_review=True)], NOW).approved
