"""When spend of one agent version is an alarm: pure functions over sums per hour, integers only.

Rules it keeps:
1. The same sums, terms and moment give the same reading: nothing is read, no clock, no floats. What the running sums
   say and what the ledger's records say is judged alike (`cost.spend_watch`).
2. A version is measured against its own last 24 hours once it has them; before that, against what the same agent's
   other versions spent in the 24 hours before it came. What nothing can be compared with raises nothing.
3. Two measures, either of which alerts: spend per hour (more is spent) and spend per run and hour (each run is
   dearer, however many there are). Both ask for a ratio, an amount, and more than the baseline's own unrest.
4. A pause asks for more than an alert, all of it: runs that are dearer by a ratio, several of them, an amount within
   the hour, and a speed. More runs of the same price never pause: they are work that somebody asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from vestibule.core.base import Noun

SLOT_SECONDS = 600
"""Spend is summed in slots of ten minutes: six an hour; two of them tell the speed."""
BASELINE_HOURS = 24
WEEK_HOURS = 168
RUN_WINDOWS = (1, 6, 24)
"""Hours over which the price of a run is averaged: a small rise shows in many runs, a large one in few."""

Level = Literal["none", "alert", "pause"]
Measure = Literal["hour", "run"]


class Terms(Noun):
    """From `spend:` of the operator's configuration. Ratios are in percent of the moving average."""

    alert_percent: int = 10
    """How far over the moving average is an alert: 10 is 110 %."""
    pause_percent: int = 200
    """From which ratio on a pause is due: 200 is twice the moving average."""
    pause_floor_nano_usd: int = 10_000_000_000
    pause_nano_usd_per_minute: int = 250_000_000
    pause_runs: int = 2
    """How many run-hours of the window must have been dearer, on average: one dear run is a hard task."""
    minimum_nano_usd: int = 1_000_000_000
    """What must have been spent beyond the average before anything is said."""
    minimum_hours: int = 12
    """Hours (and runs) that a baseline needs."""
    noise: int = 6
    """How many mean deviations of the baseline an excess must exceed."""


class Cell(NamedTuple):
    """What one run of one version spent in one hour. `hour` counts from 1970-01-01T00Z."""

    version: str
    run: str
    hour: int
    nano_usd: int


class Evidence(Noun):
    """Why a reading says what it says: figures for the log and for people. Times are hours since 1970."""

    measure: Measure
    against: str
    """`own`, or `agent`: the other versions of the same agent."""
    versions: tuple[str, ...] = ()
    """The versions that the baseline is of."""
    window_hours: int
    spent_nano_usd: int
    units: int
    """Hours, or run-hours, of the window."""
    baseline_nano_usd: int
    baseline_units: int
    baseline_hours: int
    percent: int
    """Of the moving average: 130 is 1.3 times."""
    hour_nano_usd: int = 0
    """Spent in the hour that is under way."""
    nano_usd_per_minute: int = 0


class Reading(Noun):
    """What the sums say of one version at one moment. `evidence` is the strongest measure that spoke."""

    version: str
    hour: int
    level: Level = "none"
    evidence: Evidence | None = None


def hour_of(unix_seconds: int) -> int:
    return unix_seconds // 3600


def slot_of(unix_seconds: int) -> int:
    return unix_seconds // SLOT_SECONDS


def judge(
    cells: Sequence[Cell],
    version: str,
    *,
    at: int,
    recent: Mapping[int, int],
    terms: Terms,
    accepted: int | None = None,
) -> Reading:
    """The reading of `version` at `at` (unix seconds).

    Args:
        cells: of the version's agent, all versions, the last 24 hours and one window before at least.
        recent: slot → nano-USD of this version, the present slot and the one before: its speed.
        accepted: unix seconds of a person's release, if there was one. Nothing up to that hour is held against the
            version again, and from then on it is measured against itself.
    """
    now = hour_of(at)
    reading = Reading(version=version, hour=now)
    own = [cell for cell in cells if cell.version == version and cell.hour <= now]
    if not own:
        return reading
    since = min(cell.hour for cell in own)
    if accepted is not None:
        since = max(since, hour_of(accepted) + 1)
    this_hour = sum(cell.nano_usd for cell in own if cell.hour == now)
    speed = _speed(recent, at)
    found = [
        evidence.model_copy(update={"hour_nano_usd": this_hour, "nano_usd_per_minute": speed})
        for evidence in _measured(cells, own, version, now, since, terms, own_only=accepted is not None)
    ]
    if not found:
        return reading
    fast = this_hour >= terms.pause_floor_nano_usd and speed >= terms.pause_nano_usd_per_minute
    grave = [
        item
        for item in found
        if fast and item.measure == "run" and item.units >= terms.pause_runs and item.percent >= terms.pause_percent
    ]
    level: Level = "pause" if grave else "alert"
    strongest = max(grave or found, key=lambda item: item.percent)
    return reading.model_copy(update={"level": level, "evidence": strongest})


def _measured(  # noqa: PLR0917 one call, named at it
    cells: Sequence[Cell],
    own: Sequence[Cell],
    version: str,
    now: int,
    since: int,
    terms: Terms,
    *,
    own_only: bool,
) -> list[Evidence]:
    """Each measure that is over."""
    found: list[Evidence] = []
    for window in RUN_WINDOWS:
        begin = now - window + 1
        if begin < since:
            continue
        observed = [cell for cell in own if begin <= cell.hour <= now]
        base, against, end = _baseline(cells, own, version, begin, own_only=own_only)
        if not base or not observed:
            continue
        first = min(cell.hour for cell in base)
        hours = end - first
        names = tuple(sorted({cell.version for cell in base}))
        common = {"against": against, "versions": names, "window_hours": window, "baseline_hours": hours}
        if hours < terms.minimum_hours:
            continue
        per_run = _over([cell.nano_usd for cell in observed], [cell.nano_usd for cell in base], terms)
        if per_run is not None and len(base) >= terms.minimum_hours:
            found.append(Evidence(measure="run", **common, **per_run))
        if window == 1:
            by_hour = _over([sum(cell.nano_usd for cell in observed)], _by_hour(base, first, end), terms)
            if by_hour is not None and not _as_last_week(cells, by_hour["spent_nano_usd"], now, terms):
                found.append(Evidence(measure="hour", **common, **by_hour))
    return found


def _baseline(
    cells: Sequence[Cell], own: Sequence[Cell], version: str, begin: int, *, own_only: bool
) -> tuple[list[Cell], str, int]:
    """The cells that a window from `begin` on is measured against, whose they are, and the hour in which they end."""
    mine = [cell for cell in own if begin - BASELINE_HOURS <= cell.hour < begin]
    came = min(cell.hour for cell in own)
    if not own_only and came > begin - BASELINE_HOURS:
        before = [cell for cell in cells if cell.version != version and came - BASELINE_HOURS <= cell.hour < came]
        if before:
            return before, "agent", came
    return mine, "own", begin


def _over(observed: Sequence[int], base: Sequence[int], terms: Terms) -> dict[str, int] | None:
    """The figures when the mean of `observed` is over that of `base` by all that is asked; None when not.

    Whole numbers throughout: means are compared by their products. The unrest of a mean of n values is the mean
    deviation of the baseline divided by the root of n, so both sides are squared.
    """
    spent, n, total, m = sum(observed), len(observed), sum(base), len(base)
    if total <= 0:
        return None
    excess = spent * m - total * n
    if excess <= 0 or spent * m * 100 <= total * n * (100 + terms.alert_percent):
        return None
    if excess < terms.minimum_nano_usd * m:
        return None
    deviations = sum(abs(value * m - total) for value in base) // m
    if excess * excess < terms.noise * terms.noise * deviations * deviations * n:
        return None
    return {
        "spent_nano_usd": spent,
        "units": n,
        "baseline_nano_usd": total,
        "baseline_units": m,
        "percent": spent * m * 100 // (total * n),
    }


def _by_hour(base: Sequence[Cell], first: int, end: int) -> list[int]:
    sums = dict.fromkeys(range(first, end), 0)
    for cell in base:
        sums[cell.hour] += cell.nano_usd
    return list(sums.values())


def _as_last_week(cells: Sequence[Cell], spent: int, now: int, terms: Terms) -> bool:
    """Whether the agent spent as much around this hour a week ago: then it is the week's rhythm."""
    around = [now - WEEK_HOURS + step for step in (-1, 0, 1)]
    sums = dict.fromkeys(around, 0)
    for cell in cells:
        if cell.hour in sums:
            sums[cell.hour] += cell.nano_usd
    return spent * 100 <= max(sums.values()) * (100 + terms.alert_percent)


def _speed(recent: Mapping[int, int], at: int) -> int:
    """Nano-USD a minute over the present slot and the one before it."""
    slot = slot_of(at)
    minutes = SLOT_SECONDS // 60 + max(1, (at - slot * SLOT_SECONDS) // 60)
    return (recent.get(slot - 1, 0) + recent.get(slot, 0)) // minutes
