"""Shared vectors: every action, fact and reason of the shipped bundle, against the engine in this process."""

from __future__ import annotations

import re

import pytest
from policy_vectors import Vector, vectors

from vestibule.policy import PolicySet
from vestibule.policy.coverage import without_each_rule
from vestibule.policy.engine import EngineError, Program
from vestibule.policy.index import LayerIndex
from vestibule.policy.layers import shipped_layer

VECTORS = vectors()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_the_shipped_bundle_says_what_the_vector_says(shipped: PolicySet, vector: Vector) -> None:
    verdict = shipped.decide(vector.request)
    assert (verdict.ruling.value, frozenset(verdict.reasons)) == (vector.verdict, vector.reasons)
    assert {item.rule for item in verdict.refusals} == vector.reasons


def test_the_index_changes_no_answer() -> None:
    """The whole text, every rule of it, asked the slow way."""
    whole = Program(shipped_layer().sources, indexed=False)
    quick = Program(shipped_layer().sources)
    for vector in VECTORS:
        document = vector.request.model_dump(mode="json")
        assert quick.answer(document) == whole.answer(document), vector.name


def _tables() -> dict[str, dict[str, dict[str, str]]]:
    tables = LayerIndex(shipped_layer().sources).data((None, None))["vestibule_constants"]
    return {name: table for name, table in tables.items() if name.endswith("_facts")}


def test_every_reason_of_the_bundle_is_reached() -> None:
    text = "\n".join(shipped_layer().sources.values())
    named = set(re.findall(r'contains "([a-z._]+)"', text))
    for table in _tables().values():
        named |= set(table["reason"].values())
    reached = {reason for vector in VECTORS for reason in vector.reasons}
    assert named - reached <= {"budget", "model.field"}, "families that only their members reach"
    assert named - reached == set()


def test_every_action_of_the_bundle_is_asked_about() -> None:
    text = "\n".join(shipped_layer().sources.values())
    named = set(re.findall(r'input\.action == "([a-z._]+)"', text))
    for group in re.findall(r"input\.action in \{([^}]+)\}", text):
        named |= set(re.findall(r'"([a-z._]+)"', group))
    assert named == {v.request.action for v in VECTORS if "unknown_action" not in v.name}


@pytest.mark.parametrize("name", _tables())
def test_every_table_is_whole(name: str) -> None:
    """A row for each kind, at least one value that a fact must have, words for each fact that can be otherwise."""
    table = _tables()[name]
    assert set(table) == {"is", "one_of", "any", "reason", "after"}
    assert table["is"]
    assert set(table["reason"]) == set(table["is"]) | set(table["one_of"])
    assert set(table["after"]) | set(table["after"].values()) <= set(table["reason"])
    assert not set(table["is"]) & set(table["one_of"])
    assert not set(table["any"]) & set(table["reason"])


@pytest.mark.slow
def test_no_rule_of_the_bundle_can_be_lost_unnoticed() -> None:
    """Each rule is taken out in turn; some vector is then decided otherwise."""
    sources = shipped_layer().sources
    unnoticed = [
        f"{rule.file}:{rule.first_line} {rule.name}"
        for rule, change in without_each_rule(sources)
        if not _noticed({**sources, **change}, rule.reasons)
    ]
    assert unnoticed == []


def _noticed(sources: dict[str, str], reasons: tuple[str, ...]) -> bool:
    try:
        program = Program(sources, indexed=False)
    except EngineError:
        return True
    for vector in sorted(VECTORS, key=lambda item: not item.reasons & set(reasons)):
        try:
            said = program.answer(vector.request.model_dump(mode="json"))
        except EngineError:
            return True
        if (said.ruling.value, frozenset(said.reasons)) != (vector.verdict, vector.reasons):
            return True
    return False
