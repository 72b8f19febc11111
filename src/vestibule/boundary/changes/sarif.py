"""Findings as SARIF 2.1.0 (OASIS Standard, 27 March 2020), with `partialFingerprints` (section 3.27.17)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from vestibule.core.model import Finding

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
FINGERPRINT = "vestibule/v1"


def to_sarif(findings: Sequence[Finding], *, version: str, head: str = "", repository: str = "") -> dict[str, Any]:
    """One log with one run per tool. `head` is the commit judged, `repository` its URI when known."""
    tools = list(dict.fromkeys(["vestibule", *(finding.tool for finding in findings)]))
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [_run(tool, [f for f in findings if f.tool == tool], version, head, repository) for tool in tools],
    }


def _run(tool: str, findings: Sequence[Finding], version: str, head: str, repository: str) -> dict[str, Any]:
    rules = list(dict.fromkeys(finding.rule for finding in findings))
    driver: dict[str, Any] = {"name": tool, "rules": [{"id": rule, "name": _name(rule)} for rule in rules]}
    if tool == "vestibule":
        driver["version"] = version
    run: dict[str, Any] = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, rules.index(finding.rule)) for finding in findings],
    }
    if head and repository:
        run["versionControlProvenance"] = [{"repositoryUri": repository, "revisionId": head}]
    return run


def _result(finding: Finding, index: int) -> dict[str, Any]:
    text = finding.message if not finding.fix else f"{finding.message} {finding.fix}"
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": finding.severity,
        "message": {"text": text},
        "partialFingerprints": {FINGERPRINT: finding.fingerprint},
        "properties": {"verdict": finding.verdict.value},
    }
    if finding.place:
        place: dict[str, Any] = {"artifactLocation": {"uri": quote(finding.place.path)}}
        if finding.place.line:
            region: dict[str, Any] = {"startLine": finding.place.line}
            if finding.place.end_line:
                region["endLine"] = finding.place.end_line
            if finding.excerpt:
                region["snippet"] = {"text": finding.excerpt}
            place["region"] = region
        result["locations"] = [{"physicalLocation": place}]
    return result


def _name(rule: str) -> str:
    return "".join(part.capitalize() for part in rule.replace("_", ".").replace("-", ".").split("."))
