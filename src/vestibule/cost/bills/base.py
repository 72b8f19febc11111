"""What every provider's report becomes: billed tokens and money, by UTC day and model.

Rules the readers keep:
1. A field that is missing, of another type, negative or doubled is an error that names its place; nothing is guessed.
2. Amounts are read from their digits, never through a float.
3. A report that is one page of several is refused: half a bill matches nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from vestibule.core.errors import UsageError

MAX_BYTES = 64 << 20
MAX_COUNT = 1 << 50
NANO = Decimal(10) ** 9
EVERY_MODEL = ""
"""The model of a line that the report does not break down."""
Where = tuple[str, str]
"""(UTC day, model)."""


@dataclass(slots=True)
class Bill:
    """Sums of a report. What it does not speak of is None as a whole: tokens in a cost report, money in a usage one.

    Token kinds: `input` (fresh), `cache_read`, `cache_write`, `output`.
    """

    tokens: dict[Where, dict[str, int]] | None = None
    nano_usd: dict[Where, int] | None = None
    other_nano_usd: int = 0
    """Billed for things that are not tokens, such as searches."""
    days: set[str] = field(default_factory=set)
    """Days that the report covers, those without use included."""

    def add_tokens(self, where: Where, counts: Mapping[str, int]) -> None:
        found = (self.tokens if self.tokens is not None else {}).setdefault(where, {})
        if self.tokens is None:
            self.tokens = {where: found}
        for kind, number in counts.items():
            found[kind] = found.get(kind, 0) + number

    def add_money(self, where: Where, nano: int) -> None:
        if self.nano_usd is None:
            self.nano_usd = {}
        self.nano_usd[where] = self.nano_usd.get(where, 0) + nano


class BadReport(UsageError):
    """The file is no such report."""

    def __init__(self, why: str) -> None:
        super().__init__(
            "The provider's report cannot be read.",
            why=why,
            next_step="Fetch it again from the provider's usage or cost API, all pages, and name its --provider.",
        )


def loads(data: bytes) -> Any:
    """JSON with amounts as `Decimal`. Raises `BadReport`."""
    if len(data) > MAX_BYTES:
        raise BadReport(f"it is larger than {MAX_BYTES >> 20} MiB")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands twice")
        return found

    def constant(text: str) -> Any:
        raise ValueError(f"{text} is no number")

    try:
        return json.loads(data.decode("utf-8"), parse_float=Decimal, parse_constant=constant, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise BadReport(f"it is no JSON ({error})") from None


def mapping(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadReport(f"{place} is no object")
    return value


def sequence(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadReport(f"{place} is no list")
    return value


def count(found: Mapping[str, Any], name: str, place: str, *, needed: bool = True) -> int:
    """A number of tokens. Where it is not `needed`, missing or null is 0."""
    value = found.get(name)
    if value is None and not needed:
        return 0
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise BadReport(f"{place}.{name} is no number of tokens: {_shown(value)}")
    return value


def word(found: Mapping[str, Any], name: str, place: str) -> str | None:
    value = found.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value or len(value) > 200:
        raise BadReport(f"{place}.{name} is no name: {_shown(value)}")
    return value


def nano(value: Any, place: str, *, cents: bool) -> int:
    """Nano-USD of a decimal number or its text, rounded to the nearest: providers print more places than they bill."""
    try:
        amount = Decimal(value) if isinstance(value, (str, int)) and type(value) is not bool else value
        if not isinstance(amount, Decimal) or not amount.is_finite() or abs(amount) > 10**12:
            raise ValueError
        return int((amount * NANO / (100 if cents else 1)).to_integral_value())
    except (ValueError, ArithmeticError):
        raise BadReport(f"{place} is no amount: {_shown(value)}") from None


def day_of(moment: datetime, end: datetime, place: str) -> str:
    """The UTC day of a bucket, which may not reach into another."""
    if end <= moment:
        raise BadReport(f"{place} ends before it begins")
    if (end - timedelta(microseconds=1)).date() != moment.date():
        raise BadReport(f"{place} is longer than one UTC day; ask for buckets of a day or less")
    return moment.date().isoformat()


def rfc3339(found: Mapping[str, Any], name: str, place: str) -> datetime:
    value = found.get(name)
    try:
        if not isinstance(value, str):
            raise ValueError
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadReport(f"{place}.{name} is no time with a zone: {_shown(value)}") from None


def unix(found: Mapping[str, Any], name: str, place: str) -> datetime:
    value = found.get(name)
    if type(value) is not int or not 0 <= value < 1 << 34:
        raise BadReport(f"{place}.{name} is no time: {_shown(value)}")
    return datetime.fromtimestamp(value, UTC)


def whole(report: Mapping[str, Any]) -> None:
    """Refuses a page that is not the last."""
    if report.get("has_more") is not False:
        raise BadReport("it is one page of several (has_more); join the pages' `data` and set has_more to false")


def finished(bill: Bill) -> Bill:
    """The bill, if it covers something and speaks of one thing: tokens or money."""
    if bill.tokens is not None and bill.nano_usd is not None:
        raise BadReport("it mixes usage and cost lines")
    if not bill.days:
        raise BadReport("it covers no day")
    if bill.tokens is None and bill.nano_usd is None:
        bill.tokens = {}  # days on which nothing was used
    return bill


def _shown(value: Any) -> str:
    return repr(value)[:80]
