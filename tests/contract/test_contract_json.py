"""The JSON that users, CI systems and checks rely on: names and types as published; more is allowed."""

from __future__ import annotations

import csv
import io
import json
import re
from decimal import Decimal
from typing import Any

import jsonschema
import pytest

from tests.contract.conftest import Lived
from vestibule.core.model import State

TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
SHA = {"type": "string", "pattern": "^([0-9a-f]{40}|[0-9a-f]{64}|)$"}
RULING = {"enum": ["allow", "hold", "deny"]}
TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"}
TEXTS = {"type": "array", "items": TEXT}


def shape(**properties: Any) -> dict[str, Any]:
    """An object that has all of these; additions are welcome."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def many(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


REFUSAL = shape(rule=TEXT, reason=TEXT, fact=TEXT, next=shape(agent=TEXT, person=TEXT))
FINDING = shape(
    rule=TEXT,
    severity={"enum": ["note", "warning", "error"]},
    verdict=RULING,
    path=TEXT,
    line={"type": ["integer", "null"], "minimum": 1},
    message=TEXT,
)
EVENT = shape(
    seq={"type": "integer", "minimum": 1},
    time=TIME,
    phase={"enum": ["intent", "outcome"]},
    attempt={"type": "integer", "minimum": 1},
    actor=TEXT,
    subject={"enum": ["agent", "probe", "person", "system"]},
    action=TEXT,
    resource=TEXT,
    verdict={"enum": ["allow", "hold", "deny", None]},
    reasons=TEXTS,
)
USAGE = shape(
    requests=COUNT,
    input_tokens=COUNT,
    output_tokens=COUNT,
    cache_read_tokens=COUNT,
    cache_write_tokens=COUNT,
    cost_nano_usd=COUNT,
)
NUMBER = {"type": "number", "minimum": 0}
WALLS = {"type": "object", "additionalProperties": {"enum": ["up", "down"]}}
SANDBOX = shape(backend={"const": "local"}, tier={"enum": ["root", "user", "none"]}, walls=WALLS, start_ms=NUMBER)
RUN = shape(
    run=TEXT,
    state={"enum": [state.value for state in State]},
    verdict={"enum": ["allow", "hold", "deny", None]},
    reasons=TEXTS,
    refusals=many(REFUSAL),
    branch=TEXT,
    base_commit=SHA,
    head_commit=SHA,
    tree=SHA,
    changed_files=TEXTS,
    findings=many(FINDING),
    decisions=shape(allow=COUNT, hold=COUNT, deny=COUNT),
    events=many(EVENT),
    usage=USAGE,
    sandbox=SANDBOX,
    audit=shape(origin=TEXT, size=COUNT, root={"type": "string", "pattern": "^[A-Za-z0-9+/]{43}=$"}),
    timings_ms=shape(intake=NUMBER, sandbox=NUMBER, agent=NUMBER, changes=NUMBER),
)
PROVED = {"type": "object", "additionalProperties": shape(state={"enum": ["up", "down"]}, proved_by=TEXT)}
STATES = (
    "received, specified, awaiting_spec_review, working, checking, awaiting_answer, awaiting_review, "
    "changes_requested, approved, verifying, merging, watching, merged, refused, rejected, failed, "
    "expired, cancelled, rolled_back"
)


def fits(value: Any, schema: dict[str, Any]) -> None:
    jsonschema.validate(value, schema, cls=jsonschema.Draft202012Validator)


def test_the_states_are_the_published_ones() -> None:
    assert [state.value for state in State] == STATES.split(", ")


def test_run_and_show_print_the_same_published_object(lived: Lived) -> None:
    fits(lived.object, RUN)
    shown = lived.house.vestibule("show", lived.run, "--json")
    assert shown.code == 0
    fits(shown.json, RUN)
    same = {key: value for key, value in lived.object.items() if key != "audit"}
    assert {key: value for key, value in shown.json.items() if key != "audit"} == same
    assert lived.object["branch"] == f"vestibule/{lived.run}"
    assert lived.object["sandbox"]["walls"]["network"] == "up"
    assert lived.object["timings_ms"]["agent"] > 0


def test_decisions_count_the_agents_intents_and_no_probe(lived: Lived) -> None:
    counted = {"allow": 0, "hold": 0, "deny": 0}
    for event in lived.object["events"]:
        if event["subject"] == "agent" and event["phase"] == "intent":
            counted[event["verdict"]] += 1
    assert lived.object["decisions"] == counted
    probes = [event for event in lived.object["events"] if event["subject"] == "probe"]
    assert probes
    assert all(event["verdict"] == "deny" for event in probes if event["phase"] == "intent")


def test_actors_of_the_agents_events_are_spiffe_ids(lived: Lived) -> None:
    actors = {event["actor"] for event in lived.object["events"] if event["subject"] == "agent"}
    assert actors
    assert all(re.fullmatch(r"spiffe://[a-z0-9.-]+/run/[a-z0-9]+/agent/[\w.-]+", actor) for actor in actors)


def test_events_are_numbered_in_order_and_each_outcome_names_its_intent(lived: Lived) -> None:
    events = lived.object["events"]
    numbers = [event["seq"] for event in events]
    assert numbers == sorted(set(numbers))
    intents = {event["seq"] for event in events if event["phase"] == "intent"}
    assert all(event["intent"] in intents for event in events if event["phase"] == "outcome")


def test_money_is_integers_everywhere(lived: Lived) -> None:
    text = json.dumps(lived.object["events"]) + json.dumps(lived.object["usage"])
    assert not re.search(r"[:\[ ]-?\d+\.\d", re.sub(r'"(?:[^"\\]|\\.)*"', '""', text))


def test_runs_lists_summaries(lived: Lived) -> None:
    done = lived.house.vestibule("runs", "--json")
    fits(done.json, shape(runs=many(shape(run=TEXT, state=TEXT, decisions=shape(allow=COUNT, hold=COUNT, deny=COUNT)))))
    (only,) = done.json["runs"]
    assert only["run"] == lived.run
    assert only["decisions"] == lived.object["decisions"]
    assert only["cost_nano_usd"] == lived.object["usage"]["cost_nano_usd"] > 0


@pytest.mark.parametrize("by", ["agent", "agent-version", "role", "model", "run", "repository", "provider", "day"])
def test_cost_adds_up_along_every_dimension(lived: Lived, by: str) -> None:
    done = lived.house.vestibule("cost", "--by", by, "--json")
    fits(done.json, shape(by={"const": by}, lines=many(shape(name=TEXT, usage=USAGE)), total=USAGE))
    assert done.json["total"]["cost_nano_usd"] == lived.object["usage"]["cost_nano_usd"]


def test_every_export_of_a_real_runs_spend_adds_up_to_the_same(lived: Lived) -> None:
    usage = lived.object["usage"]
    page = lived.house.vestibule("cost", "--format", "prometheus").out
    values = [line.rpartition(" ") for line in page.splitlines() if not line.startswith("#")]
    cost = sum(Decimal(value) for name, _, value in values if name.startswith("vestibule_llm_cost_usd_total"))
    assert cost * 10**9 == usage["cost_nano_usd"] > 0
    tokens = sum(int(value) for name, _, value in values if name.startswith("vestibule_llm_tokens_total"))
    assert tokens == sum(usage[name] for name in usage if name.endswith("_tokens"))
    took = [value for name, _, value in values if name.startswith("vestibule_llm_request_duration_seconds_count")]
    assert sum(map(int, took)) == usage["requests"], "each answer's duration came through the books"
    denied = [name for name, _, value in values if name.startswith("vestibule_decisions_total") and "deny" in name]
    assert denied, "the run's refused write is counted"
    rows = list(csv.DictReader(io.StringIO(lived.house.vestibule("cost", "export", "--focus").out)))
    assert sum(Decimal(row["BilledCost"]) for row in rows) * 10**9 == usage["cost_nano_usd"]
    assert {json.loads(row["Tags"])["task"] for row in rows} == {lived.run}
    assert all(json.loads(row["Tags"])["requester"] for row in rows)


def test_check_judges_two_commits(lived: Lived) -> None:
    argv = ("check", "--repo", str(lived.house.repo), "--head", lived.object["branch"], "--json")
    done = lived.house.vestibule(*argv)
    schema = shape(
        verdict=RULING,
        findings=many(FINDING),
        changed_files=TEXTS,
        timings_ms={"type": "object", "additionalProperties": NUMBER},
    )
    fits(done.json, schema)
    assert done.code == {"allow": 0, "hold": 3, "deny": 4}[done.json["verdict"]]
    assert done.json["changed_files"] == ["src/app.py"]


def test_check_speaks_sarif(lived: Lived) -> None:
    house = lived.house
    house.git("checkout", "-q", "-b", "bad")
    house.commit({"deploy/prod.yaml": "replicas: 9\n", "src/evil.py": "x = 1  # \u202e\n"})
    house.git("checkout", "-q", "main")
    done = house.vestibule("check", "--repo", str(house.repo), "--head", "bad", "--sarif")
    assert done.code == 4
    sarif = done.json
    assert sarif["version"] == "2.1.0"
    (run,) = sarif["runs"]
    rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert {result["ruleId"] for result in run["results"]} <= rules
    places = {result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in run["results"]}
    assert {"deploy/prod.yaml", "src/evil.py"} <= places
    assert all(result["partialFingerprints"] for result in run["results"])
    found = house.vestibule("check", "--repo", str(house.repo), "--head", "bad", "--json")
    assert found.code == 4
    assert {item["rule"] for item in found.json["findings"]} == {result["ruleId"] for result in run["results"]}


def test_audit_verify_says_what_it_sees_and_what_not(lived: Lived) -> None:
    done = lived.house.vestibule("audit", "verify", "--json")
    schema = shape(
        ok={"const": True}, size=COUNT, root=TEXT, problems={"maxItems": 0}, detects=TEXTS, does_not_detect=TEXTS
    )
    fits(done.json, schema)
    assert done.code == 0
    assert done.json["detects"]
    assert done.json["does_not_detect"]
    assert done.json["size"] >= len(lived.object["events"])


def test_doctor_reports_walls_tools_and_fail_modes(lived: Lived) -> None:
    done = lived.house.vestibule("doctor", "--json")
    row = shape(guard=TEXT, depends_on=TEXT, when_broken={"const": "deny"}, reason=TEXT, tested_by=TEXT)
    schema = shape(
        tier={"enum": ["root", "user", "none"]},
        walls=PROVED,
        tools={"type": "object"},
        fail_modes=many(row),
        posture={"type": "object"},
    )
    fits(done.json, schema)
    assert done.code == 0
    assert {"mounts", "network", "seccomp", "landlock", "cgroup", "no_new_privs", "pids", "monitor"} <= set(
        done.json["walls"]
    )
    assert len(done.json["fail_modes"]) > 40


def test_sandbox_exec_sums_up(lived: Lived) -> None:
    argv = ("sandbox", "exec", "--repo", str(lived.house.repo), "--json", "--", "sh", "-c", "echo hi; exit 7")
    done = lived.house.vestibule(*argv)
    fits(done.json, shape(exit_code={"const": 7}, walls=PROVED, events=many(EVENT)))
    assert done.code == 7


def test_a_review_prints_the_runs_object(lived: Lived) -> None:
    """Last of this module: the run goes on."""
    done = lived.house.vestibule("review", lived.run, "--approve", "--reason", "Fine.", "--json")
    assert done.code == 0, done.err
    fits(done.json, RUN)
    assert done.json["state"] == "merged"
    persons = [event for event in done.json["events"] if event["subject"] == "person"]
    assert {"task.admit", "review.decide"} <= {event["action"] for event in persons}
