"""Price lists of many sellers: equal to genai-prices' decimals for every recorded usage; overlays say what it lacks."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price

from vestibule.config.providers import Provider
from vestibule.core.errors import ConfigError
from vestibule.cost.price_overlay import overlay, overlays
from vestibule.cost.prices import PriceBook, PriceTable, Tokens, compile_table

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DATA = compile_table()
TABLE = PriceTable(DATA, overlays(()))
RECORDED = json.loads((Path(__file__).parent / "recorded_usages.json").read_bytes())


def theirs(provider: str, model: str, tokens: Tokens, at: datetime) -> int:
    usage: dict[str, Any] = {
        "input_tokens": tokens.all_input,
        "cache_read_tokens": tokens.cache_read,
        "cache_write_tokens": tokens.cache_write,
        "cache_write_1h_tokens": tokens.cache_write_1h,
        "output_tokens": tokens.output,
    }
    price = calc_price(TheirUsage(**usage), model, provider_id=provider, genai_request_timestamp=at)
    return int((price.total_price * 10**9).to_integral_value(ROUND_CEILING))


def test_every_recorded_usage_costs_the_decimal_result_to_the_nano_usd() -> None:
    assert len(RECORDED) >= 200
    assert len({item["provider"] for item in RECORDED}) >= 9
    edges = {sum(item["tokens"][:4]) for item in RECORDED}
    assert {200_000, 200_001} <= edges
    for item in RECORDED:
        at = datetime.fromisoformat(item["at"]).replace(tzinfo=UTC)
        tokens = Tokens(*item["tokens"])
        found = TABLE.find(item["model"], at, item["provider"])
        assert found is not None, item
        assert found.cost(tokens) == theirs(item["provider"], item["model"], tokens, at), item


def test_every_model_of_the_table_is_priced_alike_under_its_own_name() -> None:
    tokens = Tokens(input=150_001, cache_read=50_000, output=12_345)
    compared = 0
    for provider, entry in DATA["providers"].items():
        for model in entry["models"]:
            found = TABLE.find(model["id"], NOW, provider)
            if found is None or found.model != model["id"]:
                continue
            assert found.cost(tokens) == theirs(provider, model["id"], tokens, NOW), (provider, model["id"])
            compared += 1
    assert compared > 1800


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("deepseek", "deepseek-chat"),  # by the time of day
        ("perplexity", "sonar"),  # by the request
        ("openai", "gpt-image-1"),  # by images
        ("mistral", "mistral-ocr-2505"),  # by pages
        ("openai", "whisper-1"),  # by seconds
    ],
)
def test_what_tokens_do_not_tell_has_no_price(provider: str, model: str) -> None:
    assert any(item["id"] == model for item in DATA["providers"][provider]["models"])
    assert TABLE.find(model, NOW, provider) is None


def test_a_model_is_priced_by_who_sells_it() -> None:
    assert TABLE.find("gpt-5", NOW, "anthropic") is None
    assert TABLE.find("gpt-5", NOW, "nobody") is None
    own, other = TABLE.find("gpt-5", NOW, "openai"), TABLE.find("gpt-5", NOW, "azure")
    assert own is not None
    assert other is not None
    assert TABLE.find("gpt-5", NOW) == own
    assert TABLE.find("gemini-2.5-pro", NOW) == TABLE.find("gemini-2.5-pro", NOW, "google")


def test_a_batch_has_prices_of_its_own_or_none() -> None:
    from genai_prices import data

    models = next(item for item in data.providers if item.id == "anthropic").models
    model = next(item for item in models if item.id == "claude-fable-5")
    tokens = Tokens(input=1000, cache_read=500, cache_write_5m=100, cache_write_1h=50, output=700)
    found = TABLE.find("claude-fable-5", NOW, "anthropic", batch=True)
    assert found is not None
    provider = next(item for item in data.providers if item.id == "anthropic")
    usage = TheirUsage(
        input_tokens=tokens.all_input,
        cache_read_tokens=tokens.cache_read,
        cache_write_tokens=tokens.cache_write,
        cache_write_1h_tokens=tokens.cache_write_1h,
        output_tokens=tokens.output,
    )
    price = model.calc_price(
        usage, provider, genai_request_timestamp=NOW, price_context={"processing": "batch"}
    ).total_price
    assert found.cost(tokens) == int((price * 10**9).to_integral_value(ROUND_CEILING))
    before = datetime(2026, 10, 13, tzinfo=UTC)
    assert TABLE.find("claude-fable-5", before, "anthropic", batch=True) is None


def test_the_shipped_overlay_knows_granite_on_watsonx() -> None:
    found = TABLE.find("ibm/granite-4-h-small", NOW, "watsonx")
    assert found is not None
    assert found.cost(Tokens(input=1_000_000)) == 63_600_000
    assert found.cost(Tokens(output=1_000_000)) == 265_000_000
    assert TABLE.find("ibm/granite-99", NOW, "watsonx") is None
    assert PriceTable(DATA).find("ibm/granite-4-h-small", NOW, "watsonx") is None


FILE = b"""
version: 1
prices:
  - {provider: house, models: ["granite-*"], basis: self-hosted, source: our own machines, input: 0, output: 0}
  - {provider: house, models: [big], basis: contract, source: contract 7, input: 1.5, output: 2, cache_read: 0.1,
     above: [{tokens: 1000, input: 3, output: 4}]}
  - {provider: house, models: [big], since: '2026-06-01', basis: contract, source: contract 8, input: 1, output: 2}
  - {provider: anthropic, models: [claude-sonnet-5], basis: contract, source: contract 9, input: 1, output: 5}
"""


def test_an_operators_file_goes_before_every_list() -> None:
    table = PriceTable(DATA, [overlay(FILE, "prices.yaml"), *overlays(())])
    own = table.find("Granite-4-tiny", NOW, "house")
    assert own is not None
    assert own.cost(Tokens(input=10**6, output=10**6)) == 0
    early = table.find("big", datetime(2026, 5, 31, tzinfo=UTC), "house")
    assert early is not None
    assert early.cost(Tokens(input=900, cache_read=100)) == 900 * 1500 + 100 * 100
    assert early.cost(Tokens(input=901, cache_read=100)) == 1001 * 3000
    late = table.find("big", datetime(2026, 6, 1, tzinfo=UTC), "house")
    assert late is not None
    assert late.cost(Tokens(input=901, cache_read=100)) == 1001 * 1000
    contract = table.find("claude-sonnet-5", NOW, "anthropic")
    assert contract is not None
    assert contract.cost(Tokens(input=1000)) == 1_000_000
    assert table.digest != TABLE.digest


def test_the_digest_names_every_byte_of_a_price_file() -> None:
    digests = {PriceTable(DATA, [overlay(text, "p")]).digest for text in (FILE, FILE + b"# reviewed\n")}
    assert len(digests) == 2


CONTRACT = "provider: p, models: [m], basis: contract, source: s, input: 1, output: 1"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{provider: p, models: [m], basis: list, source: s, input: 0, output: 1}", "self-hosted"),
        ("{provider: p, models: [m], basis: contract, source: s, input: 1, output: 0}", "self-hosted"),
        ("{provider: p, models: [m], basis: list, input: 1, output: 1}", "source"),
        ("{provider: p, models: [m], basis: list, source: s, input: 1}", "output"),
        ("{provider: p, models: [m], basis: list, source: s, input: -1, output: 1}", "amount"),
        ("{provider: p, models: [m], basis: list, source: s, input: 1e-10, output: 1}", "nano"),
        ("{provider: p, models: [], basis: list, source: s, input: 1, output: 1}", "models"),
        ("{provider: p, models: [m, M], basis: list, source: s, input: 1, output: 1}", "two prices"),
        (f"{{{CONTRACT}, above: [{{tokens: 1, input: 0, output: 1}}]}}", "self-hosted"),
        ("{provider: p, models: [m], since: '20260601', basis: list, source: s, input: 1, output: 1}", "since"),
        ("{provider: p, models: [m], since: '2026-W23-1', basis: list, source: s, input: 1, output: 1}", "since"),
        ("{provider: p, models: [m], since: soon, basis: list, source: s, input: 1, output: 1}", "since"),
        ("{provider: p, models: [m], basis: list, source: s, input: 1, output: 1, tax: 2}", "tax"),
        ("{provider: p, models: [m], basis: guess, source: s, input: 1, output: 1}", "basis"),
    ],
)
def test_a_price_file_that_says_something_impossible_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        overlay(f"version: 1\nprices:\n  - {text}\n".encode(), "prices.yaml")
    assert why in str(caught.value)
    assert "prices.yaml" in str(caught.value)


def provider(api: str, base_url: str) -> Provider:
    more: dict[str, str] = {"project": "p"} if api == "watsonx" else {}
    return Provider.model_validate({"api": api, "base_url": base_url, **more})


def test_a_book_asks_the_list_of_the_provider_that_is_asked(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_bytes(FILE)
    providers = {
        "mine": provider("anthropic", "https://models.example.com"),
        "open": provider("openai", "https://api.openai.com/v1"),
        "fast": provider("openai", "https://api.groq.com/openai/v1"),
        "house": provider("openai", "https://models.example.com/v1"),
        "ibm": provider("watsonx", "https://region.example.com"),
    }
    book = PriceBook(None, files=(tmp_path / "prices.yaml",), providers=providers, compiler=lambda: dict(DATA))
    priced = {
        (name, model): book.find(model, NOW, name) is not None
        for name in (*providers, "other")
        for model in ("claude-sonnet-5", "gpt-5", "llama-3.3-70b-versatile", "granite-4", "ibm/granite-4-h-small")
    }
    assert {key for key, known in priced.items() if known} == {
        ("mine", "claude-sonnet-5"),
        ("open", "gpt-5"),
        ("fast", "llama-3.3-70b-versatile"),
        ("house", "granite-4"),
        ("ibm", "ibm/granite-4-h-small"),
    }


def test_a_price_file_that_is_missing_stops_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        PriceBook(None, files=(tmp_path / "none.yaml",), compiler=lambda: dict(DATA))


def test_genai_prices_is_imported_to_compile_and_for_nothing_else(tmp_path: Path) -> None:
    PriceBook(tmp_path, compiler=lambda: dict(DATA)).table  # noqa: B018
    program = (
        "import sys\nfrom datetime import UTC, datetime\nfrom pathlib import Path\n"
        "from vestibule.cost.prices import PriceBook\n"
        "book = PriceBook(Path(sys.argv[1]))\n"
        "assert book.find('claude-sonnet-5', datetime.now(UTC)) is not None\n"
        "print('genai_prices' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_amounts_of_the_shipped_overlay_are_as_written() -> None:
    found = overlays(())[-1]["providers"]["watsonx"]
    rates = {model: item["rates"] for item in found for model in item["models"]}
    assert rates["ibm/granite-4-h-small"]["input"]["base"] == int(Decimal("0.0636") * 10**9)
