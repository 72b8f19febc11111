"""`make run`: the sample goes the whole way, with a person's answer and a person's approval in between."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_sample_asks_goes_on_with_the_grant_and_is_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    main_job = importlib.import_module("main_job")
    monkeypatch.setattr(main_job, "STATE", tmp_path)
    for name in ("REPO", "TICKET", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("YES", "1")
    assert main_job.main() == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    places = [
        said.index(text) for text in (": awaiting_answer", "grant.", ": awaiting_review", ": merged", ": verified,")
    ]
    assert places == sorted(places)
    assert "the model is SCRIPTED" in said
    assert "no record: title, address, author, email" in said


def test_a_repository_without_a_ticket_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    main_job = importlib.import_module("main_job")
    monkeypatch.setenv("REPO", str(ROOT))
    monkeypatch.delenv("TICKET", raising=False)
    assert main_job.main() == 2
