"""Spend as FOCUS 1.2 cost and usage rows (FinOps Open Cost and Usage Specification), written as CSV.

Rules it keeps:
1. The sum of `BilledCost` is the ledger's, to the nano-dollar: amounts are decimals of integers, rows are only sums.
2. What is not known is empty: there are no unit prices here, for a request mixes kinds of tokens at several rates; so
   list, contracted and effective cost are the billed one (FOCUS 1.2, ListCost: without a unit price it matches it).
3. No cell begins a formula in a spreadsheet (CWE-1236), and none holds what is not seen.
4. Costs that are an upper bound (the provider told no usage) are rows of their own, marked `x_Estimated`.

A row is the spend of one UTC day, run, agent version, model and price table.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, timedelta
from typing import NamedTuple

from vestibule.core.money import plain_usd
from vestibule.core.text.sanitize import one_line
from vestibule.cost.spend import KINDS, Spend

VERSION = "1.2"
COLUMNS = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "Tags",
    "x_Estimated",
    "x_Requests",
    "x_InputTokens",
    "x_CacheReadTokens",
    "x_CacheWrite5mTokens",
    "x_CacheWrite1hTokens",
    "x_OutputTokens",
    "x_EstimatedTokens",
    "x_PriceTable",
)
"""All mandatory columns of FOCUS 1.2, the conditional ones that apply, and ours (`x_`)."""
_MARKET = {
    "anthropic": "Anthropic",
    "openai": "OpenAI",
    "azure": "Microsoft",
    "gemini": "Google Cloud",
    "vertex": "Google Cloud",
    "watsonx": "IBM",
}
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
MAX_CELL = 8_000

RunTags = Callable[[str], Mapping[str, str]]
"""A run's further tags: requester, pull_request, …; looked up once for each run."""


class _Key(NamedTuple):
    day: str
    run: str
    agent: str
    agent_version: str
    role: str
    repository: str
    provider: str
    model: str
    prices: str
    estimated: bool


def focus_csv(spends: Iterable[Spend], tags: RunTags, *, account: str = "") -> Iterator[str]:
    """Lines of the CSV (RFC 4180, UTF-8), the header first. `account` names the billing account of all rows; without
    it each provider is one. Held requests are no charges yet and are left out."""
    yield _line(COLUMNS)
    for row in focus_rows(spends, tags, account=account):
        yield _line([safe_cell(row[name]) for name in COLUMNS])


def focus_rows(spends: Iterable[Spend], tags: RunTags, *, account: str = "") -> Iterator[dict[str, str]]:
    """The same as mappings, one row each, ordered by day and run."""
    sums: dict[_Key, list[int]] = {}
    for spend in spends:
        if spend.state == "held":
            continue
        key = _Key(
            spend.day,
            spend.run,
            spend.agent,
            spend.agent_version,
            spend.role,
            spend.repository,
            spend.provider,
            spend.model,
            spend.prices,
            spend.state == "charged",
        )
        found = sums.setdefault(key, [0] * (2 + len(KINDS)))
        for index, number in enumerate((spend.usage.cost_nano_usd, spend.usage.requests, *spend.tokens)):
            found[index] += number
    known: dict[str, Mapping[str, str]] = {}
    for key in sorted(sums):
        if key.run not in known:
            known[key.run] = tags(key.run)
        yield _row(key, sums[key], known[key.run], account)


def _row(key: _Key, sums: list[int], more: Mapping[str, str], account: str) -> dict[str, str]:
    cost, requests, *kinds = sums
    amount, quantity = plain_usd(cost), str(sum(kinds))
    day = date.fromisoformat(key.day)
    month = day.replace(day=1)
    market = _MARKET.get(key.provider, key.provider)
    tags = {
        "agent": key.agent,
        "agent_version": key.agent_version,
        "role": key.role,
        "task": key.run,
        "repository": key.repository,
        **{name: value for name, value in more.items() if value},
    }
    return {
        "BilledCost": amount,
        "BillingAccountId": account or key.provider,
        "BillingAccountName": account or market,
        "BillingCurrency": "USD",
        "BillingPeriodEnd": _moment((month + timedelta(days=32)).replace(day=1)),
        "BillingPeriodStart": _moment(month),
        "ChargeCategory": "Usage",
        "ChargeClass": "",
        "ChargeDescription": f"Tokens of {key.model} for {key.agent} in run {key.run}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": _moment(day + timedelta(days=1)),
        "ChargePeriodStart": _moment(day),
        "ConsumedQuantity": quantity,
        "ConsumedUnit": "Tokens",
        "ContractedCost": amount,
        "EffectiveCost": amount,
        "InvoiceIssuerName": market,
        "ListCost": amount,
        "PricingCategory": "Standard",
        "PricingQuantity": quantity,
        "PricingUnit": "Tokens",
        "ProviderName": market,
        "PublisherName": market,
        "ResourceId": f"{key.provider}/{key.model}",
        "ResourceName": key.model,
        "ResourceType": "Model",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": f"{market} models",
        "ServiceSubcategory": "Generative AI",
        "SkuId": f"{key.provider}/{key.model}",
        "SkuMeter": "Tokens",
        "SkuPriceId": f"{key.provider}/{key.model}@{key.prices.removeprefix('sha256:')[:16]}",
        "SubAccountId": key.repository,
        "SubAccountName": key.repository,
        "Tags": json.dumps(tags, ensure_ascii=True, sort_keys=True),
        "x_Estimated": "true" if key.estimated else "false",
        "x_Requests": str(requests),
        "x_InputTokens": str(kinds[0]),
        "x_CacheReadTokens": str(kinds[1]),
        "x_CacheWrite5mTokens": str(kinds[2]),
        "x_CacheWrite1hTokens": str(kinds[3]),
        "x_OutputTokens": str(kinds[4]),
        "x_EstimatedTokens": str(kinds[5]),
        "x_PriceTable": key.prices,
    }


def safe_cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: a quotation mark before what could begin one."""
    shown = one_line(text, MAX_CELL)
    return "'" + shown if shown.lstrip().startswith(_FORMULA) else shown


def _moment(day: date) -> str:
    return f"{day.isoformat()}T00:00:00Z"


def _line(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue()


__all__ = ["COLUMNS", "VERSION", "focus_csv", "focus_rows", "safe_cell"]
