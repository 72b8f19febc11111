"""Numbers, dates, times and identifiers: what two spellings of one value have in common, and what is no sentence.

Rules this module keeps:
1. A word is a number only as a whole: a sign, ASCII digits with thousands commas in their places, a decimal point, and
   around it at most a currency sign, `%`, or the ending of an ordinal.
2. What belongs to a date, a time or a duration is no number of its own. A date is a date with its year; a day without
   a year is one too, and means any year that the text names.
3. What can be read in two ways (`03/04/2024`) is not read at all.
4. A moment is covered when its date is named and its time is named, or is a named time later by a named duration.
5. Shown as identifiers, data keeps its shape and loses every text that could say something: what remains is one word
   of ASCII letters, digits and joining marks, at most 64 characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

MAX_NUMBER_CHARS = 64
_NUMBER = re.compile(
    r"(?P<sign>[-+−]?)[$€£¥₹]?(?P<whole>\d{1,3}(?:,\d{3})+|\d{1,30})(?P<part>\.\d{1,30})?(?:[%€£¥₹$]|st|nd|rd|th)?\Z",
    re.ASCII,
)


def number_of(value: Any) -> Decimal | None:
    """A JSON number as it is written; None for NaN and the infinities."""
    try:
        found = Decimal(repr(value) if isinstance(value, float) else value)
    except (InvalidOperation, TypeError, ValueError):
        return None
    return found if found.is_finite() else None


def numbers_in(words: Collection[str]) -> frozenset[Decimal]:
    """The numbers among words."""
    found = (number_in(word) for word in words)
    return frozenset(number for number in found if number is not None)


def number_in(word: str) -> Decimal | None:
    """The number that a word is; None when it is something else."""
    match = _NUMBER.match(word) if len(word) <= MAX_NUMBER_CHARS else None
    if match is None:
        return None
    sign = "-" if match["sign"] in ("-", "−") and match["sign"] else ""
    return Decimal(f"{sign}{match['whole'].replace(',', '')}{match['part'] or ''}")


_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "january jan",
            "february feb",
            "march mar",
            "april apr",
            "may",
            "june jun",
            "july jul",
            "august aug",
            "september sept sep",
            "october oct",
            "november nov",
            "december dec",
        ),
        1,
    )
    for name in names.split()
}
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_ISO = re.compile(r"(?<![\w.-])(\d{4})-(\d{2})-(\d{2})(?=[^\w-]|T\d|$)", re.ASCII)
_DAY_FIRST = re.compile(
    rf"(?<![\w.-])(\d{{1,2}})(?:st|nd|rd|th)?(?: of)? ({_MONTH})\.?(?:,? (\d{{4}}))?(?!\w)", re.IGNORECASE | re.ASCII
)
_MONTH_FIRST = re.compile(
    rf"(?<!\w)({_MONTH})\.? (?:the )?(\d{{1,2}})(?:st|nd|rd|th)?(?:,? (\d{{4}}))?(?!\w)", re.IGNORECASE | re.ASCII
)
_CLOCK = re.compile(
    r"(?<![\w:.-])(?:\d{4}-\d{2}-\d{2}T)?([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?(?: ?([ap])\.?m\b)?(?![\w:])",
    re.IGNORECASE | re.ASCII,
)
_HOUR = re.compile(r"(?<![\w:.-])(1[0-2]|0?[1-9]) ?([ap])\.?m\b", re.IGNORECASE | re.ASCII)
_NAMED = re.compile(r"(?<!\w)(noon|midday|midnight)(?!\w)", re.IGNORECASE | re.ASCII)
_SPAN = re.compile(
    r"(?<![\w.])(\d{1,3}|an?|one|two|three|half an)[ -](hours?|minutes?|mins?)(?!\w)", re.IGNORECASE | re.ASCII
)
_COUNTS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3}
_MOMENT = re.compile(r"(?:(\d{4}-\d{2}-\d{2})(?:[T ](?=\d)|\Z))?(?:(\d{2}):(\d{2})(?::(\d{2}))?Z?)?\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Moment:
    """A date, a time of day, or both."""

    day: date | None
    clock: time | None


def moments_of(value: str) -> Moment | None:
    """A value in ISO 8601 form (`2024-05-15`, `10:30`, `2024-05-15T10:30`, with a space for T); None for others."""
    match = _MOMENT.match(value) if value and len(value) <= 32 else None
    if match is None:
        return None
    try:
        day = date.fromisoformat(match[1]) if match[1] else None
        clock = time(int(match[2]), int(match[3]), int(match[4] or 0)) if match[2] else None
    except ValueError:
        return None
    return Moment(day, clock)


@dataclass(frozen=True, slots=True)
class Moments:
    """The dates, days without a year, times and durations that texts name."""

    days: frozenset[date]
    loose: frozenset[tuple[int, int]]
    clocks: frozenset[time]
    spans: frozenset[timedelta]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Moments:
        days: set[date] = set()
        loose: set[tuple[int, int]] = set()
        clocks: set[time] = set()
        spans: set[timedelta] = set()
        for text in texts:
            plain = " ".join(text.split())
            _days(plain, days, loose)
            _clocks(plain, clocks)
            spans |= {_span(match[1].lower(), match[2].lower()) for match in _SPAN.finditer(plain)}
        return cls(frozenset(days), frozenset(loose), frozenset(clocks), frozenset(spans))

    def join(self, other: Moments) -> Moments:
        return Moments(
            self.days | other.days, self.loose | other.loose, self.clocks | other.clocks, self.spans | other.spans
        )

    def covers(self, moment: Moment) -> bool:
        """Whether the texts name the day, and the time or a time that a named duration later is this one."""
        if moment.day is not None and moment.day not in self.days and not self._in_named_year(moment.day):
            return False
        return moment.clock is None or moment.clock in self.clocks or self._later(moment.clock)

    def _in_named_year(self, day: date) -> bool:
        return (day.month, day.day) in self.loose and any(day.year == named.year for named in self.days)

    def _later(self, clock: time) -> bool:
        at = datetime.combine(date(2000, 1, 2), clock)
        return any((at - span).time() in self.clocks for span in self.spans)


def without_moments(text: str) -> str:
    """`text` with its dates, times and durations taken out: the 13 of `June 13` is a day, and no number."""
    plain = " ".join(text.split())
    for pattern in (_ISO, _DAY_FIRST, _MONTH_FIRST, _CLOCK, _HOUR, _SPAN):
        plain = pattern.sub(" … ", plain)
    return plain


def _day(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


def _days(text: str, days: set[date], loose: set[tuple[int, int]]) -> None:
    found = [(match[1], int(match[2]), match[3]) for match in _ISO.finditer(text)]
    found += [(match[3], _MONTHS[match[2].lower()], match[1]) for match in _DAY_FIRST.finditer(text)]
    found += [(match[3], _MONTHS[match[1].lower()], match[2]) for match in _MONTH_FIRST.finditer(text)]
    for year, month, number in found:
        if year is None:
            loose.add((month, int(number)))
        elif (day := _day(int(year), month, int(number))) is not None:
            days.add(day)


def _clocks(text: str, clocks: set[time]) -> None:
    for match in _CLOCK.finditer(text):
        hour = int(match[1])
        if match[4] and hour <= 12:
            hour = hour % 12 + (12 if match[4].lower() == "p" else 0)
        clocks.add(time(hour, int(match[2]), int(match[3] or 0)))
    for match in _HOUR.finditer(text):
        clocks.add(time(int(match[1]) % 12 + (12 if match[2].lower() == "p" else 0)))
    for match in _NAMED.finditer(text):
        clocks.add(time(0 if match[1].lower() == "midnight" else 12))


def _span(count: str, unit: str) -> timedelta:
    if count == "half an":
        return timedelta(minutes=30)
    number = _COUNTS.get(count) or int(count)
    return timedelta(hours=number) if unit.startswith("hour") else timedelta(minutes=number)


_IDENTIFIER = re.compile(r"[A-Za-z0-9_#@/+-][A-Za-z0-9_.:@+#/-]{0,63}\Z", re.ASCII)
HIDDEN = "⟦not shown⟧"


def identifiers(value: Any, depth: int = 64) -> Any:
    """JSON data with every text that is no identifier hidden; names of fields too. What is nested deeper is hidden."""
    if isinstance(value, str):
        return value if _IDENTIFIER.match(value) else HIDDEN
    if isinstance(value, (dict, list)) and depth <= 0:
        return HIDDEN
    if isinstance(value, dict):
        names = [name if _IDENTIFIER.match(name) else f"{HIDDEN} {at}" for at, name in enumerate(value)]
        return {name: identifiers(inner, depth - 1) for name, inner in zip(names, value.values(), strict=True)}
    if isinstance(value, list):
        return [identifiers(inner, depth - 1) for inner in value]
    return value


def identifiers_text(text: str) -> str:
    """The same of a text that is JSON. Raises ValueError for any other."""
    try:
        return json.dumps(identifiers(json.loads(text)), ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
