"""What comparing a call's arguments with a schema from inside the sandbox may cost."""

from __future__ import annotations

import time
from typing import Any

import pytest

from vestibule.boundary.models.shape import misfit

MANY = 300_000
CASES: dict[str, tuple[dict[str, Any], Any]] = {
    "enum": ({"items": {"enum": list(range(MANY))}}, ["x", *[-1] * 19_000]),
    "required": ({"items": {"required": ["a"] * MANY}}, [{"a": 1}] * 19_000),
    "type": ({"items": {"type": [["number"] * MANY]}}, ["x"] * 19_000),
    "types": ({"items": {"type": ["number"] * MANY}}, ["x"] * 19_000),
    "keys": ({"anyOf": [{"required": ["b"]}] * 64}, {str(number): 1 for number in range(MANY)}),
    "nested keys": ({"anyOf": [{"anyOf": [{}] * 64, "type": "null"}] * 64}, dict.fromkeys(map(str, range(MANY)))),
}


@pytest.mark.parametrize("name", CASES)
def test_a_comparison_ends_whatever_the_schema_says(name: str) -> None:
    schema, value = CASES[name]
    begun = time.process_time()
    found = misfit(value, schema)
    assert time.process_time() - begun < 1
    assert found is None or len(found) < 200


def test_what_fits_in_the_bound_is_compared() -> None:
    schema = {"type": ["string", "null"], "enum": [str(number) for number in range(1_000)]}
    assert misfit("999", schema) is None
    assert misfit("1000", schema) == "the arguments: not one of the allowed values"
    assert misfit(1, {"type": ["string", "null"]}) == "the arguments: not of type string or null"
    assert misfit({}, {"required": ["a"]}) == "a: missing"
    assert misfit({"a": 1}, {"properties": {}, "additionalProperties": False}) == "a: not known"
