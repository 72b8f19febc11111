"""The validators of answers that come with the gateway, and how others are found.

Rules it keeps:
1. A schema may not look elsewhere (`$ref` within itself only), and its patterns must end soon (CWE-1333).
2. What a validator says never repeats the answer; it names the place and the rule.
3. A validator that cannot be made is a configuration error, before anything runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, Literal

from vestibule.boundary.models.guards.versions import VersionRules
from vestibule.boundary.models.wire.strict_json import BadJson, parse
from vestibule.config.guardrails import AllowedValuesRule, AnswerRule, JsonSchemaRule, VersionsRule
from vestibule.core.errors import ConfigError
from vestibule.core.ports import AnswerGuard
from vestibule.core.text.patterns import MAX_TEXT, SlowPattern, check_pattern

ENTRY_POINTS = "vestibule.answer_guards"
MAX_JSON = 1 << 20
"""Characters of a text that is read as JSON."""
Reads = frozenset[Literal["text", "call", "final"]]
_FINAL: Reads = frozenset(("final",))
_FENCE = "```"


def validators_for(rules: Sequence[AnswerRule], role: str) -> tuple[AnswerGuard, ...]:
    """The validators of a role's answers, in their order.

    Raises:
        ConfigError: one cannot be made.
    """
    return tuple(_make(rule) for rule in rules if not rule.roles or role in rule.roles)


def _make(rule: AnswerRule) -> AnswerGuard:
    try:
        if isinstance(rule, JsonSchemaRule):
            return JsonOfSchema(rule.schema_)
        if isinstance(rule, AllowedValuesRule):
            return AllowedValues(rule.values, label=rule.label, field=rule.field)
        if isinstance(rule, VersionsRule):
            return VersionRules(rule.ecosystem, rule.allow, others=rule.others)
        found = [point for point in entry_points(group=ENTRY_POINTS) if point.name == rule.name]
        if len(found) != 1:
            raise ValueError(f"{len(found)} installed packages have a validator {rule.name!r}")
        made: AnswerGuard = found[0].load()(**rule.options)
    except Exception as error:  # noqa: BLE001 whatever a plug-in raises: it is not there
        why = str(error) if isinstance(error, ValueError) else type(error).__name__
        raise ConfigError(f"guardrails.answers: the validator {rule.kind} cannot be made: {why}") from None
    return made


class JsonOfSchema:
    """The text is one JSON value (a fence around it is let be) that fits a JSON Schema 2020-12."""

    reads = _FINAL

    def __init__(self, schema: Mapping[str, Any]) -> None:
        from jsonschema import Draft202012Validator, validators
        from jsonschema.exceptions import SchemaError, ValidationError

        _check(schema)
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise ValueError(f"the schema is none: {error.message[:200]}") from None

        def pattern(_validator: Any, wanted: str, value: Any, _schema: Any) -> Iterator[Any]:
            if isinstance(value, str) and (len(value) > MAX_TEXT or re.search(wanted, value) is None):
                yield ValidationError("it does not match the pattern")

        def unique(_validator: Any, wanted: Any, value: Any, _schema: Any) -> Iterator[Any]:
            # The library compares each with each; a set is linear.
            many = len(value) if wanted is True and isinstance(value, list) else 0
            if many and len({json.dumps(item, sort_keys=True) for item in value}) != many:
                yield ValidationError("an item stands in it twice")

        self.name = "json-schema"
        made = validators.extend(Draft202012Validator, {"pattern": pattern, "uniqueItems": unique})
        self._validator = made(schema)

    def check(self, text: str) -> str:
        try:
            value = _json(text)
        except BadJson:
            return "it is no JSON"
        if _longest_key(value) > MAX_TEXT:
            return "a name in it is too long"
        error = next(iter(self._validator.iter_errors(value)), None)
        if error is None:
            return ""
        place = "/".join(str(part)[:40] for part in list(error.absolute_path)[:8])
        return f"it does not fit the task's schema ({error.validator} at /{place})" if error.validator else "no fit"


def _json(text: str) -> Any:
    plain = text.strip()
    if plain.startswith(_FENCE) and plain.endswith(_FENCE) and "\n" in plain:
        plain = plain.partition("\n")[2].removesuffix(_FENCE)
    if len(plain) > MAX_JSON:
        raise BadJson("too long")
    try:
        data = plain.encode("utf-8")
    except UnicodeEncodeError:
        raise BadJson("no text") from None
    return parse(data)


def _longest_key(value: Any) -> int:
    if isinstance(value, dict):
        return max((max(len(key), _longest_key(item)) for key, item in value.items()), default=0)
    return max(map(_longest_key, value), default=0) if isinstance(value, list) else 0


_SCHEMA_DEPTH = 64


def _check(schema: Any, depth: int = 0) -> None:
    """Raises `ValueError` (`SlowPattern` is one)."""
    if depth > _SCHEMA_DEPTH:
        raise ValueError("the schema is nested too deeply")
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef") and not (isinstance(value, str) and value.startswith("#")):
                raise ValueError(f"the schema refers to something outside of itself ({key})")
            if key == "pattern" and isinstance(value, str):
                check_pattern(value)
            if key == "patternProperties" and isinstance(value, Mapping):
                for pattern in value:
                    check_pattern(str(pattern))
            _check(value, depth + 1)
    elif isinstance(schema, list):
        for item in schema:
            _check(item, depth + 1)


class AllowedValues:
    """A value of the answer is one of a list, compared as it stands."""

    def __init__(self, values: Sequence[str], *, label: str = "", field: str = "") -> None:
        self.name = "allowed-values"
        self.reads: Reads = frozenset(("text", "call")) if label else _FINAL
        self._values = frozenset(values)
        self._label = label
        self._path = field.split(".") if field else []

    def check(self, text: str) -> str:
        if self._label:
            for line in text.splitlines():
                head, found, value = line.partition(self._label)
                if found and not head.strip(" \t>*-#\"'`") and value.strip(" \t*`\"',;.") not in self._values:
                    return f"what follows {self._label!r} is none of the allowed values"
            return ""
        value = text.strip()
        if self._path:
            try:
                value = _at(_json(text), self._path)
            except BadJson:
                return "it is no JSON"
        return "" if value in self._values else "its value is none of the allowed ones"


def _at(value: Any, path: Sequence[str]) -> str:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else json.dumps(value)


__all__ = ["AllowedValues", "JsonOfSchema", "SlowPattern", "validators_for"]
