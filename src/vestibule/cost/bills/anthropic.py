"""Anthropic's Admin API: messages usage report and cost report.

Sources: platform.claude.com/docs, "Get Messages Usage Report" and "Get Cost Report". Amounts are decimal strings in
cents. A usage report has to be grouped by model; a cost report by description, which carries the model.
"""

from __future__ import annotations

from typing import Any

from vestibule.cost.bills.base import (
    EVERY_MODEL,
    BadReport,
    Bill,
    count,
    day_of,
    finished,
    loads,
    mapping,
    nano,
    rfc3339,
    sequence,
    whole,
    word,
)


def read(data: bytes) -> Bill:
    """The bill in a report of either kind. Raises `BadReport`."""
    report = mapping(loads(data), "the report")
    whole(report)
    bill = Bill()
    for index, item in enumerate(sequence(report.get("data"), "data")):
        place = f"data[{index}]"
        bucket = mapping(item, place)
        day = day_of(rfc3339(bucket, "starting_at", place), rfc3339(bucket, "ending_at", place), place)
        bill.days.add(day)
        for number, line in enumerate(sequence(bucket.get("results"), f"{place}.results")):
            _line(bill, day, mapping(line, f"{place}.results[{number}]"), f"{place}.results[{number}]")
    return finished(bill)


def _line(bill: Bill, day: str, line: dict[str, Any], place: str) -> None:
    model = word(line, "model", place)
    if "amount" in line:
        if line.get("currency") != "USD":
            raise BadReport(f"{place}.currency is not USD")
        amount = nano(line["amount"], f"{place}.amount", cents=True)
        if word(line, "cost_type", place) in (None, "tokens"):
            bill.add_money((day, model or EVERY_MODEL), amount)
        else:
            bill.other_nano_usd += amount
        return
    if model is None:
        raise BadReport(f"{place}.model is missing; group the report by model")
    written = line.get("cache_creation")
    parts = mapping(written, f"{place}.cache_creation") if written is not None else {}
    bill.add_tokens(
        (day, model),
        {
            "input": count(line, "uncached_input_tokens", place),
            "cache_read": count(line, "cache_read_input_tokens", place),
            "cache_write": count(parts, "ephemeral_5m_input_tokens", f"{place}.cache_creation", needed=False)
            + count(parts, "ephemeral_1h_input_tokens", f"{place}.cache_creation", needed=False),
            "output": count(line, "output_tokens", place),
        },
    )
