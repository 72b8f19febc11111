"""The hold matrix for OpenAI Chat Completions: its machines, and the official SDK behind the real gateway."""

from __future__ import annotations

import pytest
from chat_wire import ChatWire
from hold_matrix import SCENARIOS as SHARED
from hold_matrix import Scenario, call, check_machine, check_sdk, check_whole_machine, machine, play, said, splits
from models_house import House

WIRE = ChatWire()
# Calls have no end marks: one of several is decided when all are there, so that none is released before.
SCENARIOS = {**SHARED, "dies": Scenario("dies", (said("I look. "), call("look", 0)), ending="dies")}


@pytest.mark.parametrize("name", SCENARIOS)
def test_streamed_scenario_however_it_is_split(name: str) -> None:
    check_machine(WIRE, SCENARIOS[name])


def test_no_call_leaves_an_answer_that_broke_before_all_were_there() -> None:
    data = WIRE.stream(SHARED["dies"]) or b""
    for chunks in splits(data):
        found = play(machine(WIRE, stream=True), chunks)
        assert not found.held
        assert b"tool_calls" not in found.out
        assert b"I look." not in found.out or found.error is not None
        assert b"mark-" not in found.out


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "dies"])
def test_scenario_in_one_piece(name: str) -> None:
    check_whole_machine(WIRE, SCENARIOS[name])


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_official_sdk_behind_the_gateway(house: House, name: str, stream: bool) -> None:
    assert check_sdk(house, WIRE, SCENARIOS[name], stream=stream) is not None
