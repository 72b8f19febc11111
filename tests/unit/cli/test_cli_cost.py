"""`vestibule cost`: lines, budgets, exports, and the comparison with a bill, as the command says them."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cost"))

from spend_books import Books

from vestibule.cli.cost import command
from vestibule.store.database import Database


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Books:
    """Two days of spend in a state folder of its own: $1 and $0.25 by two agents, and a request under way."""
    monkeypatch.setenv("VESTIBULE_HOME", str(tmp_path))
    monkeypatch.delenv("VESTIBULE_DATABASE_URL", raising=False)
    made = Books(Database.open(tmp_path))
    made.spend("r1", cost=1_000_000_000, at="2026-01-02T10:00:00.000Z")
    made.spend("r2", cost=250_000_000, at="2026-01-03T10:00:00.000Z", agent="codex", provider="openai", model="gpt-5")
    made.hold("r2", nano_usd=9)
    return made


def run(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(command, list(arguments), standalone_mode=False)
    if code == 2:
        assert done.exception is not None
        return done
    assert done.exception is None, done.output
    assert (done.return_value or 0) == code, done.output
    return done


def lines(*arguments: str) -> dict[str, int]:
    found = json.loads(run(*arguments, "--json").stdout)
    assert found["total"]["cost_nano_usd"] == sum(line["usage"]["cost_nano_usd"] for line in found["lines"])
    return {line["name"]: line["usage"]["cost_nano_usd"] for line in found["lines"]}


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("agent", ["claude", "codex"]),
        ("provider", ["anthropic", "openai"]),
        ("model", ["claude-sonnet-5", "gpt-5"]),
        ("run", ["r1", "r2"]),
        ("day", ["2026-01-02", "2026-01-03"]),
        ("repository", ["example.com/shop"]),
        ("role", ["backend"]),
    ],
)
def test_spend_is_told_along_every_dimension(books: Books, by: str, names: list[str]) -> None:
    found = lines("--by", by)
    assert list(found) == names
    assert sum(found.values()) == 1_250_000_000


def test_a_time_is_from_its_beginning_up_to_its_end(books: Books) -> None:
    assert lines("--by", "day", "--since", "2026-01-03") == {"2026-01-03": 250_000_000}
    assert lines("--by", "day", "--until", "2026-01-03") == {"2026-01-02": 1_000_000_000}
    assert lines("--since", "2026-01-02T10:00Z", "--until", "2026-01-02T10:00:00.001Z") == {"r1": 1_000_000_000}
    assert lines("--since", "2026-01-02T10:00:00.001Z", "--until", "2026-01-03") == {}
    assert "Nothing was spent in this time" in run("--since", "2027-01-01").stdout


@pytest.mark.parametrize("text", ["yesterday", "2026-1-2", "2026-02-30", "2026-01-02T10:00", "2026-01-02T25:00Z", "0"])
def test_what_is_no_time_is_said_so(books: Books, text: str) -> None:
    assert "no UTC day" in str(run("--since", text, code=2).exception)


def test_budgets_say_what_is_spent_and_reserved(books: Books) -> None:
    found = json.loads(run("--budgets", "--json").stdout)["budgets"]
    (of_run,) = [line for line in found if line["scope"] == "run"]
    assert (of_run["name"], of_run["held_nano_usd"], of_run["spent_nano_usd"]) == ("r2", 9, 250_000_000)
    assert "run r2" in run("--budgets").stdout
    assert "budgets" not in json.loads(run("--json").stdout)


def test_metrics_as_text_need_no_server(books: Books) -> None:
    page = run("--format", "prometheus").stdout
    assert 'vestibule_llm_cost_usd_total{agent="codex"' in page
    assert page.endswith("\n")
    assert "no further options" in str(run("--format", "prometheus", "--json", code=2).exception)


def test_focus_rows_are_csv_on_stdout(books: Books) -> None:
    text = run("export", "--focus", "--since", "2026-01-03", "--account", "team-7").stdout
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["BilledCost"], row["BillingAccountId"], row["ProviderName"]) == ("0.25", "team-7", "OpenAI")


@pytest.mark.parametrize(("form", "key"), [("--otlp", "resourceMetrics"), ("--otlp-spans", "resourceSpans")])
@pytest.mark.parametrize("generation", ["1.41", "genai"])
def test_otlp_is_a_json_object_a_line(books: Books, form: str, key: str, generation: str) -> None:
    (line,) = run("export", form, "--semconv", generation).stdout.splitlines()
    assert json.loads(line)[key]


def test_an_export_without_a_form_is_a_question(books: Books) -> None:
    assert "--focus" in str(run("export", code=2).exception)
    run("export", "--focus", "--version", "9", code=2)


def report(folder: Path, **changed: Any) -> str:
    line = {
        "uncached_input_tokens": 1000,
        "cache_creation": {"ephemeral_1h_input_tokens": 20, "ephemeral_5m_input_tokens": 30},
        "cache_read_input_tokens": 300,
        "output_tokens": 200,
        "model": "claude-sonnet-5",
    }
    bucket = {"starting_at": "2026-01-02T00:00:00Z", "ending_at": "2026-01-03T00:00:00Z", "results": [line | changed]}
    file = folder / "report.json"
    file.write_text(json.dumps({"data": [bucket], "has_more": False}), "utf-8")
    return str(file)


def test_a_bill_that_agrees_is_0(books: Books, tmp_path: Path) -> None:
    done = run("reconcile", report(tmp_path), "--provider", "anthropic")
    assert "They agree" in done.stdout
    assert json.loads(run("reconcile", report(tmp_path), "--provider", "anthropic", "--json").stdout)["ok"] is True


def test_a_bill_that_differs_is_6_and_says_where(books: Books, tmp_path: Path) -> None:
    file = report(tmp_path, output_tokens=900)
    done = run("reconcile", file, "--provider", "anthropic", code=6)
    assert "2026-01-02" in done.stdout
    assert "output" in done.stdout
    assert "1 of 4 numbers differ" in done.stdout
    found = json.loads(run("reconcile", file, "--provider", "anthropic", "--json", code=6).stdout)
    assert [(item["what"], item["counted"], item["billed"]) for item in found["differences"]] == [("output", 200, 900)]
    run("reconcile", file, "--provider", "anthropic", "--tolerance", "1000")


def test_whose_spend_is_meant_can_be_named(books: Books, tmp_path: Path) -> None:
    books.spend("r3", at="2026-01-02T11:00:00.000Z", provider="house")
    run("reconcile", report(tmp_path), "--provider", "anthropic", "--as", "house")
    run("reconcile", report(tmp_path), "--provider", "anthropic", "--as", "nobody", code=6)


def test_a_bill_that_cannot_be_read_is_an_error_with_its_place(books: Books, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        command, ["reconcile", report(tmp_path, output_tokens="x"), "--provider", "anthropic"], standalone_mode=False
    )
    assert "data[0].results[0].output_tokens" in str(done.exception)
    assert getattr(done.exception, "exit_code", None) == 2
