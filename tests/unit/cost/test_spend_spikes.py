"""When spend of one agent version is an alarm: replayed traces, rules one by one, sums that agree with the ledger."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.cost import spend_traces
from tests.unit.cost.spend_traces import HOUR, NANO, START, replay, two_versions

from vestibule.config.load import load_operator_config
from vestibule.core.clock import rfc3339
from vestibule.core.errors import ConfigError, DependencyDown
from vestibule.core.model import Budget, Usage
from vestibule.cost.ledger import Ledger
from vestibule.cost.spend_watch import SpendSeries, seconds_of, terms_of
from vestibule.cost.spikes import Cell, Terms, judge
from vestibule.store.database import Database

TERMS = Terms()
NOW = START + 40 * HOUR + 1800
H = NOW // 3600


def steady(version: str = "A", *, until: int, nano: int = NANO, runs: int = 4, hours: int = 24) -> list[Cell]:
    """`hours` hours before `until`, each with the same runs at the same price."""
    return [
        Cell(version=version, run=f"{version}{number}-{hour}", hour=hour, nano_usd=nano)
        for hour in range(until - hours, until)
        for number in range(runs)
    ]


def now_cells(version: str, nano: int, runs: int = 4, hour: int = H) -> list[Cell]:
    return [Cell(version=version, run=f"{version}now{number}", hour=hour, nano_usd=nano) for number in range(runs)]


def read(cells: list[Cell], version: str = "A", *, terms: Terms = TERMS, recent: int = 0, **more: Any) -> Any:
    return judge(cells, version, at=NOW, recent={NOW // 600: recent}, terms=terms, **more)


# --- traces ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("beside", [False, True], ids=["in its place", "beside it"])
def test_three_times_the_price_alerts_and_pauses_naming_b_and_never_a(beside: bool, seed: int) -> None:
    told = replay(two_versions("3", seed, beside=beside), TERMS)
    assert set(told.alerts) == {"B"}
    assert set(told.pauses) == {"B"}
    assert 24 * 60 <= told.alerts["B"] <= told.pauses["B"] <= 26 * 60, "minutes since the trace began"


@pytest.mark.parametrize("seed", range(4))
def test_a_third_more_alerts_naming_b_and_pauses_nothing(seed: int) -> None:
    told = replay(two_versions("1.3", seed, beside=False), TERMS)
    assert set(told.alerts) == {"B"}
    assert told.alerts["B"] >= 24 * 60
    assert not told.pauses


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("beside", [False, True], ids=["in its place", "beside it"])
def test_the_same_price_alerts_nothing(beside: bool, seed: int) -> None:
    told = replay(two_versions("1", seed, beside=beside), TERMS)
    assert not told.alerts


def test_the_page_tells_what_the_traces_measure_now() -> None:
    text = spend_traces.PAGE.read_text("utf-8")
    assert spend_traces.filled(text) == text, "run python -m tests.unit.cost.spend_traces"


# --- the rules ------------------------------------------------------------------------------------------------


def test_ten_percent_over_a_flat_average_is_the_edge() -> None:
    """Without unrest in the baseline the ratio alone decides: over it, not at it."""
    base = steady(until=H)
    edge, over = now_cells("A", NANO * 110 // 100), now_cells("A", NANO * 110 // 100 + 1)
    terms = Terms(minimum_nano_usd=0)
    assert read([*base, *edge], terms=terms).level == "none"
    assert read([*base, *over], terms=terms).level == "alert"
    assert read([*base, *over], terms=Terms(minimum_nano_usd=0, alert_percent=11)).level == "none"


def test_small_money_is_no_alarm() -> None:
    base = steady(until=H, nano=1000)
    assert read([*base, *now_cells("A", 100_000)]).level == "none"
    assert read([*base, *now_cells("A", 100_000)], terms=Terms(minimum_nano_usd=300_000)).level == "alert"


def test_a_baseline_of_few_hours_says_nothing() -> None:
    cells = [*steady(until=H, hours=11), *now_cells("A", 9 * NANO)]
    assert read(cells).level == "none"
    assert read([*steady(until=H, hours=12), *now_cells("A", 9 * NANO)]).level == "alert"


def test_unrest_of_the_baseline_raises_the_bar() -> None:
    rng = random.Random(7)
    base = [cell._replace(nano_usd=rng.choice((NANO // 5, 3 * NANO))) for cell in steady(until=H)]
    assert read([*base, *now_cells("A", 3 * NANO)]).level == "none"
    assert read([*base, *now_cells("A", 3 * NANO)], terms=Terms(noise=0)).level == "alert"


def test_a_version_that_nothing_can_be_compared_with_raises_nothing() -> None:
    assert read(now_cells("B", 100 * NANO), "B").level == "none"
    assert read([], "B").level == "none"


def test_a_new_version_is_measured_against_the_agents_earlier_ones() -> None:
    found = read([*steady(until=H), *now_cells("B", 2 * NANO)], "B")
    assert found.level == "alert"
    assert (found.evidence.against, found.evidence.versions, found.evidence.percent) == ("agent", ("A",), 200)
    assert read([*steady(until=H), *now_cells("B", 2 * NANO)], "A").level == "none"


def test_a_version_with_a_day_of_its_own_is_measured_against_itself() -> None:
    grown = [*steady(until=H), *steady("B", until=H, nano=3 * NANO)]
    assert read([*grown, *now_cells("B", 3 * NANO)], "B").level == "none"
    found = read([*grown, *now_cells("B", 6 * NANO)], "B")
    assert (found.level, found.evidence.against) == ("alert", "own")


def test_a_pause_asks_for_ratio_amount_speed_and_several_runs() -> None:
    cells = [*steady(until=H), *now_cells("B", 3 * NANO)]
    fast = 10 * NANO
    assert read(cells, "B", recent=fast).level == "pause"
    assert read(cells, "B", recent=0).level == "alert", "slow"
    assert read(cells, "B", recent=fast, terms=Terms(pause_percent=301)).level == "alert", "not dear enough"
    assert read(cells, "B", recent=fast, terms=Terms(pause_floor_nano_usd=13 * NANO)).level == "alert", "too little"
    one = [*steady(until=H), *now_cells("B", 12 * NANO, runs=1)]
    assert read(one, "B", recent=fast).level == "alert", "one dear run is a hard task"


def test_more_runs_of_the_same_price_alert_and_never_pause() -> None:
    cells = [*steady(until=H), *now_cells("A", NANO, runs=40)]
    found = read(cells, recent=20 * NANO)
    assert (found.level, found.evidence.measure) == ("alert", "hour")


def test_what_was_the_same_a_week_ago_is_the_weeks_rhythm() -> None:
    week = now_cells("A", NANO, runs=40, hour=H - 168)
    assert read([*week, *steady(until=H), *now_cells("A", NANO, runs=40)]).level == "none"


def test_what_a_person_accepted_is_not_held_against_the_version_again() -> None:
    cells = [*steady(until=H - 13), *steady("B", until=H + 1, nano=3 * NANO, hours=13)]
    assert read(cells, "B").level == "alert"
    assert read(cells, "B", accepted=NOW).level == "none"
    later = [*cells, *now_cells("B", 3 * NANO, hour=H + 1)]
    assert judge(later, "B", at=NOW + HOUR, recent={}, terms=TERMS, accepted=NOW).level == "none"
    worse = [*cells, *now_cells("B", 9 * NANO, hour=H + 1)]
    found = judge(worse, "B", at=NOW + HOUR, recent={}, terms=TERMS, accepted=NOW)
    assert (found.level, found.evidence.against) == ("alert", "own")  # type: ignore[union-attr]


@given(
    st.lists(
        st.builds(
            Cell,
            version=st.sampled_from("AB"),
            run=st.sampled_from("xyz"),
            hour=st.integers(H - 50, H),
            nano_usd=st.integers(1, 10**15),
        ),
        max_size=60,
    ),
    st.integers(2, 1000),
)
@settings(max_examples=150, deadline=None)
def test_a_reading_depends_on_ratios_alone_but_for_the_amounts_that_are_asked_for(
    cells: list[Cell], times: int
) -> None:
    """Whole numbers throughout: the same trace in a smaller coin reads the same."""
    small = Terms(minimum_nano_usd=0, pause_floor_nano_usd=0, pause_nano_usd_per_minute=0)
    more = [cell._replace(nano_usd=cell.nano_usd * times) for cell in cells]
    one, other = read(cells, "B", terms=small), read(more, "B", terms=small)
    if one.level == other.level == "none":
        return
    # A division of the deviations rounds down by less than one unit: only the very edge of the unrest may differ.
    if one.level != other.level:
        assert read(cells, "B", terms=small.model_copy(update={"noise": 0})).level != "none"
    else:
        assert one.evidence.percent == other.evidence.percent


# --- sums -----------------------------------------------------------------------------------------------------


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return Database(f"sqlite:///{tmp_path / 'state.db'}")


class Clock:
    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self) -> str:
        from datetime import UTC, datetime

        return rfc3339(datetime.fromtimestamp(self.at, UTC))


def test_running_sums_are_what_the_ledgers_records_say(db: Database) -> None:
    clock = Clock(START)
    ledger = Ledger(db, now=clock)
    rng = random.Random(3)
    for run in ("r1", "r2"):
        ledger.open(run, Budget(nano_usd=None, tokens=None, minutes=5))
    for number in range(120):
        clock.at += rng.randint(1, 400)
        details = {"agent": "demo", "agent_version": rng.choice(("A", "B")), "role": "fixer"}
        hold = ledger.hold(rng.choice(("r1", "r2")), "m", nano_usd=50, tokens=5, details=details)
        clock.at += 700 if number % 7 == 0 else 1  # settled in a later slot than it was asked in
        end = rng.choice(("settle", "settle", "charge", "release", "nothing", "free"))
        if end == "settle":
            ledger.settle(hold, Usage(requests=1, cost_nano_usd=rng.randint(1, 50)))
            ledger.settle(hold, Usage(requests=1, cost_nano_usd=49))  # a second time changes nothing
        elif end == "free":
            ledger.settle(hold, Usage(requests=1))
        elif end == "charge":
            ledger.charge(hold)
        elif end == "release":
            ledger.release(hold)
    ledger.recover("r1")
    series = SpendSeries(db)
    sums = series.sums()
    assert sums
    assert sums == series.recomputed()
    assert {key[0] for key in sums} == {"demo"}
    assert sum(nano for nano, _ in sums.values()) == sum(ledger.usage(run).cost_nano_usd for run in ("r1", "r2"))
    ledger.close()


def test_a_trace_through_the_ledger_reads_as_in_memory(db: Database) -> None:
    clock = Clock(START)
    ledger = Ledger(db, now=clock)
    series, sums = SpendSeries(db), spend_traces.Sums()
    opened: set[str] = set()
    trace = [spend for spend in two_versions("3", 1, beside=False) if spend.at < START + 26 * HOUR]
    for number, spend in enumerate(trace):
        clock.at = spend.at
        if spend.run not in opened:
            opened.add(spend.run)
            ledger.open(spend.run, Budget(nano_usd=None, tokens=None, minutes=5))
        details = {"agent": "demo", "agent_version": spend.version}
        ledger.settle(
            ledger.hold(spend.run, "m", nano_usd=spend.nano_usd, tokens=1, details=details),
            Usage(requests=1, cost_nano_usd=spend.nano_usd),
        )
        sums.add(spend)
        if number % 9 == 0 or spend.version == "B":
            found = series.read("demo", spend.version, at=clock(), terms=TERMS)
            assert found == sums.read(spend.version, spend.at, TERMS)
    assert series.read("demo", "B", at=clock(), terms=TERMS).level == "pause"
    assert series.versions(at=clock()) == [("demo", "B")]
    ledger.close()


def test_sums_that_cannot_be_read_are_a_dependency_down(db: Database, tmp_path: Path) -> None:
    db.close()
    (tmp_path / "state.db").write_bytes(b"no database" * 100)
    for leftover in ("state.db-wal", "state.db-shm"):
        (tmp_path / leftover).unlink(missing_ok=True)
    with pytest.raises(DependencyDown) as caught:
        SpendSeries(db).read("demo", "A", at=rfc3339_now(), terms=TERMS)
    assert caught.value.refusal.rule == "dependency.database"


def rfc3339_now() -> str:
    return Clock(START)()


# --- configuration --------------------------------------------------------------------------------------------


def config(tmp_path: Path, words: str) -> Any:
    path = tmp_path / "config.yaml"
    path.write_text(f"version: 1\nspend: {{{words}}}\n")
    return load_operator_config({"VESTIBULE_CONFIG": str(path), "HOME": str(tmp_path)}).spend


def test_defaults_are_the_detectors_own(tmp_path: Path) -> None:
    assert terms_of(config(tmp_path, "")) == Terms()


def test_amounts_and_ratios_are_read_from_their_text(tmp_path: Path) -> None:
    found = config(tmp_path, "pause_ratio: 1.07, minimum_usd: 0.000000001, pause_usd_per_minute: 0.1")
    assert (found.pause_ratio, found.minimum_usd, found.pause_usd_per_minute) == (107, 1, NANO // 10)


@pytest.mark.parametrize(
    "words",
    ["pause_ratio: 1", "pause_ratio: 1.005", "pause_ratio: true", "pause_ratio: .inf", "act: never",
     "alert_percent: 0", "minimum_usd: -1", "noise: 1.5", "minimum_hours: 25", "wrong: 1"],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_at_its_line(tmp_path: Path, words: str) -> None:
    with pytest.raises(ConfigError):
        config(tmp_path, words)


def test_times_are_whole_seconds() -> None:
    assert seconds_of("2026-01-05T00:00:00.999Z") == START
