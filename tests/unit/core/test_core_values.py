"""Money, canonical JSON, time, labels, verdicts: small values with strict rules."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.core.canonical import canonical_json, digest
from vestibule.core.clock import now, parse_rfc3339, rfc3339
from vestibule.core.ids import RUN_ID, new_run_id
from vestibule.core.labels import Confidentiality, Integrity, Label
from vestibule.core.model import Usage, WallsReport
from vestibule.core.money import NANO, format_usd, parse_usd, plain_usd
from vestibule.core.verdict import Ruling, Verdict, strictest, strictest_ruling

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_canonical_json_reads_back_and_ignores_the_order_of_keys(value: object) -> None:
    data = canonical_json(value)
    assert json.loads(data) == value
    assert canonical_json(json.loads(data)) == data
    if isinstance(value, dict):
        assert digest(dict(reversed(value.items()))) == digest(value)


@pytest.mark.parametrize("value", [1.0, [1.5], {"a": {"b": float("nan")}}, {1: "a"}])
def test_canonical_json_takes_no_floats_and_no_other_keys(value: object) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)


def test_canonical_json_takes_no_lone_surrogates() -> None:
    with pytest.raises(ValueError):
        canonical_json("\udcff")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**18))
def test_money_survives_text_to_the_last_nano(nano: int) -> None:
    assert parse_usd(str(Decimal(nano) / NANO) if nano < 10**15 else f"{nano // NANO}.{nano % NANO:09d}") == nano
    assert parse_usd(format_usd(nano).removeprefix("$")) == nano
    assert parse_usd(plain_usd(nano)) == nano


@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "inf", "0.0000000001", "1e30", "1,5", "$1"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_usd(text)


def test_times_are_utc_and_aware() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=timezone(timedelta(hours=2)))
    assert rfc3339(moment) == "2026-01-02T01:04:05.678Z"
    assert parse_rfc3339("2026-01-02T01:04:05.678Z") == moment.astimezone(UTC)
    assert now().endswith("Z")
    with pytest.raises(ValueError):
        rfc3339(datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(ValueError):
        parse_rfc3339("2026-01-02T01:04:05")


@given(st.integers(0, 2**44), st.integers(1, 2**40))
def test_run_ids_sort_by_time(one: int, later: int) -> None:
    first, second = new_run_id(one), new_run_id(one + later)
    assert RUN_ID.match(first)
    assert RUN_ID.match(second)
    assert first[:10] < second[:10]


LABELS = st.builds(Label, integrity=st.sampled_from(Integrity), confidentiality=st.sampled_from(Confidentiality))


@given(LABELS, LABELS, LABELS)
def test_labels_join_like_a_lattice(a: Label, b: Label, c: Label) -> None:
    assert a.join(b) == b.join(a)
    assert a.join(b.join(c)) == a.join(b).join(c)
    assert a.join(a) == a
    assert a.join(b).join(a) == a.join(b)


@given(st.lists(st.sampled_from(Ruling)))
def test_the_strictest_wins_and_nothing_is_a_deny(rulings: list[Ruling]) -> None:
    joined = strictest([Verdict(ruling=item, reasons=(item.value,)) for item in rulings])
    assert joined.ruling is strictest_ruling(rulings)
    if not rulings or Ruling.DENY in rulings:
        assert joined.ruling is Ruling.DENY
    assert joined.reasons


def test_usage_adds_up_and_counts_what_a_budget_counts() -> None:
    one = Usage(
        requests=1, input_tokens=2, output_tokens=3, cache_read_tokens=100, cache_write_tokens=4, cost_nano_usd=5
    )
    two = one.plus(one)
    assert two.requests == 2
    assert two.cost_nano_usd == 10
    assert two.budgeted_tokens == 18


def test_an_unknown_wall_counts_as_down() -> None:
    report = WallsReport(tier="none", walls={})
    assert report.missing(("network",)) == ("network",)
