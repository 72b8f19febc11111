"""Who may start a paid round: each way, each fact, and no agent without the decision in the log."""

from __future__ import annotations

import itertools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.attacks.control_world import ALICE, BOB, World, make_world

from vestibule.agents import registry
from vestibule.core.errors import Refused
from vestibule.core.labels import Integrity
from vestibule.core.model import Budget, Event, Person, State, Wall, WallsReport
from vestibule.core.verdict import Ruling
from vestibule.pipeline import admission
from vestibule.pipeline.admission import ADMIT, admit, is_admitted, local_permission, require_admitted, task_digest
from vestibule.pipeline.attempt import Attempt
from vestibule.pipeline.record import Cause, RunRecord

STANDING = WallsReport(
    tier="root",
    walls={name: Wall(state="up", proved_by="test") for name in ("mounts", "network", "seccomp", "no_new_privs")},
)
_NUMBERS = itertools.count()
WAYS = ("cli", "console", "resume", "rework", "answer")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose run nobody moves: tests only ask whether a round of it may begin."""
    made = make_world(tmp_path_factory.mktemp("shared"))
    _settle(made)
    yield made
    made.services.close()


@pytest.fixture
def moved(world: World) -> World:
    """A world for a test that moves its run."""
    return _settle(world)


def _settle(world: World) -> World:
    """Walls that stand, and alice as the person of this process."""
    vars(world.services).update(sandbox=SimpleNamespace(report=lambda: STANDING), person=ALICE)
    return world


def round_of(world: World, trigger: str = "cli", by: str = ALICE.id, **more: Any) -> RunRecord:
    """A second round, by a cause that no other test has."""
    cause = Cause(trigger=trigger, by=by, id=f"cause-{next(_NUMBERS)}")
    return world.record.model_copy(update={"round": 2, "cause": cause, **more})


def refused(world: World, record: RunRecord) -> str:
    """The rule that refuses a round; the log must hold the refusal and no admission."""
    before = len(world.events(ADMIT))
    with pytest.raises(Refused) as caught:
        admit(world.services, record, {})
    after = world.events(ADMIT)[before:]
    assert [event.verdict for event in after] == [Ruling.DENY]
    assert not is_admitted(world.services.audit.entries(run=world.run), record)
    return caught.value.refusal.rule


@pytest.mark.parametrize("way", WAYS)
def test_each_way_is_admitted_for_who_may_write_and_leaves_how_that_was_found(shared: World, way: str) -> None:
    record = round_of(shared, way)
    admit(shared.services, record, {})
    require_admitted(shared.services, record)
    intent = [event for event in shared.events(ADMIT) if event.phase == "intent"][-1]
    assert intent.details["cause"] == record.cause.model_dump()
    assert intent.details["permission"]["level"] == "write"
    assert intent.details["permission"]["source"] == "local_user"
    assert intent.details["permission"]["evidence"]["uid"] == os.getuid()
    assert intent.details["permission"]["evidence"]["writes"] == [
        "repository objects",
        "repository refs",
        "state folder",
    ]


@pytest.mark.parametrize("way", WAYS)
def test_each_way_is_refused_for_somebody_else_than_the_person_of_this_process(shared: World, way: str) -> None:
    """That somebody is named in a row says nothing of what they may do."""
    assert refused(shared, round_of(shared, way, by=BOB.id)) in ("task.permission", "task.permission_source")
    assert refused(shared, round_of(shared, way, by="")) in ("task.permission", "task.permission_source")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lacking", ["objects", "refs", "home"])
def test_each_way_is_refused_for_who_may_not_write(
    shared: World, monkeypatch: pytest.MonkeyPatch, way: str, lacking: str
) -> None:
    real = admission._access
    monkeypatch.setattr(
        admission, "_access", lambda path, mode: not (path.name == lacking and mode & os.W_OK) and real(path, mode)
    )
    assert refused(shared, round_of(shared, way)) == "task.permission"


@pytest.mark.parametrize("trigger", ["", "dream", "forge_comment", "forge_label", "CLI", "cli "])
def test_a_way_that_policy_does_not_know_or_that_a_local_user_cannot_take_is_refused(
    shared: World, trigger: str
) -> None:
    assert refused(shared, round_of(shared, trigger)) in ("task.trigger", "task.permission_source")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"requester": ""}, "task.requester"),
        ({"role": "nobody"}, "task.role"),
        ({"round": 0}, "task.rounds"),
        ({"round": 11}, "task.rounds"),
    ],
)
def test_each_way_is_refused_when_a_fact_is_wrong(shared: World, way: str, change: dict[str, Any], rule: str) -> None:
    assert refused(shared, round_of(shared, way, **change)) == rule


@pytest.mark.parametrize("way", WAYS)
def test_each_way_is_refused_for_a_ticket_of_an_outsider(shared: World, way: str) -> None:
    ticket = shared.record.ticket.model_copy(update={"integrity": Integrity.OUTSIDER})
    assert refused(shared, round_of(shared, way, ticket=ticket)) == "task.author"


@pytest.mark.parametrize("way", WAYS)
def test_each_way_is_refused_without_walls(shared: World, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    down = WallsReport(tier="none", walls={})
    monkeypatch.setattr(shared.services, "sandbox", SimpleNamespace(report=lambda: down), raising=False)
    assert refused(shared, round_of(shared, way)) == "task.walls"


@pytest.mark.parametrize("fact", ["trigger", "permission", "permission_source", "is_bot", "paid", "rounds_left"])
def test_a_fact_that_is_missing_or_of_another_type_is_refused(
    shared: World, monkeypatch: pytest.MonkeyPatch, fact: str
) -> None:
    real = admission.facts_of
    values: tuple[Any, ...] = (None, 7, [])
    for value in values:

        def broken(*args: Any, value: Any = value, **kwargs: Any) -> dict[str, Any]:
            found = real(*args, **kwargs)
            return {k: v for k, v in found.items() if k != fact} if value is None else {**found, fact: value}

        monkeypatch.setattr(admission, "facts_of", broken)
        assert refused(shared, round_of(shared))


def test_a_model_that_costs_is_said_and_what_is_unknown_counts_as_paid(shared: World) -> None:
    agent = shared.record.agent
    for adapter, provider, scripted, paid in (
        ("command", "", False, False),
        ("command", "anthropic", False, True),
        ("command", "demo", True, False),
        ("reference", "demo", True, False),
        ("reference", "anthropic", False, True),
        ("claude-code", "anthropic", False, True),
        ("never-heard-of", "demo", True, True),
    ):
        named = agent.model_copy(update={"adapter": adapter})
        record = shared.record.model_copy(update={"agent": named, "provider": provider, "scripted": scripted})
        assert admission._paid(record) is paid


# --- no agent without the decision ----------------------------------------------------------------------------


def test_an_attempt_without_an_admission_touches_nothing(shared: World) -> None:
    record = round_of(shared, "rework")
    attempt = Attempt(shared.services, record)  # its sandbox would fail at once: there is none here
    with pytest.raises(Refused) as caught:
        attempt.perform()
    assert caught.value.refusal.rule == "task.unadmitted"
    assert not attempt.folder.exists()
    assert shared.events("agent.start") == []


@pytest.mark.parametrize(
    "other",
    [
        {"round": 3},
        {"cause": Cause(trigger="rework", by=BOB.id)},
        {"cause": Cause(trigger="answer", by=ALICE.id)},
        {"cause": Cause(trigger="rework", by=ALICE.id, id="q-2")},
    ],
)
def test_an_admission_is_for_one_round_and_one_cause(shared: World, other: dict[str, Any]) -> None:
    record = round_of(shared, "rework")
    admit(shared.services, record, {})
    require_admitted(shared.services, record)
    with pytest.raises(Refused):
        require_admitted(shared.services, record.model_copy(update=other))


@pytest.mark.parametrize(
    "other",
    [
        {"role": "wide"},
        {"command": ("sh", "-c", "true")},
        {"native": True},
        {"scripted": True},
        {"provider": "other"},
        {"target": "refs/heads/other"},
        {"base_commit": "b" * 40},
        {"repo": Path("/elsewhere")},
        {"requester": BOB.id},
        {"budget": Budget(minutes=600)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_an_admission_is_for_one_task_whatever_the_row_says_since(shared: World, other: dict[str, Any]) -> None:
    record = round_of(shared, "rework")
    admit(shared.services, record, {})
    require_admitted(shared.services, record)
    with pytest.raises(Refused):
        require_admitted(shared.services, record.model_copy(update=other))
    agent = record.agent.model_copy(update={"version": "another"})
    with pytest.raises(Refused):
        require_admitted(shared.services, record.model_copy(update={"agent": agent}))
    ticket = record.ticket.model_copy(update={"text": "# Another\n"})
    with pytest.raises(Refused):
        require_admitted(shared.services, record.model_copy(update={"ticket": ticket}))


def test_a_round_is_admitted_for_the_program_that_would_run(moved: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rung is earned by a version: what was installed since begins anew, and never runs under the old one's name."""
    agent = moved.record.agent
    version = f"{agent.adapter}@any+{agent.model or 'none'}+0123456789ab"
    moved.services.runs.set(moved.run, round=2, agent=agent.model_copy(update={"version": version}))
    record = moved.segments._current(moved.run)
    admit(moved.services, record, {})
    require_admitted(moved.services, record)
    monkeypatch.setattr(type(registry.adapter(agent.adapter)), "program_version", lambda *_: "2.0+new")
    with pytest.raises(Refused) as caught:
        require_admitted(moved.services, record)
    assert caught.value.refusal.rule == "task.agent_changed"
    assert moved.segments._current(moved.run).agent.version == version.replace("@any+", "@2.0+new+")


def test_the_first_rounds_admission_is_none_for_the_second(shared: World) -> None:
    assert shared.events(ADMIT), "the world's first round was admitted"
    with pytest.raises(Refused):
        require_admitted(shared.services, round_of(shared, "cli"))


class Fixed(SimpleNamespace):
    """A record of which the admission looks at these fields alone."""

    def model_dump(self, **_: Any) -> dict[str, Any]:
        return {"id": self.id, "role": "fixer"}


RECORD: Any = Fixed(id="r1", round=2, cause=Cause(trigger="cli", by="local:a"))
TASK = task_digest(RECORD)


def _entry(seq: int, **fields: Any) -> Any:
    event = Event(
        **{
            "run": "r1",
            "phase": "intent",
            "action": ADMIT,
            "resource": "r1",
            "subject": "person",
            "actor": "local:a",
            "verdict": Ruling.ALLOW,
            "details": {"round": 2, "cause": {"trigger": "cli", "by": "local:a", "id": ""}, "task": TASK},
            **fields,
        }
    )
    return SimpleNamespace(seq=seq, event=event)


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "run": st.sampled_from(["r1", "r2"]),
                "subject": st.sampled_from(["person", "agent", "probe", "system"]),
                "verdict": st.sampled_from([Ruling.ALLOW, Ruling.HOLD, Ruling.DENY]),
                "action": st.sampled_from([ADMIT, "agent.start"]),
                "phase": st.sampled_from(["intent", "outcome"]),
                "result": st.sampled_from(["", "ok", "failed", "unknown"]),
                "intent": st.integers(1, 6),
                "details": st.sampled_from(
                    [
                        {},
                        {"round": 2},
                        {"round": 2, "cause": {"trigger": "cli", "by": "local:a", "id": ""}},
                        {"round": 2, "cause": {"trigger": "cli", "by": "local:a", "id": ""}, "task": "sha256:0"},
                        {"round": "2", "cause": {"trigger": "cli", "by": "local:a", "id": ""}, "task": TASK},
                        {"round": 1, "cause": {"trigger": "cli", "by": "local:a", "id": ""}, "task": TASK},
                        {"round": 2, "cause": {"trigger": "cli", "by": "local:b", "id": ""}, "task": TASK},
                        {"round": 2, "cause": {"trigger": "cli", "by": "local:a", "id": ""}, "task": TASK},
                    ]
                ),
            },
        ),
        max_size=6,
    )
)
def test_only_an_allowed_intent_of_a_person_that_did_not_fail_admits(events: list[dict[str, Any]]) -> None:
    entries = [_entry(seq, **fields) for seq, fields in enumerate(events, 1)]
    failed = {
        entry.event.intent
        for entry in entries
        if (entry.event.phase, entry.event.result, entry.event.action) == ("outcome", "failed", ADMIT)
        and (entry.event.run, entry.event.subject) == ("r1", "person")
    }
    right = [
        entry
        for entry in entries
        if entry.event.model_dump()
        == _entry(0).event.model_copy(update={"result": entry.event.result, "intent": entry.event.intent}).model_dump()
        and entry.seq not in failed
    ]
    assert is_admitted(entries, RECORD) == bool(right)


# --- sending back without end ---------------------------------------------------------------------------------


def test_a_change_is_not_sent_back_when_no_round_is_left_and_the_run_still_waits(moved: World) -> None:
    moved.services.operator = moved.services.operator.model_copy(
        update={"budget": moved.services.operator.budget.model_copy(update={"rounds_per_run": 1})}
    )
    with pytest.raises(Refused) as caught:
        moved.driver.record(moved.run, "request-changes", "Again.", person=BOB, channel="cli")
    assert caught.value.refusal.rule == "task.rounds"
    assert moved.record.state is State.AWAITING_REVIEW
    assert moved.services.gates.decisions(f"g-{moved.run}-1") == ()
    assert [event.reasons for event in moved.events("review.refused")] == [("task.rounds",)]
    assert moved.approve().state is State.APPROVED


def test_a_round_that_a_reviewer_set_off_is_the_reviewers(moved: World) -> None:
    record = moved.driver.record(moved.run, "request-changes", "Again.", person=BOB, channel="cli")
    assert (record.round, record.cause) == (2, Cause(trigger="rework", by=BOB.id))
    assert refused(moved, record) in ("task.permission", "task.permission_source"), "bob is not this process's person"


def test_who_resumes_a_round_that_was_never_admitted_answers_for_it(moved: World) -> None:
    record = moved.driver.record(moved.run, "request-changes", "Again.", person=BOB, channel="cli")
    taken = moved.driver._taken_up(record)
    assert taken.cause == Cause(trigger="resume", by=ALICE.id)
    admit(moved.services, taken, {})
    moved.services.person = BOB
    assert moved.driver._taken_up(taken) == taken, "what is admitted keeps its cause"


# --- how a local person's permission is found -----------------------------------------------------------------


def test_what_a_person_may_write_is_asked_of_the_kernel(moved: World) -> None:
    found = local_permission(moved.repo, moved.home, ALICE)
    assert found.level == "write"
    assert found.evidence["lacks"] == []
    nothing = moved.folder / "nothing"
    assert local_permission(nothing, moved.home, ALICE).level == "none"
    (moved.repo / ".git").rename(moved.folder / "elsewhere")
    assert local_permission(moved.repo, moved.home, ALICE).level == "none"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_than_the_owner_may_read_at_most(moved: World) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        subprocess.run(["cp", "-r", str(moved.repo), str(place / "repo")], check=True)
        (place / "home").mkdir()
        subprocess.run(["chmod", "-R", "a+rX,go-w", folder], check=True)
        assert local_permission(place / "repo", place / "home", ALICE).level == "write"
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
                os.write(writing, local_permission(place / "repo", place / "home", ALICE).level.encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)
        found = os.read(reading, 100)
        os.close(reading)
    assert found in (b"none", b"read")


def test_a_person_is_named_in_the_evidence(moved: World) -> None:
    found = local_permission(moved.repo, moved.home, Person(id="local:ada", how="asked the kernel"))
    assert found.evidence["person"] == "local:ada"
    assert found.evidence["how"] == "asked the kernel"
