"""Tries a policy in a process of its own before this one takes it in.

Why: the engine is native code and ends its whole process on some sources it was not made for (regopy 1.5.2
calls `std::terminate` on `with` around a call of one's own function). A policy written by others must be refused
with a sentence, not take the supervisor with it.

The child gets an empty environment and answers on its standard output.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vestibule.core.errors import DependencyDown
from vestibule.policy.engine import EngineError, Program, UndefinedDecision, parse_answer

TIMEOUT_SECONDS = 20.0
QUIET_INPUT: dict[str, Any] = {"action": "", "subject": {}, "resource": {}, "task": {}, "labels": {}, "facts": {}}


def try_decisions(sources: Mapping[str, str]) -> str:
    """What is wrong when the layer decides an empty request; "" when it answers or is undefined."""
    result = _in_a_child(sources, ["decision"])[0]
    if "error" in result:
        return str(result["error"])
    if "value" in result:
        try:
            parse_answer(result["value"])
        except EngineError as error:
            return str(error)
    return ""


def try_rules(sources: Mapping[str, str], names: Sequence[str]) -> list[tuple[bool, str]]:
    """For each rule of the package: whether it is `true`, and else why not."""
    found = []
    for name in names:  # a child each: one that ends the engine says nothing about the others
        result = _in_a_child(sources, [name])[0]
        passed = result.get("value") is True
        found.append((passed, "" if passed else str(result.get("error", "the rule is not true"))))
    return found


def try_inputs(sources: Mapping[str, str], inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The layer's answer to each input: one of `{"value": …}`, `{"undefined": true}`, `{"error": …}`."""
    return _in_a_child(sources, ["decision"] * len(inputs), inputs)


def try_variants(
    variants: Sequence[Mapping[str, str]], names: Sequence[str], inputs: Sequence[Mapping[str, Any]]
) -> list[list[dict[str, Any]]]:
    """What rules and inputs give on each variant of the sources, a child each."""
    asked = [*names, *["decision"] * len(inputs)]
    given = [*[QUIET_INPUT] * len(names), *inputs]
    return [_in_a_child(sources, asked, given) for sources in variants]


def _in_a_child(
    sources: Mapping[str, str], rules: Sequence[str], inputs: Sequence[Mapping[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """One of `{"value": …}`, `{"undefined": true}`, `{"error": …}` for each rule.

    Raises:
        DependencyDown: `dependency.policy`: no child could be started.
    """
    given = [QUIET_INPUT] * len(rules) if inputs is None else list(inputs)
    request = json.dumps({"sources": dict(sources), "rules": list(rules), "inputs": given})
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "vestibule.policy.trial"],
            input=request.encode("utf-8"),
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            env={"LC_ALL": "C.UTF-8"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [{"error": "the policy takes too long"}] * len(rules)
    except OSError as error:
        raise DependencyDown("policy", "The policy could not be tried out.", fact=str(error.strerror)) from None
    if done.returncode != 0:
        return [{"error": f"the engine cannot run this policy (it ended with {done.returncode})"}] * len(rules)
    try:
        results = json.loads(done.stdout)
    except ValueError:
        results = None
    if not isinstance(results, list) or len(results) != len(rules):
        return [{"error": "the engine gave no readable answer"}] * len(rules)
    return results


def _answers(sources: Mapping[str, str], rules: Sequence[str], inputs: Sequence[Any]) -> list[dict[str, Any]]:
    programs: dict[str, Program | str] = {}
    found: list[dict[str, Any]] = []
    for rule, given in zip(rules, inputs, strict=True):
        if rule not in programs:
            try:
                programs[rule] = Program(sources, rule)
            except EngineError as error:
                programs[rule] = str(error)
        program = programs[rule]
        try:
            if isinstance(program, str):
                raise EngineError(program)
            found.append({"value": program.value(given)})
        except UndefinedDecision:
            found.append({"undefined": True})
        except EngineError as error:
            found.append({"error": str(error)})
    return found


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    sys.stdout.write(json.dumps(_answers(asked["sources"], asked["rules"], asked["inputs"])))
