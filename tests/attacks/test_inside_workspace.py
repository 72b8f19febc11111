"""What an agent leaves in its workspace ends the attempt by the contract, and never what comes after it."""

from __future__ import annotations

from tests.e2e.conftest import House, house, make_house  # noqa: F401 - fixtures

_DEEP = "import os\nos.chdir('/workspace/src')\nfor _ in range(3000):\n    os.mkdir('d')\n    os.chdir('d')\n"


def test_folders_without_end_refuse_the_run_and_nothing_stays(house: House) -> None:  # noqa: F811
    done = house.run("--agent", "command", "--", "python3", "-c", _DEEP)
    assert done.code == 4, done.err
    assert done.json["state"] == "refused"
    assert [item["rule"] for item in done.json["refusals"]] == ["change.export.limits"]
    assert not list((house.home / "runs" / done.json["run"]).glob("attempt-*"))


def test_folders_without_end_do_not_stop_the_next_command(house: House) -> None:  # noqa: F811
    argv = ("sandbox", "exec", "--repo", str(house.repo), "--")
    assert house.vestibule(*argv, "python3", "-c", _DEEP).code == 0
    assert not list((house.home / "exec").iterdir())
    assert house.vestibule(*argv, "true").code == 0
