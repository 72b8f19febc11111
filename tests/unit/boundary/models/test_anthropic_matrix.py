"""The hold matrix for Anthropic Messages: its machines, and the official SDK behind the real gateway."""

from __future__ import annotations

import pytest
from anthropic_wire import AnthropicWire
from hold_matrix import SCENARIOS, check_machine, check_sdk, check_whole_machine, stream_scenarios
from models_house import House

WIRE = AnthropicWire()
CANNOT = {("interleaved", True), ("interleaved", False), ("cut", False)}
"""Blocks come one after the other; arguments in one piece are an object."""


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
