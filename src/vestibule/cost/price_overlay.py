"""Prices that the compiled table lacks, or that a contract says otherwise: shipped overlay and operator's files.

Rules it keeps:
1. Strict YAML, amounts from the scalar's text, never by a float; unknown keys are errors.
2. A price of zero is said, with `basis: self-hosted`; nothing else is free.
3. A file's digest is part of the price table's, and so of every spend record.
"""

from __future__ import annotations

from datetime import date
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from vestibule.config.load import validate
from vestibule.config.parts import Names, NanoUsd, Strict, as_tuple
from vestibule.config.strict_yaml import parse
from vestibule.core.canonical import digest_bytes
from vestibule.core.errors import ConfigError

SHIPPED = "prices_overlay.yaml"
MAX_BYTES = 1 << 20


class Above(Strict):
    """What a whole request costs once its input, caches included, is above `tokens`."""

    tokens: Annotated[int, Field(gt=0)]
    input: NanoUsd
    output: NanoUsd
    cache_read: NanoUsd | None = None
    cache_write: NanoUsd | None = None
    cache_write_1h: NanoUsd | None = None


class PriceEntry(Strict):
    """One price: US dollars per million tokens. `models` are globs over names as the provider knows them."""

    provider: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]
    """A provider of `models:`, or a list of prices by name, such as `watsonx`."""
    models: Annotated[Names, Field(min_length=1)]
    since: str | None = None
    """The day (UTC) from which it holds, in quotes: "2026-06-01"."""
    basis: Literal["list", "contract", "self-hosted"]
    source: Annotated[str, Field(min_length=1, max_length=500)]
    """Where the numbers come from."""
    input: NanoUsd
    output: NanoUsd
    cache_read: NanoUsd | None = None
    cache_write: NanoUsd | None = None
    cache_write_1h: NanoUsd | None = None
    above: Annotated[tuple[Above, ...], BeforeValidator(as_tuple)] = ()

    @field_validator("since")
    @classmethod
    def _day(cls, value: str | None) -> str | None:
        # One spelling for each day: entries are ordered by it as text, and no day may stand twice.
        if value is not None and date.fromisoformat(value).isoformat() != value:
            raise ValueError("write the day as 2026-06-01")
        return value

    @model_validator(mode="after")
    def _says_what_is_free(self) -> PriceEntry:
        amounts = [self.input, self.output, *(amount for step in self.above for amount in (step.input, step.output))]
        if self.basis != "self-hosted" and not all(amounts):
            raise ValueError("a price of zero needs `basis: self-hosted`")
        starts = [step.tokens for step in self.above]
        if starts != sorted(set(starts)):
            raise ValueError("`above` rises from entry to entry")
        return self

    def rates(self) -> dict[str, Any]:
        """In the compiled table's form."""
        found: dict[str, Any] = {}
        for kind in ("input", "cache_read", "cache_write", "cache_write_1h", "output"):
            base = getattr(self, kind)
            tiers = [[step.tokens, getattr(step, kind)] for step in self.above]
            if base is None and all(rate is None for _, rate in tiers):
                continue
            # A kind that has a price in some steps only costs fresh input's in the others.
            found[kind] = {
                "base": self.input if base is None else base,
                "tiers": [[start, self._step(start).input if rate is None else rate] for start, rate in tiers],
            }
        return found

    def _step(self, tokens: int) -> Above:
        return next(step for step in self.above if step.tokens == tokens)


class PriceFile(Strict):
    version: Literal[1]
    prices: Annotated[tuple[PriceEntry, ...], BeforeValidator(as_tuple), Field(max_length=2000)]

    @model_validator(mode="after")
    def _each_once(self) -> PriceFile:
        seen: set[tuple[str, str, str]] = set()
        for entry in self.prices:
            for model in entry.models:
                key = (entry.provider, model.lower(), entry.since or "")
                if key in seen:
                    raise ValueError(f"{entry.provider}/{model} has two prices from the same day")
                seen.add(key)
        return self


def overlay(data: bytes, name: str) -> dict[str, Any]:
    """A price file as plain data: its digest, and its entries by provider. Raises `ConfigError`."""
    if len(data) > MAX_BYTES:
        raise ConfigError("the price file is larger than 1 MiB", where=name)
    found = validate(PriceFile, parse(data, name))
    entries: dict[str, list[dict[str, Any]]] = {}
    for entry in found.prices:
        item = {"models": [model.lower() for model in entry.models], "from": entry.since, "rates": entry.rates()}
        entries.setdefault(entry.provider, []).append(item)
    # The last that holds counts, so those without a day come first.
    for items in entries.values():
        items.sort(key=lambda item: item["from"] or "")
    return {"file": digest_bytes(data), "providers": entries}


def overlays(files: tuple[Path, ...]) -> list[dict[str, Any]]:
    """The operator's files in their order, then the shipped one: the first that knows a model counts.

    Raises:
        ConfigError: exit 2: a file cannot be read, or says something impossible.
    """
    found = []
    for path in files:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"the price file cannot be read: {error.strerror}", where=str(path)) from None
        found.append(overlay(data, str(path)))
    shipped = resources.files("vestibule.cost").joinpath(SHIPPED).read_bytes()
    return [*found, overlay(shipped, SHIPPED)]
