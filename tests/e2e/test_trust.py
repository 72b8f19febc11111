"""Trust that grows: clean runs in a row propose a wider role, a person applies it, and it counts once committed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import CONFIG, House, build_house

LADDER = CONFIG.replace(
    "agents:\n",
    """\
  wide:
    read: ["**"]
    write: ["src/**", "docs/**"]
agents:
""",
).replace(
    "changes:",
    "trust: {ladders: {main: [fixer, wide]}, clean_runs: 2, self_reviewed: count}\nchanges:",
)


@pytest.fixture
def climber(tmp_path: Path) -> House:
    return build_house(tmp_path, LADDER)


def work(house: House, number: int, *more: str) -> str:
    """One merged run; its id."""
    shell = f"echo 'print({number})' >> src/app.py"
    done = house.run("--role", "fixer", *more, "--agent", "command", "--", "sh", "-c", shell)
    assert done.code == 3, done.err
    run = str(done.json["run"])
    approved = house.vestibule("review", run, "--approve", "--reason", "fine", "--json")
    assert approved.code == 0, approved.err
    return run


def standing(house: House) -> dict[str, object]:
    found = house.vestibule("trust", "--repo", str(house.repo), "--json").json["standings"]
    assert len(found) == 1
    return dict(found[0])


def wide(house: House) -> int:
    return house.run("--role", "wide", "--agent", "command", "--", "sh", "-c", "mkdir -p docs; echo x > docs/a.md").code


def test_a_row_of_clean_runs_opens_the_next_role_once_a_person_committed_it(climber: House) -> None:
    house = climber
    refused = house.run("--role", "wide", "--agent", "command", "--", "sh", "-c", "echo x > docs/a.md")
    assert refused.code == 4
    assert "task.role_earned" in refused.json["reasons"], refused.out

    work(house, 1)
    assert standing(house)["proposal"]["step"] == "stay"  # type: ignore[index]
    # The same agent name with another command is another version, and begins anew.
    early = house.vestibule(
        "trust", "apply", "command", "main", "wide", "--reason", "now", "--repo", str(house.repo), "--json"
    )
    assert early.code == 2
    assert "--anyway" in early.out


def test_what_the_work_tree_says_lifts_nobody(climber: House) -> None:
    house = climber
    work(house, 1)
    applied = house.vestibule(
        "trust", "apply", "command", "main", "wide", "--reason", "I know it", "--anyway", "--repo", str(house.repo)
    )
    assert applied.code == 0, applied.err
    file = house.repo / ".vestibule" / "trust.yaml"
    assert "I know it" in file.read_text("utf-8")
    same = ("--agent", "command", "--", "sh", "-c", "echo 'print(1)' >> src/app.py")
    assert house.run("--role", "wide", *same).code == 4
    house.commit({}, "The step")
    assert house.run("--role", "wide", *same).code == 3
    # For exactly that agent version: another command is another one.
    assert wide(house) == 4
    events = house.vestibule("audit", "show", "--json").out
    assert "trust.apply" in events
    assert house.vestibule("audit", "verify", "--json").json["ok"]


def test_the_same_version_climbs_by_its_own_record(climber: House) -> None:
    house = climber
    same = ("--agent", "command", "--", "sh", "-c", "date +%N >> src/app.py")
    for _ in range(2):
        done = house.run("--role", "fixer", *same)
        assert done.code == 3, done.err
        assert house.vestibule("review", done.json["run"], "--approve", "--reason", "fine", "--json").code == 0
    found = standing(house)
    assert found["proposal"]["step"] == "up"  # type: ignore[index]
    assert found["proposal"]["role"] == "wide"  # type: ignore[index]
    text = house.vestibule("trust", "--repo", str(house.repo)).out
    assert "vestibule trust apply command main wide" in text
    argv = ("trust", "apply", "command", "main", "wide", "--reason", "earned", "--repo", str(house.repo), "--json")
    assert house.vestibule(*argv).code == 0
    house.commit({}, "The step")
    rejected = house.run("--role", "wide", *same)
    assert rejected.code == 3, rejected.err
    assert house.vestibule("review", rejected.json["run"], "--reject", "--reason", "no", "--json").code == 4
    after = standing(house)
    assert (after["role"], after["proposal"]["step"]) == ("wide", "back")  # type: ignore[index]
    assert after["proposal"]["runs"] == [rejected.json["run"]]  # type: ignore[index]


@pytest.mark.parametrize("name", [".vestibule/trust.tmp", ".vestibule/trust.yaml", ".vestibule"])
def test_a_step_is_written_through_no_link_of_the_work_tree(climber: House, name: str) -> None:
    house = climber
    work(house, 1)
    victim = house.folder / "victim"
    victim.mkdir()
    (victim / "file").write_text("mine\n")
    place = house.repo / name
    if name == ".vestibule":
        place.rename(house.folder / "moved")
        place.symlink_to(victim)
    else:
        place.symlink_to(victim / "file")
    done = house.vestibule(
        "trust", "apply", "command", "main", "wide", "--reason", "r", "--anyway", "--repo", str(house.repo)
    )
    assert done.code == (0 if name.endswith(".tmp") else 2), done.err
    assert {item.name: item.read_text() for item in victim.iterdir()} == {"file": "mine\n"}
