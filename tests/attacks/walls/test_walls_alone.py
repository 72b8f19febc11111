"""With any one wall switched off, but the user namespace, others still stop almost every attack."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.attacks.walls.cases import here
from tests.attacks.walls.play import SHARE, opened, play, share, tiers, walls

if shutil.which("bwrap") is None and not os.environ.get("CI"):
    pytest.skip("bubblewrap is not installed", allow_module_level=True)

ONE_BY_ONE = [(tier, wall) for tier in tiers() for wall in walls(tier)]


@pytest.mark.slow
@pytest.mark.parametrize(("tier", "wall"), ONE_BY_ONE, ids=[f"{tier}-{wall}" for tier, wall in ONE_BY_ONE])
def test_without_one_wall_others_still_stand(tier: str, wall: str) -> None:
    found = play(tier, ["only", wall])
    assert found["failed"] == {}
    assert set(found[wall]) == {case.id for case in here(tier)}
    assert share(found[wall]) >= SHARE[tier], opened(found[wall])
