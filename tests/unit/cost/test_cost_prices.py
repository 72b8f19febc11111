"""Prices as integers: equal to genai-prices' decimals to the nano-USD, and never zero for the unknown."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.core.errors import DependencyDown
from vestibule.cost.prices import FreePrices, PriceBook, PriceTable, Rate, Tokens, compile_table

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TABLE = PriceTable(compile_table())
MODELS = (
    "claude-3-haiku-20240307",
    "claude-3-5-haiku-latest",
    "claude-3-7-sonnet-20250219",
    "claude-sonnet-4-5-20250929",
    "claude-sonnet-4-6",
    "claude-opus-4-6",
    "claude-opus-4-8",
    "claude-opus-5",
    "claude-haiku-5-5",
    "claude-sonnet-5",
    "claude-sonnet-5-5",
    "claude-fable-5-1",
    "claude-2.1",
)
COUNTS = st.integers(0, 400_000)


def theirs(model: str, tokens: Tokens, at: datetime) -> int:
    usage: dict[str, Any] = {
        "input_tokens": tokens.all_input,
        "cache_read_tokens": tokens.cache_read,
        "cache_write_tokens": tokens.cache_write,
        "cache_write_1h_tokens": tokens.cache_write_1h,
        "output_tokens": tokens.output,
    }
    price = calc_price(TheirUsage(**usage), model, provider_id="anthropic", genai_request_timestamp=at)
    return int((price.total_price * 10**9).to_integral_value(ROUND_CEILING))


def ours(model: str, tokens: Tokens, at: datetime) -> int:
    found = TABLE.find(model, at)
    assert found is not None
    return found.cost(tokens)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MODELS), COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.booleans())
def test_cost_equals_the_decimal_result_to_the_nano_usd(
    model: str, fresh: int, read: int, short: int, hour: int, output: int, early: bool
) -> None:
    at = datetime(2026, 2, 1, tzinfo=UTC) if early else NOW
    tokens = Tokens(fresh, read, short, hour, output)
    assert ours(model, tokens, at) == theirs(model, tokens, at)


def test_a_batch_of_200_usages_is_billed_alike() -> None:
    draw = random.Random(7)
    for _ in range(200):
        model = draw.choice(MODELS)
        tokens = Tokens(*(draw.randrange(0, 10 ** draw.randrange(1, 6)) for _ in range(5)))
        assert ours(model, tokens, NOW) == theirs(model, tokens, NOW)


@pytest.mark.parametrize(("total", "rate"), [(200_000, 3), (200_001, 6)])
def test_tier_begins_above_its_threshold_and_holds_for_the_whole_request(total: int, rate: int) -> None:
    tokens = Tokens(input=total - 1000, cache_read=1000)
    expected = (total - 1000) * rate * 1000 + 1000 * rate * 100
    assert ours("claude-sonnet-4-5", tokens, NOW) == expected


def test_price_history_is_kept() -> None:
    tokens = Tokens(input=300_000)
    assert ours("claude-opus-4-6", tokens, datetime(2026, 3, 12, tzinfo=UTC)) == 300_000 * 10_000
    assert ours("claude-opus-4-6", tokens, datetime(2026, 3, 13, tzinfo=UTC)) == 300_000 * 5_000


@pytest.mark.parametrize("model", ["", "claude", "claude-sonnet-99", "sonnet", "x" * 1000])
def test_unknown_models_have_no_price(model: str) -> None:
    assert TABLE.find(model, NOW) is None


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(MODELS), COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
def test_ceiling_covers_every_split_of_the_input(
    model: str, fresh: int, read: int, short: int, hour: int, output: int
) -> None:
    price = TABLE.find(model, NOW)
    assert price is not None
    tokens = Tokens(fresh, read, short, hour, output)
    assert price.ceiling(tokens.all_input + 5, output + 5) >= price.cost(tokens)
    without = tokens._replace(cache_write_1h=0)
    assert price.ceiling(without.all_input, output, hour_cache=False) >= price.cost(without)


def test_table_is_integers_and_its_digest_names_its_content() -> None:
    text = json.dumps(TABLE.data)
    assert PriceTable(json.loads(text)).digest == TABLE.digest
    changed = json.loads(text)
    changed["providers"]["anthropic"]["models"][0]["prices"][0]["rates"]["input"]["base"] += 1
    assert PriceTable(changed).digest != TABLE.digest
    assert TABLE.source.startswith("genai-prices ")

    def check(value: Any) -> None:
        assert not isinstance(value, (float, Decimal))
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(item)

    check(TABLE.data)


def test_rate_tiers() -> None:
    rate = Rate(1, ((10, 2), (20, 3)))
    assert [rate.at(n) for n in (0, 10, 11, 20, 21)] == [1, 1, 2, 2, 3]


def test_book_compiles_once_and_reads_its_cache_afterwards(tmp_path: Path) -> None:
    calls = []

    def compiler() -> dict[str, Any]:
        calls.append(1)
        return dict(TABLE.data)

    assert PriceBook(tmp_path, compiler=compiler).table.data == TABLE.data
    assert PriceBook(tmp_path, compiler=compiler).table.data == TABLE.data
    assert len(calls) == 1


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"form": 1}', b'{"form": 2}', b"\xff"])
def test_damaged_cache_is_compiled_anew(tmp_path: Path, content: bytes) -> None:
    PriceBook(tmp_path, compiler=lambda: dict(TABLE.data)).table  # noqa: B018
    (cache,) = tmp_path.glob("prices-*.json")
    cache.write_bytes(content)
    assert PriceBook(tmp_path, compiler=lambda: dict(TABLE.data)).table.data == TABLE.data


def test_cache_that_cannot_be_written_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert PriceBook(tmp_path / "file" / "below", compiler=lambda: dict(TABLE.data)).find("claude-sonnet-5", NOW)


def test_no_table_refuses_every_question() -> None:
    def compiler() -> dict[str, Any]:
        raise ImportError("genai_prices")

    book = PriceBook(None, compiler=compiler)
    with pytest.raises(DependencyDown) as caught:
        book.find("claude-sonnet-5", NOW)
    assert caught.value.refusal.rule == "dependency.prices"


def test_scripted_prices_are_free_only_for_their_own_unpriced_models() -> None:
    prices = FreePrices(TABLE, ("demo",))
    priced = prices.find("claude-sonnet-5", NOW)
    assert priced is not None
    assert priced.cost(Tokens(input=1000)) > 0
    free = prices.find("demo", NOW)
    assert free is not None
    assert free.cost(Tokens(input=1000, output=1000)) == 0
    assert prices.find("other", NOW) is None
