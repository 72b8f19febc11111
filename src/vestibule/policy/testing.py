"""Runs the tests that stand beside a policy: `test_*` rules in `*_test.rego` files, decisions in `*_test.json` files.

A file of decisions is `{"base": INPUT, "cases": [{"name", "change", "without", "verdict", "reasons"}]}`: `change`
replaces members of the input's parts, `without` takes some away (`facts.in_read`); the policy, asked alone, has to
give exactly that verdict and those reasons.

A test passes when its rule is `true`. False, undefined or an error is a failure: a test that says nothing
proves nothing.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vestibule.core.errors import ConfigError
from vestibule.policy.engine import EngineError, parse_answer
from vestibule.policy.layers import Layer
from vestibule.policy.lint import rule_names
from vestibule.policy.tokens import tokens
from vestibule.policy.trial import try_inputs, try_rules


@dataclass(frozen=True, slots=True)
class RuleTest:
    """One test. `why` is empty when it passed."""

    file: str
    name: str
    passed: bool
    why: str = ""

    def as_json(self) -> dict[str, object]:
        return {"file": self.file, "name": self.name, "passed": self.passed, "why": self.why}


@dataclass(frozen=True, slots=True)
class DecisionTest:
    """One case of a `*_test.json` file."""

    file: str
    name: str
    input: dict[str, Any]
    verdict: str
    reasons: frozenset[str]


def decision_tests(folder: Path) -> list[DecisionTest]:
    """Every case of the `*_test.json` files below `folder`, in order.

    Raises:
        ConfigError: a file that is not of this form.
    """
    found = []
    for path in sorted(folder.rglob("*_test.json")):
        file = path.relative_to(folder).as_posix()
        try:
            data = json.loads(path.read_bytes())
            for case in data["cases"]:
                document = changed(data["base"], case.get("change", {}), case.get("without", []))
                reasons = frozenset(str(reason) for reason in case["reasons"])
                found.append(DecisionTest(file, str(case["name"]), document, str(case["verdict"]), reasons))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(
                "the file holds no decisions to test",
                where=file,
                why=f"{type(error).__name__}: {error}",
                next_step='Write `{"base": INPUT, "cases": [{"name": …, "verdict": …, "reasons": […]}]}`.',
            ) from None
    return found


def changed(base: dict[str, Any], change: dict[str, Any], without: list[str]) -> dict[str, Any]:
    """The base with a case's changes; `base` itself stays as it is."""
    document = copy.deepcopy(base)
    for part, members in change.items():
        if isinstance(members, dict):
            document.setdefault(part, {}).update(members)
        else:
            document[part] = members
    for place in without:
        part, name = place.split(".", 1)
        document[part].pop(name, None)
    return document


def run_decisions(layer: Layer, tests: Sequence[DecisionTest]) -> list[RuleTest]:
    """Each case asked of the layer alone."""
    answers = try_inputs(layer.sources, [test.input for test in tests]) if tests else []
    results = []
    for test, answer in zip(tests, answers, strict=True):
        why = str(answer.get("error", "the policy is undefined for it"))
        if "value" in answer:
            try:
                said = parse_answer(answer["value"])
            except EngineError as error:
                why = str(error)
            else:
                same = (said.ruling.value, frozenset(said.reasons)) == (test.verdict, test.reasons)
                why = "" if same else f"it says {said.ruling.value} ({', '.join(said.reasons)})"
        results.append(RuleTest(test.file, test.name, passed=not why, why=why))
    return results


def run_tests(layer: Layer) -> list[RuleTest]:
    """Every test of a layer, in order. The layer was linted before."""
    sources = {**layer.sources, **layer.tests}
    results: list[RuleTest] = []
    for file, text in sorted(layer.tests.items()):
        names = list(dict.fromkeys(name for name in rule_names(tokens(text)) if name.startswith("test_")))
        for name, (passed, why) in zip(names, try_rules(sources, names), strict=True):
            results.append(RuleTest(file, name, passed=passed, why=why))
    return results
