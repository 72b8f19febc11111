"""Prices as integers, compiled from genai-prices once per version of it.

Rules it keeps:
1. No floats: a rate is an integer number of nano-USD per million tokens, a cost an integer number of
   nano-USD, rounded up (never to the buyer's advantage).
2. An unknown model has no price; it never has the price zero.
3. The digest of the compiled table goes into every spend record, so that a bill can be computed again.

Kinds of tokens follow the provider's bill: fresh input, cache reads, cache writes (5 minutes, 1 hour), output.
A kind without a rate of its own costs what its parent kind costs (1 h write → write → input). A tier applies
to the whole request once its input, caches included, is *above* the threshold (genai-prices, "cliff" tiers).
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from vestibule.core.canonical import canonical_json, digest_bytes
from vestibule.core.errors import DependencyDown

FORM = 1
MILLION = 1_000_000
_NANO = 1_000_000_000
_KINDS = ("input", "cache_read", "cache_write", "cache_write_5m", "cache_write_1h", "output")
_PARENT = {
    "cache_read": "input",
    "cache_write": "input",
    "cache_write_5m": "cache_write",
    "cache_write_1h": "cache_write",
}


class Tokens(NamedTuple):
    """Tokens of one request by billed kind; the kinds do not overlap."""

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0

    @property
    def all_input(self) -> int:
        """What tier thresholds are compared with."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h

    @property
    def cache_write(self) -> int:
        return self.cache_write_5m + self.cache_write_1h


class Rate(NamedTuple):
    """Nano-USD per million tokens; `tiers` are (threshold, rate) in rising order."""

    base: int
    tiers: tuple[tuple[int, int], ...] = ()

    def at(self, all_input: int) -> int:
        for start, rate in reversed(self.tiers):
            if all_input > start:
                return rate
        return self.base


class ModelPrice(NamedTuple):
    """The rates of one model at one time."""

    model: str
    rates: Mapping[str, Rate]
    table_digest: str

    def _rate(self, kind: str, all_input: int) -> int:
        name: str | None = kind
        while name is not None:
            rate = self.rates.get(name)
            if rate is not None:
                return rate.at(all_input)
            name = _PARENT.get(name)
        return 0

    def cost(self, tokens: Tokens) -> int:
        """Nano-USD, rounded up."""
        total = tokens.all_input
        numerator = (
            tokens.input * self._rate("input", total)
            + tokens.cache_read * self._rate("cache_read", total)
            + tokens.cache_write_5m * self._rate("cache_write_5m", total)
            + tokens.cache_write_1h * self._rate("cache_write_1h", total)
            + tokens.output * self._rate("output", total)
        )
        return -(-numerator // MILLION)

    def ceiling(self, all_input: int, output: int, *, hour_cache: bool = True) -> int:
        """Nano-USD that a request with at most so many tokens can cost, whatever kinds the input splits into.

        `hour_cache`: whether it may write caches that live an hour, the dearest kind.
        """
        kinds = ("input", "cache_read", "cache_write_5m", *(("cache_write_1h",) if hour_cache else ()))
        # A tier can in principle be cheaper than the base: every step up to the total counts.
        steps = {all_input, 0} | {
            start + 1 for rate in self.rates.values() for start, _ in rate.tiers if start < all_input
        }
        dearest = max(self._rate(kind, step) for kind in kinds for step in steps)
        dearest_output = max(self._rate("output", step) for step in steps)
        return -(-(all_input * dearest + output * dearest_output) // MILLION)


class Prices(Protocol):
    """Where the gateway asks for prices."""

    def find(self, model: str, at: datetime) -> ModelPrice | None:
        """None: unknown. Raises `DependencyDown("prices")` when there is no table to ask."""
        ...


class PriceTable:
    """A compiled table: plain integers, answers without genai-prices."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        if data.get("form") != FORM or not isinstance(data.get("models"), list):
            raise ValueError("not a compiled price table of this form")
        self.data = data
        self.source = str(data["source"])
        self.digest = digest_bytes(canonical_json(data))
        self._found: dict[tuple[str, date], ModelPrice | None] = {}

    def find(self, model: str, at: datetime) -> ModelPrice | None:
        """The model's rates at that time. Time of day does not matter: such prices are not compiled."""
        day = at.astimezone(UTC).date()
        key = (model, day)
        if key not in self._found:
            if len(self._found) > 1000:
                self._found.clear()
            self._found[key] = self._look_up(model, day)
        return self._found[key]

    def _look_up(self, model: str, day: date) -> ModelPrice | None:
        name = model.lower()
        for entry in self.data["models"]:
            if not _matches(entry["match"], name):
                continue
            chosen = None
            for price in entry["prices"]:
                if price["from"] is None or day >= date.fromisoformat(price["from"]):
                    chosen = price
            if chosen is None:
                return None
            rates = {
                kind: Rate(value["base"], tuple((start, rate) for start, rate in value["tiers"]))
                for kind, value in chosen["rates"].items()
            }
            return ModelPrice(str(entry["id"]), rates, self.digest)
        return None


def _matches(clause: Mapping[str, Any], name: str) -> bool:
    (op, value), *_ = clause.items()
    if op == "or":
        return any(_matches(item, name) for item in value)
    if op == "and":
        return all(_matches(item, name) for item in value)
    text = str(value)
    if op == "regex":
        return re.search(text, name) is not None
    text = text.lower()
    if op == "equals":
        return name == text
    if op == "starts_with":
        return name.startswith(text)
    if op == "ends_with":
        return name.endswith(text)
    if op == "contains":
        return text in name
    raise ValueError(f"unknown match operator {op!r}")


def compile_table(provider: str = "anthropic") -> dict[str, Any]:
    """Read genai-prices (0.2 to 0.6 s of import) into plain data of integers.

    Models whose prices depend on the time of day, or are finer than a nano-USD per million tokens, are left out:
    they count as unknown, which refuses.
    """
    from genai_prices import data

    found = next(item for item in data.providers if item.id == provider)
    models = []
    for model in found.models:
        prices = _compile_prices(model)
        if prices:
            models.append({"id": model.id, "match": _compile_match(model.match), "prices": prices})
    return {"form": FORM, "source": f"genai-prices {_version()}", "provider": provider, "models": models}


def _compile_prices(model: Any) -> list[dict[str, Any]]:
    from genai_prices.types import ModelPrice as Source
    from genai_prices.types import StartDateConstraint

    conditional = (
        [(None, model.prices)]
        if isinstance(model.prices, Source)
        else [(item.constraint, item.prices) for item in model.prices]
    )
    found: list[dict[str, Any]] = []
    for constraint, price in conditional:
        if constraint is not None and not isinstance(constraint, StartDateConstraint):
            return []
        rates = _compile_rates(price)
        if rates is None:
            return []
        found.append({"from": constraint.start_date.isoformat() if constraint else None, "rates": rates})
    # The first entry holds when no condition does, whatever its own says (genai-prices, `get_prices`).
    if found:
        found[0]["from"] = None
    return found


def _compile_rates(price: Any) -> dict[str, Any] | None:
    rates: dict[str, Any] = {}
    for kind in _KINDS:
        value = getattr(price, f"{kind}_mtok")
        if value is None:
            continue
        if isinstance(value, Decimal):
            base, tiers = _nano(value), []
        else:
            base, tiers = _nano(value.base), [[tier.start, _nano(tier.price)] for tier in value.tiers]
        if base is None or any(rate is None for _, rate in tiers):
            return None
        rates[kind] = {"base": base, "tiers": tiers}
    return rates if {"input", "output"} <= rates.keys() else None


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


def _version() -> str:
    from importlib.metadata import version

    return version("genai-prices")


class PriceBook:
    """The table of this installation: from its cache in the state folder, else compiled.

    Loading starts in the background, so that start-up does not wait for it; `find` does.
    """

    def __init__(self, folder: Path | None, *, compiler: Callable[[], dict[str, Any]] = compile_table) -> None:
        self._folder = folder
        self._compiler = compiler
        self._table: PriceTable | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._load, name="vestibule-prices", daemon=True)
        self._thread.start()

    @property
    def table(self) -> PriceTable:
        """Raises `DependencyDown("prices")`."""
        self._thread.join()
        if self._table is None:
            raise DependencyDown(
                "prices",
                "There is no price table, so that no request can be counted against a budget.",
                fact=str(self._error)[:200],
                agent="Stop here; model requests cannot be paid for until a person repairs the installation.",
                person="Install vestibule again (it needs its genai-prices package), then repeat the run.",
            )
        return self._table

    def find(self, model: str, at: datetime) -> ModelPrice | None:
        return self.table.find(model, at)

    def _load(self) -> None:
        try:
            self._table = self._from_cache() or self._compiled()
        except Exception as error:  # noqa: BLE001 whatever it was: no table, which `table` turns into a refusal
            self._error = error

    def _cache(self) -> Path | None:
        return self._folder / f"prices-{FORM}-{_version()}.json" if self._folder else None

    def _from_cache(self) -> PriceTable | None:
        path = self._cache()
        try:
            return PriceTable(json.loads(path.read_bytes())) if path else None
        except (OSError, ValueError, KeyError, AttributeError):
            return None

    def _compiled(self) -> PriceTable:
        data = self._compiler()
        table = PriceTable(data)
        path = self._cache()
        if path:
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                handle, name = tempfile.mkstemp(dir=path.parent)
                with os.fdopen(handle, "wb") as file:
                    file.write(canonical_json(data))
                os.replace(name, path)  # noqa: PTH105
            except OSError:
                return table  # a cache that cannot be written costs time, not truth
        return table


class FreePrices:
    """Prices of a scripted provider: what the named model would cost, else nothing, for its own models only."""

    def __init__(self, prices: Prices, models: tuple[str, ...]) -> None:
        self._prices = prices
        self._models = models

    def find(self, model: str, at: datetime) -> ModelPrice | None:
        found = self._prices.find(model, at)
        if found is None and model in self._models:
            return ModelPrice(model, {}, "scripted")
        return found
