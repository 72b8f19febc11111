"""Policy over whole runs: the agent's branch has no say, and a changed policy is tried on what was recorded."""

from __future__ import annotations

import json

from tests.e2e.conftest import House

FREEZE = """package vestibule

default decision := {"verdict": "allow", "reasons": []}

decision := {"verdict": "deny", "reasons": ["acme.freeze"]} if input.action == "change.propose"
"""
OPEN = """package vestibule

default decision := {"verdict": "allow", "reasons": []}
"""


def test_a_policy_change_in_the_agents_branch_changes_nothing(house: House) -> None:
    """The agent writes a policy; it is neither proposed nor asked, in this round or about its own branch."""
    house.commit({".vestibule/policy/freeze.rego": FREEZE}, "Freeze")
    writes = f"mkdir -p .vestibule/policy; printf %s {json.dumps(OPEN)} > .vestibule/policy/freeze.rego"
    done = house.change(f"{writes}; echo 'print(1)' >> src/app.py")
    assert done.code == 4, done.out
    assert done.json["state"] == "refused"
    house.git("checkout", "-q", "-b", "loosened")
    house.commit({".vestibule/policy/freeze.rego": OPEN}, "Loosen")
    house.git("checkout", "-q", "main")
    refused = house.change()
    assert refused.code == 4
    assert "acme.freeze" in refused.json["reasons"]


def test_a_changed_policy_is_tried_on_past_runs(house: House) -> None:
    run = house.change().json["run"]
    other = house.folder / "other"
    other.mkdir()
    (other / "freeze.rego").write_text(FREEZE)
    (house.folder / "same").mkdir()
    (house.folder / "same" / "open.rego").write_text(OPEN)

    done = house.vestibule("policy", "replay", str(house.folder / "same"), "--json")
    assert done.code == 0, done.out + done.err
    assert done.json["differences"] == []
    assert done.json["without_input"] == []
    assert done.json["replayed"] == done.json["decisions"] >= 2

    done = house.vestibule("policy", "replay", str(other), "--run", run, "--json")
    assert done.code == 6, done.err
    [difference] = done.json["differences"]
    assert difference["action"] == "change.propose"
    assert difference["before"]["verdict"] == "hold"
    assert difference["after"] == {"verdict": "deny", "reasons": ["acme.freeze"]}

    commit = house.commit({".vestibule/policy/freeze.rego": FREEZE}, "Freeze")
    done = house.vestibule("policy", "replay", "--base", commit)
    assert done.code == 6
    assert "-> deny (acme.freeze)" in done.out

    (house.home / "runs" / run / "policy-inputs.jsonl").unlink()
    done = house.vestibule("policy", "replay", str(other))
    assert done.code == 0
    assert "No input is kept for" in done.out

    house.repo.rename(house.folder / "moved")
    done = house.vestibule("policy", "replay", str(other), "--json")
    assert (done.code, done.json["runs"]) == (0, 0)
    assert [item["run"] for item in done.json["left_out"]] == [run]
    assert house.vestibule("policy", "replay", str(other), "--run", run).code == 2
