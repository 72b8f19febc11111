"""The shared vectors: what policy says of an input, whichever engine is asked.

`tests/vectors/policy/*.json` is `{"base": INPUT, "cases": [{"name", "change", "without", "verdict", "reasons"}]}`.
`change` replaces members of the base's parts, `without` takes some away (`facts.in_read`), reasons are a set.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vestibule.core.ports import PolicyInput

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


def changed(base: dict[str, Any], change: dict[str, Any], without: list[str]) -> dict[str, Any]:
    """The base with the case's changes."""
    document = copy.deepcopy(base)
    for part, members in change.items():
        if isinstance(members, dict):
            document[part].update(members)
        else:
            document[part] = members
    for place in without:
        part, name = place.split(".", 1)
        document[part].pop(name, None)
    return document
