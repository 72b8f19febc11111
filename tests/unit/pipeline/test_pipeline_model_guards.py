"""What a run's guards on model texts know, from the operator's configuration."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from vestibule.boundary.models.guards.desk import Guards
from vestibule.config.guardrails import Guardrails
from vestibule.core.labels import Confidentiality, Label
from vestibule.core.text.secrets import KnownSecret
from vestibule.pipeline.model_guards import settings_of

CONFIG = Guardrails.model_validate(
    {
        "redact": ["email"],
        "redact_for": "internal",
        "answers": [
            {"kind": "versions", "ecosystem": "maven", "allow": {"org.example:*": "[1,2)"}},
            {"kind": "allowed-values", "values": ["yes"], "roles": ["docs"]},
        ],
    }
)


def test_a_role_gets_its_validators_and_everything_else_of_the_operator() -> None:
    found = settings_of(CONFIG, "backend", (KnownSecret("key", b"0123456789abcdef"),))
    assert [guard.name for guard in found.validators] == ["versions"]
    assert [guard.name for guard in settings_of(CONFIG, "docs", ()).validators] == ["versions", "allowed-values"]
    assert (found.redact, found.mark_results) == (("email",), True)


@pytest.mark.parametrize(
    ("clearances", "redacted"),
    [
        (("public",), True),
        (("internal",), True),
        (("secret",), False),
        (("secret", "internal"), True),
    ],
    ids=["public", "internal", "secret", "one-of-two"],
)
def test_the_least_cleared_provider_decides_about_redaction(clearances: tuple[str, ...], redacted: bool) -> None:
    guards = Guards(settings_of(CONFIG, "backend", ()), Label, (Confidentiality(item) for item in clearances))
    assert bool(guards.kinds) is redacted


@pytest.mark.parametrize("canary", ["short", "aaaaaaaaaaaaaaaaaaaa"], ids=["short", "one-letter"])
def test_a_canary_that_would_stand_in_texts_by_chance_is_refused(canary: str) -> None:
    with pytest.raises(ValidationError):
        Guardrails.model_validate({"canaries": {"c": canary}})
