"""SARIF 2.1.0: what the standard requires, checked by a schema of the parts we write.

The official schema is in no package that is installed here, so this is its subset for the objects that we produce, with
`additionalProperties: false` as the official one has it (OASIS sarif-schema-2.1.0, required properties and enums).
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import jsonschema
from changes_helpers import added, findings

from vestibule.boundary.changes.changeset import make_change
from vestibule.boundary.changes.sarif import to_sarif
from vestibule.core.model import Finding
from vestibule.core.verdict import Ruling


def closed(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


TEXT = {"type": "string"}
MESSAGE = closed(["text"], text=TEXT)
REGION = closed(
    ["startLine"],
    startLine={"type": "integer", "minimum": 1},
    endLine={"type": "integer", "minimum": 1},
    snippet=closed(["text"], text=TEXT),
)
PHYSICAL = closed(
    ["artifactLocation"],
    artifactLocation=closed(["uri"], uri={"type": "string", "pattern": r"^[!-~]*$"}),
    region=REGION,
)
RESULT = closed(
    ["message"],
    ruleId=TEXT,
    ruleIndex={"type": "integer", "minimum": -1},
    level={"enum": ["none", "note", "warning", "error"]},
    message=MESSAGE,
    locations={"type": "array", "items": closed([], physicalLocation=PHYSICAL)},
    partialFingerprints={"type": "object", "additionalProperties": TEXT},
    properties={"type": "object"},
)
RULE = closed(["id"], id=TEXT, name=TEXT)
DRIVER = closed(["name"], name=TEXT, version=TEXT, rules={"type": "array", "items": RULE, "uniqueItems": True})
PROVENANCE = closed(["repositoryUri"], repositoryUri=TEXT, revisionId=TEXT)
RUN = closed(
    ["tool"],
    tool=closed(["driver"], driver=DRIVER),
    columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
    results={"type": "array", "items": RESULT},
    versionControlProvenance={"type": "array", "items": PROVENANCE, "uniqueItems": True},
)
LOG = closed(
    ["version", "runs"], **{"$schema": TEXT, "version": {"const": "2.1.0"}, "runs": {"type": "array", "items": RUN}}
)


def some_findings() -> list[Finding]:
    return findings(
        added("src/ü ñ#?.py", "x = '\u202e'\n" * 3),
        make_change("bad\udcff\n.py", b"1\n"),
        added(".github/x.yml", "a\n"),
        *(added(f"m{n}.py", "x\n") for n in range(60)),
    )


def test_the_log_keeps_the_schema() -> None:
    items = [*some_findings(), Finding(rule="B101", severity="note", verdict=Ruling.ALLOW, message="m", tool="bandit")]
    log = to_sarif(items, version="1.2.3", head="f" * 40, repository="https://git.example.com/x")
    jsonschema.Draft7Validator(LOG).validate(log)
    assert [run["tool"]["driver"]["name"] for run in log["runs"]] == ["vestibule", "bandit"]


def test_rule_indices_fingerprints_and_addresses_are_right() -> None:
    items = some_findings()
    run = to_sarif(items, version="1")["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    prints = [result["partialFingerprints"]["vestibule/v1"] for result in run["results"]]
    assert len(set(prints)) == len(prints) == len(items)
    assert all(re.fullmatch(r"[0-9a-f]{32}", item) for item in prints)
    for result, finding in zip(run["results"], items, strict=True):
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == finding.rule
        if finding.place:
            uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
            assert unquote(uri) == finding.place.path


def test_no_findings_is_a_run_without_results() -> None:
    log = to_sarif([], version="1")
    jsonschema.Draft7Validator(LOG).validate(log)
    assert log["runs"][0]["results"] == []
