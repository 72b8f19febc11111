"""Alert rules and dashboards ask for what there is, in a language that Prometheus understands."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from prometheus_here import ROOT, promtool

from vestibule.cost.metrics import METRICS

PROMETHEUS = ROOT / "integrations" / "prometheus"
RULES = PROMETHEUS / "vestibule.rules.yaml"
TESTS = PROMETHEUS / "vestibule.test.yaml"
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}
KNOWN = {
    metric.name + suffix: {*metric.labels, "le"} for metric in METRICS for suffix in SUFFIXES.get(metric.kind, ("",))
}
OURS = re.compile(r"\bvestibule_[a-z0-9_]+\b")
SELECTED = re.compile(r"\b(vestibule_[a-z0-9_]+)\{([^}]*)\}")


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gen_dashboards", ROOT / "tools" / "gen_dashboards.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["gen_dashboards"] = module
    spec.loader.exec_module(module)
    return module


GENERATOR = _load()


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def wrong(query: str) -> list[str]:
    """Metrics and labels of a query that are not ours."""
    found = [name for name in OURS.findall(query) if name not in KNOWN]
    for name, selector in SELECTED.findall(query):
        labels = re.findall(r"([a-z_]+)\s*(?:=|!)", selector)
        found += [f"{name}.{label}" for label in labels if label not in KNOWN.get(name, ())]
    return found


def all_queries() -> list[str]:
    return [rule["expr"] for rule in rules()] + list(GENERATOR.queries())


@pytest.mark.parametrize("query", all_queries())
def test_a_query_names_only_what_there_is(query: str) -> None:
    assert OURS.search(query) or "vestibule:" in query
    assert not wrong(query)


def test_a_query_of_what_there_is_not_is_found() -> None:
    assert wrong("sum(vestibule_llm_costs_total)") == ["vestibule_llm_costs_total"]
    assert wrong('vestibule_llm_cost_usd_total{run="r1"}') == ["vestibule_llm_cost_usd_total.run"]
    assert wrong("vestibule_llm_request_duration_seconds") == ["vestibule_llm_request_duration_seconds"]


def test_the_dashboards_are_what_their_builder_makes() -> None:
    files = GENERATOR.files()
    assert {path.name for path in GENERATOR.FOLDER.glob("*.json")} == {path.name for path in files}
    stale = [path.name for path, text in files.items() if path.read_text("utf-8") != text]
    assert not stale, f"run tools/gen_dashboards.py: {stale}"


@pytest.mark.parametrize("uid", sorted(GENERATOR.BOARDS))
def test_a_dashboards_panels_have_a_place_of_their_own(uid: str) -> None:
    board = json.loads((GENERATOR.FOLDER / f"{uid}.json").read_text("utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells
        assert panel["targets"]
        assert all(target["datasource"]["uid"] == "${source}" for target in panel["targets"])
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_every_query_is_promql(tmp_path: Path) -> None:
    recorded = [{"record": f"q:{number}:x", "expr": query} for number, query in enumerate(all_queries())]
    recorded = [{**rule, "record": rule["record"].replace(":", "_")} for rule in recorded]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": recorded}]}), "utf-8")
    done = promtool("check", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    file.write_text(yaml.safe_dump({"groups": [{"name": "q", "rules": [{"record": "q", "expr": "sum(("}]}]}), "utf-8")
    assert promtool("check", "rules", str(file)).returncode != 0


def test_the_alert_rules_pass_their_own_tests() -> None:
    checked = promtool("check", "rules", str(RULES))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    done = promtool("test", "rules", TESTS.name, folder=PROMETHEUS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_in_a_test_and_says_what_to_do() -> None:
    fired = {
        case["alertname"]
        for test in yaml.safe_load(TESTS.read_text("utf-8"))["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    alerts = [rule for rule in rules() if "alert" in rule]
    assert {rule["alert"] for rule in alerts} == fired
    for rule in alerts:
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert rule["annotations"]["summary"]


def test_a_rule_that_is_changed_fails_its_test(tmp_path: Path) -> None:
    text = RULES.read_text("utf-8")
    assert text.count("> 0.8") == 1
    (tmp_path / RULES.name).write_text(text.replace("> 0.8", "> 0.9"), "utf-8")
    (tmp_path / TESTS.name).write_text(TESTS.read_text("utf-8"), "utf-8")
    assert promtool("test", "rules", TESTS.name, folder=tmp_path).returncode != 0
