"""The index changes no answer: every policy here is asked with it and without, about every action and role."""

# ruff: noqa: E501 - policies are easier to read in one piece
from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from vestibule.policy.engine import EngineError, Program
from vestibule.policy.index import WHOLE, LayerIndex, narrow, parts_named

HEAD = """package vestibule

default decision := {"verdict": "allow", "reasons": []}

decision := {"verdict": "deny", "reasons": deny} if count(deny) > 0

"""
POLICIES = {
    "rules by action": 'deny contains "a.m" if input.action == "merge"\n\ndeny contains "a.r" if {\n'
    '\tinput.action == "context.read"\n\tinput.resource.id == "x"\n}\n',
    "a set of actions": 'deny contains "a.s" if {\n\tinput.action in {"merge", "context.read"}\n\tinput.facts.a\n}\n',
    "the guard is not first": 'deny contains "a.g" if {\n\tinput.facts.a\n\tinput.action == "merge"\n}\n',
    "a table by role": 'roles := {"one": {"stop": true}, "two": {"stop": false},}\n\n'
    'deny contains "a.role" if roles[input.task.role].stop\n\ndeny contains "a.none" if not roles[input.task.role]\n',
    "a table that is walked too": 'roles := {"one": 1, "two": 2}\n\ndeny contains "a.role" if roles[input.task.role] == 1\n\n'
    'deny contains "a.many" if count(roles) == 2\n',
    "a table handed on": 'roles := {"one": 1}\n\ndeny contains "a.role" if f(roles)\n\nf(table) if table[input.task.role] == 1\n',
    "a table by its full name": 'roles := {"one": 1}\n\ndeny contains "a.role" if data.vestibule.roles.one == 1\n',
    "a constant of two statements": "list := [1] if input.facts.a\n\nlist := [2] if not input.facts.a\n\n"
    'deny contains "a.list" if list == [2]\n',
    "else after a body": 'size := 1 if {\n\tinput.action == "merge"\n} else := 2\n\ndeny contains "a.size" if size == 2\n',
    "else on a new line": 'size := 1 if input.action == "merge"\nelse := 2\n\ndeny contains "a.size" if size == 2\n',
    "a name whose rules all fall away": 'late if input.action == "merge"\n\ndeny contains "a.late" if not late\n',
    "a head with a computed reason": 'deny contains input.facts.why if {\n\tinput.action == "merge"\n\tinput.facts.why\n}\n',
    "an empty table": 'roles := {}\n\ndeny contains "a.none" if not roles[input.task.role]\n',
    "two guards": 'deny contains "a.two" if {\n\tinput.action == "merge"\n\tinput.task.role == "one"; input.facts.a\n}\n',
    "comments and brackets": '# if {\ndeny contains "a.c" if { # input.action == "x"\n\tinput.action == "merge" # }\n}\n',
    "an escaped literal": 'deny contains "a.e" if input.task.role == "o\\u006ee"\n',
    "the whole input handed on": 'deny contains "a.w" if f(input)\n\nf(asked) if asked.resource.id == "x"\n',
    "an imported part": 'deny contains "a.i" if seen.a\n',
    "an error behind the guard": 'deny contains "a.x" if {\n\tinput.action == "merge"\n\tto_number(input.resource.id) > 1\n}\n',
}
IMPORTS = {"an imported part": "import input.facts as seen\n\n"}


def _inputs() -> list[dict[str, Any]]:
    actions = ["merge", "context.read", "", "x"]
    roles: list[Any] = ["one", "two", "three", None, 7]
    facts: list[dict[str, Any]] = [{}, {"a": True}, {"a": False, "why": "a.why"}]
    return [
        {"action": a, "subject": {}, "resource": {"id": r}, "task": {"role": o}, "labels": {}, "facts": f}
        for a, o, f, r in product(actions, roles, facts, ("x", "2"))
    ]


@pytest.mark.parametrize("name", POLICIES)
def test_the_index_changes_no_answer(name: str) -> None:
    text = {"p.rego": HEAD.replace("\n\n", "\n\n" + IMPORTS.get(name, ""), 1) + POLICIES[name]}
    quick, whole = Program(text), Program(text, indexed=False)
    for asked in _inputs():
        assert _said(quick, asked) == _said(whole, asked), asked


def _said(program: Program, asked: dict[str, Any]) -> Any:
    try:
        return program.answer(asked)
    except EngineError as error:
        return type(error)


def test_rules_about_other_actions_are_left_out_and_lines_stay_where_they_were() -> None:
    text = HEAD + POLICIES["rules by action"]
    index = LayerIndex({"p.rego": text})
    found = index.sources(index.signature({"action": "context.read"}))["p.rego"]
    assert '"a.m"' not in found
    assert '"a.r"' in found
    assert found.count("\n") == text.count("\n")


def test_of_a_table_by_role_only_the_row_is_handed_over() -> None:
    index = LayerIndex({"p.rego": HEAD + POLICIES["a table by role"]})
    asked = {"action": "merge", "task": {"role": "two"}}
    assert index.data(index.signature(asked)) == {"vestibule_constants": {"roles": {"two": {"stop": False}}}}
    other = index.signature({"action": "merge", "task": {"role": "nobody"}})
    assert other == (None, None)
    whole = LayerIndex({"p.rego": HEAD + POLICIES["a table that is walked too"]})
    assert whole.data(whole.signature(asked)) == {"vestibule_constants": {"roles": {"one": 1, "two": 2}}}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("decision := input.facts.a", {("facts", "a")}),
        ('decision := input.facts["a"]', {("facts",)}),
        ("decision := x\nx := input.labels.integrity", {("labels", "integrity")}),
        ("decision := 1\nx := input.labels.integrity", set()),
        ("decision := [input.facts.a, input.facts]", {("facts",)}),
        ("decision := f(input)\nf(x) := x.labels", {()}),
        ('decision := input["labels"]', {()}),
        ("decision := data.vestibule.x\nx := input.task.role", {("task", "role")}),
        ('decision := data["vestibule"].x\nx := input.task.role', {()}),
    ],
)
def test_the_parts_of_an_input_that_a_policy_may_see(text: str, parts: set[tuple[str, ...]]) -> None:
    assert parts_named({"p.rego": f"package vestibule\n{text}\n"}, "decision") == parts


def test_what_is_not_named_is_not_handed_over() -> None:
    asked = {"action": "merge", "task": {"role": "one", "run": "r"}, "facts": "odd", "labels": {}}
    parts = frozenset({("task", "role"), ("facts", "a"), ("labels", "integrity"), ("subject", "id")})
    assert narrow(asked, parts) == {"task": {"role": "one"}, "facts": "odd", "labels": {}}
    assert narrow(asked, WHOLE) == asked
