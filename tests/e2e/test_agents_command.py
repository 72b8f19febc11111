"""`vestibule agents`: what is there, what worked here, and that a program starts inside the walls."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.conftest import House
from tests.e2e.projects import claude_code_modules
from vestibule.agents.registry import ADAPTERS


def test_agents_are_listed_with_what_worked_here(house: House) -> None:
    first = house.vestibule("agents", "--json")
    assert first.code == 0, first.err
    assert [item["adapter"] for item in first.json["agents"]] == list(ADAPTERS)
    assert all(item["runs"] == [] for item in first.json["agents"])

    run = house.change().json
    after = {item["adapter"]: item for item in house.vestibule("agents", "--json").json["agents"]}
    worked = after["command"]["runs"]
    assert [(item["version"], item["runs"]) for item in worked] == [(run["agent"]["version"], 1)]
    assert worked[0]["last"]["run"] == run["run"]
    assert worked[0]["last"]["state"] == "awaiting_review"
    words = house.vestibule("agents")
    assert words.code == 0
    assert "not installed" in words.out


def test_an_installed_program_starts_inside_the_walls(house: House) -> None:
    house.operator.write_text(
        f"version: 1\nsandbox: {{tools: [{json.dumps(str(claude_code_modules()))}]}}\n", encoding="utf-8"
    )
    done = house.vestibule("agents", "--check", "--json")
    assert done.code == 0, (done.err, done.out)
    claude = next(item for item in done.json["agents"] if item["adapter"] == "claude-code")
    assert claude["standing"] == "verified"
    assert claude["starts"]["ok"] is True
    assert claude["version"] in claude["starts"]["said"]


def test_a_program_that_does_not_start_is_a_failed_verification(house: House) -> None:
    tools = house.folder / "tools"
    (tools / "bin").mkdir(parents=True)
    program = Path(tools / "bin" / "claude")
    program.write_text("#!/bin/sh\necho '\x1b[31mno' >&2\nexit 9\n")
    program.chmod(0o755)
    for folder in (tools, tools / "bin"):
        folder.chmod(0o755)
    house.operator.write_text(f"version: 1\nsandbox: {{tools: [{json.dumps(str(tools))}]}}\n", encoding="utf-8")
    done = house.vestibule("agents", "--check", "--json")
    assert done.code == 6, (done.err, done.out)
    claude = next(item for item in done.json["agents"] if item["adapter"] == "claude-code")
    assert claude["starts"]["ok"] is False
    assert claude["starts"]["exit_code"] == 9
    assert "\x1b" not in house.vestibule("agents", "--check").out
