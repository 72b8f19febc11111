"""What an agent is told of its budget: at 80 and 95 per cent, its own numbers, nothing before."""

from __future__ import annotations

import pytest

from vestibule.core.model import Budget, Usage
from vestibule.core.money import NANO
from vestibule.cost.steering import note_for


@pytest.mark.parametrize(
    ("spent", "percent"),
    [(0, None), (799_999_999, None), (800_000_000, 80), (949_999_999, 80), (950_000_000, 95), (2 * NANO, 95)],
)
def test_thresholds_of_money(spent: int, percent: int | None) -> None:
    note = note_for(Budget(nano_usd=NANO), Usage(cost_nano_usd=spent))
    assert (note.percent if note else None) == percent


@pytest.mark.parametrize(("spent", "percent"), [(799, None), (800, 80), (950, 95)])
def test_thresholds_of_tokens(spent: int, percent: int | None) -> None:
    used = Usage(input_tokens=spent - 100, output_tokens=60, cache_write_tokens=40, cache_read_tokens=10_000)
    note = note_for(Budget(tokens=1000), used)
    assert (note.percent if note else None) == percent


def test_the_scarcer_of_both_is_told_with_its_numbers() -> None:
    note = note_for(Budget(nano_usd=NANO, tokens=1000), Usage(cost_nano_usd=NANO // 2, input_tokens=960))
    assert note is not None
    assert "96%" in note.text
    assert "960 of 1000 tokens" in note.text
    assert "$" not in note.text


def test_without_a_ceiling_nothing_is_told() -> None:
    assert note_for(Budget(), Usage(cost_nano_usd=10**15, input_tokens=10**9)) is None
