"""The hold matrix for Gemini generateContent: its machines, and the official SDK behind the real gateway."""

from __future__ import annotations

import pytest
from gemini_wire import GeminiWire
from hold_matrix import OUTPUT_TOKENS, SCENARIOS, check_machine, check_sdk, check_whole_machine, stream_scenarios
from models_house import House

WIRE = GeminiWire()
CANNOT = {("cut", True), ("cut", False)}
"""Arguments come as an object: they cannot be half."""


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
    if reading is not None and SCENARIOS[name].ending == "whole":
        assert reading.output_tokens == OUTPUT_TOKENS * (2 if SCENARIOS[name].blocked else 1)
