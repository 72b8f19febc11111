"""Every attack of the list is stopped, in both tiers; nothing is left behind; the attacks work where no wall is."""

from __future__ import annotations

import os
import shutil
from functools import lru_cache
from typing import Any

import pytest

from tests.attacks.walls.cases import BY_ID, CASES, here
from tests.attacks.walls.play import play, tiers

if shutil.which("bwrap") is None and not os.environ.get("CI"):
    pytest.skip("bubblewrap is not installed", allow_module_level=True)

TIERS = tiers()
PLAYED = [(tier, case.id) for tier in TIERS for case in here(tier)]


@lru_cache(maxsize=2)
def battery(tier: str) -> dict[str, Any]:
    return play(tier)


@pytest.mark.parametrize(("tier", "case"), PLAYED, ids=[f"{tier}-{case}" for tier, case in PLAYED])
def test_case(tier: str, case: str) -> None:
    found = battery(tier)
    failed = {name: why for name, why in found["failed"].items() if name in (f"all {case}", "all batch")}
    result = found["all"].get(case)
    assert result is not None, failed
    if BY_ID[case].expected == "stopped":
        assert result["opened"] == [], f"{case}, {BY_ID[case].tried}: {result}"
    else:
        assert result["opened"], f"{case}, {BY_ID[case].tried}, has to work: {result}"


@pytest.mark.parametrize("tier", TIERS)
def test_nothing_is_left_after_any_sandbox(tier: str) -> None:
    assert battery(tier)["residue"] == {}


@pytest.mark.parametrize("tier", TIERS)
def test_the_attacks_work_where_no_wall_is(tier: str) -> None:
    """Else a case would be stopped by its own mistake."""
    control = battery(tier)["control"]
    wanted = [case.id for case in CASES if case.control and case.runs == "batch"]
    assert len(wanted) > 50
    assert [name for name in wanted if not control[name]["opened"]] == []
