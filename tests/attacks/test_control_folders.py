"""The state folder is one person's own, and a policy that was named is never left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.attacks.control_world import World
from vestibule.core.errors import DependencyDown, VestibuleError
from vestibule.pipeline.services import Services
from vestibule.policy.layers import folder_layer
from vestibule.review.signing import KEY_NAME
from vestibule.store.database import make_private_folder

REGO = 'package vestibule\n\ndefault decision := {"verdict": "allow", "reasons": []}\n'


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_state_folder_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(mode)
    with pytest.raises(DependencyDown, match="chmod") as found:
        Services({"VESTIBULE_HOME": str(home), "HOME": str(tmp_path)})
    assert found.value.refusal.rule == "dependency.state"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a folder away")
def test_a_state_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """`sudo vestibule …` with the caller's VESTIBULE_HOME would take that user's rows for its own."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    os.chown(home, 12345, 12345)
    with pytest.raises(DependencyDown, match="belongs to"):
        make_private_folder(home)


def test_a_state_folder_that_is_a_link_into_a_shared_place_is_judged_by_where_it_leads(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (tmp_path / "home").symlink_to(shared)
    with pytest.raises(DependencyDown):
        make_private_folder(tmp_path / "home")


def test_an_organisation_policy_that_is_a_dangling_link_is_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "base.rego").write_text(REGO)
    (tmp_path / "deny.rego").symlink_to(tmp_path / "gone.rego")
    with pytest.raises(VestibuleError, match=r"deny\.rego|cannot be read"):
        folder_layer("organisation", tmp_path)


def test_an_organisation_policy_in_a_linked_folder_is_not_left_out(tmp_path: Path) -> None:
    policy, more = tmp_path / "policy", tmp_path / "more"
    policy.mkdir()
    more.mkdir()
    (policy / "base.rego").write_text(REGO)
    (more / "deny.rego").write_text(REGO)
    (policy / "team").symlink_to(more)
    try:
        layer = folder_layer("organisation", policy)
    except VestibuleError:
        return
    assert "team/deny.rego" in layer.sources


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_an_organisation_policy_that_is_no_file_is_not_left_out(tmp_path: Path, kind: str) -> None:
    (tmp_path / "base.rego").write_text(REGO)
    if kind == "fifo":
        os.mkfifo(tmp_path / "deny.rego")
    else:
        (tmp_path / "deny.rego").mkdir()
    with pytest.raises(VestibuleError):
        folder_layer("organisation", tmp_path)


def test_a_folder_of_policies_that_cannot_be_listed_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base.rego").write_text(REGO)
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "deny.rego").write_text(REGO)
    real = os.scandir

    def scandir(path: object = ".") -> object:
        if str(path).endswith("team"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(VestibuleError):
        folder_layer("organisation", tmp_path)


def test_policies_mounted_from_a_config_map_are_read(tmp_path: Path) -> None:
    """Kubernetes: `deny.rego -> ..data/deny.rego`, `..data -> ..2026_01_01`."""
    real = tmp_path / "..2026_01_01"
    real.mkdir()
    (real / "deny.rego").write_text(REGO)
    (tmp_path / "..data").symlink_to(real.name)
    (tmp_path / "deny.rego").symlink_to("..data/deny.rego")
    assert list(folder_layer("organisation", tmp_path).sources) == ["deny.rego"]


def test_a_review_key_that_is_gone_is_not_made_anew(world: World) -> None:
    """A new one would leave every older decision without proof, and say nothing."""
    world.approve()
    (world.home / "keys" / KEY_NAME).unlink()
    with pytest.raises(DependencyDown) as found:
        _ = world.reopened().services.gates
    assert found.value.refusal.rule == "dependency.review_key"
    assert not (world.home / "keys" / KEY_NAME).exists()
