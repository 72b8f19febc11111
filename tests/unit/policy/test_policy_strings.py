"""A rule about a string fires for that string, whatever characters are in it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from vestibule.core.ports import PolicyInput
from vestibule.core.verdict import Ruling
from vestibule.policy import policy_set
from vestibule.policy.engine import EngineError, Program
from vestibule.policy.policy_set import PolicySet

HEAD = """package vestibule

default decision := {"verdict": "allow", "reasons": []}

decision := {"verdict": "deny", "reasons": deny} if count(deny) > 0

"""


def _asked(**parts: Any) -> dict[str, Any]:
    return {"action": "a", "subject": {}, "resource": {}, "task": {"role": "r"}, "labels": {}, "facts": {}, **parts}


def _denies(condition: str, text: str, **parts: Any) -> bool:
    program = Program({"a.rego": f'{HEAD}deny contains "a.x" if {condition}\n'})
    return program.answer(_asked(resource={"x": text}, **parts)).ruling is Ruling.DENY


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (r"regex.match(`rm\s+-rf`, input.resource.x)", "rm\t-rf"),
        (r"regex.match(`rm\s+-rf`, input.resource.x)", "rm\n-rf"),
        (r'regex.match(`="`, input.resource.x)', 'a="b'),
        (r"regex.match(`^a.b$`, input.resource.x)", 'a"b'),
        (r"count(input.resource.x) == 3", 'a"b'),
        (r'endswith(input.resource.x, "\"")', 'a"'),
        (r"input.resource.x == `a\b`", "a\\b"),
        (r'input.resource.x == "a\tb"', "a\tb"),
        (r'input.resource.x == "a\u0009b"', "a\tb"),
        (r'input.resource.x == "a\u0000b"', "a\0b"),
        (r'input.resource.x == "caf\u00e9"', "café"),
        (r'input.resource.x == "\ud83d\ude00"', "😀"),
        (r'input.resource.x == "a\/b"', "a/b"),
        (r'contains(input.resource.x, "\u007f")', "a\x7fb"),
        (r'startswith(input.resource.x, "\u00e9")', "éa"),
    ],
)
def test_a_rule_about_a_string_fires_whatever_is_in_it(condition: str, text: str) -> None:
    assert _denies(condition, text)


def test_a_rule_about_a_name_fires_whatever_is_in_it() -> None:
    assert _denies(r"{ some k, _ in input.facts; regex.match(`\s`, k) }", "", facts={"a\tb": True})


@pytest.mark.parametrize("text", ['say "hi"\n', "a\\b", "\\d\\", "\0", "\x7f", "é\t\\"])
@pytest.mark.parametrize(
    "condition",
    [
        'input.resource.x == "other"',
        'glob.match("other*", [], input.resource.x)',
        'trim_space(input.resource.x) == "other"',
        'trim(input.resource.x, "q") == "other"',
        "regex.match(`^other$`, input.resource.x)",
        'sprintf("%s", [input.resource.x]) == "other"',
    ],
)
def test_what_no_rule_is_about_is_allowed_with_any_character(condition: str, text: str) -> None:
    assert not _denies(condition, text)


def test_a_literal_with_half_a_character_is_no_policy() -> None:
    with pytest.raises(EngineError):
        Program({"a.rego": f'{HEAD}deny contains "a.x" if input.resource.x == "\\ud800"\n'})


@pytest.mark.parametrize("odd", [1 << 70, [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]], "\ud800", 1.5])
def test_a_question_that_cannot_be_put_slows_no_other_down(odd: Any) -> None:
    rule = 'deny contains "a.x" if {\n\tinput.action == "a"\n\tinput.resource.x == 1\n}\n'
    program = Program({"a.rego": f"{HEAD}{rule}"})
    program.answer(_asked())
    with pytest.raises(EngineError):
        program.answer(_asked(resource={"x": odd}))
    assert all(form is not program._whole for form in program._variants.values())


ENDS = """
import sys
from vestibule.core.ports import PolicyInput
from vestibule.policy.layers import Layer, shipped_layer
from vestibule.policy.policy_set import PolicySet

own = Layer("organisation", {"a.rego": sys.argv[1]}, {})
policy = PolicySet([shipped_layer(), own])
for length in (2, 30_000, 63_000, 66_000, 200_000):
    facts = {"tool_allowed": True, "command_allowed": True}
    argv = ["a" * (length // 2), "a" * (length // 2)]
    request = PolicyInput(action="context.exec", subject={}, resource={"argv": argv}, facts=facts)
    print(policy.decide(request).ruling.value, *policy.decide(request).reasons)
"""


@pytest.mark.parametrize("pattern", ["^[a-z ]*$", "^(a|b)*$", "^(([a-z])+[.]?)+$"])
def test_an_expression_on_a_long_string_does_not_end_the_process(pattern: str) -> None:
    rule = f'deny contains "a.x" if regex.match(`{pattern}`, concat("", input.resource.argv))\n'
    done = subprocess.run(
        [sys.executable, "-c", ENDS, HEAD + rule], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-300:]
    assert done.stdout.splitlines() == [*["deny a.x"] * 3, *["deny policy.error"] * 2]


def test_what_is_remembered_is_bounded_in_bytes() -> None:
    policy = PolicySet.load()
    try:
        for number in range(8):
            policy.decide(PolicyInput(**_asked(resource={"argv": [f"{number}" + "x" * 100_000]})))
            policy.decide(PolicyInput(**_asked(resource={"argv": [f"{number}"]})))
        assert len(policy._cache) == 8
        assert all(len(key) <= policy_set.REMEMBERED_BYTES for key in policy._cache)
    finally:
        policy.close()
