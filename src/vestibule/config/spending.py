"""Ceilings of spend, and when spend is an alarm: the operator's."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vestibule.config.parts import NanoUsd, Strict


class OperatorBudget(Strict):
    usd_per_run: NanoUsd | None = None
    usd_per_day: NanoUsd | None = None
    rounds_per_run: Annotated[int, Field(gt=0, le=100)] = 10


class SpendWatch(Strict):
    """When spend of one agent version is an alarm."""
