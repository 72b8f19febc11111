"""`vestibule policy`: exit codes and the one JSON object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from policy_vocabulary import request

from vestibule.cli.policy import command
from vestibule.core.errors import VestibuleError

ALLOW_ALL = 'package vestibule\n\ndefault decision := {"verdict": "allow", "reasons": []}\n'


@pytest.fixture(autouse=True)
def own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No operator configuration and no repository but what a test makes."""
    monkeypatch.setenv("VESTIBULE_CONFIG", str(tmp_path / "config.yaml"))
    (tmp_path / "config.yaml").write_text("version: 1\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def call(*args: str, stdin: str = "") -> tuple[int, str]:
    result = CliRunner().invoke(command, list(args), input=stdin, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value, result.stdout


def call_json(*args: str, stdin: str = "") -> tuple[int, dict[str, Any]]:
    code, out = call(*args, "--json", stdin=stdin)
    return code, json.loads(out)


def test_lint_of_what_would_take_part() -> None:
    code, found = call_json("lint")
    assert (code, found) == (0, {"ok": True, "layers": ["shipped"], "problems": []})


def test_lint_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "p.rego").write_text(ALLOW_ALL + "x := opa.runtime()\n")
    code, out = call("lint", str(tmp_path))
    assert code == 6
    assert "p.rego:4: the function `opa.runtime` is not available" in out


def test_lint_includes_the_repository_and_the_organisation(tmp_path: Path) -> None:
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "p.rego").write_text(ALLOW_ALL)
    (tmp_path / "config.yaml").write_text(f"version: 1\npolicy: ['{tmp_path / 'org'}']\n")
    Path(".vestibule/policy").mkdir(parents=True)
    Path(".vestibule/policy/p.rego").write_text(ALLOW_ALL)
    assert call_json("lint")[1]["layers"] == ["shipped", "organisation", "repository"]


def test_lint_of_nothing_is_a_broken_dependency(tmp_path: Path) -> None:
    with pytest.raises(VestibuleError) as found:
        call("lint", str(tmp_path / "gone"))
    assert found.value.exit_code == 4


@pytest.mark.parametrize(
    ("action", "changed", "code"),
    [("context.read", {}, 0), ("change.propose", {}, 3), ("context.read", {"in_read": False}, 4)],
)
def test_explain_exits_by_the_verdict(action: str, changed: dict[str, Any], code: int) -> None:
    text = request(action, changed).model_dump_json()
    found = call_json("explain", "-", stdin=text)
    assert found[0] == code
    assert found[1]["verdict"] == {0: "allow", 3: "hold", 4: "deny"}[code]
    assert found[1]["layers"][0]["layer"] == "shipped"


def test_explain_for_people_names_rule_fact_and_next_step() -> None:
    Path("request.json").write_text(request("context.read", {"in_read": False}).model_dump_json())
    code, out = call("explain", "request.json")
    assert code == 4
    assert "decided by in_read = False" in out
    assert "[context.read.scope]" in out
    assert "Widen the role's `read` globs" in out


@pytest.mark.parametrize("text", ["", "[]", "{", '{"action": 1}', '{"action": "a", "extra": 1}', "[" * 3000, "\xff"])
def test_explain_refuses_what_is_no_request(text: str) -> None:
    with pytest.raises(VestibuleError) as found:
        call("explain", "-", stdin=text)
    assert found.value.exit_code == 2


def test_policy_tests_pass_and_fail(tmp_path: Path) -> None:
    (tmp_path / "p.rego").write_text(ALLOW_ALL)
    (tmp_path / "p_test.rego").write_text('package vestibule\ntest_a if decision.verdict == "allow"\n')
    assert call_json("test", str(tmp_path))[0] == 0
    (tmp_path / "p_test.rego").write_text('package vestibule\ntest_a if decision.verdict == "deny"\n')
    code, found = call_json("test", str(tmp_path))
    assert code == 6
    assert found["tests"] == [{"file": "p_test.rego", "name": "test_a", "passed": False, "why": "the rule is not true"}]


def test_no_test_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "p.rego").write_text(ALLOW_ALL)
    code, found = call_json("test", str(tmp_path))
    assert (code, found["ok"], found["tests"]) == (6, False, [])


POLICY = """package vestibule

default decision := {"verdict": "allow", "reasons": []}

decision := {"verdict": "deny", "reasons": deny} if count(deny) > 0

deny contains "acme.freeze" if frozen(input.task.role)

deny contains "acme.never" if input.action == "merge"

frozen(role) if role == "backend"
"""


def test_decisions_beside_a_policy_are_tested_and_say_which_rules_they_hold_up(tmp_path: Path) -> None:
    (tmp_path / "p.rego").write_text(POLICY)
    base = request("context.write").model_dump(mode="json")
    cases = [
        {"name": "frozen", "verdict": "deny", "reasons": ["acme.freeze"]},
        {"name": "another role", "change": {"task": {"role": "docs"}}, "verdict": "allow", "reasons": []},
    ]
    (tmp_path / "p_test.json").write_text(json.dumps({"base": base, "cases": cases}))
    code, found = call_json("test", str(tmp_path))
    assert code == 0, found
    assert [item["passed"] for item in found["tests"]] == [True, True]
    assert found["coverage"]["reasons_not_reached"] == ["acme.never"]
    rules = {(item["name"], item["first_line"]): item["covered"] for item in found["coverage"]["rules"]}
    assert rules == {("decision", 5): True, ("deny", 7): True, ("deny", 9): False, ("frozen", 11): True}
    assert found["coverage"]["percent"] == found["coverage"]["files"]["p.rego"] == 75
    assert "p.rego:9: no test notices the loss of `deny` (acme.never)" in call("test", str(tmp_path))[1]

    cases[0]["reasons"] = ["acme.other"]
    (tmp_path / "p_test.json").write_text(json.dumps({"base": base, "cases": cases}))
    code, found = call_json("test", str(tmp_path))
    assert (code, found["tests"][0]["why"]) == (6, "it says deny (acme.freeze)")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"base": {}, "cases": [{}]}', '{"base": [], "cases": [{"name": 1}]}']
)
def test_a_file_that_holds_no_decisions_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.rego").write_text(POLICY)
    (tmp_path / "p_test.json").write_text(text)
    with pytest.raises(VestibuleError) as found:
        call("test", str(tmp_path))
    assert found.value.exit_code == 2


def test_what_a_strangers_policies_say_moves_no_cursor(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "p\x1b[2J.rego").write_text(ALLOW_ALL + "x := opa.runtime()\n")
    code, out = call("lint", str(folder))
    assert code == 6
    assert "\x1b" not in out
    assert "⟦" in out
