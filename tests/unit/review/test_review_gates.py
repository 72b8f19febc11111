"""What gates and decisions promise, through the database and the crossing."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from review_world import AGENT, BOB, CAROL, REQUESTER, RUN, World, binding
from sqlalchemy import text

from vestibule.core.canonical import digest
from vestibule.core.errors import REFUSED, DependencyDown, Refused, UsageError, VerificationFailed
from vestibule.core.model import Event, GateBinding, Person
from vestibule.core.verdict import Ruling, Verdict
from vestibule.review.gates import Gates
from vestibule.review.signing import ReviewKey, verify_decision


def refusal_of(world: World, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(Refused) as refused:
        world.decide(*args, **kwargs)
    assert refused.value.exit_code == REFUSED
    assert refused.value.refusal.reason
    assert refused.value.refusal.next.person
    return refused.value.refusal.rule


def rows(world: World, table: str) -> int:
    with world.database.read() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def test_one_approval_by_another_person_approves(world: World) -> None:
    gate = world.open()
    decided = world.decide(gate)
    assert decided.outcome.state == "approved"
    assert decided.gate.state == "approved"
    assert world.gates.get(gate.id) == decided.gate
    assert world.gates.outcome(gate.id, gate.binding).approved
    [signed] = world.gates.decisions(gate.id)
    assert signed.decision == decided.decision
    verify_decision(signed.decision, signed.signature, world.key.public)


def test_the_intent_is_durable_before_the_row(world: World) -> None:
    gate = world.open()
    seen: list[tuple[str, int]] = []
    world.log.before = lambda event: seen.append((event.phase, rows(world, "decisions")))
    decided = world.decide(gate, reason="fine")
    assert seen == [("intent", 0), ("outcome", 1)]
    intent, outcome = world.log.events
    assert (intent.action, intent.resource, intent.subject, intent.actor) == (
        "review.decide", gate.id, "person", "local:bob",
    )  # fmt: skip
    assert intent.details["reason"] == "fine"
    assert intent.details["binding"]["head_commit"] == gate.binding.head_commit
    assert intent.details["terms"]["approvals"] == 1
    assert outcome.result == "ok"
    assert outcome.details["decision"] == decided.decision.id
    assert outcome.details["decision_digest"] == digest(decided.decision.model_dump(mode="json"))
    assert outcome.details["key"] == world.key.id


def test_a_decision_that_cannot_be_recorded_does_not_happen(world: World) -> None:
    gate = world.open()
    world.log.broken = True
    with pytest.raises(DependencyDown) as down:
        world.decide(gate)
    assert down.value.name == "audit"
    assert rows(world, "decisions") == 0
    assert not world.gates.outcome(gate.id, gate.binding).approved


def test_a_policy_that_denies_or_holds_is_obeyed(world: World) -> None:
    gate = world.open()
    for ruling in (Ruling.DENY, Ruling.HOLD):
        world.policy.verdict = Verdict(ruling=ruling, reasons=("org.frozen",))
        assert refusal_of(world, gate) == "org.frozen"
    world.policy.verdict = Verdict(ruling=Ruling.DENY, reasons=("policy.error",))
    assert refusal_of(world, gate, person=REQUESTER) == "policy.error"
    assert rows(world, "decisions") == 0


def test_a_database_that_is_gone_is_refused(world: World) -> None:
    gate = world.open()
    with world.database.write() as connection:
        connection.execute(text("DROP TABLE decisions"))
    with pytest.raises(DependencyDown) as down:
        world.decide(gate)
    assert down.value.name == "database"


def test_the_policy_sees_the_facts_it_was_promised(world: World) -> None:
    gate = world.open()
    world.decide(gate)
    [request] = world.policy.asked
    assert request.action == "review.decide"
    assert request.resource == {"id": gate.id, "choice": "approve"}
    assert request.subject == {"id": "local:bob", "kind": "person"}
    assert request.facts == {
        "is_agent": False,
        "is_requester": False,
        "self_approval": "never",
        "eligible": True,
        "binding_current": True,
        "gate_open": True,
        "expired": False,
        "reason_given": True,
    }


# --- who ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "identity",
    [
        AGENT.id,
        "bot:ci",
        "app:github-actions[bot]",
        "local:dependabot[bot]",
        "oidc:https://idp.example.com/#renovate[bot]",
        "spiffe://other/x",
        "",
        "alice",
        "local:",
        "local:a b",
        "local:x\nlocal:bob",
        "LOCAL:bob",
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_the_agent_never_approves(world: World, identity: str, listed: bool) -> None:
    gate = world.open(eligible=(identity,) if listed else (), self_approval="recorded")
    assert refusal_of(world, gate, person=Person(id=identity, how="?")) == "review.agent"
    assert rows(world, "decisions") == 0
    assert world.log.events[0].subject == "agent"


def test_an_identity_known_to_be_an_agents_never_approves(world: World) -> None:
    gate = world.open()
    assert refusal_of(world, gate, agent_ids=("local:bob",)) == "review.agent"


def test_the_requester_does_not_approve_their_own_change(world: World) -> None:
    gate = world.open()
    with pytest.raises(Refused) as refused:
        world.decide(gate, person=REQUESTER)
    assert refused.value.exit_code == 4
    assert refused.value.refusal.rule == "review.self_approval"
    assert "Ask another person" in refused.value.refusal.next.person
    assert "self_approval: recorded" in refused.value.refusal.next.person


def test_solo_work_is_recorded_as_self_reviewed(world: World) -> None:
    gate = world.open(self_approval="recorded")
    decided = world.decide(gate, person=REQUESTER)
    assert decided.outcome.approved
    assert decided.decision.self_review
    assert decided.outcome.votes[0].self_review
    assert world.log.events[-1].details["self_review"] is True
    assert not world.decide(world.open(round=2, self_approval="recorded")).decision.self_review


def test_the_requester_may_reject_their_own_change(world: World) -> None:
    assert world.decide(world.open(), person=REQUESTER, choice="reject").outcome.state == "rejected"


def test_only_people_the_gate_names_decide(world: World) -> None:
    platform = "oidc:https://idp.example.com/#platform"
    gate = world.open(eligible=("local:bob", platform), approvals=3)
    assert refusal_of(world, gate, person=CAROL) == "review.not_eligible"
    assert refusal_of(world, gate, person=CAROL, choice="reject") == "review.not_eligible"
    world.decide(gate, person=BOB)
    member = Person(id="oidc:https://idp.example.com/#u1", groups=(platform,), how="oidc")
    assert world.decide(gate, person=member).outcome.approvals == 2
    stranger = Person(id="oidc:https://other.example.com/#u1", groups=("platform",), how="oidc")
    assert refusal_of(world, gate, person=stranger) == "review.not_eligible"


@pytest.mark.parametrize("name", ["local:b\u043eb", "local:bob\u200b", "local:Bob", "local:bob.", "local:\u202ebob"])
def test_a_look_alike_name_is_a_stranger(world: World, name: str) -> None:
    gate = world.open(eligible=("local:bob",))
    assert refusal_of(world, gate, person=Person(id=name, how="uid")) in ("review.not_eligible", "review.agent")


@pytest.mark.parametrize("name", ["local:O'Brien", "local:Łukasz", "local:j.doe-2", "local:王"])
def test_people_with_unusual_names_may_decide(world: World, name: str) -> None:
    assert world.decide(world.open(), person=Person(id=name, how="uid")).outcome.approved


def test_without_a_list_any_local_person_decides_and_nobody_from_elsewhere(world: World) -> None:
    gate = world.open()
    outside = Person(id="oidc:https://idp.example.com/#u1", how="oidc")
    assert refusal_of(world, gate, person=outside) == "review.not_eligible"
    assert world.decide(gate, person=CAROL).outcome.approved


# --- what ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["", " ", "\n\t", "\u200b", "\u2060\u200d", "\u3164", "...", "x" * 4001, "\u202e"])
def test_a_decision_needs_a_reason_that_a_reader_can_see(world: World, reason: str) -> None:
    assert refusal_of(world, world.open(), reason=reason) == "review.no_reason"
    assert rows(world, "decisions") == 0


@pytest.mark.parametrize("reason", ["ok", "x" * 4000, "правильно", "good \u202e evil", "\x1b[31mred\x1b[0m", "a\0b"])
def test_a_reason_is_kept_as_it_was_given(world: World, reason: str) -> None:
    gate = world.open()
    world.decide(gate, reason=reason)
    assert world.gates.decisions(gate.id)[0].decision.reason == reason


def test_a_reason_that_is_no_text_is_a_usage_error(world: World) -> None:
    with pytest.raises(UsageError):
        world.decide(world.open(), reason="a\udc80")


@pytest.mark.parametrize("field", list(GateBinding.model_fields))
def test_a_decision_on_anything_but_what_is_there_now_is_refused(world: World, field: str) -> None:
    gate = world.open()
    moved = gate.binding.model_copy(update={field: "0" * 40})
    assert refusal_of(world, gate, current=moved) == "review.stale"
    assert refusal_of(world, gate, current=lambda: None) == "review.stale"
    assert rows(world, "decisions") == 0


def test_a_commit_that_lands_while_deciding_voids_the_decision(world: World) -> None:
    gate = world.open()
    answers = iter([gate.binding, binding(2)])
    assert refusal_of(world, gate, current=lambda: next(answers)) == "review.stale"
    assert [event.result for event in world.log.events] == ["", "failed"]
    assert rows(world, "decisions") == 0


def test_approval_dies_with_new_commit(world: World) -> None:
    gate = world.open()
    assert world.decide(gate).outcome.approved
    assert world.gates.outcome(gate.id, binding(2)).state == "superseded"
    assert world.gates.outcome(gate.id, None).state == "superseded"
    [closed] = world.gates.supersede(RUN, current=binding(2))
    assert closed.state == "superseded"
    # Going back to the old commit brings nothing back.
    assert world.gates.outcome(gate.id, gate.binding).state == "superseded"
    assert refusal_of(world, gate) == "review.closed"


def test_a_new_round_closes_the_gate_before_it(world: World) -> None:
    first = world.open()
    world.decide(first)
    second = world.open(round=2, number=2)
    assert world.gates.get(first.id).state == "superseded"  # type: ignore[union-attr]
    assert world.gates.current(RUN) == second
    assert world.gates.waiting() == (second,)
    assert refusal_of(world, first) == "review.closed"
    assert not world.gates.outcome(second.id, second.binding).approved


def test_superseding_spares_the_gate_of_what_is_there(world: World) -> None:
    gate = world.open()
    assert world.gates.supersede(RUN, current=gate.binding) == ()
    assert world.gates.supersede("r-other") == ()
    assert world.gates.supersede(RUN) != ()


def test_opening_a_round_twice_is_opening_it_once(world: World) -> None:
    gate = world.open()
    world.time.pass_(60)
    assert world.open() == gate
    with pytest.raises(Refused) as refused:
        world.open(number=2)
    assert refused.value.refusal.rule == "review.gate_conflict"


def test_rounds_sort_by_number(world: World) -> None:
    for number in range(1, 12):
        world.open(round=number, number=number)
    assert world.gates.current(RUN).round == 11  # type: ignore[union-attr]


def test_a_gate_nobody_knows_is_a_usage_error(world: World) -> None:
    gate = world.open().model_copy(update={"id": "g-none"})
    with pytest.raises(UsageError):
        world.decide(gate)
    assert world.gates.get("g-none") is None


# --- how many -----------------------------------------------------------------------------------------------


def test_a_quorum_is_of_different_people(world: World) -> None:
    gate = world.open(approvals=2)
    assert world.decide(gate).outcome.state == "open"
    assert world.decide(gate).outcome.state == "open"
    assert world.decide(gate, person=CAROL).outcome.state == "approved"


@pytest.mark.parametrize(("choice", "state"), [("reject", "rejected"), ("request-changes", "changes_requested")])
def test_one_objection_outweighs_any_number_of_approvals(world: World, choice: str, state: str) -> None:
    gate = world.open(approvals=3)
    world.decide(gate)
    world.decide(gate, person=CAROL)
    outcome = world.decide(gate, person=Person(id="local:dan", how="uid"), choice=choice).outcome
    assert outcome.state == state
    assert refusal_of(world, gate, person=Person(id="local:eve", how="uid")) == "review.closed"


def test_saying_the_same_again_is_saying_it_once(world: World) -> None:
    gate = world.open(approvals=2)
    first = world.decide(gate)
    events = len(world.log.events)
    again = world.decide(gate, reason="other words")
    assert again.repeated
    assert again.decision == first.decision
    assert len(world.log.events) == events
    world.decide(gate, person=CAROL)
    closed = world.decide(gate)
    assert closed.repeated
    assert closed.outcome.approved


def test_the_same_answer_on_a_stale_binding_is_no_repetition(world: World) -> None:
    gate = world.open()
    world.decide(gate)
    assert refusal_of(world, gate, current=binding(2)) in ("review.stale", "review.closed")


def test_an_approval_is_withdrawn_by_an_objection_and_never_comes_back(world: World) -> None:
    gate = world.open(approvals=2)
    first = world.decide(gate)
    assert world.decide(gate, choice="request-changes", reason="found something").outcome.state == "changes_requested"
    assert refusal_of(world, gate) == "review.closed"
    [signed] = world.gates.decisions(gate.id)
    assert signed.decision.choice == "request-changes"
    assert [item.decision for item in signed.earlier] == [first.decision]
    assert rows(world, "decisions") == 1


# --- when ---------------------------------------------------------------------------------------------------


def test_running_out_is_a_reject_never_an_approval(world: World) -> None:
    gate = world.open(approvals=2, expires_seconds=60)
    world.decide(gate)
    world.time.pass_(60)
    assert world.gates.outcome(gate.id, gate.binding).state == "expired"
    assert refusal_of(world, gate, person=CAROL) == "review.expired"
    assert world.gates.get(gate.id).state == "expired"  # type: ignore[union-attr]
    assert world.gates.expire() == ()


def test_expiring_closes_only_what_ran_out(world: World) -> None:
    world.add_run("r-second")
    short = world.open(expires_seconds=60)
    long = world.gates.open(run="r-second", round=1, binding=binding(), requester="local:alice", expires_seconds=120)
    assert world.gates.waiting() == (short, long)
    assert world.gates.expire() == ()
    world.time.pass_(60)
    assert [gate.id for gate in world.gates.expire()] == [short.id]
    assert world.gates.waiting() == (long,)


def test_time_that_runs_out_while_deciding_refuses(world: World) -> None:
    gate = world.open(expires_seconds=60)
    world.log.before = lambda event: world.time.pass_(60) if event.phase == "intent" else None
    assert refusal_of(world, gate) == "review.expired"
    assert rows(world, "decisions") == 0


def test_an_approval_in_time_outlives_the_gate_s_clock(world: World) -> None:
    gate = world.open(expires_seconds=60)
    world.decide(gate)
    world.time.pass_(3600)
    assert world.gates.expire() == ()
    assert world.gates.outcome(gate.id, gate.binding).approved


# --- at the same moment, and by other hands -----------------------------------------------------------------


def test_two_people_at_the_same_moment_are_both_counted(world: World) -> None:
    gate = world.open(approvals=2)
    barrier = threading.Barrier(2)

    def meet(event: Event) -> None:
        if event.phase == "intent":
            barrier.wait(10)

    world.log.before = meet
    outcomes: list[str] = []
    threads = [
        threading.Thread(target=lambda who=who: outcomes.append(world.decide(gate, person=who).outcome.state))
        for who in (BOB, CAROL)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["approved", "open"]


def test_a_reject_at_the_same_moment_stops_the_last_approval(world: World) -> None:
    gate = world.open()
    done: list[object] = []

    def reject_first(event: Event) -> None:
        if event.phase == "intent" and not done:
            done.append(None)
            world.decide(gate, person=CAROL, choice="reject")

    world.log.before = reject_first
    assert refusal_of(world, gate) == "review.closed"
    assert world.gates.outcome(gate.id, gate.binding).state == "rejected"


def test_a_double_click_makes_one_row(world: World) -> None:
    gate = world.open(approvals=2)
    done: list[object] = []

    def same_first(event: Event) -> None:
        if event.phase == "intent" and not done:
            done.append(None)
            world.decide(gate)

    world.log.before = same_first
    again = world.decide(gate)
    assert again.repeated
    assert rows(world, "decisions") == 1


def test_an_approved_column_without_decisions_is_no_approval(world: World) -> None:
    gate = world.open()
    forged = gate.model_copy(update={"state": "approved"})
    with world.database.write() as connection:
        connection.execute(
            text("UPDATE gates SET state='approved', document=:document"), {"document": forged.model_dump_json()}
        )
    assert world.gates.outcome(gate.id, gate.binding).state == "open"
    with world.database.write() as connection:
        connection.execute(text("UPDATE gates SET state='open'"))
    with pytest.raises(DependencyDown):
        world.gates.get(gate.id)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"reject"', '"approve"'),
        ("local:bob", "local:eve"),
        ("looked at it", "looked at xx"),
        ('"1111111111111111111111111111111111111111"', '"2222222222222222222222222222222222222222"'),
    ],
)
def test_a_changed_decision_row_is_found(world: World, old: str, new: str) -> None:
    gate = world.open(approvals=2)
    world.decide(gate, choice="reject")
    with world.database.write() as connection:
        connection.execute(
            text("UPDATE decisions SET document=replace(document, :old, :new)"), {"old": old, "new": new}
        )
    for act in (lambda: world.gates.outcome(gate.id, gate.binding), lambda: world.gates.decisions(gate.id)):
        with pytest.raises(VerificationFailed):
            act()


def test_a_decision_row_moved_to_another_gate_or_person_is_found(world: World) -> None:
    gate = world.open()
    world.decide(gate)
    with world.database.write() as connection:
        connection.execute(text("UPDATE decisions SET person='local:eve'"))
    with pytest.raises(DependencyDown):
        world.gates.decisions(gate.id)


def test_a_row_signed_by_another_key_is_found(world: World) -> None:
    gate = world.open()
    world.decide(gate)
    with pytest.raises(VerificationFailed):
        Gates(world.database, ReviewKey.new(), now=world.time).outcome(gate.id, gate.binding)
