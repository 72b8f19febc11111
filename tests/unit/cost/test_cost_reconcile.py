"""What the provider bills against what we counted: read strictly, compared by day and model."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spend_books import Books

from vestibule.cost.bills import anthropic, openai
from vestibule.cost.bills.base import BadReport, Bill
from vestibule.cost.reconcile import Reconciliation, Tolerance, reconcile
from vestibule.cost.spend import read_spends

ANTHROPIC_USAGE: dict[str, Any] = {
    "data": [
        {
            "starting_at": "2026-01-02T00:00:00Z",
            "ending_at": "2026-01-03T00:00:00Z",
            "results": [
                {
                    "uncached_input_tokens": 1000,
                    "cache_creation": {"ephemeral_1h_input_tokens": 20, "ephemeral_5m_input_tokens": 30},
                    "cache_read_input_tokens": 300,
                    "output_tokens": 200,
                    "server_tool_use": {"web_search_requests": 0},
                    "api_key_id": None,
                    "workspace_id": None,
                    "model": "claude-sonnet-5-20260101",
                    "service_tier": "standard",
                    "context_window": "0-200k",
                }
            ],
        }
    ],
    "has_more": False,
    "next_page": None,
}
ANTHROPIC_COST: dict[str, Any] = {
    "data": [
        {
            "starting_at": "2026-01-02T00:00:00Z",
            "ending_at": "2026-01-03T00:00:00Z",
            "results": [
                {
                    "amount": "10.5",
                    "currency": "USD",
                    "cost_type": "tokens",
                    "model": "claude-sonnet-5",
                    "token_type": "output_tokens",
                    "description": "Claude Sonnet 5 Usage - Output Tokens",
                },
                {"amount": "1.8456789", "currency": "USD", "cost_type": "tokens", "model": "claude-sonnet-5"},
                {"amount": "3", "currency": "USD", "cost_type": "web_search", "model": None},
            ],
        }
    ],
    "has_more": False,
    "next_page": None,
}
OPENAI_USAGE: dict[str, Any] = {
    "object": "page",
    "data": [
        {
            "object": "bucket",
            "start_time": 1767312000,  # 2026-01-02
            "end_time": 1767398400,
            "results": [
                {
                    "object": "organization.usage.completions.result",
                    "input_tokens": 1350,
                    "output_tokens": 200,
                    "input_cached_tokens": 300,
                    "input_cache_write_tokens": 50,
                    "num_model_requests": 1,
                    "project_id": None,
                    "model": "gpt-5",
                    "batch": None,
                }
            ],
        }
    ],
    "has_more": False,
    "next_page": None,
}
OPENAI_COST: dict[str, Any] = {
    "object": "page",
    "data": [
        {
            "object": "bucket",
            "start_time": 1767312000,
            "end_time": 1767398400,
            "results": [
                {
                    "object": "organization.costs.result",
                    "amount": {"value": 0.123456789, "currency": "usd"},
                    "line_item": None,
                    "project_id": None,
                }
            ],
        }
    ],
    "has_more": False,
    "next_page": None,
}
REPORTS = [(anthropic, ANTHROPIC_USAGE), (anthropic, ANTHROPIC_COST), (openai, OPENAI_USAGE), (openai, OPENAI_COST)]
NONE = Tolerance(per_mille=0, tokens=0, nano_usd=0)


def raw(report: dict[str, Any]) -> bytes:
    return json.dumps(report).encode()


def compared(books: Books, bill: Bill, tolerance: Tolerance = NONE) -> Reconciliation:
    return reconcile(bill, read_spends(books.db), tolerance)


@pytest.fixture
def books(tmp_path: Path) -> Books:
    """One request of 2 January 2026: 1000 + 300 + 30 + 20 tokens in, 200 out, $0.123456789."""
    made = Books.new(tmp_path)
    made.spend()
    return made


def test_anthropics_usage_agrees_to_the_token_and_a_dated_name_is_the_same_model(books: Books) -> None:
    found = compared(books, anthropic.read(raw(ANTHROPIC_USAGE)))
    assert found.ok
    assert found.compared == 4
    assert found.counted_tokens == found.billed_tokens == 1550


def test_anthropics_costs_are_cents_and_searches_stand_apart(books: Books) -> None:
    found = compared(books, anthropic.read(raw(ANTHROPIC_COST)))
    assert found.ok
    assert found.billed_nano_usd == 123_456_789
    assert found.other_nano_usd == 30_000_000


def test_openais_input_includes_its_cache(tmp_path: Path) -> None:
    books = Books.new(tmp_path)
    books.spend(model="gpt-5", provider="openai")
    assert compared(books, openai.read(raw(OPENAI_USAGE))).ok


def test_openais_costs_of_a_day_are_compared_as_one_sum(tmp_path: Path) -> None:
    books = Books.new(tmp_path)
    books.spend(model="gpt-5", cost=100_000_000)
    books.spend(model="gpt-5-mini", cost=23_456_789)
    assert compared(books, openai.read(raw(OPENAI_COST))).ok


def test_openais_line_items_are_summed_by_model(tmp_path: Path) -> None:
    report = copy.deepcopy(OPENAI_COST)
    line = report["data"][0]["results"][0]
    report["data"][0]["results"] = [
        {**line, "line_item": "gpt-5, input", "amount": {"value": 0.1, "currency": "usd"}},
        {**line, "line_item": "gpt-5, output", "amount": {"value": 0.2, "currency": "usd"}},
    ]
    books = Books.new(tmp_path)
    books.spend(model="gpt-5", cost=300_000_000)
    assert compared(books, openai.read(raw(report))).ok, "0.1 + 0.2 is 0.3 here"


@pytest.mark.parametrize("kind", ["uncached_input_tokens", "cache_read_input_tokens", "output_tokens"])
def test_one_token_more_on_the_bill_is_found(books: Books, kind: str) -> None:
    report = copy.deepcopy(ANTHROPIC_USAGE)
    report["data"][0]["results"][0][kind] += 1
    found = compared(books, anthropic.read(raw(report)))
    (difference,) = found.differences
    assert not found.ok
    assert difference.billed == difference.counted + 1
    assert difference.side == "both"
    assert compared(books, anthropic.read(raw(report)), Tolerance()).ok, "within the tolerance"


def test_a_surplus_of_one_kind_hides_no_lack_of_another(books: Books) -> None:
    report = copy.deepcopy(ANTHROPIC_USAGE)
    line = report["data"][0]["results"][0]
    line["uncached_input_tokens"] += 150
    line["output_tokens"] -= 150
    found = compared(books, anthropic.read(raw(report)), Tolerance())
    assert {item.what for item in found.differences} == {"input", "output"}


def test_spend_that_nobody_here_counted_is_found(books: Books) -> None:
    report = copy.deepcopy(ANTHROPIC_USAGE)
    other = {**report["data"][0]["results"][0], "model": "claude-opus-5"}
    report["data"][0]["results"].append(other)
    found = compared(books, anthropic.read(raw(report)))
    assert {(item.model, item.side) for item in found.differences} == {("claude-opus-5", "only_billed")}
    assert len(found.differences) == 4


def test_spend_that_is_not_billed_is_found_and_other_days_are_not_asked_for(books: Books) -> None:
    books.spend(model="claude-haiku-5")
    books.spend(at="2026-01-03T00:00:00.000Z")
    found = compared(books, anthropic.read(raw(ANTHROPIC_USAGE)))
    assert {(item.day, item.model, item.side) for item in found.differences} == {
        ("2026-01-02", "claude-haiku-5", "only_counted")
    }


def test_two_dated_versions_of_a_model_are_not_taken_for_one(books: Books) -> None:
    report = copy.deepcopy(ANTHROPIC_USAGE)
    report["data"][0]["results"].append({**report["data"][0]["results"][0], "model": "claude-sonnet-5-20260202"})
    assert not compared(books, anthropic.read(raw(report))).ok


def test_requests_without_a_count_and_open_ones_are_told(books: Books) -> None:
    books.charge(nano_usd=77)
    books.hold()
    found = compared(books, anthropic.read(raw(ANTHROPIC_USAGE)))
    assert found.ok, "their tokens are nobody's count"
    assert (found.charged_holds, found.charged_nano_usd, found.open_requests) == (1, 77, 1)


def test_a_day_without_use_is_compared_too(books: Books) -> None:
    report = copy.deepcopy(ANTHROPIC_USAGE)
    report["data"][0]["results"] = []
    found = compared(books, anthropic.read(raw(report)))
    assert found.days == ("2026-01-02",)
    assert not found.ok, "we counted what nobody bills"


def change(report: dict[str, Any], path: str, value: Any) -> bytes:
    changed = copy.deepcopy(report)
    at: Any = changed
    *way, last = path.split(".")
    for step in way:
        at = at[int(step) if step.isdigit() else step]
    if value is KeyError:
        del at[last]
    else:
        at[last] = value
    return raw(changed)


RESULT = "data.0.results.0"


@pytest.mark.parametrize(
    ("reader", "report", "path", "value", "why"),
    [
        (anthropic, ANTHROPIC_USAGE, "has_more", True, "one page of several"),
        (anthropic, ANTHROPIC_USAGE, "has_more", KeyError, "one page of several"),
        (anthropic, ANTHROPIC_USAGE, "data", {}, "data is no list"),
        (anthropic, ANTHROPIC_USAGE, "data", [], "covers no day"),
        (openai, OPENAI_USAGE, "data", [], "covers no day"),
        (anthropic, ANTHROPIC_USAGE, "data.0.starting_at", "2026-01-02", "no time with a zone"),
        (anthropic, ANTHROPIC_USAGE, "data.0.ending_at", "2026-01-04T00:00:00Z", "longer than one UTC day"),
        (anthropic, ANTHROPIC_USAGE, "data.0.ending_at", "2026-01-02T00:00:00Z", "ends before it begins"),
        (anthropic, ANTHROPIC_USAGE, f"{RESULT}.model", None, "group the report by model"),
        (anthropic, ANTHROPIC_USAGE, f"{RESULT}.output_tokens", KeyError, "output_tokens is no number"),
        (anthropic, ANTHROPIC_USAGE, f"{RESULT}.output_tokens", -1, "output_tokens is no number"),
        (anthropic, ANTHROPIC_USAGE, f"{RESULT}.output_tokens", 1.5, "output_tokens is no number"),
        (anthropic, ANTHROPIC_USAGE, f"{RESULT}.output_tokens", True, "output_tokens is no number"),
        (anthropic, ANTHROPIC_USAGE, f"{RESULT}.cache_creation", 5, "cache_creation is no object"),
        (anthropic, ANTHROPIC_COST, f"{RESULT}.currency", "EUR", "not USD"),
        (anthropic, ANTHROPIC_COST, f"{RESULT}.amount", "ten", "no amount"),
        (anthropic, ANTHROPIC_COST, f"{RESULT}.amount", "NaN", "no amount"),
        (anthropic, ANTHROPIC_COST, f"{RESULT}.amount", None, "no amount"),
        (openai, OPENAI_USAGE, "object", "list", "no page"),
        (openai, OPENAI_USAGE, "data.0.start_time", "1767312000", "no time"),
        (openai, OPENAI_USAGE, f"{RESULT}.object", "organization.usage.embeddings.result", "neither"),
        (openai, OPENAI_USAGE, f"{RESULT}.input_cached_tokens", 5000, "more cached tokens"),
        (openai, OPENAI_USAGE, f"{RESULT}.model", KeyError, "group the report by model"),
        (openai, OPENAI_COST, f"{RESULT}.amount", None, "no object"),
        (openai, OPENAI_COST, f"{RESULT}.amount.currency", "eur", "not usd"),
    ],
)
def test_a_report_that_is_not_what_it_should_be_is_refused(
    reader: Any, report: dict[str, Any], path: str, value: Any, why: str
) -> None:
    with pytest.raises(BadReport, match=why):
        reader.read(change(report, path, value))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b"\xff", b'{"data": NaN}', b'{"has_more": false, "has_more": true}']
)
@pytest.mark.parametrize("reader", [anthropic, openai])
def test_what_is_no_report_is_refused(reader: Any, data: bytes) -> None:
    with pytest.raises(BadReport):
        reader.read(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.sampled_from(REPORTS), st.sampled_from(["data", "data.0", "data.0.results", RESULT]), JSON)
def test_a_reader_answers_or_refuses_whatever_stands_there(
    known: tuple[Any, dict[str, Any]], path: str, value: Any
) -> None:
    reader, report = known
    way = path.split(".")
    changed = copy.deepcopy(report)
    at: Any = changed
    for step in way[:-1]:
        at = at[int(step) if step.isdigit() else step]
    at[int(way[-1]) if way[-1].isdigit() else way[-1]] = value
    try:
        bill = reader.read(raw(changed))
    except BadReport:
        return
    assert isinstance(bill, Bill)
