"""A scanner that was asked for and did not look holds the change."""

from __future__ import annotations

from vestibule.boundary.changes.rules import ruling
from vestibule.boundary.changes.scanners import not_run
from vestibule.core.verdict import Ruling


def test_a_scanner_that_did_not_run_is_a_hold_and_never_a_pass() -> None:
    findings = not_run(("bandit", "zizmor", "bandit"))
    assert [finding.rule for finding in findings] == ["scanner.not_run"] * 2
    assert ruling(findings) is Ruling.HOLD
    assert "bandit" in findings[0].message


def test_no_scanner_asked_for_is_no_finding() -> None:
    assert not_run(()) == ()
