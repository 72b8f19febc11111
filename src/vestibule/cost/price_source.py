"""genai-prices as plain data of integers: the one place that imports it, and only to compile.

Rules it keeps:
1. What cannot be told exactly in tokens (prices by the time of day, by request, second, page or image; a rate finer
   than a nano-USD per million tokens) has no price here: its model is unknown, which refuses. It stays in the table, so
   that its name is not taken for another model's.
2. Rates for audio are left out of models that have them for text too: the gateway lets no audio through.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from decimal import Decimal
from typing import Any

FORM = 2
KINDS = ("input", "cache_read", "cache_write", "cache_write_5m", "cache_write_1h", "output")
_NANO = 1_000_000_000
_ELSEWHERE = frozenset(
    {
        "input_audio_mtok",
        "output_audio_mtok",
        "cache_audio_read_mtok",
        "web_searches_kcount",
        "storage_searches_kcount",
    }
)
"""What no request through the gateway uses: audio, and searches by the provider, which are refused or billed apart."""


def compile_table() -> dict[str, Any]:
    """Every provider's models that are billed by text tokens. Importing genai-prices takes 0.2 to 0.6 s."""
    from genai_prices import data

    providers: dict[str, Any] = {}
    for provider in data.providers:
        models = []
        for model in provider.models:
            prices = _compile_prices(model)
            entry = {"id": model.id, "match": _compile_match(model.match), "prices": prices}
            batch = _compile_batch(model) if prices else []
            models.append({**entry, "batch": batch} if batch else entry)
        providers[provider.id] = {
            "api": provider.api_pattern,
            "makes": _compile_match(provider.model_match) if provider.model_match is not None else None,
            "also": list(provider.fallback_model_providers or ()),
            "models": models,
        }
    return {"form": FORM, "source": f"genai-prices {version()}", "providers": providers}


def compile_apart() -> dict[str, Any]:
    """As `compile_table`, in a process of its own: what genai-prices takes in memory is not this process's to keep.

    Raises:
        RuntimeError: it failed; the end of what it said.
    """
    program = f"import json, sys; from {__name__} import compile_table; json.dump(compile_table(), sys.stdout)"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, check=False, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-300:].decode("utf-8", "replace"))
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def version() -> str:
    from importlib.metadata import version as installed

    return installed("genai-prices")


def _compile_prices(model: Any) -> list[dict[str, Any]]:
    from genai_prices.types import ModelPrice as Source

    conditional = (
        [(None, model.prices)]
        if isinstance(model.prices, Source)
        else [(item.constraint, item.prices) for item in model.prices]
    )
    found: list[dict[str, Any]] = []
    for constraint, price in conditional:
        start = _start(constraint)
        rates = _compile_rates(price)
        if start is False or rates is None or not {"input", "output"} <= rates.keys():
            return []
        found.append({"from": start, "rates": rates})
    # The first entry holds when no condition does, whatever its own says (genai-prices, `get_prices`).
    if found:
        found[0]["from"] = None
    return found


def _compile_batch(model: Any) -> list[dict[str, Any]]:
    """What replaces the standard rates, kind by kind, for a request of a batch; of several the first counts."""
    found = []
    for variant in model.price_variants or ():
        start, rates = _start(variant.constraint), _compile_rates(variant.prices)
        if dict(variant.when) == {"processing": "batch"} and start is not False and rates:
            found.append({"from": start, "rates": rates})
    return found


def _start(constraint: Any) -> str | bool | None:
    """The day from which a price holds; None: always; False: it depends on something else."""
    from genai_prices.types import StartDateConstraint

    if constraint is None:
        return None
    if isinstance(constraint, StartDateConstraint):
        start: date = constraint.start_date
        return start.isoformat()
    return False


def _compile_rates(price: Any) -> dict[str, Any] | None:
    rates: dict[str, Any] = {}
    for key, value in price.__dict__.items():
        kind = key.removesuffix("_mtok")
        if value is None or key in _ELSEWHERE:
            continue
        if kind not in KINDS or not key.endswith("_mtok"):
            return None
        if isinstance(value, Decimal):
            base, tiers = _nano(value), []
        else:
            base, tiers = _nano(value.base), [[tier.start, _nano(tier.price)] for tier in value.tiers]
        if base is None or any(rate is None for _, rate in tiers):
            return None
        rates[kind] = {"base": base, "tiers": tiers}
    return rates


def _nano(usd: Decimal) -> int | None:
    value = usd * _NANO
    return int(value) if value == value.to_integral_value() else None


def _compile_match(clause: Any) -> dict[str, Any]:
    name = type(clause).__name__
    if name in ("ClauseOr", "ClauseAnd"):
        items = clause.or_ if name == "ClauseOr" else clause.and_
        return {"or" if name == "ClauseOr" else "and": [_compile_match(item) for item in items]}
    for op in ("equals", "starts_with", "ends_with", "contains", "regex"):
        if hasattr(clause, op):
            return {op: getattr(clause, op)}
    raise ValueError(f"unknown match clause {name}")
