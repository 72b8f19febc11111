"""Metrics say what the ledger says: once each, exactly, and with labels that have an end."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spend_books import VERSION, Books

from vestibule.config.spending import OperatorBudget, SpendLimit
from vestibule.core.clock import rfc3339
from vestibule.cost import metrics as module
from vestibule.cost.exposition import MAX_LABEL, Histogram, Metric, ValueTable, decimal, written
from vestibule.cost.ledger import Ledger
from vestibule.cost.metrics import METRICS, Metrics
from vestibule.cost.report import budget_lines, cost_lines

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
SAMPLE = re.compile(r'([a-z_]+)(\{(?:[a-z_]+="(?:[^"\\\n]|\\[\\n"])*",?)+\})? (-?[0-9]+(?:\.[0-9]+)?)\Z')
"""A line of the format: name, labels whose quotes, backslashes and line feeds are escaped, a number."""


def samples(page: str) -> dict[str, str]:
    found = {}
    for line in page.splitlines():
        if not line.startswith("#"):
            match = SAMPLE.match(line)
            assert match, line
            key = match[1] + (match[2] or "")
            assert key not in found, f"{key} stands twice"
            found[key] = match[3]
    return found


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return Books.new(tmp_path)


def metrics(books: Books, now: datetime = NOW) -> Metrics:
    return Metrics(books.db, now=lambda: now)


def labels(**more: str) -> str:
    values = {"agent": "claude", "agent_version": VERSION, "model": "claude-sonnet-5", "provider": "anthropic", **more}
    return "{" + ",".join(f'{name}="{value}"' for name, value in values.items()) + "}"


def test_tokens_and_cost_are_the_ledgers_to_the_last_nano_dollar(books: Books) -> None:
    books.spend(cost=1)
    books.spend(cost=3_000_000_000)
    found = samples(metrics(books).page())
    assert found["vestibule_llm_cost_usd_total" + labels()] == "3.000000001"
    kinds = {"input": 2000, "cache_read": 600, "cache_write_5m": 60, "cache_write_1h": 40, "output": 400}
    for kind, number in kinds.items():
        assert found["vestibule_llm_tokens_total" + labels(kind=kind)] == str(number)
    assert found["vestibule_llm_requests_total" + labels(outcome="settled")] == "2"


def test_a_sum_beyond_what_a_float_holds_is_written_exactly(books: Books) -> None:
    for _ in range(3):
        books.spend(cost=1_000_000_000_000_001, nano_usd=0)
    assert samples(metrics(books).page())["vestibule_llm_cost_usd_total" + labels()] == decimal(
        3_000_000_000_000_003, 9
    )


def test_a_charged_hold_has_no_tokens_that_anyone_counted(books: Books) -> None:
    books.charge(nano_usd=7, tokens=90)
    found = samples(metrics(books).page())
    assert found["vestibule_llm_tokens_total" + labels(kind="estimated")] == "90"
    assert "vestibule_llm_tokens_total" + labels(kind="input") not in found
    assert found["vestibule_llm_requests_total" + labels(outcome="charged")] == "1"
    assert "vestibule_llm_request_duration_seconds_count" not in "".join(found)


def test_each_request_is_counted_once_whenever_it_is_closed(books: Books) -> None:
    held = books.hold(nano_usd=5_000_000_000)
    watched = metrics(books)
    first = samples(watched.page())
    assert first["vestibule_llm_requests_held"] == "1"
    assert first['vestibule_llm_budget_held_usd{scope="run",window="total",name="all"}'] == "5"
    books.settle(held, cost=2_000_000_000)
    for _ in range(3):
        found = samples(watched.page())
        assert found["vestibule_llm_cost_usd_total" + labels()] == "2"
        assert found["vestibule_llm_requests_held"] == "0"
    assert found == samples(metrics(books).page()), "another process says the same"


def test_a_request_that_stays_open_for_days_is_counted_when_it_is_charged(books: Books) -> None:
    held = books.hold(nano_usd=4_000_000_000)
    moment = [NOW]
    watched = Metrics(books.db, now=lambda: moment[0])
    watched.page()
    for _ in range(5):
        moment[0] += timedelta(days=1)
        books.spend(cost=1_000_000_000, at=rfc3339(moment[0]))
        watched.page()
    books.ledger.charge(held)
    found = samples(watched.page())
    assert found["vestibule_llm_cost_usd_total" + labels()] == "9"
    assert found["vestibule_llm_requests_held"] == "0"


def test_a_row_that_appears_late_is_not_missed(books: Books) -> None:
    watched = metrics(books)
    books.spend(cost=1_000_000_000, at=rfc3339(NOW))
    watched.page()
    books.spend(cost=1_000_000_000, at=rfc3339(NOW - timedelta(minutes=50)))
    assert samples(watched.page())["vestibule_llm_cost_usd_total" + labels()] == "2"


def test_a_released_request_leaves_nothing(books: Books) -> None:
    held = books.hold()
    watched = metrics(books)
    watched.page()
    books.ledger.release(held)
    found = samples(watched.page())
    assert found["vestibule_llm_requests_held"] == "0"
    assert "vestibule_llm_cost_usd_total" + labels() not in found


def test_durations_are_histograms_of_exact_sums(books: Books) -> None:
    for took, first in ((250, 50), (251, None), (10**9, 1)):
        books.settle(books.hold(), took=took, first=first)
    found = samples(metrics(books).page())
    of = 'model="claude-sonnet-5",provider="anthropic"'
    name = "vestibule_llm_request_duration_seconds"
    assert found[f'{name}_bucket{{{of},le="0.25"}}'] == "1"
    assert found[f'{name}_bucket{{{of},le="0.5"}}'] == "2"
    assert found[f'{name}_bucket{{{of},le="640"}}'] == "2"
    assert found[f'{name}_bucket{{{of},le="+Inf"}}'] == found[f"{name}_count{{{of}}}"] == "3"
    assert found[f"{name}_sum{{{of}}}"] == "1000000.501"
    assert found[f"vestibule_llm_time_to_first_token_seconds_count{{{of}}}"] == "2"


def test_the_baseline_is_the_mean_of_the_24_complete_hours_before_this_one(books: Books) -> None:
    books.spend(cost=24_000_000_000, at="2026-01-01T12:00:00.000Z", nano_usd=0)
    books.spend(cost=24_000_000_000, at="2026-01-02T11:59:59.999Z", nano_usd=0)
    books.spend(cost=77_000_000_000, at="2026-01-01T11:59:59.999Z", nano_usd=0)
    books.spend(cost=77_000_000_000, at="2026-01-02T12:00:00.000Z", nano_usd=0)
    assert samples(metrics(books).page())['vestibule_cost_baseline_usd_per_hour{agent="claude"}'] == "2"


def test_budgets_are_named_as_the_operator_named_them_and_only_of_this_window(books: Books) -> None:
    limits = (
        SpendLimit(per="role", name="back*", window="day", usd=100),
        SpendLimit(per="agent-version", window="month", usd=7),
        SpendLimit(per="organisation", window="hour", usd=3),
        SpendLimit(per="repository", window="total", usd=1000),
    )
    books.ledger.close()
    books.ledger = Ledger(books.db, OperatorBudget(usd_per_day=50, limits=limits), now=lambda: books.now)
    books.spend(cost=2_000_000_000, at="2025-12-31T12:00:00.000Z", nano_usd=0)
    books.spend(cost=1_000_000_000, at="2026-01-02T12:00:00.000Z", nano_usd=0)
    books.hold(nano_usd=250_000_000)
    found = samples(metrics(books, datetime(2026, 1, 2, 12, 30, tzinfo=UTC)).page())
    wanted = {
        'scope="all",window="day",name="all"': ("1", "50"),
        'scope="role",window="day",name="backend"': ("1", "100"),
        f'scope="agent-version",window="month",name="{VERSION}"': ("1", "7"),
        'scope="organisation",window="hour",name="all"': ("1", "3"),
        'scope="repository",window="total",name="example.com/shop"': ("3", "1000"),
    }
    for labelled, (spent, limit) in wanted.items():
        assert found[f"vestibule_llm_budget_spent_usd{{{labelled}}}"] == spent
        assert found[f"vestibule_llm_budget_limit_usd{{{labelled}}}"] == limit
        assert found[f"vestibule_llm_budget_held_usd{{{labelled}}}"] == "0.25"
    assert sum(key.startswith("vestibule_llm_budget_limit_usd") for key in found) == len(wanted)
    lines = budget_lines(books.db, now="2026-01-02T12:30:00.000Z")
    assert {(line.scope, line.window) for line in lines} == {
        *(("all", "day"), ("role", "day"), ("agent-version", "month"), ("organisation", "hour")),
        *(("repository", "total"), ("run", "total")),
    }


def test_labels_have_an_end_and_what_is_beyond_it_is_still_counted(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_VALUES", {**module.MOST_VALUES, "agent_version": 2})
    for number in range(5):
        books.spend(cost=1_000_000_000, agent_version=f"v{number}", at=f"2026-01-02T0{number}:00:00.000Z")
    found = samples(metrics(books).page())
    assert found["vestibule_llm_cost_usd_total" + labels(agent_version="v1")] == "1"
    assert found["vestibule_llm_cost_usd_total" + labels(agent_version="other")] == "3"
    assert found['vestibule_metrics_folded_values{label="agent_version"}'] == "3"


def test_combinations_of_labels_have_an_end_too(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SERIES", 2)
    for number in range(4):
        books.spend(cost=1_000_000_000, agent=f"a{number}", at=f"2026-01-02T0{number}:00:00.000Z")
    found = samples(metrics(books).page())
    other = labels(agent="other", agent_version="other", model="other", provider="other")
    assert found["vestibule_llm_cost_usd_total" + other] == "2"
    assert sum(key.startswith("vestibule_llm_cost_usd_total") for key in found) == 3


def test_decisions_count_by_rule_and_by_crossing(books: Books) -> None:
    rows = [[("model.tool_call", "deny", "scope.write", 2), ("network.connect", "allow", "", 5)], []]
    watched = Metrics(books.db, lambda: rows.pop(0), now=lambda: NOW)
    watched.page()
    found = samples(watched.page())
    assert found['vestibule_guardrail_decisions_total{rule="scope.write",decision="deny"}'] == "2"
    assert found['vestibule_decisions_total{action="network.connect",decision="allow"}'] == "5"
    assert not any("network" in key for key in found if "guardrail" in key)


def test_all_that_is_told_is_listed_and_in_a_form_prometheus_wants(books: Books) -> None:
    books.spend()
    page = metrics(books).page()
    listed = {metric.name: metric for metric in METRICS}
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE):
        assert listed[name].kind == kind
        assert name.startswith("vestibule_")
        assert name.endswith("_total") == (kind == "counter")
    assert not any("run_id" in label or label in ("run", "task", "requester") for m in METRICS for label in m.labels)


def test_metrics_reports_and_books_agree(books: Books) -> None:
    for number in range(7):
        books.spend(f"r{number % 3}", cost=10**8 + number, provider=("anthropic", "openai")[number % 2])
    books.charge(nano_usd=5)
    total = sum(line.usage.cost_nano_usd for line in cost_lines(books.db, "provider"))
    costs = [v for k, v in samples(metrics(books).page()).items() if k.startswith("vestibule_llm_cost_usd_total")]
    assert Decimal(decimal(total, 9)) == sum(Decimal(value) for value in costs)


@given(st.text(max_size=300))
def test_no_label_value_breaks_its_line(value: str) -> None:
    table = ValueTable(10)
    metric = Metric("vestibule_x", "gauge", ("a",), 0, "x\\y\nz")
    page = written([(metric, {(table(value),): 1})])
    assert page.count("\n") == 3
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u200b]", page)
    assert len(page.splitlines()) == 3
    assert SAMPLE.match(page.splitlines()[2])
    assert len(table(value)) <= MAX_LABEL


@given(st.lists(st.integers(0, 1000), max_size=50))
def test_a_histograms_buckets_hold_what_they_say(values: list[int]) -> None:
    found = Histogram((10, 100))
    for value in values:
        found.add(value)
    assert found.counts == [
        sum(value <= 10 for value in values),
        sum(10 < value <= 100 for value in values),
        sum(value > 100 for value in values),
    ]
    assert found.total == sum(values)


@given(st.integers(-(10**20), 10**20), st.sampled_from([0, 3, 9]))
def test_a_decimal_is_exact(value: int, places: int) -> None:
    assert Context(prec=40).multiply(Decimal(decimal(value, places)), Decimal(10) ** places) == value
