"""Prices as integers: genai-prices compiled once per version of it, under a reviewed overlay and the operator's files.

Rules it keeps:
1. No floats: a rate is an integer number of nano-USD per million tokens, a cost an integer number of
   nano-USD, rounded up (never to the buyer's advantage).
2. An unknown model has no price; it never has the price zero.
3. The digest of the whole table, overlays included, goes into every spend record, so that a bill can be computed again.
4. A price belongs to whoever sells the model: at another provider the same name has another price, or none.

Kinds of tokens follow the provider's bill: fresh input, cache reads, cache writes (5 minutes, 1 hour), output.
A kind without a rate of its own costs what its parent kind costs (1 h write → write → input). A tier applies
to the whole request once its input, caches included, is *above* the threshold (genai-prices, "cliff" tiers).
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from vestibule.config.providers import Provider
from vestibule.core.canonical import canonical_json, digest_bytes
from vestibule.core.errors import DependencyDown
from vestibule.cost.price_overlay import overlays
from vestibule.cost.price_source import FORM, compile_apart, compile_table, version

MILLION = 1_000_000
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
    request: int = 0
    """Nano-USD of each request, whatever it uses: what the operator holds for a model without a price."""

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
        return -(-numerator // MILLION) + self.request

    def ceiling(self, all_input: int, output: int, *, hour_cache: bool = True) -> int:
        """Nano-USD that a request with at most so many tokens can cost, whatever kinds the input splits into.

        `hour_cache`: whether it may write caches that live an hour, the dearest kind.
        """
        kinds = ("input", "cache_read", "cache_write_5m", *(("cache_write_1h",) if hour_cache else ()))
        # A tier can in principle be cheaper than the base: every step up to the total counts.
        tiers = [start + 1 for rate in self.rates.values() for start, _ in rate.tiers if start < all_input]
        steps = {all_input, 0, *tiers} if tiers else (0,)
        dearest = max(self._rate(kind, step) for kind in kinds for step in steps)
        dearest_output = max(self._rate("output", step) for step in steps)
        return -(-(all_input * dearest + output * dearest_output) // MILLION) + self.request


class Prices(Protocol):
    """Where the gateway asks for prices."""

    def find(self, model: str, at: datetime, provider: str = "") -> ModelPrice | None:
        """None: unknown. `provider` is the operator's name of it, or of a price list; "": whoever makes the model.

        Raises `DependencyDown("prices")` when there is no table to ask.
        """
        ...


class PriceTable:
    """A compiled table with its overlays: plain integers, answers without genai-prices."""

    def __init__(self, data: Mapping[str, Any], overlays: Sequence[Mapping[str, Any]] = ()) -> None:
        if data.get("form") != FORM or not isinstance(data.get("providers"), dict):
            raise ValueError("not a compiled price table of this form")
        self.data = data
        self.overlays = tuple(overlays)
        self.source = str(data["source"])
        self.digest = digest_bytes(canonical_json({"table": data, "overlays": list(self.overlays)}))
        self._found: dict[tuple[str, date, tuple[str, ...], bool], ModelPrice | None] = {}

    def find(
        self, model: str, at: datetime, provider: str = "", *, also: Sequence[str] = (), batch: bool = False
    ) -> ModelPrice | None:
        """The model's rates at that time. Time of day does not matter: such prices are not compiled.

        `also` are further lists to look into, in order, each with its overlays first. `batch`: as part of a batch.
        """
        names = tuple(name for name in (provider, *also) if name)
        key = (model, at.astimezone(UTC).date(), names, batch)
        if key not in self._found:
            if len(self._found) > 1000:
                self._found.clear()
            self._found[key] = self._look_up(*key)
        return self._found[key]

    def seller(self, base_url: str) -> str:
        """The price list of who answers at that address; empty: nobody's that is known."""
        for name, provider in self.data["providers"].items():
            if provider["models"] and re.match(provider["api"], base_url):
                return str(name)
        return ""

    def _look_up(self, model: str, day: date, names: tuple[str, ...], batch: bool) -> ModelPrice | None:
        name = model.lower()
        if not names:
            makers = self.data["providers"].items()
            names = tuple(key for key, item in makers if item["makes"] and _matches(item["makes"], name))[:1]
        for provider in names:
            for item in self.overlays:
                rates = _overlaid(item["providers"].get(provider, ()), name, day)
                if rates is not None:
                    return ModelPrice(model, rates, self.digest)
        for provider in names:
            found = self._listed(provider, name, day, batch=batch)
            if found is not None:
                return found
        return None

    def _listed(self, provider: str, name: str, day: date, *, batch: bool) -> ModelPrice | None:
        entry = self.data["providers"].get(provider)
        if entry is None:
            return None
        spelled = _dashed(name)
        for candidate in (name,) if spelled == name else (name, spelled):
            for seller in (provider, *entry["also"]):
                for model in self.data["providers"].get(seller, {}).get("models", ()):
                    if _matches(model["match"], candidate):
                        return self._price(model, day, batch=batch)
        return None

    def _price(self, model: Mapping[str, Any], day: date, *, batch: bool) -> ModelPrice | None:
        chosen = _last(model["prices"], day)
        if chosen is None:
            return None
        rates = dict(chosen["rates"])
        if batch:
            changes = [item for item in model.get("batch", ()) if _holds(item, day)]
            if not changes:
                return None  # no price of its own is not the same price
            for item in reversed(changes):
                rates.update(item["rates"])
        return ModelPrice(str(model["id"]), _rates(rates), self.digest)


def _holds(item: Mapping[str, Any], day: date) -> bool:
    return item["from"] is None or day >= date.fromisoformat(item["from"])


def _last(items: Sequence[Mapping[str, Any]], day: date) -> Mapping[str, Any] | None:
    return next((item for item in reversed(items) if _holds(item, day)), None)


def _rates(rates: Mapping[str, Any]) -> dict[str, Rate]:
    return {
        kind: Rate(value["base"], tuple((start, rate) for start, rate in value["tiers"]))
        for kind, value in rates.items()
    }


def _overlaid(entries: Sequence[Mapping[str, Any]], name: str, day: date) -> dict[str, Rate] | None:
    fitting = [item for item in entries if any(fnmatch.fnmatchcase(name, glob) for glob in item["models"])]
    chosen = _last(fitting, day)
    return None if chosen is None else _rates(chosen["rates"])


_COMPACT = re.compile(r"-(20[0-9]{2})(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])(?=-|:|$)")


def _dashed(name: str) -> str:
    """`-20251211` as `-2025-12-11`: some lists write days so. Days that do not exist stay as they are."""

    def dashed(match: re.Match[str]) -> str:
        try:
            return f"-{date(int(match[1]), int(match[2]), int(match[3])).isoformat()}"
        except ValueError:
            return match[0]

    return _COMPACT.sub(dashed, name)


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


_SELLERS = {"anthropic": "anthropic", "azure": "azure", "gemini": "google", "vertex": "google", "watsonx": "watsonx"}
"""APIs that one seller has, whatever address the operator reaches it by."""


class PriceBook:
    """The table of this installation: from its cache in the state folder, else compiled; then the overlays.

    Loading starts in the background, so that start-up does not wait for it; `find` does.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        files: tuple[Path, ...] = (),
        providers: Mapping[str, Provider] | None = None,
        compiler: Callable[[], dict[str, Any]] = compile_apart,
    ) -> None:
        """`files` are the operator's. With `providers` a price is the one of the provider that is asked; without, that
        of whoever makes the model.

        Raises:
            ConfigError: a price file cannot be used.
        """
        self._overlays = overlays(files)
        self._providers = providers
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

    def find(self, model: str, at: datetime, provider: str = "") -> ModelPrice | None:
        table = self.table
        if self._providers is None:
            return table.find(model, at)
        config = self._providers.get(provider)
        if config is None:
            return None
        if config.api == "scripted":
            return table.find(model, at)
        seller = _SELLERS.get(config.api) or table.seller(config.base_url)
        return table.find(model, at, provider, also=(seller,) if seller else ())

    def _load(self) -> None:
        try:
            self._table = self._from_cache() or self._compiled()
        except Exception as error:  # noqa: BLE001 whatever it was: no table, which `table` turns into a refusal
            self._error = error

    def _cache(self) -> Path | None:
        return self._folder / f"prices-{FORM}-{version()}.json" if self._folder else None

    def _from_cache(self) -> PriceTable | None:
        path = self._cache()
        try:
            return PriceTable(json.loads(path.read_bytes()), self._overlays) if path else None
        except (OSError, ValueError, KeyError, AttributeError):
            return None

    def _compiled(self) -> PriceTable:
        data = self._compiler()
        table = PriceTable(data, self._overlays)
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

    def find(self, model: str, at: datetime, provider: str = "") -> ModelPrice | None:
        found = self._prices.find(model, at, provider)
        if found is None and model in self._models:
            return ModelPrice(model, {}, "scripted")
        return found


class CeilingPrices:
    """Prices of which those that are unknown are an amount for each request: the operator's `unknown_price_usd`."""

    def __init__(self, prices: Prices, nano_usd: int) -> None:
        self._prices = prices
        self._nano_usd = nano_usd

    def find(self, model: str, at: datetime, provider: str = "") -> ModelPrice | None:
        found = self._prices.find(model, at, provider)
        return found if found is not None else ModelPrice(model, {}, f"ceiling:{self._nano_usd}", self._nano_usd)


__all__ = [
    "CeilingPrices",
    "FreePrices",
    "ModelPrice",
    "PriceBook",
    "PriceTable",
    "Prices",
    "Rate",
    "Tokens",
    "compile_table",
]
