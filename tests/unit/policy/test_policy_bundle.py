"""The shipped bundle: every action, every fact, every reason."""

from __future__ import annotations

import re
from typing import Any

import pytest
from policy_vocabulary import EXPECTED, GOOD, OBJECTIONS, request

from vestibule.core.text.paths import PathRefused, normalise_path
from vestibule.core.verdict import Ruling
from vestibule.policy import PolicySet
from vestibule.policy.index import LayerIndex
from vestibule.policy.layers import shipped_layer
from vestibule.policy.refusals import ENTRIES, entry_for, order, refusals_for

FACTS = [(action, name) for action, facts in GOOD.items() for name in facts]


@pytest.mark.parametrize("action", GOOD)
def test_a_request_with_every_fact_right_passes(shipped: PolicySet, action: str) -> None:
    verdict = shipped.decide(request(action))
    assert verdict.ruling == EXPECTED[action]
    assert verdict.reasons == (("gate.review",) if action == "change.propose" else ())
    assert verdict.policy_digest == shipped.digest


@pytest.mark.parametrize(("action", "name"), FACTS)
def test_a_missing_fact_is_a_deny(shipped: PolicySet, action: str, name: str) -> None:
    facts = {key: value for key, value in GOOD[action].items() if key != name}
    verdict = shipped.decide(request(action, facts=facts))
    assert verdict.ruling is Ruling.DENY
    assert "policy.fact_missing" in verdict.reasons


@pytest.mark.parametrize("wrong", [None, 1, 0, {}, "yes", ["allow"]], ids=repr)
@pytest.mark.parametrize(("action", "name"), FACTS)
def test_a_fact_of_another_type_is_a_deny(shipped: PolicySet, action: str, name: str, wrong: Any) -> None:
    if type(wrong) is type(GOOD[action][name]):
        wrong = 7
    verdict = shipped.decide(request(action, {name: wrong}))
    assert verdict.ruling is Ruling.DENY
    assert "policy.fact_missing" in verdict.reasons


@pytest.mark.parametrize(("action", "changed", "reasons"), OBJECTIONS, ids=lambda value: str(value)[:60])
def test_each_objection_has_its_own_reason(
    shipped: PolicySet, action: str, changed: dict[str, Any], reasons: set[str]
) -> None:
    verdict = shipped.decide(request(action, changed))
    assert verdict.ruling is Ruling.DENY
    assert set(verdict.reasons) == reasons
    assert {item.rule for item in verdict.refusals} == reasons
    assert all(item.next.agent and item.next.person for item in verdict.refusals)


def test_every_boolean_fact_flipped_alone_is_a_deny(shipped: PolicySet) -> None:
    """But for `paid`: a run without costs has the same rules; an organisation's policy may ask more of a paid one."""
    for action, facts in GOOD.items():
        for name, value in facts.items():
            if isinstance(value, bool) and name != "paid":
                assert shipped.decide(request(action, {name: not value})).ruling is Ruling.DENY, (action, name)


@pytest.mark.parametrize("action", ["", "context.delete", "context", "CONTEXT.READ", "merge ", "release.rollback"])
def test_an_unknown_action_is_a_deny(shipped: PolicySet, action: str) -> None:
    verdict = shipped.decide(request(action, GOOD["context.read"]))
    assert (verdict.ruling, verdict.reasons) == (Ruling.DENY, ("policy.unknown_action",))


def test_findings_that_hold_are_held_with_both_reasons(shipped: PolicySet) -> None:
    verdict = shipped.decide(request("change.propose", {"findings": "hold", "finding_rules": ["diff.tls", "diff.tls"]}))
    assert verdict.ruling is Ruling.HOLD
    assert set(verdict.reasons) == {"gate.review", "change.findings"}
    assert any("diff.tls" in item.fact for item in verdict.refusals)


def test_the_requester_approves_only_where_that_is_recorded(shipped: PolicySet) -> None:
    own = {"is_requester": True, "self_approval": "recorded"}
    assert shipped.decide(request("review.decide", own)).allowed
    own["self_approval"] = "never"
    assert shipped.decide(request("review.decide", own)).reasons == ("review.self_approval",)


@pytest.mark.parametrize("choice", ["request-changes", "reject"])
def test_the_requester_may_always_turn_the_change_down(shipped: PolicySet, choice: str) -> None:
    resource = {"id": "gate-1", "choice": choice}
    assert shipped.decide(request("review.decide", {"is_requester": True}, resource=resource)).allowed


@pytest.mark.parametrize(
    "subject", [{"kind": "agent"}, {"kind": "probe"}, {"kind": "system"}, {}, {"kind": ["person"]}]
)
def test_whatever_is_no_person_cannot_decide_even_if_the_fact_says_so(
    shipped: PolicySet, subject: dict[str, Any]
) -> None:
    verdict = shipped.decide(request("review.decide", subject=subject))
    assert (verdict.ruling, verdict.reasons) == (Ruling.DENY, ("review.agent",))


@pytest.mark.parametrize("choice", ["", "merge", "Approve", None, True])
def test_a_decision_is_one_of_three_words(shipped: PolicySet, choice: Any) -> None:
    verdict = shipped.decide(request("review.decide", resource={"id": "gate-1", "choice": choice}))
    assert verdict.reasons == ("review.choice",)


def test_finding_rules_do_not_change_the_verdict(shipped: PolicySet) -> None:
    assert shipped.decide(request("change.propose", {"finding_rules": ["a", "b"]})).ruling is Ruling.HOLD


@pytest.mark.parametrize(
    "rule", ["model.field.a b", "model.field.", "model.field..x", "model.field.\n", "model.field." + "x" * 300]
)
def test_a_fact_that_is_no_rule_name_does_not_become_a_reason(shipped: PolicySet, rule: str) -> None:
    verdict = shipped.decide(request("model.request", {"fields_ok": False, "field_rule": rule}))
    assert verdict.reasons == ("model.field",)


def test_finding_rules_are_strings(shipped: PolicySet) -> None:
    assert shipped.decide(request("change.propose", {"finding_rules": ["a", 1]})).reasons == ("policy.fact_missing",)


def test_every_reason_of_the_bundle_has_words() -> None:
    sources = shipped_layer().sources
    reasons = re.findall(r'contains "([a-z._]+)"|"reasons": \["([a-z._]+)"\]', "\n".join(sources.values()))
    named = {name for groups in reasons for name in groups if name}
    tables = LayerIndex(sources).data((None, None))["vestibule_constants"]
    rows = [table["reason"] for name, table in tables.items() if name.endswith("_facts")]
    named |= {reason for row in rows for reason in row.values()}
    assert len(named) > 50
    assert named <= set(ENTRIES)


def test_every_rule_of_the_path_normaliser_has_words() -> None:
    samples = ["a\\b", "/a", "../a", "a\0", "a\x01", "a\u200b", "%2e%2e/a", ".git/x", "a:b", "con", "a.", "", "a" * 300]
    for sample in samples:
        with pytest.raises(PathRefused) as found:
            normalise_path(sample)
        assert found.value.rule in ENTRIES


def test_a_reason_falls_back_to_its_family() -> None:
    assert entry_for("model.field.tools.web_search") is ENTRIES["model.field"]
    assert entry_for("acme.freeze") is None


def test_an_agent_is_told_its_scope_and_never_another_layers_words() -> None:
    scope = refusals_for(("context.write.scope",), request("context.write"), "shipped", Ruling.DENY)[0]
    assert scope.fact == "src/a.py; this task may write: src/**"
    other = refusals_for(("acme.freeze",), request("context.write"), "organisation", Ruling.DENY)[0]
    assert "organisation's" not in other.fact
    assert "src/**" not in other.sentence()


def test_facts_are_shown_on_one_line_with_hidden_characters_written_out() -> None:
    nasty = request("context.write", resource={"id": "x", "path": "a\n\x1b[2J\u202e" + "b" * 5000})
    fact = refusals_for(("context.write.scope",), nasty, "shipped", Ruling.DENY)[0].fact
    assert len(fact) <= 300
    assert "\n" not in fact
    assert "\x1b" not in fact
    assert "\u202e" not in fact


def test_the_most_telling_reason_comes_first() -> None:
    assert order(["context.write.scope", "context.tool", "path.traversal"])[0] == "path.traversal"
    assert order(["context.write.scope", "acme.freeze"])[0] == "acme.freeze"


def test_an_allow_has_no_refusals() -> None:
    assert refusals_for((), request("merge"), "shipped", Ruling.ALLOW) == ()
