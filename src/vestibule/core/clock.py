"""The form of time: UTC, RFC 3339, milliseconds, `Z`. The clock itself is handed in."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def rfc3339(moment: datetime) -> str:
    """`2026-01-02T03:04:05.678Z`. The moment must be aware."""
    if moment.tzinfo is None:
        raise ValueError("naive times have no place here")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_rfc3339(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.astimezone(UTC)


def now() -> str:
    """The present, in that form."""
    return rfc3339(datetime.now(UTC))


def elapsed_ms(started: float) -> float:
    """Milliseconds since `started` (`time.monotonic()`), to a tenth."""
    return round((time.monotonic() - started) * 1000, 1)
