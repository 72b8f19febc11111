"""The patch and what was seen being written: every difference is told."""

from __future__ import annotations

import pytest

from vestibule.boundary.host import report
from vestibule.boundary.host.report import HostReport, unexplained
from vestibule.boundary.host.seen import Summary


def paths(changed: list[tuple[str, str]], gateway: tuple[str, ...] = (), **seen: tuple[str, ...]) -> list[str]:
    summary = Summary.model_validate({name: [f"/workspace/{item}" for item in items] for name, items in seen.items()})
    return [item.place.path if item.place else "" for item in unexplained(changed, summary, gateway)]


def test_a_file_that_somebody_was_seen_to_write_is_explained() -> None:
    assert paths([("src/a.py", "modified"), ("b", "added")], writes=("src/a.py", "b")) == []


def test_a_file_that_nobody_was_seen_to_write_holds_the_change() -> None:
    summary = Summary(writes=("/workspace/other", "/src/a.py", "/workspace/src"))
    (found,) = unexplained([("src/a.py", "modified")], summary, ())
    assert (found.rule, found.verdict) == ("host.unwritten", "hold")


def test_what_our_own_tools_wrote_is_explained() -> None:
    assert paths([("src/a.py", "modified")], gateway=("src/a.py",)) == []


def test_a_folder_that_was_moved_brings_its_files_and_takes_them_along() -> None:
    changed = [("old/x/a", "deleted"), ("new/x/a", "added"), ("newer/a", "added")]
    assert paths(changed, moved=("new",), gone=("old",)) == ["newer/a"]


def test_a_file_that_disappeared_unseen_is_told() -> None:
    assert paths([("a", "deleted"), ("b", "deleted")], gone=("a",), writes=("b",)) == ["b"]


def test_an_account_with_a_gap_agrees_with_nothing() -> None:
    (found,) = unexplained([], Summary(full=True), ())
    assert found.rule == "host.account"


def test_many_differences_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_NAMED", 2)
    assert paths([(f"f{number}", "added") for number in range(5)]) == ["f0", "f1", ""]


def test_what_the_log_keeps_holds_no_floats_and_no_lists_of_files() -> None:
    found = HostReport(rung="tracepoints", events=3, sha256="ab", file="events-1-1.bin").as_details()
    assert all(isinstance(value, (int, str, bool)) for value in found.values())
