"""OpenAI's administration API: completions usage and costs.

Sources: OpenAI API reference, "Completions usage object" and "Costs object". Input counts include what was read from or
written to the cache. A usage report has to be grouped by model; a cost report is by line item (`gpt-5, input`) or for
the day as a whole. Amounts are JSON numbers in US dollars.
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
    sequence,
    unix,
    whole,
    word,
)

USAGE = "organization.usage.completions.result"
COSTS = "organization.costs.result"


def read(data: bytes) -> Bill:
    """The bill in a report of either kind. Raises `BadReport`."""
    report = mapping(loads(data), "the report")
    if report.get("object") != "page":
        raise BadReport("its object is no page")
    whole(report)
    bill = Bill()
    for index, item in enumerate(sequence(report.get("data"), "data")):
        place = f"data[{index}]"
        bucket = mapping(item, place)
        day = day_of(unix(bucket, "start_time", place), unix(bucket, "end_time", place), place)
        bill.days.add(day)
        for number, line in enumerate(sequence(bucket.get("results"), f"{place}.results")):
            _line(bill, day, mapping(line, f"{place}.results[{number}]"), f"{place}.results[{number}]")
    return finished(bill)


def _line(bill: Bill, day: str, line: dict[str, Any], place: str) -> None:
    kind = line.get("object")
    if kind == COSTS:
        amount = mapping(line.get("amount"), f"{place}.amount")
        if str(amount.get("currency")).lower() != "usd":
            raise BadReport(f"{place}.amount.currency is not usd")
        item = word(line, "line_item", place) or EVERY_MODEL
        bill.add_money((day, item.partition(",")[0].strip()), nano(amount.get("value"), f"{place}.amount", cents=False))
        return
    if kind != USAGE:
        raise BadReport(f"{place}.object is neither {USAGE} nor {COSTS}")
    model = word(line, "model", place)
    if model is None:
        raise BadReport(f"{place}.model is missing; group the report by model")
    total = count(line, "input_tokens", place)
    read_again = count(line, "input_cached_tokens", place, needed=False)
    written = count(line, "input_cache_write_tokens", place, needed=False)
    if read_again + written > total:
        raise BadReport(f"{place}: more cached tokens than input tokens")
    bill.add_tokens(
        (day, model),
        {
            "input": total - read_again - written,
            "cache_read": read_again,
            "cache_write": written,
            "output": count(line, "output_tokens", place),
        },
    )
