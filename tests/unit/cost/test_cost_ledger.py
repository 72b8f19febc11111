"""The books: holds admit exactly what fits, survive kills, and never lose or double a charge."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from sqlalchemy import select, text

from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.model import Budget, Usage
from vestibule.cost.ledger import Ledger
from vestibule.cost.report import cost_lines
from vestibule.store import tables
from vestibule.store.database import Database


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'state.db'}"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Database(url(tmp_path)))


def row(ledger: Ledger, key: str) -> dict[str, int]:
    with ledger._db.read() as connection:
        return dict(connection.execute(select(tables.budgets).where(tables.budgets.c.key == key)).one()._mapping)


def test_racing_holds_admit_exactly_as_many_as_fit(ledger: Ledger) -> None:
    ledger.open("r1", Budget(nano_usd=10 * 7))
    barrier = threading.Barrier(16)

    def one(number: int) -> bool:
        if number < 16:
            barrier.wait()
        try:
            ledger.hold("r1", "m", nano_usd=7, tokens=1)
        except Refused:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(one, range(64))) == 10
    assert row(ledger, "run:r1")["held_nano_usd"] == 70
    with pytest.raises(Refused) as caught:
        ledger.hold("r1", "m", nano_usd=7, tokens=1)
    assert caught.value.refusal.rule == "budget.usd"


def _take(address: str, tries: int, results: multiprocessing.Queue[int]) -> None:
    ledger = Ledger(Database(address))
    admitted = 0
    for _ in range(tries):
        try:
            ledger.hold("r1", "m", nano_usd=7, tokens=1)
        except Refused:
            continue
        admitted += 1
    results.put(admitted)


def test_racing_processes_admit_exactly_as_many_as_fit(tmp_path: Path) -> None:
    Ledger(Database(url(tmp_path))).open("r1", Budget(nano_usd=10 * 7 + 6))
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[int] = context.Queue()
    workers = [context.Process(target=_take, args=(url(tmp_path), 16, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert sum(results.get(timeout=60) for _ in workers) == 10
    for worker in workers:
        worker.join()


def test_day_ceiling_holds_over_runs(tmp_path: Path) -> None:
    ledger = Ledger(Database(url(tmp_path)), day_nano_usd=100)
    for run in ("r1", "r2"):
        ledger.open(run, Budget())
    ledger.hold("r1", "m", nano_usd=60, tokens=1)
    with pytest.raises(Refused) as caught:
        ledger.hold("r2", "m", nano_usd=60, tokens=1)
    assert "day" in caught.value.refusal.fact
    # The refused hold left nothing behind on the run's ceiling.
    assert row(ledger, "run:r2")["held_nano_usd"] == 0


def test_next_day_has_a_ceiling_of_its_own_and_a_hold_settles_on_its_own_day(tmp_path: Path) -> None:
    clock = ["2026-01-01T23:59:59.000Z"]
    ledger = Ledger(Database(url(tmp_path)), day_nano_usd=100, now=lambda: clock[0])
    ledger.open("r1", Budget())
    hold = ledger.hold("r1", "m", nano_usd=90, tokens=1)
    clock[0] = "2026-01-02T00:00:01.000Z"
    ledger.hold("r1", "m", nano_usd=90, tokens=1)
    ledger.settle(hold, Usage(requests=1, cost_nano_usd=50))
    assert row(ledger, "day:2026-01-01")["spent_nano_usd"] == 50
    assert row(ledger, "day:2026-01-02")["spent_nano_usd"] == 0


def test_token_ceiling_counts_input_output_and_cache_writes(ledger: Ledger) -> None:
    ledger.open("r1", Budget(tokens=100))
    hold = ledger.hold("r1", "m", nano_usd=0, tokens=100)
    ledger.settle(
        hold, Usage(requests=1, input_tokens=10, output_tokens=20, cache_write_tokens=30, cache_read_tokens=1000)
    )
    ledger.hold("r1", "m", nano_usd=0, tokens=40)
    with pytest.raises(Refused) as caught:
        ledger.hold("r1", "m", nano_usd=0, tokens=1)
    assert caught.value.refusal.rule == "budget.tokens"


def test_no_ceiling_is_still_counted(ledger: Ledger) -> None:
    ledger.open("r1", Budget())
    hold = ledger.hold("r1", "m", nano_usd=10**15, tokens=10**9)
    ledger.settle(hold, Usage(requests=1, cost_nano_usd=10**15))
    assert ledger.usage("r1").cost_nano_usd == 10**15


def test_operators_ceiling_per_run_tightens(ledger: Ledger) -> None:
    ledger.open("r1", Budget(nano_usd=100), nano_usd_per_run=50)
    with pytest.raises(Refused):
        ledger.hold("r1", "m", nano_usd=51, tokens=1)
    ledger.open("r2", Budget(nano_usd=30), nano_usd_per_run=50)
    with pytest.raises(Refused):
        ledger.hold("r2", "m", nano_usd=31, tokens=1)


def test_opening_again_keeps_what_was_spent(ledger: Ledger) -> None:
    ledger.open("r1", Budget(nano_usd=100))
    ledger.settle(ledger.hold("r1", "m", nano_usd=80, tokens=1), Usage(requests=1, cost_nano_usd=80))
    ledger.open("r1", Budget(nano_usd=100))
    with pytest.raises(Refused):
        ledger.hold("r1", "m", nano_usd=21, tokens=1)


def test_closing_twice_changes_nothing(ledger: Ledger) -> None:
    ledger.open("r1", Budget())
    hold = ledger.hold("r1", "m", nano_usd=10, tokens=1)
    ledger.settle(hold, Usage(requests=1, cost_nano_usd=4))
    ledger.settle(hold, Usage(requests=1, cost_nano_usd=4))
    ledger.charge(hold)
    ledger.release(hold)
    assert ledger.usage("r1") == Usage(requests=1, cost_nano_usd=4)
    assert row(ledger, "run:r1")["held_nano_usd"] == 0


def test_charge_counts_the_whole_hold(ledger: Ledger) -> None:
    ledger.open("r1", Budget())
    ledger.charge(ledger.hold("r1", "m", nano_usd=10, tokens=5))
    assert ledger.usage("r1").cost_nano_usd == 10
    assert row(ledger, "run:r1")["spent_tokens"] == 5


def _hold_and_die(address: str) -> None:
    Ledger(Database(address)).hold("r1", "m", nano_usd=60, tokens=6)
    os.kill(os.getpid(), signal.SIGKILL)


def test_hold_of_a_killed_process_stays_held_and_is_charged_once_by_recovery(tmp_path: Path) -> None:
    ledger = Ledger(Database(url(tmp_path)))
    ledger.open("r1", Budget(nano_usd=100))
    worker = multiprocessing.get_context("spawn").Process(target=_hold_and_die, args=(url(tmp_path),))
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    with pytest.raises(Refused):
        ledger.hold("r1", "m", nano_usd=60, tokens=1)
    assert ledger.recover("r1") == 1
    assert ledger.recover("r1") == 0
    assert ledger.usage("r1").cost_nano_usd == 60
    with pytest.raises(Refused):
        ledger.hold("r1", "m", nano_usd=60, tokens=1)


def test_run_that_was_never_opened_is_refused(ledger: Ledger) -> None:
    with pytest.raises(DependencyDown) as caught:
        ledger.hold("r1", "m", nano_usd=1, tokens=1)
    assert caught.value.name == "budget"
    with ledger._db.read() as connection:
        assert connection.execute(select(tables.holds)).all() == []


def test_unusable_database_refuses(ledger: Ledger) -> None:
    ledger.open("r1", Budget())
    with ledger._db.write() as connection:
        connection.execute(text("DROP TABLE budgets"))
    with pytest.raises(DependencyDown) as caught:
        ledger.hold("r1", "m", nano_usd=1, tokens=1)
    assert caught.value.name == "database"


def test_negative_holds_do_not_exist(ledger: Ledger) -> None:
    ledger.open("r1", Budget())
    with pytest.raises(ValueError, match="negative"):
        ledger.hold("r1", "m", nano_usd=-1, tokens=1)


class Books(RuleBasedStateMachine):
    """Whatever happens in whatever order: the ceiling's row is the sum of its holds, and is never passed by holds."""

    holds: Bundle[tuple[str, int]] = Bundle("holds")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger(Database(url(Path(self.folder.name))))
        self.ledger.open("r1", Budget(nano_usd=1000))
        self.held = 0
        self.spent = 0

    @rule(target=holds, amount=st.integers(0, 400))
    def hold(self, amount: int) -> tuple[str, int]:
        try:
            found = self.ledger.hold("r1", "m", nano_usd=amount, tokens=0)
        except Refused:
            assert self.held + self.spent + amount > 1000
            return ("", 0)
        assert self.held + self.spent + amount <= 1000
        self.held += amount
        return (found, amount)

    @rule(hold=consumes(holds), part=st.integers(0, 100))
    def settle(self, hold: tuple[str, int], part: int) -> None:
        if hold[0]:
            cost = hold[1] * part // 100
            self.ledger.settle(hold[0], Usage(requests=1, cost_nano_usd=cost))
            self.held -= hold[1]
            self.spent += cost

    @rule(hold=consumes(holds))
    def release(self, hold: tuple[str, int]) -> None:
        if hold[0]:
            self.ledger.release(hold[0])
            self.held -= hold[1]

    @rule(hold=consumes(holds))
    def charge(self, hold: tuple[str, int]) -> None:
        if hold[0]:
            self.ledger.charge(hold[0])
            self.held -= hold[1]
            self.spent += hold[1]

    @invariant()
    def rows_are_sums(self) -> None:
        found = row(self.ledger, "run:r1")
        assert (found["held_nano_usd"], found["spent_nano_usd"]) == (self.held, self.spent)
        assert self.ledger.usage("r1").cost_nano_usd == self.spent

    def teardown(self) -> None:
        self.ledger.close()
        self.ledger._db.close()
        self.folder.cleanup()


Books.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestBooks = Books.TestCase


def test_report_groups_by_every_dimension(ledger: Ledger) -> None:
    for run, role in (("r1", "backend"), ("r2", "docs")):
        ledger.open(run, Budget())
        details = {"agent": "claude", "agent_version": "claude-code@2", "role": role, "prices": "sha256:x"}
        hold = ledger.hold(run, "m", nano_usd=10, tokens=1, details=details)
        ledger.settle(hold, Usage(requests=1, input_tokens=3, cost_nano_usd=7))
    ledger.charge(ledger.hold("r2", "m", nano_usd=10, tokens=1, details={"role": "docs", "agent": "claude"}))
    ledger.hold("r2", "m", nano_usd=5, tokens=1, details={"role": "docs", "agent": "claude"})
    by_role = {line.name: line for line in cost_lines(ledger._db, "role")}
    assert by_role["backend"].usage.cost_nano_usd == 7
    assert by_role["docs"].usage.cost_nano_usd == 17
    assert by_role["docs"].held_nano_usd == 5
    assert by_role["docs"].charged_holds == 1
    (line,) = cost_lines(ledger._db, "agent")
    assert (line.name, line.runs, line.usage.requests) == ("claude", 2, 3)
    assert {item.name for item in cost_lines(ledger._db, "agent-version")} == {"claude-code@2", "unknown"}
    assert [item.name for item in cost_lines(ledger._db, "run")] == ["r2", "r1"]
    assert [item.name for item in cost_lines(ledger._db, "model")] == ["m"]


def test_cost_command_prints_one_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from vestibule.cli.cost import command

    monkeypatch.setenv("VESTIBULE_HOME", str(tmp_path))
    monkeypatch.delenv("VESTIBULE_DATABASE_URL", raising=False)
    ledger = Ledger(Database.open(tmp_path))
    ledger.open("r1", Budget())
    ledger.settle(
        ledger.hold("r1", "m", nano_usd=10, tokens=1, details={"agent": "evil\x1b[31m"}),
        Usage(requests=1, cost_nano_usd=2_500_000),
    )
    found = CliRunner().invoke(command, ["--by", "agent", "--json"])
    assert found.exit_code == 0
    assert json.loads(found.stdout)["total"]["cost_nano_usd"] == 2_500_000
    table = CliRunner().invoke(command, ["--by", "agent"])
    assert "$0.0025" in table.stdout
    assert "\x1b[31m" not in table.stdout
