"""Ceilings of spend, and when spend is an alarm: the operator's."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from vestibule.config.parts import NanoUsd, Strict, as_tuple

Per = Literal["role", "agent", "agent-version", "repository", "organisation", "model"]
Window = Literal["hour", "day", "month", "total"]


class SpendLimit(Strict):
    """A ceiling of each `per` whose name fits, over all runs, in each `window` (UTC)."""

    per: Per
    name: Annotated[str, Field(min_length=1, max_length=512)] = "*"
    """A glob. Each name that it fits has a ceiling of its own."""
    window: Window = "day"
    usd: NanoUsd | None = None
    tokens: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> SpendLimit:
        if self.usd is None and self.tokens is None:
            raise ValueError("a limit says usd, tokens or both")
        if self.per == "organisation" and self.name != "*":
            raise ValueError("the organisation is one: leave the name out")
        return self


class RequestLimit(Strict):
    """A number of requests, for each run and for each agent version over all its runs."""

    run: Annotated[int, Field(gt=0, le=1_000_000)] | None = None
    agent_version: Annotated[int, Field(gt=0, le=1_000_000)] | None = None


class OperatorBudget(Strict):
    usd_per_run: NanoUsd | None = None
    usd_per_day: NanoUsd | None = None
    rounds_per_run: Annotated[int, Field(gt=0, le=100)] = 10
    limits: Annotated[tuple[SpendLimit, ...], BeforeValidator(as_tuple), Field(max_length=50)] = ()
    requests_per_minute: RequestLimit = RequestLimit()
    concurrent: RequestLimit = RequestLimit()
    unknown_price_usd: NanoUsd | None = None
    """What a request for a model without a price is held at, and charged; without it such a request is refused."""


def _percent(value: Any) -> Any:
    """`1.5` → 150: from the scalar's text, never by a float."""
    if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)):
        raise ValueError("write a ratio such as 2 or 1.5")
    try:
        hundredths = Decimal(str(value)) * 100
    except InvalidOperation:
        raise ValueError("write a ratio such as 2 or 1.5") from None
    if not hundredths.is_finite() or hundredths != hundredths.to_integral_value():
        raise ValueError("a ratio has at most two decimal places")
    return int(hundredths)


Ratio = Annotated[
    int,
    BeforeValidator(_percent, json_schema_input_type=float | str),
    Field(ge=101, le=100_000, description="A ratio, at most two decimal places"),
]
"""In hundredths: 2.0 is 200."""


class SpendWatch(Strict):
    """When spend of one agent version is an alarm, and what is done then."""

    act: Literal["alert", "pause", "rollback"] = "rollback"
    alert_percent: Annotated[int, Field(gt=0, le=10_000)] = 10
    minimum_usd: NanoUsd = Field(default="1.00", validate_default=True)
    minimum_hours: Annotated[int, Field(gt=0, le=24)] = 12
    noise: Annotated[int, Field(ge=0, le=100)] = 6
    pause_ratio: Ratio = Field(default="2.0", validate_default=True)
    pause_floor_usd: NanoUsd = Field(default="10.00", validate_default=True)
    pause_usd_per_minute: NanoUsd = Field(default="0.25", validate_default=True)
    pause_runs: Annotated[int, Field(gt=0, le=1000)] = 2
    pause_running: bool = False
    quiet_hours: Annotated[int, Field(ge=1, le=168)] = 6
