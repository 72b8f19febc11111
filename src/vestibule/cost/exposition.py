"""Prometheus' text format, version 0.0.4, written from integers.

Rules it keeps:
1. A number is an integer of some small unit (nano-USD, milliseconds) and is written as the exact decimal; whoever reads
   it may make a float of it, we do not.
2. No label grows without bound: each has a table of so many values, first come, and the rest are `other`. The same
   history gives the same tables, so that a value keeps its label when the process is another.
3. A label value holds nothing that breaks a line or steers a terminal, and is bounded.

Source: Prometheus, "Exposition formats" (text-based format).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from vestibule.core.text.sanitize import one_line

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"
MAX_LABEL = 128
"""Characters of a label's value."""
_MOST_FOLDED = 1 << 16

Labels = tuple[str, ...]
"""One value for each label of the family, in its order."""


class Metric(NamedTuple):
    """A family. `places` are the decimal places that its integers have: 0 counts, 3 milliseconds, 9 nano-USD."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: Labels
    places: int
    help: str


class ValueTable:
    """The values that one label may take: so many, first come; `other` for the rest."""

    __slots__ = ("_folded", "_known", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[str, str] = {}
        self._folded: set[str] = set()

    def __call__(self, value: str) -> str:
        found = self._known.get(value)
        if found is not None:
            return found
        if len(self._known) < self._most:
            return self._known.setdefault(value, label_value(value))
        if len(self._folded) < _MOST_FOLDED:
            self._folded.add(value)
        return OTHER

    @property
    def folded(self) -> int:
        """How many values found no room, as far as they were counted."""
        return len(self._folded)


class Histogram:
    """Counts by upper bounds, in the family's small unit. The sum is exact."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def add(self, value: int) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


def label_value(value: str) -> str:
    """A label's value as it is shown: bounded, with nothing hidden in it."""
    return one_line(value, MAX_LABEL) or "none"


def decimal(value: int, places: int) -> str:
    """The exact decimal of `value` / 10^places."""
    if not places:
        return str(value)
    whole, rest = divmod(abs(value), 10**places)
    decimals = f"{rest:0{places}d}".rstrip("0")
    return f"{'-' if value < 0 else ''}{whole}{'.' if decimals else ''}{decimals}"


def written(families: Iterable[tuple[Metric, Mapping[Labels, int | Histogram]]]) -> str:
    """The page. A family without samples is left out: a name without a value says nothing."""
    return "".join(line + "\n" for metric, samples in families if samples for line in _family(metric, samples))


def _family(metric: Metric, samples: Mapping[Labels, int | Histogram]) -> Iterator[str]:
    yield f"# HELP {metric.name} {_escaped(metric.help)}"
    yield f"# TYPE {metric.name} {metric.kind}"
    for values in sorted(samples):
        sample = samples[values]
        labels = [f'{name}="{_quoted(value)}"' for name, value in zip(metric.labels, values, strict=True)]
        if isinstance(sample, int):
            yield f"{metric.name}{_braces(labels)} {decimal(sample, metric.places)}"
            continue
        count = 0
        for bound, number in zip(sample.bounds, sample.counts, strict=False):
            count += number
            yield f"{metric.name}_bucket{_braces([*labels, _le(decimal(bound, metric.places))])} {count}"
        count += sample.counts[-1]
        yield f"{metric.name}_bucket{_braces([*labels, _le('+Inf')])} {count}"
        yield f"{metric.name}_sum{_braces(labels)} {decimal(sample.total, metric.places)}"
        yield f"{metric.name}_count{_braces(labels)} {count}"


def _le(bound: str) -> str:
    return f'le="{bound}"'


def _braces(labels: list[str]) -> str:
    return "{" + ",".join(labels) + "}" if labels else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(value: str) -> str:
    return _escaped(value).replace('"', '\\"')


__all__ = [
    "CONTENT_TYPE",
    "OTHER",
    "Histogram",
    "Labels",
    "Metric",
    "ValueTable",
    "decimal",
    "label_value",
    "written",
]
