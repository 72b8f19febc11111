"""`vestibule gate`: a valid decision for exactly this commit and tree, or none."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import House


def ask(house: House, commit: str, *more: str) -> tuple[int, dict[str, object]]:
    done = house.vestibule("gate", "verify", "--commit", commit, "--repo", str(house.repo), "--json", *more)
    return done.code, done.json


def test_the_answer_follows_the_gate(house: House) -> None:
    run = house.change().json
    head = run["head_commit"]
    code, found = ask(house, head)
    assert (code, found["answer"], found["run"]) == (3, "waiting", run["run"])
    assert ask(house, run["branch"])[0] == 3
    assert ask(house, "main")[1]["answer"] == "none"
    assert house.vestibule("gate", "wait", "--commit", head, "--timeout", "0", "--json").code == 3
    done = house.vestibule("review", run["run"], "--approve", "--reason", "Good.", "--json")
    assert done.code == 0, done.err
    for commit in (head, done.json["merge_commit"]):
        code, found = ask(house, commit)
        assert (code, found["ok"], found["tree"]) == (0, True, run["tree"]), found
        assert [item["choice"] for item in found["decisions"]] == ["approve"]  # type: ignore[attr-defined]
    assert ask(house, run["base_commit"])[0] == 6


def test_another_commit_with_the_same_tree_is_not_the_approved_one(house: House) -> None:
    run = house.change().json
    other = house.git("commit-tree", run["tree"], "-p", run["base_commit"], "-m", "Looks the same")
    house.vestibule("review", run["run"], "--approve", "--reason", "Good.", "--json")
    assert ask(house, other)[0] == 6


def test_a_rejected_change_has_no_valid_decision(house: House) -> None:
    run = house.change().json
    house.vestibule("review", run["run"], "--reject", "--reason", "No.", "--json")
    code, found = ask(house, run["head_commit"])
    assert (code, found["answer"]) == (6, "not approved")


def test_a_moved_branch_or_an_edited_row_is_no_approval(house: House) -> None:
    run = house.change().json
    with sqlite3.connect(house.home / "vestibule.db") as database:
        database.execute("update gates set document = replace(document, '\"approvals\":1', '\"approvals\":0')")
        database.execute("update gates set document = replace(document, '\"approvals\": 1', '\"approvals\": 0')")
        database.execute("update gates set state = 'approved'")
    assert ask(house, run["head_commit"])[0] != 0


def test_wait_ends_with_the_decision(house: House) -> None:
    run = house.change().json
    waiting = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("vestibule")),
            *("gate", "wait", "--commit", run["head_commit"], "--timeout", "60"),
        ],
        env=house.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stderr is not None
    assert "waiting" in waiting.stderr.readline()
    house.vestibule("review", run["run"], "--reject", "--reason", "No.", "--json")
    assert waiting.wait(30) == 6


def test_what_is_no_commit_is_a_usage_error(house: House) -> None:
    assert house.vestibule("gate", "verify", "--commit", "no-such", "--repo", str(house.repo), "--json").code == 2
    assert ask(house, "0" * 40)[1]["answer"] == "none"
