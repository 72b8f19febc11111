"""`policy explain`: where a reason stands, and the smallest change of facts that turns a verdict."""

from __future__ import annotations

from typing import Any

import pytest
from policy_vocabulary import request

from vestibule.policy import PolicySet


def _line(layer: str, place: str) -> str:
    from vestibule.policy.layers import shipped_layer

    file, _, number = place.removeprefix(f"{layer}: ").rpartition(":")
    return shipped_layer().sources[file].split("\n")[int(number) - 1]


@pytest.mark.parametrize(
    ("action", "changed", "reason", "change"),
    [
        ("context.read", {"in_read": False}, "context.read.scope", {"in_read": True}),
        ("context.read", {"path_ok": False, "path_rule": "path.git"}, "path.git", {"path_ok": True, "path_rule": ""}),
        ("task.admit", {"permission": "read"}, "task.permission", None),
        ("task.admit", {"permission_source": "claim"}, "task.permission_source", {"permission_source": "local_user"}),
        ("merge", {"approved": False, "verified": False}, "merge.unapproved", {"approved": True, "verified": True}),
        ("review.decide", {"is_requester": True}, "review.self_approval", None),
    ],
)
def test_a_denial_names_its_rule_and_what_would_turn_it(
    shipped: PolicySet, action: str, changed: dict[str, Any], reason: str, change: dict[str, Any] | None
) -> None:
    asked = request(action, changed)
    found = shipped.explain(asked)
    places = found.places[reason]
    assert places
    family = {reason, reason.rpartition(".")[0]}
    assert all(any(name in _line("shipped", place) for name in family) for place in places)
    assert found.change is not None
    assert found.turned is not None
    assert found.turned.allowed
    assert shipped.decide(request(action, {**changed, **found.change})).allowed
    if change is not None:
        assert found.change == change
    else:
        assert len(found.change) == 1


def test_an_allow_names_one_fact_that_would_turn_it(shipped: PolicySet) -> None:
    found = shipped.explain(request("context.read"))
    assert found.change is not None
    assert found.turned is not None
    assert len(found.change) == 1
    assert not found.turned.allowed


def test_a_missing_fact_is_named(shipped: PolicySet) -> None:
    facts = {"tool_allowed": True}
    found = shipped.explain(request("context.exec", facts=facts))
    assert found.change == {"command_allowed": True}


def test_nothing_turns_an_unknown_action(shipped: PolicySet) -> None:
    found = shipped.explain(request("context.delete"))
    assert (found.change, found.turned) == (None, None)
    assert found.places["policy.unknown_action"]
