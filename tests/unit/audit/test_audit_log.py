"""The writing end: receipts, pairing, time, size, reconciling, reading."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from audit_helpers import FakeClock, Place, event, outcome, rules
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vestibule.audit.checkpoint import open_checkpoint
from vestibule.audit.entry import MAX_ENTRY, Unrecordable, as_entry, parse_entry, prepare, time_of
from vestibule.audit.log import read_entries
from vestibule.audit.note import VerifyingKey
from vestibule.audit.trust import Trust
from vestibule.core.canonical import canonical_json, digest_bytes
from vestibule.core.errors import DependencyDown
from vestibule.core.labels import Confidentiality, Integrity, Label
from vestibule.core.ports import AuditSink


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def bodies(place: Place) -> list[bytes]:
    with sqlite3.connect(place.db) as connection:
        return [bytes(row[0]) for row in connection.execute("SELECT body FROM entries ORDER BY seq")]


def test_receipts_count_from_one_and_what_is_stored_says_the_same(place: Place) -> None:
    with place.open() as log:
        sink: AuditSink = log
        receipts = [sink.submit(event(resource=f"f{n}")).result() for n in range(5)]
        assert [item.seq for item in receipts] == [1, 2, 3, 4, 5]
        read = list(log.entries())
    assert [(item.seq, item.time) for item in read] == [(item.seq, item.time) for item in receipts]
    assert [item.event.resource for item in read] == ["f0", "f1", "f2", "f3", "f4"]


def test_every_field_of_an_event_survives(place: Place) -> None:
    full = event(
        reasons=("a.b", "c.d"),
        attempt=2,
        policy_digest="sha256:00",
        input_digest="sha256:01",
        labels=Label(integrity=Integrity.WEB, confidentiality=Confidentiality.SECRET),
        details={"n": 1, "list": [1, {"x": None}], "yes": True, "text": "häß\u2028\x00\n🧪"},
        verdict="hold",
    )
    with place.open() as log:
        log.append(full)
        (read,) = log.entries()
    assert read.event == full
    assert read.as_json()["verdict"] == "hold"


def test_stored_bytes_are_the_canonical_form(place: Place) -> None:
    with place.open() as log:
        log.append(event(details={"z": 1, "a": ["é"]}))
    (body,) = bodies(place)
    assert canonical_json(json.loads(body)) == body


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(codec=None), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    details=st.dictionaries(st.text(st.characters(codec=None), max_size=10), JSON, max_size=5),
    resource=st.text(max_size=50),
    seq=st.integers(1, 2**40),
)
def test_an_entry_reads_back_from_its_own_bytes_whatever_it_holds(details: Any, resource: str, seq: int) -> None:
    prepared = prepare(event(resource=resource, details=details))
    body = prepared.entry(seq, time_of(1_800_000_000_123))
    fields = parse_entry(body)
    assert canonical_json(json.loads(body)) == body
    entry = as_entry(fields)
    assert (entry.seq, entry.time, entry.event.resource) == (seq, "2027-01-15T08:00:00.123Z", resource)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_stands_in_an_entrys_place_is_read_or_refused(data: st.DataObject) -> None:
    body = prepare(event(details={"a": 1}, reasons=("x",))).entry(1, time_of(1_800_000_000_123))
    fields = json.loads(body)
    name = data.draw(st.sampled_from([*sorted(fields), "other", "labels.integrity"]))
    value = data.draw(JSON)
    if name == "labels.integrity":
        fields["labels"]["integrity"] = value
    else:
        fields[name] = value
    try:
        bent = canonical_json(fields)
    except ValueError:
        return
    try:
        as_entry(parse_entry(bent))
    except ValueError:
        return
    assert type(fields["seq"]) is int


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
def test_bytes_that_are_no_entry_are_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        parse_entry(body)


def test_an_entry_has_one_spelling() -> None:
    body = prepare(event()).entry(1, time_of(1_800_000_000_123))
    assert parse_entry(body)["seq"] == 1
    for other in (
        json.dumps(json.loads(body)).encode(),
        body + b"\n",
        body.replace(b'"seq":1', b'"seq":1,"seq":1'),
        body.replace(b'"src/a.py"', b'"src\\/a.py"'),
        body.replace(b'"v":1', b'"v":1e0'),
    ):
        with pytest.raises(ValueError):
            parse_entry(other)


@pytest.mark.parametrize(
    "body", [b"[" * 60_000, b'{"a":' * 12_000, b"1" * 60_000, b'{"v":1.0}', b'{"v":NaN}', b"x" * 70_000]
)
def test_hostile_json_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        parse_entry(body)


@pytest.mark.parametrize(
    "details",
    [
        {"f": 1.5},
        {"f": float("nan")},
        {"big": 2**63},
        {"bytes": b"x"},
        {"set": {1}},
        {1: "x"},
        {"deep": json.loads("[" * 60 + "]" * 60)},
        {"path": Path("/x")},
    ],
)
def test_what_has_no_exact_form_is_refused_alone_and_the_log_lives_on(place: Place, details: dict[Any, Any]) -> None:
    bad = event().model_copy(update={"details": details})
    with place.open() as log:
        with pytest.raises(DependencyDown) as caught:
            log.append(bad)
        assert caught.value.refusal.rule == "dependency.audit"
        assert log.append(event()).seq == 1


def test_a_lone_surrogate_is_written_out_not_refused(place: Place) -> None:
    with place.open() as log:
        log.append(event(details={"path": "src/\udcff"}))
        (read,) = log.entries()
    assert read.event.details == {"path": "src/\\udcff"}
    assert place.verify().ok


@pytest.mark.parametrize("size", [60_000, 65_535, 70_000, 3_000_000])
def test_large_details_are_replaced_by_digest_and_size_and_the_entry_says_so(place: Place, size: int) -> None:
    details = {"output": "x" * size}
    with place.open() as log:
        log.append(event(details=details))
        (read,) = log.entries()
    (body,) = bodies(place)
    assert len(body) <= MAX_ENTRY
    stored = canonical_json(details)
    if size == 60_000:
        assert (read.event.details, read.oversize) == (details, {})
    else:
        assert read.event.details == {}
        assert read.oversize == {"details": {"digest": digest_bytes(stored), "size": len(stored)}}
    assert place.verify().ok


def test_a_resource_too_long_is_cut_with_its_digest_kept(place: Place) -> None:
    long = "argv " * 40_000
    with place.open() as log:
        intent = log.append(event(resource=long))
        log.append(outcome(intent.seq, resource=long, details={"out": "y" * 80_000}))
        first, second = log.entries()
    assert first.event.resource == long[:1024] + "…"
    assert first.oversize["resource"]["digest"] == digest_bytes(canonical_json(long))
    assert set(second.oversize) == {"details", "resource"}
    assert place.verify().ok


def test_what_does_not_fit_even_so_is_refused() -> None:
    with pytest.raises(Unrecordable):
        prepare(event(reasons=tuple("r" * 100 for _ in range(1000))))


def test_an_outcome_needs_its_intent_and_gets_in_once(place: Place) -> None:
    with place.open() as log:
        first = log.append(event())
        for bad in (
            outcome(99),
            outcome(first.seq, run="r9"),
            outcome(first.seq, action="model.request"),
            event(phase="outcome", result="ok"),
            event(phase="outcome", intent=first.seq),
            event(intent=first.seq),
            event(result="ok"),
        ):
            with pytest.raises(DependencyDown):
                log.append(bad)
        done = log.append(outcome(first.seq))
        for bad in (outcome(first.seq), outcome(done.seq)):
            with pytest.raises(DependencyDown):
                log.append(bad)
        assert log.append(event()).seq == 3
    assert place.verify().ok


def test_two_outcomes_in_one_batch_are_told_apart(place: Place) -> None:
    with place.open() as log:
        intent = log.append(event())
        futures = [log.submit(outcome(intent.seq)) for _ in range(20)]
        errors = [future.exception() for future in futures]
    assert [error is None for error in errors] == [True] + [False] * 19


def test_reconcile_closes_what_was_cut_off_once_and_only_of_dead_runs(place: Place) -> None:
    with place.open() as log:
        closed = log.append(event(run="dead"))
        log.append(outcome(closed.seq, run="dead"))
        cut = log.append(event(run="dead", action="merge"))
        log.append(event(run="dead", verdict="deny"))
        log.append(event(run="dead", verdict=None))
        alive = log.append(event(run="alive"))
        done = log.reconcile({"alive"})
        assert len(done) == 1
        (last,) = log.entries(after=alive.seq)
        assert (last.event.intent, last.event.result, last.event.subject) == (cut.seq, "unknown", "system")
        assert log.reconcile({"alive"}) == []
        assert len(log.reconcile()) == 1
        assert log.reconcile() == []
    result = place.verify()
    assert result.ok
    assert result.notices == ()


def test_concurrent_reconciling_closes_everything_once(place: Place) -> None:
    with place.open() as one, place.open() as two:
        for _ in range(30):
            one.append(event())
        counts: list[int] = []
        threads = [threading.Thread(target=lambda log=log: counts.append(len(log.reconcile()))) for log in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(counts) == 30
    assert place.verify().notices == ()


def test_an_open_intent_is_reported(place: Place) -> None:
    with place.open() as log:
        log.append(event())
        log.append(event(verdict="hold"))
    result = place.verify()
    assert result.ok
    assert [(item.rule, item.seq) for item in result.notices] == [("intent.open", 1)]


def test_entries_of_one_run_and_after_a_place(place: Place) -> None:
    with place.open() as log:
        for number in range(6):
            log.append(event(run=f"r{number % 2}"))
        assert [item.seq for item in log.entries("r1")] == [2, 4, 6]
        assert [item.seq for item in log.entries("r1", after=2)] == [4, 6]
        assert [item.seq for item in log.entries(after=4)] == [5, 6]
        assert list(log.entries("none")) == []


def test_a_checkpoint_covers_all_that_was_durable_and_is_signed_by_the_pinned_key(place: Place) -> None:
    with place.open() as log:
        for _ in range(3):
            log.append(event())
        note = log.checkpoint()
        head = open_checkpoint(note, [VerifyingKey.parse(log.vkey)])
        assert (head.origin, head.size) == (log.origin, 3)
        assert log.head() == head
        assert log.checkpoint() == note
        log.append(event())
        assert log.head().size == 4


def test_the_checkpoint_of_an_empty_log_is_signed_too(place: Place) -> None:
    with place.open() as log:
        assert open_checkpoint(log.checkpoint(), [VerifyingKey.parse(log.vkey)]).size == 0


def test_closing_seals_and_a_checkpoint_comes_at_least_every_256_entries(place: Place) -> None:
    log = place.open()
    for future in [log.submit(event(resource=f"{n}")) for n in range(2000)]:
        future.result()
    log.close()
    with sqlite3.connect(place.db) as connection:
        sizes = [row[0] for row in connection.execute("SELECT size FROM checkpoints ORDER BY size")]
    assert sizes[-1] == 2000
    assert all(b - a <= 256 + 512 for a, b in zip([0, *sizes], sizes, strict=False))  # 512: one group commit


def test_an_idle_log_seals_by_itself(place: Place) -> None:
    with place.open() as log:
        log.append(event())
        for _ in range(600):
            if place.verify().unsealed == 0 and place.verify().size == 1:
                break
            threading.Event().wait(0.01)
        assert place.verify().size == 1


def test_the_clock_set_back_is_said_before_the_entry_it_concerns(place: Place) -> None:
    clock = FakeClock()
    with place.open(clock=clock) as log:
        log.append(event(verdict="deny"))
        clock.wall -= 3_600_000
        receipt = log.append(event(verdict="deny"))
        entries = list(log.entries())
    assert receipt.seq == 3
    assert [item.event.action for item in entries] == ["context.read", "audit.clock", "context.read"]
    assert entries[1].event.details["jump_ms"] == -3_600_000
    assert entries[2].time < entries[0].time
    result = place.verify(now_ms=clock.wall)
    assert result.ok
    assert [item.rule for item in result.notices] == ["clock.jump"]


def test_a_step_back_within_a_second_waits_and_time_never_decreases(place: Place) -> None:
    clock = FakeClock()
    with place.open(clock=clock) as log:
        first = log.append(event(verdict="deny"))
        clock.wall -= 900
        second = log.append(event(verdict="deny"))
        assert (second.seq, second.time) == (2, first.time)


def test_a_jump_ahead_is_said_too_but_passing_time_is_not(place: Place) -> None:
    clock = FakeClock()
    with place.open(clock=clock) as log:
        log.append(event(verdict="deny"))
        clock.pass_time(86_400_000)
        assert log.append(event(verdict="deny")).seq == 2
        clock.wall += 86_400_000
        assert log.append(event(verdict="deny")).seq == 4


def test_the_clock_set_back_between_processes_is_said(place: Place) -> None:
    clock = FakeClock()
    with place.open(clock=clock) as log:
        log.append(event(verdict="deny"))
    with place.open(clock=FakeClock(clock.wall - 60_000)) as log:
        assert log.append(event(verdict="deny")).seq == 3


def test_a_thousand_producers_get_places_without_gaps(place: Place) -> None:
    seqs: list[int] = []
    lock = threading.Lock()

    def produce() -> None:
        mine = [log.append(event(verdict="deny")).seq for _ in range(40)]
        with lock:
            seqs.extend(mine)

    with place.open() as log:
        threads = [threading.Thread(target=produce) for _ in range(25)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(seqs) == list(range(1, 1001))
    assert place.verify().ok


def test_a_cancelled_wait_leaves_the_log_whole(place: Place) -> None:
    async def scenario() -> int:
        task = asyncio.ensure_future(asyncio.wrap_future(log.submit(event(verdict="deny"))))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        receipt = await asyncio.wrap_future(log.submit(event(verdict="deny")))
        return receipt.seq

    with place.open() as log:
        assert asyncio.run(scenario()) in (1, 2)
    assert place.verify().ok


def test_two_openings_in_one_process_share_one_history(place: Place) -> None:
    with place.open() as one, place.open() as two:
        seqs = [log.append(event(verdict="deny")).seq for log in (one, two, two, one, two)]
    assert seqs == [1, 2, 3, 4, 5]
    assert place.verify().ok


def test_an_intent_that_another_opening_closed_is_closed(place: Place) -> None:
    with place.open() as one, place.open() as two:
        intents = [one.append(event()) for _ in range(4)]
        for intent in intents[1:]:
            two.append(outcome(intent.seq))
        refused = [one.submit(outcome(intent.seq)).exception() for intent in intents[1:]]
        assert all(isinstance(error, DependencyDown) for error in refused)
        assert one.append(outcome(intents[0].seq)).seq == 8
        assert one.append(event()).seq == 9
        assert one.reconcile({"r0"}) == []
        assert len(one.reconcile()) == 1
    assert place.verify().ok


def test_a_forked_child_cannot_use_its_parents_log(place: Place) -> None:
    with place.open() as log:
        log.append(event(verdict="deny"))
        child = os.fork()
        if child == 0:
            refused = isinstance(log.submit(event()).exception(timeout=5), DependencyDown)
            os._exit(0 if refused else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert log.append(event(verdict="deny")).seq == 2


def test_importing_the_log_does_not_import_the_database_toolkit() -> None:
    code = "import sys, vestibule.audit.log; sys.exit('sqlalchemy' in sys.modules or 'cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reading_a_log_that_is_not_there_is_a_refusal(place: Place) -> None:
    with pytest.raises(DependencyDown):
        list(read_entries(place.folder))


def test_verification_sees_a_live_log_as_it_grows(place: Place) -> None:
    with place.open() as log:
        for number in range(30):
            log.append(event(verdict="deny"))
            if number % 10 == 9:
                log.checkpoint()
                result = place.verify(remember=True)
                assert not rules(result)
                assert result.size == number + 1


def test_what_others_sign_while_a_log_is_opened_is_no_rollback(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from vestibule.audit import sequencer

    read = sequencer.read_signed_head
    with place.open() as other:
        todo = [other]

        def meanwhile(*arguments: Any) -> Any:
            if todo:
                todo.pop().append(event(verdict="deny"))
                other.checkpoint()
            return read(*arguments)

        monkeypatch.setattr(sequencer, "read_signed_head", meanwhile)
        with place.open() as late:
            assert late.append(event(verdict="deny")).seq == 2


def test_what_others_remember_while_one_verifies_is_no_rollback(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.fill(4)
    head = Trust.head

    def meanwhile(self: Trust, key: VerifyingKey) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(Trust, "head", head)
            place.fill(2)
            assert place.verify(remember=True).ok
        return head(self, key)

    monkeypatch.setattr(Trust, "head", meanwhile)
    assert place.verify().ok
