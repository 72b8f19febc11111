"""Traces of spend for the spike detector, made from a seed; run as a program it prints the page's tables."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vestibule.cost.spikes import BASELINE_HOURS, SLOT_SECONDS, WEEK_HOURS, Cell, Reading, Terms, hour_of, judge

START = 1_767_571_200
"""2026-01-05T00:00Z, a Monday."""
HOUR = 3600
NANO = 1_000_000_000
PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "spend-spikes.md"
SEEDS = 8
MARK = "<!-- measured by tests/unit/cost/spend_traces.py -->"


@dataclass(frozen=True)
class Spend:
    """One settled request."""

    at: int
    version: str
    run: str
    nano_usd: int


@dataclass
class Sums:
    """The detector's sums, filled one request at a time as the ledger's are."""

    hours: dict[int, dict[tuple[str, str], int]] = field(default_factory=dict)
    slots: dict[tuple[str, int], int] = field(default_factory=dict)
    _closed: tuple[int, list[Cell]] = (0, [])

    def add(self, spend: Spend) -> None:
        row = self.hours.setdefault(hour_of(spend.at), {})
        row[spend.version, spend.run] = row.get((spend.version, spend.run), 0) + spend.nano_usd
        slot = (spend.version, spend.at // SLOT_SECONDS)
        self.slots[slot] = self.slots.get(slot, 0) + spend.nano_usd

    def read(self, version: str, at: int, terms: Terms, accepted: int | None = None) -> Reading:
        hour = hour_of(at)
        if self._closed[0] != hour:
            near = range(hour - 2 * BASELINE_HOURS + 1, hour)
            week = range(hour - WEEK_HOURS - 1, hour - WEEK_HOURS + 2)
            self._closed = hour, [cell for number in (*week, *near) for cell in self._cells(number)]
        slot = at // SLOT_SECONDS
        recent = {number: self.slots.get((version, number), 0) for number in (slot - 1, slot)}
        cells = [*self._closed[1], *self._cells(hour)]
        return judge(cells, version, at=at, recent=recent, terms=terms, accepted=accepted)

    def _cells(self, hour: int) -> list[Cell]:
        found = self.hours.get(hour, {})
        return [Cell(version=version, run=run, hour=hour, nano_usd=spent) for (version, run), spent in found.items()]


def two_versions(factor: str, seed: int, *, beside: bool, usd_per_hour: int = 12) -> Iterator[Spend]:
    """48 hours: A alone for a day; then B, dearer by `factor` a run, beside it or in its place.

    Runs come as people start them, four an hour on average, each with a price of its own (a spread of about 30 %).
    """
    rng = random.Random(seed)
    percent = int(factor.replace(".", "").ljust(3, "0")) if "." in factor else int(factor) * 100
    number = 0
    found = []
    for hour in range(48):
        for _ in range(rng.randint(3, 5)):
            number += 1
            version = "A"
            if hour >= 24 and (not beside or rng.random() < 0.5):
                version = "B"
            price = max(1, int(rng.gauss(1.0, 0.3) * usd_per_hour * NANO / 4))
            price = max(price, NANO // 10)
            if version == "B":
                price = price * percent // 100
            found += requests(rng, START + hour * HOUR, version, f"r{number}", price)
    yield from sorted(found, key=lambda item: item.at)


def requests(rng: random.Random, begin: int, version: str, run: str, price: int) -> list[Spend]:
    """A run's requests within an hour: eight, one every few minutes."""
    offset = rng.randint(0, 20 * 60)
    step = rng.randint(60, 280)
    return [Spend(begin + offset + step * turn, version, run, price // 8) for turn in range(8)]


def office(seed: int, days: int = 28) -> Iterator[Spend]:
    """CI of a team, one version all along: busy on weekdays, bursts of pipelines, nights with a few scheduled runs.

    The price of a run is log-normal (a few runs cost ten times the median), as agents' runs are.
    """
    rng = random.Random(seed)
    number = 0
    for hour in range(days * 24):
        day, clock = (hour // 24) % 7, hour % 24
        busy = day < 5 and 8 <= clock < 19
        mean = 9.0 if busy else 1.5 if day < 5 else 0.6
        if busy and rng.random() < 0.08:
            mean *= 4  # a release, a batch of dependency updates
        found: list[Spend] = []
        for _ in range(poisson(rng, mean)):
            number += 1
            price = int(rng.lognormvariate(0.0, 0.7) * 1.5 * NANO)
            found += requests(rng, START + hour * HOUR, "A", f"r{number}", price)
        yield from sorted(found, key=lambda item: item.at)


def poisson(rng: random.Random, mean: float) -> int:
    count, left = 0, rng.expovariate(1.0)
    while left < mean:
        count += 1
        left += rng.expovariate(1.0)
    return count


@dataclass
class Told:
    """What a replay said: the first alert and pause of each version (hours since the trace began), and how many."""

    alerts: dict[str, int] = field(default_factory=dict)
    pauses: dict[str, int] = field(default_factory=dict)
    readings: int = 0
    episodes: int = 0
    """Alerts, with six quiet hours after each."""
    early: int = 0
    """Those of the first week, when no week before it is known."""
    paused: int = 0
    """Pauses, counted likewise."""


def replay(trace: Iterator[Spend], terms: Terms, quiet_hours: int = 6) -> Told:
    """Read after each request, as the settlements of the ledger do."""
    told, sums = Told(), Sums()
    last: dict[str, int] = {}
    stopped: dict[str, int] = {}
    for spend in trace:
        sums.add(spend)
        told.readings += 1
        level = sums.read(spend.version, spend.at, terms).level
        minutes = (spend.at - START) // 60
        if level == "none":
            continue
        told.alerts.setdefault(spend.version, minutes)
        if spend.at - last.get(spend.version, 0) >= quiet_hours * HOUR:
            last[spend.version] = spend.at
            told.episodes += 1
            told.early += minutes < 7 * 24 * 60
        if level == "pause":
            told.pauses.setdefault(spend.version, minutes)
            if spend.at - stopped.get(spend.version, 0) >= quiet_hours * HOUR:
                stopped[spend.version] = spend.at
                told.paused += 1
    return told


def tables() -> str:
    """What the page tells, measured now. Deterministic: seeds and whole numbers."""
    first = (
        "version B's price a run",
        "comes",
        "traces",
        "alerts of B",
        "first alert (median)",
        "pauses of B",
        "first pause (median)",
        "alerts of A",
    )
    second = (
        "weeks of a team's CI, one version",
        "requests",
        "false alerts",
        "of them in the first week",
        "false pauses",
    )
    lines = head(first)
    for factor in ("1", "1.3", "3"):
        for beside in (False, True):
            told = [replay(two_versions(factor, seed, beside=beside), Terms()) for seed in range(SEEDS)]
            alerts = [item.alerts["B"] - 24 * 60 for item in told if "B" in item.alerts]
            pauses = [item.pauses["B"] - 24 * 60 for item in told if "B" in item.pauses]
            lines.append(
                f"| {factor} times | {'beside A' if beside else 'in its place'} | {SEEDS} | {len(alerts)} | "
                f"{after(alerts)} | {len(pauses)} | {after(pauses)} | {sum('A' in item.alerts for item in told)} |"
            )
    lines += ["", *head(second)]
    for seed in range(2):
        item = replay(office(seed), Terms())
        lines.append(f"| 4 (trace {seed + 1}) | {item.readings} | {item.episodes} | {item.early} | {item.paused} |")
    return "\n".join(lines)


def head(names: tuple[str, ...]) -> list[str]:
    return [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]


def after(minutes: list[int]) -> str:
    if not minutes:
        return "–"
    found = int(statistics.median_low(minutes))
    return f"{found} min" if found < 180 else f"{found // 60} h"


def filled(text: str) -> str:
    """The page with the tables as measured now."""
    before, _, rest = text.partition(MARK)
    _, end, tail = rest.partition("<!-- end -->")
    return f"{before}{MARK}\n{tables()}\n{end}{tail}"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
