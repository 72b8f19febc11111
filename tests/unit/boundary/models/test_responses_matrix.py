"""The hold matrix for OpenAI Responses: its machines, and the official SDK behind the real gateway."""

from __future__ import annotations

import pytest
from hold_matrix import SCENARIOS, check_machine, check_sdk, check_whole_machine, stream_scenarios
from models_house import House
from responses_wire import ResponsesWire

WIRE = ResponsesWire()
CANNOT = {("interleaved", False)}
"""One piece has no turns."""


@pytest.mark.parametrize("name", stream_scenarios(WIRE))
def test_streamed_scenario_however_it_is_split(name: str) -> None:
    check_machine(WIRE, SCENARIOS[name])


@pytest.mark.parametrize(
    "name", [name for name in SCENARIOS if name != "dies" and WIRE.whole(SCENARIOS[name]) is not None]
)
def test_scenario_in_one_piece(name: str) -> None:
    check_whole_machine(WIRE, SCENARIOS[name])


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_official_sdk_behind_the_gateway(house: House, name: str, stream: bool) -> None:
    reading = check_sdk(house, WIRE, SCENARIOS[name], stream=stream)
    assert (reading is None) == ((name, stream) in CANNOT)
