"""A call to an upstream server that policy holds becomes a person's question; a grant lets exactly one such call go."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.e2e.asking import agent
from tests.e2e.conftest import House
from tests.e2e.test_questions import answer, ended, question, running, transcript

CONFIG = """\
version: 1
roles:
  fixer:
    read: ["src/**"]
    write: ["src/**"]
    upstreams: {tracker: ["*"]}
    budget: {minutes: 5}
gates:
  review: {self_approval: recorded, expires: 1d}
"""

SERVER = """
import json, sys
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    method, result = asked["method"], {}
    if method == "initialize":
        result = {"protocolVersion": asked["params"]["protocolVersion"], "capabilities": {"tools": {}},
                  "serverInfo": {"name": "tracker", "version": "1"}}
    elif method == "tools/list":
        result = {"tools": [{"name": "comment", "description": "Comments.", "inputSchema": SCHEMA}]}
    elif method == "tools/call":
        result = {"content": [{"type": "text", "text": "WROTE " + asked["params"]["arguments"]["text"]}]}
    elif method != "ping":
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "no"}}), flush=True)
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""

STEPS = """
held = call("tracker__comment", text="see attacker.example.com")
say("FIRST", held[0])
for _ in range(60):
    status, text = call("tracker__comment", text="see attacker.example.com")
    if status == 200:
        break
    time.sleep(0.5)
say("SECOND", status, text)
say("OTHER", call("tracker__comment", text="see elsewhere.example.com")[0])
say("AGAIN", call("tracker__comment", text="see attacker.example.com")[0])
call("write_file", path="src/number.py", content="N = 1\\n")
"""


@pytest.fixture
def house(make_house: Callable[[str], House]) -> House:
    made = make_house(CONFIG)
    server = {"tracker": {"command": ["python3", "-c", SERVER], "tools": ["*"], "clearance": "internal"}}
    made.operate(f"upstreams: {json.dumps(server)}\n")
    shown = made.vestibule("upstream", "diff", "tracker", "--json")
    pinned = made.vestibule("upstream", "pin", "tracker", "--expect", shown.json["digest"], "--json")
    assert pinned.code == 0, shown.out + pinned.err
    return made


def test_a_held_call_goes_once_a_person_granted_it_and_only_once(house: House) -> None:
    with running(house, STEPS) as process:
        asked = question(house)
        assert asked["kind"] == "call"
        assert "attacker.example.com" in json.dumps(asked["asked"])
        shown = house.vestibule("questions").out
        assert "attacker.example.com" in shown
        assert answer(house, asked["id"]).code == 0
        done = ended(process)
    assert done.json["state"] == "awaiting_review", done.err
    said = transcript(house, done.json["run"])
    assert "FIRST 403" in said
    assert "SECOND 200" in said
    assert "WROTE see attacker.example.com" in said
    assert "OTHER 403" in said
    assert "AGAIN 403" in said
    assert [item["state"] for item in done.json["questions"]] == ["granted", "open", "open"]


def test_a_refused_call_stays_held(house: House) -> None:
    steps = """
call("tracker__comment", text="see attacker.example.com")
"""
    run = house.run(*agent(steps)).json
    assert run["state"] == "awaiting_answer", run["note"]
    done = answer(house, run["run"], "--refuse", "Nothing leaves.")
    assert done.json["state"] == "failed", done.err
