"""Runs the `test_*` rules that stand beside a policy, in `*_test.rego` files.

A test passes when its rule is `true`. False, undefined or an error is a failure: a test that says nothing
proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from vestibule.policy.layers import Layer
from vestibule.policy.lint import rule_names
from vestibule.policy.tokens import tokens
from vestibule.policy.trial import try_rules


@dataclass(frozen=True, slots=True)
class RuleTest:
    """One test. `why` is empty when it passed."""

    file: str
    name: str
    passed: bool
    why: str = ""

    def as_json(self) -> dict[str, object]:
        return {"file": self.file, "name": self.name, "passed": self.passed, "why": self.why}


def run_tests(layer: Layer) -> list[RuleTest]:
    """Every test of a layer, in order. The layer was linted before."""
    sources = {**layer.sources, **layer.tests}
    results: list[RuleTest] = []
    for file, text in sorted(layer.tests.items()):
        names = list(dict.fromkeys(name for name in rule_names(tokens(text)) if name.startswith("test_")))
        for name, (passed, why) in zip(names, try_rules(sources, names), strict=True):
            results.append(RuleTest(file, name, passed=passed, why=why))
    return results
