"""The operator's ceilings: each holds over all runs and processes, in its own window, and a refusal names it."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from vestibule.config.spending import OperatorBudget
from vestibule.core.crossing import durable
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.model import Budget, Usage
from vestibule.cost.books import Books, Hold
from vestibule.cost.ceilings import Ceilings
from vestibule.cost.ledger import Ledger
from vestibule.store.database import Database

WHOSE = {
    "agent": "claude",
    "agent_version": "claude-code@2+sonnet+abc",
    "role": "backend",
    "repository": "/srv/code",
    "provider": "anthropic",
    "prices": "sha256:x",
}


def operator(**keys: Any) -> OperatorBudget:
    return OperatorBudget.model_validate(keys)


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'state.db'}"


class Clock:
    def __init__(self, now: str = "2026-01-31T23:10:00.000Z") -> None:
        self.time = now

    def __call__(self) -> str:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(folder: Path, clock: Clock, **keys: Any) -> Ledger:
    ledger = Ledger(Database(url(folder)), operator(**keys), now=clock)
    for run in ("r1", "r2"):
        ledger.open(run, Budget())
    return ledger


def refused(ledger: Ledger, run: str = "r1", nano_usd: int = 1, tokens: int = 1, **whose: str) -> Refused:
    with pytest.raises(Refused) as caught:
        ledger.hold(run, "m", nano_usd=nano_usd, tokens=tokens, details={**WHOSE, **whose})
    assert not isinstance(caught.value, DependencyDown)
    return caught.value


def hold(ledger: Ledger, run: str = "r1", nano_usd: int = 1, tokens: int = 1, **whose: str) -> str:
    return ledger.hold(run, "m", nano_usd=nano_usd, tokens=tokens, details={**WHOSE, **whose})


@pytest.mark.parametrize("per", ["role", "agent", "agent-version", "repository"])
def test_each_name_has_a_ceiling_of_its_own_over_all_runs(tmp_path: Path, clock: Clock, per: str) -> None:
    ledger = make(tmp_path, clock, limits=[{"per": per, "usd": "0.0000001"}])
    other = {per.replace("-", "_"): "another"}
    hold(ledger, "r1", 60)
    found = refused(ledger, "r2", 60).refusal
    assert found.rule == "budget.usd"
    assert f"{per} {WHOSE[per.replace('-', '_')]}, day 2026-01-31" in found.fact
    hold(ledger, "r2", 60, **other)
    refused(ledger, "r1", 60, **other)


def test_a_name_is_a_glob_and_the_smallest_of_several_counts(tmp_path: Path, clock: Clock) -> None:
    limits = [
        {"per": "role", "name": "back*", "tokens": 100},
        {"per": "role", "name": "backend", "tokens": 50},
        {"per": "role", "name": "docs", "tokens": 1},
    ]
    ledger = make(tmp_path, clock, limits=limits)
    hold(ledger, tokens=50)
    assert refused(ledger, tokens=1).refusal.rule == "budget.tokens"
    hold(ledger, tokens=100, role="backstage")
    refused(ledger, tokens=1, role="backstage")
    refused(ledger, tokens=2, role="docs")
    hold(ledger, tokens=10**6, role="other")


def test_a_ceiling_per_model_and_one_of_the_organisation(tmp_path: Path, clock: Clock) -> None:
    limits = [{"per": "model", "name": "m", "tokens": 10}, {"per": "organisation", "window": "total", "tokens": 15}]
    ledger = make(tmp_path, clock, limits=limits)
    hold(ledger, tokens=10)
    assert "model m" in refused(ledger, tokens=1).refusal.fact
    ledger.hold("r2", "other", nano_usd=0, tokens=5, details=WHOSE)
    with pytest.raises(Refused) as caught:
        ledger.hold("r2", "other", nano_usd=0, tokens=1, details=WHOSE)
    assert "organisation, in total" in caught.value.refusal.fact


@pytest.mark.parametrize(
    ("window", "same", "next_"),
    [
        ("hour", "2026-01-31T23:59:59.999Z", "2026-02-01T00:00:00.000Z"),
        ("day", "2026-01-31T23:59:59.999Z", "2026-02-01T00:00:00.000Z"),
        ("month", "2026-01-31T23:59:59.999Z", "2026-02-01T00:00:00.000Z"),
    ],
)
def test_a_window_ends_with_its_utc_hour_day_or_month(
    tmp_path: Path, clock: Clock, window: str, same: str, next_: str
) -> None:
    ledger = make(tmp_path, clock, limits=[{"per": "role", "window": window, "tokens": 10}])
    first = hold(ledger, tokens=10)
    clock.time = same
    refused(ledger, tokens=1)
    clock.time = next_
    hold(ledger, tokens=10)
    # What is settled later still belongs to the window in which it was held.
    ledger.settle(first, Usage(requests=1, input_tokens=4))
    refused(ledger, tokens=1)
    spent = {row.name: row.spent_tokens for row in ledger.standings().values() if row.name.startswith("role")}
    assert sorted(spent.values()) == [0, 4]


def test_a_total_never_begins_anew(tmp_path: Path, clock: Clock) -> None:
    ledger = make(tmp_path, clock, limits=[{"per": "agent-version", "window": "total", "tokens": 10}])
    hold(ledger, tokens=10)
    clock.time = "2027-06-01T00:00:00.000Z"
    refused(ledger, tokens=1)


def test_a_limit_that_is_added_later_begins_with_what_its_window_has_seen(tmp_path: Path, clock: Clock) -> None:
    ledger = make(tmp_path, clock)
    ledger.settle(hold(ledger, nano_usd=80), Usage(requests=1, input_tokens=3, cost_nano_usd=70))
    ledger.settle(hold(ledger, nano_usd=80, role="docs"), Usage(requests=1, cost_nano_usd=9))
    later = make(tmp_path, clock, limits=[{"per": "role", "window": "month", "usd": "0.0000001"}])
    refused(later, nano_usd=31)
    hold(later, nano_usd=30)


def test_a_refusal_tells_an_agent_nothing_of_what_others_spent(tmp_path: Path, clock: Clock) -> None:
    ledger = make(tmp_path, clock, limits=[{"per": "organisation", "usd": "0.000000123"}])
    hold(ledger, "r1", 77)
    text = refused(ledger, "r2", 60).refusal.model_dump_json()
    assert "0.000000077" not in text
    assert "0.000000123" not in text
    own = Ledger(Database(url(tmp_path)), operator(usd_per_run="0.00000005"), now=clock)
    own.open("r3", Budget(nano_usd=100))
    with pytest.raises(Refused) as caught:
        own.hold("r3", "m", nano_usd=51, tokens=1, details=WHOSE)
    assert "$0.00000005" in caught.value.refusal.fact


def test_a_ceiling_that_refuses_leaves_nothing_on_the_others(tmp_path: Path, clock: Clock) -> None:
    limits = [{"per": "role", "tokens": 100}, {"per": "agent", "tokens": 50}]
    ledger = make(tmp_path, clock, limits=limits)
    refused(ledger, tokens=60)
    assert all((row.held_tokens, row.held_requests) == (0, 0) for row in ledger.standings().values())
    hold(ledger, tokens=50)


def test_requests_under_way_are_bounded_for_a_run_and_for_a_version(tmp_path: Path, clock: Clock) -> None:
    ledger = make(tmp_path, clock, concurrent={"run": 2, "agent_version": 3})
    held = [hold(ledger, "r1"), hold(ledger, "r1")]
    found = refused(ledger, "r1").refusal
    assert (found.rule, found.fact) == ("budget.concurrent", "run: at most 2 at one time")
    hold(ledger, "r2")
    assert "agent-version" in refused(ledger, "r2").refusal.fact
    hold(ledger, "r2", agent_version="another")
    ledger.settle(held[0], Usage(requests=1))
    hold(ledger, "r1")


def test_requests_in_any_minute_are_bounded(tmp_path: Path, clock: Clock) -> None:
    clock.time = "2026-01-01T10:00:50.000Z"
    ledger = make(tmp_path, clock, requests_per_minute={"run": 3, "agent_version": 4})
    for second in (50, 55, 59):
        clock.time = f"2026-01-01T10:00:{second}.000Z"
        ledger.release(hold(ledger, "r1"))
    clock.time = "2026-01-01T10:01:30.000Z"
    assert refused(ledger, "r1").refusal.rule == "budget.rate"
    hold(ledger, "r2")
    assert "agent's version" in refused(ledger, "r2").refusal.reason
    clock.time = "2026-01-01T10:01:50.001Z"
    hold(ledger, "r1")
    refused(ledger, "r1")


def test_requests_of_one_transaction_count_towards_the_rate(tmp_path: Path, clock: Clock) -> None:
    db = Database(f"sqlite:///{tmp_path / 'state.db'}")
    books = Books(db, Ceilings(operator(requests_per_minute={"run": 3})), clock)
    holds = [Hold("r1", "m", 1, 1, WHOSE) for _ in range(4)]
    books.begin()
    books.open("r1", None, None, None)
    books.take_together(holds)
    kept = [books.hold(each) for each in holds[:2]]
    assert books.charge_all("r1") == 2
    books.hold(holds[2])
    with pytest.raises(Refused) as found:
        books.hold(holds[3])
    assert found.value.refusal.rule == "budget.rate"
    books.commit()
    books.abandon()
    with db.read() as connection:
        rows = connection.exec_driver_sql("SELECT id FROM holds WHERE state = 'charged' ORDER BY id").scalars().all()
    assert rows == sorted(kept)


def test_a_version_of_any_length_is_counted(tmp_path: Path, clock: Clock) -> None:
    ledger = make(tmp_path, clock, limits=[{"per": "agent-version", "tokens": 10}])
    hold(ledger, tokens=10, agent_version="v" * 2000)
    refused(ledger, tokens=1, agent_version="v" * 2000)


def test_details_of_any_json_are_kept(tmp_path: Path, clock: Clock) -> None:
    ledger = make(tmp_path, clock)
    found = ledger.hold("r1", "m", nano_usd=1, tokens=1, details={**WHOSE, "tags": ["a", {"b": 1}]})
    ledger.settle(found, Usage(requests=1), {"tags": [2], "milliseconds": 5})
    with ledger._db.read() as connection:
        (document,) = connection.exec_driver_sql("SELECT document FROM holds").scalars()
    details = json.loads(document)["details"]
    assert (details["tags"], details["milliseconds"], details["role"]) == ([2], 5, "backend")


def test_an_amount_that_no_row_can_hold_is_refused(tmp_path: Path, clock: Clock) -> None:
    ledger = make(tmp_path, clock)
    assert refused(ledger, nano_usd=1 << 62).refusal.rule == "budget.usd"
    assert refused(ledger, tokens=1 << 70).refusal.rule == "budget.usd"


def test_a_row_that_was_removed_refuses_once_and_is_made_anew(tmp_path: Path, clock: Clock) -> None:
    ledger = make(tmp_path, clock, limits=[{"per": "role", "tokens": 100}])
    hold(ledger)
    with ledger._db.write() as connection:
        connection.exec_driver_sql("DELETE FROM budgets WHERE key LIKE 'role:%'")
    with pytest.raises(DependencyDown):
        hold(ledger)
    hold(ledger)


def test_who_is_refused_in_a_batch_does_not_disturb_the_others(tmp_path: Path, clock: Clock) -> None:
    ledger = make(tmp_path, clock)
    ledger.open("small", Budget(tokens=1))
    gate = threading.Event()
    first = ledger._writer.submit(lambda _: gate.wait(10))  # everything after it waits for one batch
    waiting = [
        ledger.submit_hold(run, "m", nano_usd=1, tokens=2, details=WHOSE) for run in ("r1", "small", "r2", "gone", "r1")
    ]
    gate.set()
    assert first.result()
    found = [future.exception() for future in waiting]
    assert [type(error).__name__ for error in found] == [
        "NoneType",
        "Refused",
        "NoneType",
        "DependencyDown",
        "NoneType",
    ]


def test_a_database_error_fails_the_whole_batch_and_nothing_of_it_is_booked(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = make(tmp_path, clock)
    gate = threading.Event()
    ledger._writer.submit(lambda _: gate.wait(10))
    right = Books.hold

    def broken(self: Books, asked: Hold) -> str:
        found = right(self, asked)
        if asked.model == "bad":
            raise OSError("disk I/O error")
        return found

    monkeypatch.setattr(Books, "hold", broken)
    waiting = [ledger.submit_hold("r1", model, nano_usd=1, tokens=1) for model in ("good", "bad", "good")]
    gate.set()
    for future in waiting:
        error = future.exception(10)
        assert isinstance(error, DependencyDown)
        assert error.name == "database"
    monkeypatch.undo()
    standing = ledger.standing("r1")
    assert standing is not None
    assert standing.held_requests == 0
    hold(ledger)


def test_a_closed_ledger_and_a_forked_one_refuse(tmp_path: Path, clock: Clock) -> None:
    ledger = make(tmp_path, clock)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        error = ledger.submit_hold("r1", "m", nano_usd=1, tokens=1).exception(5)
        os.write(write, b"refused" if isinstance(error, DependencyDown) else b"taken")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 10) == b"refused"
    ledger.close()
    with pytest.raises(DependencyDown):
        hold(ledger)


def test_a_ledger_that_nobody_holds_any_more_ends_its_thread(tmp_path: Path, clock: Clock) -> None:
    ledger = make(tmp_path, clock)
    thread = ledger._writer._thread
    assert thread is not None
    del ledger
    thread.join(10)
    assert not thread.is_alive()


def _race(address: str, tries: int, results: multiprocessing.Queue[int]) -> None:
    limits = [{"per": "role", "window": "total", "tokens": 10}]
    ledger = Ledger(Database(address), operator(limits=limits))
    admitted = 0
    for _ in range(tries):
        try:
            ledger.hold("r1", "m", nano_usd=1, tokens=1, details={**WHOSE, "role": "racer"})
        except Refused as error:
            assert error.refusal.rule == "budget.tokens"  # noqa: PT017 in a process of its own
            continue
        admitted += 1
    results.put(admitted)


def race(address: str, processes: int, tries: int) -> int:
    Ledger(Database(address)).open("r1", Budget())
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[int] = context.Queue()
    workers = [context.Process(target=_race, args=(address, tries, results)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    found = sum(results.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join()
    return found


def test_eight_processes_that_try_twenty_times_each_get_exactly_the_ten_that_fit(tmp_path: Path) -> None:
    assert race(url(tmp_path), 8, 20) == 10


def _settle_and_hold_until_killed(address: str, ready: Any) -> None:
    ledger = Ledger(Database(address), operator(concurrent={"run": 100}))

    async def work() -> None:
        async def one() -> None:
            while True:
                found = await durable(ledger.submit_hold("r1", "m", nano_usd=5, tokens=5, details=WHOSE))
                os.write(ready, b"h")
                await durable(ledger.submit_settle(found, Usage(requests=1, input_tokens=2, cost_nano_usd=3)))
                os.write(ready, b"s")

        await asyncio.gather(*(one() for _ in range(8)))

    asyncio.run(work())


def test_a_kill_between_holds_and_settlements_leaves_books_that_add_up(tmp_path: Path) -> None:
    address = url(tmp_path)
    ledger = Ledger(Database(address))
    ledger.open("r1", Budget())
    ledger.close()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _settle_and_hold_until_killed(address, write)
        os._exit(0)
    os.close(write)
    told = b""
    while told.count(b"s") < 40:
        told += os.read(read, 65536)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(read, 65536):
        told += more
    os.close(read)
    ledger = Ledger(Database(address))
    standing = ledger.standing("r1")
    assert standing is not None
    # What was answered is in the books; at most those under way are there beyond it.
    settled = standing.spent_nano_usd // 3
    assert told.count(b"s") <= settled <= told.count(b"s") + 8
    left = standing.held_requests
    assert told.count(b"h") - settled <= left <= 8
    assert standing.held_nano_usd == left * 5
    assert ledger.recover("r1") == left
    after = ledger.standing("r1")
    assert after is not None
    assert (after.held_requests, after.held_nano_usd, after.held_tokens) == (0, 0, 0)
    assert after.spent_nano_usd == settled * 3 + left * 5
    assert ledger.usage("r1").cost_nano_usd == after.spent_nano_usd
    assert ledger.usage("r1").requests == settled + left


ASKED = st.tuples(st.sampled_from(["r1", "r2"]), st.sampled_from(["a", "b"]), st.integers(0, 200))


class Many(RuleBasedStateMachine):
    """Several runs and ceilings, holds alone and together: no ceiling is passed by holds, and every row is its sum."""

    holds: Bundle[str] = Bundle("holds")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        limits = [
            {"per": "role", "window": "day", "tokens": 700},
            {"per": "organisation", "window": "hour", "tokens": 1000},
        ]
        budget = operator(limits=limits, concurrent={"run": 6})
        self.ledger = Ledger(Database(url(Path(self.folder.name))), budget, now=Clock())
        for run in ("r1", "r2"):
            self.ledger.open(run, Budget(tokens=500))
        self.held: dict[str, tuple[str, str, int]] = {}
        self.spent: list[tuple[str, str, int]] = []

    def room(self, run: str, role: str, tokens: int) -> bool:
        used = [*self.held.values(), *self.spent]
        return (
            sum(n for r, _, n in used if r == run) + tokens <= 500
            and sum(n for _, o, n in used if o == role) + tokens <= 700
            and sum(n for _, _, n in used) + tokens <= 1000
            and sum(r == run for r, _, _ in self.held.values()) < 6
        )

    @rule(target=holds, asked=ASKED)
    def hold(self, asked: tuple[str, str, int]) -> str:
        run, role, tokens = asked
        fits = self.room(run, role, tokens)
        try:
            found = hold(self.ledger, run, 0, tokens, role=role)
        except Refused:
            assert not fits
            return ""
        assert fits
        self.held[found] = asked
        return found

    @rule(target=holds, asked=st.lists(ASKED, min_size=2, max_size=6))
    def together(self, asked: list[tuple[str, str, int]]) -> str:
        futures = [
            self.ledger.submit_hold(run, "m", nano_usd=0, tokens=tokens, details={**WHOSE, "role": role})
            for run, role, tokens in asked
        ]
        for item, future in zip(asked, futures, strict=True):
            if future.exception() is None:
                assert self.room(*item)
                self.held[future.result()] = item
        left = [item for item, future in zip(asked, futures, strict=True) if future.exception() is not None]
        assert not any(self.room(*item) for item in left)
        return ""

    @rule(found=consumes(holds), part=st.integers(0, 100))
    def settle(self, found: str, part: int) -> None:
        if found:
            run, role, tokens = self.held.pop(found, ("", "", -1))
            used = max(0, tokens) * part // 100
            self.ledger.settle(found, Usage(requests=1, output_tokens=used))
            if tokens >= 0:  # else it was recovered, and nothing changes any more
                self.spent.append((run, role, used))

    @rule(found=consumes(holds))
    def release(self, found: str) -> None:
        if found:
            self.held.pop(found, None)
            self.ledger.release(found)

    @rule(run=st.sampled_from(["r1", "r2"]))
    def recover(self, run: str) -> None:
        left = [name for name, item in self.held.items() if item[0] == run]
        assert self.ledger.recover(run) == len(left)
        self.spent.extend(self.held.pop(name) for name in left)

    @invariant()
    def rows_are_sums(self) -> None:
        for row in self.ledger.standings().values():
            kind, _, name = row.name.partition(" ")
            name = name.partition(",")[0]

            def counts(item: tuple[str, str, int], kind: str = kind, name: str = name) -> bool:
                return kind not in ("run", "role") or name == item[0 if kind == "run" else 1]

            held = [item for item in self.held.values() if counts(item)]
            assert row.held_tokens == sum(item[2] for item in held), row
            assert row.held_requests == len(held), row
            assert row.spent_tokens == sum(item[2] for item in self.spent if counts(item)), row
            assert row.limit_tokens is None or row.held_tokens + row.spent_tokens <= row.limit_tokens

    def teardown(self) -> None:
        self.ledger.close()
        self.ledger._db.close()
        self.folder.cleanup()


Many.TestCase.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
TestMany = Many.TestCase


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of our own on a socket in a temporary folder; as another user when we are root, which it refuses."""
    program, maker = shutil.which("postgres"), shutil.which("initdb")
    if program is None or maker is None:
        pytest.skip("PostgreSQL's server is not installed (the Debian package postgresql)")
    as_other: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    if os.geteuid() == 0:
        as_other = {"user": "nobody", "group": "nogroup", "extra_groups": ()}
        shutil.chown(folder, "nobody", "nogroup")
    data = folder / "data"
    made = subprocess.run(
        [maker, "-D", str(data), "-U", "books", "--auth=trust", "--no-sync", "-E", "UTF8"],
        capture_output=True, text=True, cwd="/", check=False, **as_other,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [program, "-D", str(data), "-k", str(folder), "-c", "listen_addresses=", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **as_other,
    )  # fmt: skip
    address = f"postgresql://books@/postgres?host={folder}&port={port}"
    deadline = time.monotonic() + 30
    while not (folder / f".s.PGSQL.{port}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    yield address
    server.send_signal(signal.SIGINT)
    server.wait(30)
    shutil.rmtree(folder, ignore_errors=True)


def test_postgres_keeps_the_same_books(postgres: str, clock: Clock) -> None:
    limits = [{"per": "role", "window": "month", "usd": "0.0000001"}]
    budget = operator(limits=limits, concurrent={"run": 3}, requests_per_minute={"run": 100})
    ledger = Ledger(Database(postgres), budget, now=clock)
    ledger.open("p1", Budget(nano_usd=90))
    with ThreadPoolExecutor(8) as pool:
        futures = list(
            pool.map(lambda _: ledger.submit_hold("p1", "m", nano_usd=40, tokens=1, details=WHOSE), range(8))
        )
    done = [future.result() for future in futures if future.exception() is None]
    assert len(done) == 2
    ledger.settle(done[0], Usage(requests=1, input_tokens=7, cost_nano_usd=30))
    ledger.settle(done[0], Usage(requests=1, input_tokens=7, cost_nano_usd=30))
    assert ledger.recover("p1") == 1
    assert ledger.usage("p1") == Usage(requests=2, input_tokens=8, cost_nano_usd=70)
    ledger.open("p2", Budget())
    found = refused(ledger, "p2", 31).refusal
    assert "role backend, month 2026-01" in found.fact
    hold(ledger, "p2", 30)


def test_racing_connections_on_postgres_get_exactly_the_ten_that_fit(postgres: str) -> None:
    ledgers = [Ledger(Database(postgres)) for _ in range(8)]
    for number in range(5):
        run = f"race{number}"
        ledgers[0].open(run, Budget(tokens=10))
        barrier = threading.Barrier(len(ledgers))

        def tries(ledger: Ledger, run: str = run, barrier: threading.Barrier = barrier) -> int:
            barrier.wait()
            asked = [ledger.submit_hold(run, "m", nano_usd=1, tokens=1, details=WHOSE) for _ in range(20)]
            return sum(future.exception() is None for future in asked)

        with ThreadPoolExecutor(len(ledgers)) as pool:
            assert sum(pool.map(tries, ledgers)) == 10
    for ledger in ledgers:
        ledger.close()
