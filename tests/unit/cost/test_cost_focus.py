"""FOCUS rows: the specification's columns, and the ledger's sum to the nano-dollar."""

from __future__ import annotations

import csv
import io
import json
from decimal import Context, Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spend_books import VERSION, Books

from vestibule.core.model import Usage
from vestibule.cost.focus import COLUMNS, focus_csv, safe_cell
from vestibule.cost.spend import Spend, read_spends

MANDATORY = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
)
"""FOCUS 1.2: columns of feature level Mandatory."""
NULLABLE = {"BillingAccountName", "ChargeClass", "ChargeDescription", "PricingQuantity", "PricingUnit"}
FULL = Context(prec=60)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def exported(books: Books, **tags: str) -> list[dict[str, str]]:
    return rows("".join(focus_csv(read_spends(books.db), lambda _: tags)))


def test_a_row_says_whose_spend_it_is(tmp_path: Path) -> None:
    books = Books.new(tmp_path)
    books.spend(cost=1_500_000_001)
    books.spend(cost=1)
    (row,) = exported(books, requester="local:alice", pull_request="vestibule/r1", empty="")
    assert row["BilledCost"] == row["ListCost"] == row["EffectiveCost"] == row["ContractedCost"] == "1.500000002"
    assert row["ChargePeriodStart"] == "2026-01-02T00:00:00Z"
    assert row["ChargePeriodEnd"] == "2026-01-03T00:00:00Z"
    assert (row["BillingPeriodStart"], row["BillingPeriodEnd"]) == ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")
    assert (row["ServiceCategory"], row["ServiceSubcategory"]) == ("AI and Machine Learning", "Generative AI")
    assert (row["ConsumedQuantity"], row["ConsumedUnit"], row["x_Requests"]) == ("3100", "Tokens", "2")
    assert row["ProviderName"] == row["InvoiceIssuerName"] == "Anthropic"
    assert row["SkuPriceId"] == "anthropic/claude-sonnet-5@" + "ab" * 8
    assert json.loads(row["Tags"]) == {
        "agent": "claude",
        "agent_version": VERSION,
        "role": "backend",
        "task": "r1",
        "repository": "example.com/shop",
        "requester": "local:alice",
        "pull_request": "vestibule/r1",
    }


def test_every_mandatory_column_is_there_and_filled(tmp_path: Path) -> None:
    books = Books.new(tmp_path)
    books.spend()
    books.charge()
    found = exported(books)
    assert len(found) == 2
    assert set(MANDATORY) <= set(COLUMNS)
    for row in found:
        assert all(row[name] for name in MANDATORY if name not in NULLABLE)


def test_costs_that_are_an_upper_bound_stand_apart_and_held_ones_nowhere(tmp_path: Path) -> None:
    books = Books.new(tmp_path)
    books.spend(cost=10)
    books.charge(nano_usd=1000)
    books.hold(nano_usd=10**9)
    found = {row["x_Estimated"]: row for row in exported(books)}
    assert found["false"]["BilledCost"] == "0.00000001"
    assert found["true"]["BilledCost"] == "0.000001"
    assert found["true"]["x_OutputTokens"] == "0"
    assert found["true"]["x_EstimatedTokens"] == "5000"


@pytest.mark.parametrize("month", ["2026-02-28", "2026-12-31", "2028-02-29"])
def test_a_billing_period_is_the_month(tmp_path: Path, month: str) -> None:
    books = Books.new(tmp_path)
    books.spend(at=f"{month}T23:59:59.999Z")
    (row,) = exported(books)
    assert row["BillingPeriodStart"].startswith(month[:8] + "01")
    assert row["BillingPeriodEnd"][8:10] == "01"
    assert row["BillingPeriodEnd"] == row["ChargePeriodEnd"]


WORDS = st.text(max_size=12)
SPENDS = st.lists(
    st.builds(
        lambda number, cost, day, agent, repository, state: Spend(
            id=f"h-{number}",
            run=f"r{number % 4}",
            time=f"2026-0{1 + day % 9}-1{day % 10}T00:00:00.000Z",
            state=state,
            agent=agent,
            agent_version=agent,
            role="r",
            repository=repository,
            provider="anthropic",
            model="m",
            asked="m",
            prices="sha256:00",
            usage=Usage(requests=1, cost_nano_usd=cost),
            tokens=(1, 2, 3, 4, 5, 0),
            held_nano_usd=0,
            milliseconds=None,
            first_byte_ms=None,
        ),
        st.integers(0, 99),
        st.integers(0, 1 << 50),
        st.integers(0, 99),
        WORDS,
        WORDS,
        st.sampled_from(["settled", "charged"]),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(SPENDS)
def test_the_sum_of_the_rows_is_the_sum_of_the_books(spends: list[Spend]) -> None:
    found = rows("".join(focus_csv(spends, lambda _: {})))
    total = Decimal(0)
    for row in found:
        total = FULL.add(total, Decimal(row["BilledCost"]))
    assert FULL.multiply(total, Decimal(10**9)) == sum(spend.usage.cost_nano_usd for spend in spends)
    assert sum(int(row["x_Requests"]) for row in found) == len(spends)


@given(st.text(max_size=80))
def test_no_cell_begins_a_formula(text: str) -> None:
    cell = safe_cell(text)
    assert not cell.lstrip().startswith(("=", "+", "-", "@", "\t", "\r", "\n", "|", "%"))
    assert "\n" not in cell


@given(st.text(max_size=40), st.text(max_size=40))
def test_hostile_names_stay_in_their_cells(agent: str, repository: str) -> None:
    spend = Spend(
        *("h-1", "r1", "2026-01-02T03:04:05.678Z", "settled", agent, "=cmd|' /C calc'!A0", "role", repository),
        *("anthropic", "@SUM(1)", "m", "sha256:00", Usage(requests=1, cost_nano_usd=1), (0, 0, 0, 0, 0, 0)),
        *(0, None, None),
    )
    (row,) = rows("".join(focus_csv([spend], lambda _: {"requester": "+1"})))
    assert set(row) == set(COLUMNS)
    assert all(not value.startswith(("=", "+", "-", "@")) for value in row.values())
    assert json.loads(row["Tags"])["agent_version"] == "=cmd|' /C calc'!A0"
