"""The shared vectors: what policy says of an input, whichever engine is asked.

`tests/vectors/policy/*.json` is `{"base": INPUT, "cases": [{"name", "change", "without", "verdict", "reasons"}]}`.
`change` replaces members of the base's parts, `without` takes some away (`facts.in_read`), reasons are a set.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from vestibule.core.ports import PolicyInput
from vestibule.policy.testing import changed

FOLDER = Path(__file__).parents[2] / "vectors" / "policy"


@dataclass(frozen=True)
class Vector:
    """One input with what policy says of it."""

    name: str
    request: PolicyInput
    verdict: str
    reasons: frozenset[str]


def vectors() -> list[Vector]:
    """Every case of every file, in order."""
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        for case in data["cases"]:
            document = changed(data["base"], case.get("change", {}), case.get("without", []))
            request = PolicyInput.model_validate(document)
            reasons = frozenset(case["reasons"])
            found.append(Vector(f"{path.stem}: {case['name']}", request, case["verdict"], reasons))
    return found
