"""The page of attacks on the walls says what the list and the last battery say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from tests.attacks.walls.cases import BY_ID, CASES, here
from tests.attacks.walls.play import FOUND, SHARE, walls

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gen_walls", ROOT / "tools" / "gen_walls.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_generator_writes(generator: ModuleType) -> None:
    assert generator.page() == generator.PAGE.read_text("utf-8")


def test_the_list_is_whole() -> None:
    counts = {
        letter: sum(case.id.startswith(letter) and case.id[1:].isdigit() for case in CASES) for letter in "NUFPMKS"
    }
    assert counts == {"N": 33, "U": 5, "F": 20, "P": 18, "M": 6, "K": 4, "S": 6}
    assert len(BY_ID) == len(CASES)


@pytest.mark.parametrize("tier", ["root", "user"])
def test_the_last_battery_played_exactly_the_list(tier: str) -> None:
    found = json.loads(FOUND.read_text("utf-8"))[tier]
    assert set(found["results"]) == {case.id for case in here(tier)}
    assert [name for name, got in found["results"].items() if got and BY_ID[name].expected == "stopped"] == []
    attacks = sum(case.expected == "stopped" for case in here(tier))
    assert set(found["without"]) == set(walls(tier))
    for wall, through in found["without"].items():
        assert found["played"][wall] == attacks
        assert 100 * (1 - len(through) / attacks) >= SHARE[tier], wall


@pytest.mark.parametrize("case", [case for case in CASES if case.runs == "elsewhere"], ids=lambda case: case.id)
def test_the_test_that_plays_a_case_elsewhere_exists(case: object) -> None:
    why: str = case.why  # type: ignore[attr-defined]
    path, _, name = why.partition("::")
    text = (ROOT / path).read_text("utf-8")
    assert not name or f"def {name}(" in text


def test_what_is_not_played_says_why() -> None:
    assert [case.id for case in CASES if case.runs in ("not here", "elsewhere") and not case.why] == []
