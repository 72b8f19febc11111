"""The hold matrix through both translations: machines at every split, and the official SDKs behind the real gateway."""

from __future__ import annotations

import pytest
from across import SCENARIOS, WAYS
from hold_matrix import HEAVY, check_played, check_sdk, no_leak, pieces, splits
from models_house import House

CANNOT = {
    ("chat-at-anthropic", "interleaved", True),
    ("chat-at-anthropic", "interleaved", False),
    ("chat-at-anthropic", "cut", False),
}
"""Anthropic's blocks come one after the other; arguments in one piece are an object."""
STREAMED = [(way, name) for way in WAYS for name in SCENARIOS if (way, name, True) not in CANNOT]


@pytest.mark.parametrize(("way", "name"), STREAMED)
def test_streamed_scenario_however_it_is_split(way: str, name: str) -> None:
    scenario, across = SCENARIOS[name], WAYS[way]
    data = across.stream(scenario)
    assert data is not None
    first = across.play([data])
    check_played(scenario, first, across.translated(data))
    for chunks in (pieces(data), pieces(data, 999)) if name in HEAVY else splits(data):
        again = across.play(chunks)
        assert again.out == first.out
        assert again.held == first.held
        assert (again.told.tokens, again.told.stop_reason) == (first.told.tokens, first.told.stop_reason)
        no_leak(scenario, again)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("way", WAYS)
def test_official_sdk_behind_the_gateway(house: House, way: str, name: str, stream: bool) -> None:
    reading = check_sdk(house, WAYS[way], SCENARIOS[name], stream=stream)
    assert (reading is None) == ((way, name, stream) in CANNOT)
