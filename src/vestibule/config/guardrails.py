"""What is checked in a model's answers and requests beyond its calls: the operator's."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from vestibule.config.parts import Names, Strict, as_tuple
from vestibule.core.labels import Confidentiality

PersonalData = Literal["email", "ip", "mac", "uuid", "iban", "credit_card", "ssn", "phone"]
Ecosystem = Literal["maven", "npm", "pip"]
LEAST_CANARY = 12
"""Characters of a canary; a shorter one stands in texts by chance."""


class _Rule(Strict):
    roles: Names = ()
    """Whose answers; empty: everybody's."""


class JsonSchemaRule(_Rule):
    """The last text of a turn without calls is JSON of this schema."""

    kind: Literal["json-schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class AllowedValuesRule(_Rule):
    """A value is one of a list: behind `label` on its line, in `field` of the last text's JSON, or that text itself."""

    kind: Literal["allowed-values"]
    values: Annotated[Names, Field(min_length=1)]
    label: str = ""
    field: str = ""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.label and self.field:
            raise ValueError("give a label or a field, not both")
        return self


class VersionsRule(_Rule):
    """Versions of packages that a text or a call names are within ranges."""

    kind: Literal["versions"]
    ecosystem: Ecosystem
    allow: Annotated[dict[str, str], Field(min_length=1)]
    """Name of a package (`*` stands for anything) → ranges, such as `[5.3,6.0)`."""
    others: Literal["allow", "deny"] = "allow"


class PluginRule(_Rule):
    """A validator of an installed package, by its entry point in `vestibule.answer_guards`."""

    kind: Literal["plugin"]
    name: str
    options: dict[str, Any] = {}


AnswerRule = Annotated[
    JsonSchemaRule | AllowedValuesRule | VersionsRule | PluginRule,
    Field(discriminator="kind"),
]


class Guardrails(Strict):
    """Guards on texts of models."""

    canaries: dict[str, str] = {}
    """Name → a value that was planted where nobody should read it; it never passes, in either direction."""
    mark_results: bool = True
    """Whether results of tools are marked as data in requests, with the label of what the run had read."""
    redact: Annotated[tuple[PersonalData, ...], BeforeValidator(as_tuple)] = ()
    """Kinds of personal data that are replaced by numbered placeholders."""
    redact_for: Annotated[Confidentiality, Field(strict=False)] = Confidentiality.PUBLIC
    """Replaced for providers that are cleared for this or less."""
    answers: Annotated[tuple[AnswerRule, ...], BeforeValidator(as_tuple)] = ()

    @field_validator("canaries")
    @classmethod
    def _told(cls, value: dict[str, str]) -> dict[str, str]:
        for name, canary in value.items():
            if len(canary) < LEAST_CANARY or len(set(canary)) < 6:
                raise ValueError(f"the canary {name!r} needs {LEAST_CANARY} characters, six of them different")
        return value
