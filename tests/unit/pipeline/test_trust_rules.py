"""The record of an agent and the step it proposes: from the log alone, for exactly one version, never by doubt."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vestibule.core.model import Event
from vestibule.core.verdict import Ruling
from vestibule.pipeline.trust_rules import Deed, Record, Terms, about, clean, deeds, propose, records

RUNGS = ("docs", "small", "backend")
TERMS = Terms(clean_runs=3, max_denials=2)


def event(run: str, action: str, **fields: Any) -> Event:
    base: dict[str, Any] = {"phase": "intent", "resource": "x", "subject": "system", "actor": "a"}
    return Event(run=run, action=action, **{**base, **fields})


def start(run: str, **details: Any) -> Event:
    found = {"repo": "/r", "agent": "claude", "role": "docs", "scripted": False, **details}
    return event(run, "agent.start", resource="claude-code@1+m+c", details=found)


def merged(run: str) -> list[Event]:
    return [
        event(run, "review.decide", subject="person", details={"choice": "approve"}, verdict=Ruling.ALLOW),
        event(run, "review.decide", phase="outcome", intent=1, result="ok", details={"self_review": False}),
        event(run, "merge", phase="outcome", intent=2, result="ok", details={"state": "merged"}),
    ]


def sent_back(run: str, choice: str = "request-changes") -> list[Event]:
    return [
        event(run, "review.decide", subject="person", details={"choice": choice}, verdict=Ruling.ALLOW),
        event(run, "review.decide", phase="outcome", intent=1, result="ok", details={"self_review": False}),
    ]


def deed(run: str = "r", **fields: Any) -> Deed:
    base = {"repo": "/r", "agent": "claude", "version": "v1", "role": "docs", "ended": "merged"}
    return Deed(run=run, **{**base, **fields})


def test_a_run_is_read_from_its_events() -> None:
    denied = event("a", "context.read", subject="agent", verdict=Ruling.DENY, reasons=("x",))
    probe = event("a", "context.read", subject="probe", verdict=Ruling.DENY, reasons=("x",))
    held = event("a", "context.call", subject="agent", verdict=Ruling.HOLD, reasons=("x",))
    found = deeds([start("a"), denied, denied, probe, held, *sent_back("a"), start("a"), *merged("a")])
    expected = deed("a", version="claude-code@1+m+c", denials=2, holds=1, rework=1)
    assert found == [expected]


def test_a_run_that_was_stopped_breaks_the_row() -> None:
    """By a guard while the agent worked, by a person, or still under way with more refusals than a clean run has."""
    before, after = [start("a"), *merged("a")], [start("c"), *merged("c")]
    denied = event("b", "context.read", subject="agent", verdict=Ruling.DENY, reasons=("x",))
    stopped = {
        "refused": [event("b", "run.refused", verdict=Ruling.DENY, reasons=("run.flood",))],
        "cancelled": [event("b", "run.cancel"), event("b", "run.cancel", phase="outcome", intent=9, result="ok")],
        "open": [denied] * (TERMS.max_denials + 1),
    }
    for ended, events in stopped.items():
        found = deeds([*before, start("b"), *events, *after])
        assert [item.ended for item in found] == ["merged", ended, "merged"]
        assert one(*found).behind == ("c",)
    under_way = deeds([*before, start("b"), denied, *after])
    assert one(*under_way).behind == ("a", "c")


def test_what_was_merged_into_another_branch_is_no_evidence() -> None:
    def opened(run: str, target: str) -> Event:
        return event(run, "gate.open", details={"binding": {"target": target}})

    main, own = "refs/heads/main", "refs/heads/own"
    found = deeds(
        [
            *(start("a"), opened("a", main), *merged("a")),
            *(start("b"), opened("b", own), *merged("b")),
            *(start("c"), opened("c", own), *sent_back("c", "reject")),
            *(start("d"), *merged("d")),
        ]
    )
    assert [item.target for item in found] == [main, own, own, ""]
    assert [item.run for item in about(found, "/r", main)] == ["a", "c"]
    assert about(found, "/other", main) == []


def test_no_outcome_of_the_agents_ends_a_run_well() -> None:
    for subject in ("agent", "probe"):
        own = event("a", "merge", phase="outcome", subject=subject, intent=2, result="ok", details={"state": "merged"})
        assert deeds([start("a"), own])[0].ended == "open"


def test_a_run_whose_agent_never_started_is_no_record() -> None:
    assert deeds(merged("a")) == []


def test_an_agent_cannot_write_its_own_start_or_merge() -> None:
    """Only the pipeline's own events begin a record; an agent's intent is a count and no more."""
    forged = start("a").model_copy(update={"subject": "agent", "verdict": Ruling.ALLOW})
    assert deeds([forged]) == []
    own = event("a", "merge", subject="agent", verdict=Ruling.ALLOW, details={"state": "merged"})
    assert [item.ended for item in deeds([start("a"), own])] == ["open"]


def test_a_start_that_does_not_say_whether_a_script_answered_is_no_evidence() -> None:
    old = start("a").model_copy(update={"details": {"repo": "/r", "agent": "claude", "role": "docs"}})
    assert deeds([old])[0].scripted


def test_a_merge_that_was_rolled_back_stays_rolled_back() -> None:
    back = event("a", "release.rollback", phase="outcome", intent=3, result="ok")
    assert deeds([start("a"), *merged("a"), back, *merged("a")])[0].ended == "rolled_back"


def test_clean_is_merged_at_the_first_look_by_somebody_else() -> None:
    assert clean(deed(), TERMS)
    assert not clean(deed(rework=1), TERMS)
    assert not clean(deed(denials=3), TERMS)
    assert not clean(deed(self_reviewed=True), TERMS)
    assert clean(deed(self_reviewed=True), TERMS.model_copy(update={"count_self_reviewed": True}))
    assert not clean(deed(ended="open"), TERMS)


def one(*found: Deed) -> Record:
    return records(found, TERMS)[0]


def test_a_row_of_clean_runs_proposes_the_next_rung() -> None:
    row = [deed(str(number)) for number in range(3)]
    proposal = propose(RUNGS, 0, one(*row), TERMS)
    assert (proposal.step, proposal.role, proposal.runs) == ("up", "small", ("0", "1", "2"))
    assert propose(RUNGS, 0, one(*row[:2]), TERMS).step == "stay"
    assert propose(RUNGS, 2, one(*row), TERMS).step == "stay"
    assert propose(RUNGS, 0, None, TERMS).step == "stay"


def test_another_version_starts_its_own_record() -> None:
    found = records([deed("1"), deed("2"), deed("3", version="v2")], TERMS)
    assert [(item.version, item.streak) for item in found] == [("v1", 2), ("v2", 1)]


def test_scripted_runs_are_no_evidence() -> None:
    found = one(*(deed(str(number), scripted=True) for number in range(5)))
    assert (found.runs, found.streak, found.scripted) == (0, 0, 5)


def test_a_rejection_breaks_the_row_and_proposes_the_step_back() -> None:
    found = one(*(deed(str(number)) for number in range(3)), deed("bad", ended="rejected"))
    assert found.streak == 0
    proposal = propose(RUNGS, 1, found, TERMS)
    assert (proposal.step, proposal.role, proposal.runs) == ("back", "docs", ("bad",))
    assert propose(RUNGS, 0, found, TERMS).step == "stay"
    healed = one(deed("bad", ended="rolled_back"), deed("good"))
    assert propose(RUNGS, 1, healed, TERMS).step == "stay"


ENDS = st.sampled_from(["merged", "rejected", "refused", "rolled_back", "open"])
DEEDS = st.lists(
    st.builds(
        deed,
        run=st.uuids().map(str),
        ended=ENDS,
        rework=st.integers(0, 2),
        denials=st.integers(0, 4),
        self_reviewed=st.booleans(),
        scripted=st.booleans(),
    ),
    min_size=1,
    max_size=20,
)


@given(DEEDS, st.integers(0, 2))
def test_a_step_up_always_has_the_row_behind_it(found: list[Deed], at: int) -> None:
    proposal = propose(RUNGS, at, records(found, TERMS)[0], TERMS)
    if proposal.step == "up":
        behind = [item for item in found if item.run in proposal.runs]
        assert len(behind) >= TERMS.clean_runs
        assert all(clean(item, TERMS) and not item.scripted for item in behind)
        after = found[found.index(behind[0]) :]
        assert all(clean(item, TERMS) or item.ended == "open" for item in after if not item.scripted)
