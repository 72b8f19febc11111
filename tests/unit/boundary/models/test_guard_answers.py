"""Validators of answers: versions in ranges, JSON of a schema, allowed values, plug-ins; each failure denies."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule.boundary.models.guards import validators
from vestibule.boundary.models.guards.desk import AnswerDesk, Guards, GuardSettings
from vestibule.boundary.models.guards.validators import AllowedValues, JsonOfSchema, validators_for
from vestibule.boundary.models.guards.versions import Ranges, Version, VersionRules
from vestibule.boundary.models.hold.base import Held
from vestibule.config.guardrails import Guardrails
from vestibule.core.errors import ConfigError, Refused
from vestibule.core.labels import Confidentiality, Label
from vestibule.core.text.secrets import KnownSecret

VALUE = "Zq7Rt2Lw9Xc4Vb6Nm1Kj8Hg3Fd5Sa0PoIuYtReWq"

ORDERS = {
    "maven": ["1.0-alpha-1", "1.0-beta", "1.0-M2", "1.0-RC1", "1.0-SNAPSHOT", "1.0", "1.0-sp", "1.0.1", "1.1", "1.10"],
    "npm": ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0"],
    "pip": ["1.0.dev1", "1.0a1.dev1", "1.0a1", "1.0b2", "1.0rc1", "1.0", "1.0.post1", "1.0.1", "1.1", "1!0.1"],
}


@pytest.mark.parametrize("ecosystem", ORDERS)
def test_versions_are_in_the_ecosystems_order(ecosystem: Any) -> None:
    versions = [Version(text, ecosystem) for text in ORDERS[ecosystem]]
    for place, low in enumerate(versions):
        assert low == low
        for high in versions[place + 1 :]:
            assert low < high


@pytest.mark.parametrize(
    ("a", "b", "ecosystem"),
    [("1", "1.0.0", "maven"), ("1.0.GA", "1.0", "maven"), ("1.0", "1.0.0", "pip"), ("1.0.0+a", "1.0.0+b", "npm")],
    ids=["zeros", "ga", "pip-zeros", "build"],
)
def test_versions_that_are_the_same(a: str, b: str, ecosystem: Any) -> None:
    assert Version(a, ecosystem) == Version(b, ecosystem)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("[5.3,6.0)", ["5.3", "5.3.31", "5.99"], ["5.2.9", "6.0", "6.0.1"]),
        ("(5.3,6.0]", ["5.3.1", "6.0"], ["5.3", "6.0.1"]),
        ("(,2.0]", ["0.1", "2.0"], ["2.1"]),
        ("[1.0]", ["1.0"], ["1.0.1", "0.9"]),
        ("[1,2),[3,)", ["1.5", "3", "99"], ["2", "2.9"]),
    ],
    ids=["half-open", "other-half", "no-low", "one", "two"],
)
def test_ranges(text: str, inside: list[str], outside: list[str]) -> None:
    ranges = Ranges(text, "maven")
    assert all(ranges.hold(Version(item, "maven")) for item in inside)
    assert not any(ranges.hold(Version(item, "maven")) for item in outside)


@pytest.mark.parametrize("text", ["", "5.3", "[5,3", "[2,1]", "(1)", "[1,2] or so", "[${v},2]"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError):
        Ranges(text, "maven")


SPRING = VersionRules("maven", {"org.springframework:*": "[5.3,6.0)"})
POM = "<groupId>org.springframework</groupId>\n <artifactId>spring-core</artifactId>\n <version>{}</version>"


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("use org.springframework:spring-core:5.3.31.", True),
        ("use org.springframework:spring-core:6.1.0", False),
        ("use org.springframework:spring-core:jar:6.1.0", False),
        (POM.format("5.3.31"), True),
        (POM.format("6.0.0"), False),
        (POM.format("${spring.version}"), False),
        ("implementation group: 'org.springframework', name: 'spring-web', version: '6.0.1'", False),
        ("implementation 'org.springframework:spring-web:+'", False),
        ("com.example:other:9.9", True),
        ("at 12:30:45 see http://example.com:8080/x", True),
        ("org.springframework:spring-core:5.3.1 then org.springframework:spring-core:4.0", False),
    ],
)
def test_maven_coordinates(text: str, good: bool) -> None:
    assert (SPRING.check(text) == "") is good


@pytest.mark.parametrize(
    ("ecosystem", "allow", "text", "good"),
    [
        ("npm", {"left-pad": "[1.0.0,2.0.0)"}, "npm i left-pad@1.3.0", True),
        ("npm", {"left-pad": "[1.0.0,2.0.0)"}, "npm i left-pad@2.0.0", False),
        ("npm", {"left-pad": "[1.0.0,2.0.0)"}, "npm i left-pad@latest", False),
        ("npm", {"left-pad": "[1.0.0,2.0.0)"}, '{"left-pad": "^1.0.0"}', False),
        ("npm", {"left-pad": "[1.0.0,2.0.0)"}, '{"left-pad": "1.1.0"}', True),
        ("npm", {"@acme/*": "[2.0.0,)"}, "@acme/tool@1.9.9", False),
        ("npm", {"left-pad": "[1.0.0,)"}, "mail me@example.com", True),
        ("pip", {"requests": "[2.31,3)"}, "requests==2.32.0", True),
        ("pip", {"requests": "[2.31,3)"}, "Requests == 2.30.0", False),
        ("pip", {"requests": "[2.31,3)"}, "requests>=2.31", False),
        ("pip", {"foo-bar": "[1,2)"}, "foo_bar[x]==2.0", False),
    ],
)
def test_other_ecosystems(ecosystem: Any, allow: dict[str, str], text: str, good: bool) -> None:
    assert (VersionRules(ecosystem, allow).check(text) == "") is good


def test_packages_that_no_rule_names_can_be_refused() -> None:
    rules = VersionRules("pip", {"requests": "[2,3)"}, others="deny")
    assert rules.check("flask==1.0")
    assert rules.check("requests==2.1") == ""


@given(st.text(max_size=300))
def test_any_text_is_checked(text: str) -> None:
    for ecosystem in ORDERS:
        VersionRules(ecosystem, {"*": "[1,2)"}).check(text)  # type: ignore[arg-type]


_HOSTILE = {
    "colons": "a:" * 40_000,
    "spaces": "<groupId>" + " " * 80_000,
    "at-signs": "a@" * 40_000,
    "groups": "group " * 20_000,
    "dots": "1." * 40_000,
}


@pytest.mark.parametrize("hostile", _HOSTILE.values(), ids=_HOSTILE)
def test_hostile_texts_do_not_take_long(hostile: str) -> None:
    begun = time.process_time()
    for ecosystem in ORDERS:
        VersionRules(ecosystem, {"*": "[1,2)"}).check(hostile)  # type: ignore[arg-type]
    assert time.process_time() - begun < 8


SCHEMA = {
    "type": "object",
    "required": ["verdict"],
    "additionalProperties": False,
    "properties": {"verdict": {"enum": ["ok", "bad"]}, "note": {"type": "string", "pattern": "^[a-z ]+$"}},
}


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ('{"verdict": "ok"}', True),
        ('```json\n{"verdict": "bad", "note": "two words"}\n```', True),
        ('{"verdict": "maybe"}', False),
        ('{"verdict": "ok", "more": 1}', False),
        ('{"verdict": "ok", "verdict": "bad"}', False),
        ('{"verdict": "ok", "note": "' + "a" * 2000 + '"}', False),
        ("It is ok.", False),
        ("", False),
    ],
)
def test_json_of_a_schema(text: str, good: bool) -> None:
    assert (JsonOfSchema(SCHEMA).check(text) == "") is good


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "(a+)+$"},
        {"patternProperties": {"(a|a)*b": {}}},
        {"$ref": "https://example.com/schema.json"},
        {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
        {"type": "nothing"},
    ],
    ids=["slow", "slow-name", "elsewhere", "a-file", "no-schema"],
)
def test_schemas_that_are_refused(schema: dict[str, Any]) -> None:
    rules = Guardrails.model_validate({"answers": [{"kind": "json-schema", "schema": schema}]}).answers
    with pytest.raises(ConfigError):
        validators_for(rules, "backend")


def test_many_equal_items_are_compared_in_time() -> None:
    schema = JsonOfSchema({"type": "array", "uniqueItems": True})
    begun = time.process_time()
    assert schema.check(json.dumps([{"n": n} for n in range(20_000)])) == ""
    assert schema.check('[{"a": 1}, {"a": 1}]')
    assert time.process_time() - begun < 5


def test_allowed_values() -> None:
    assert AllowedValues(["approve", "reject"]).check(" approve\n") == ""
    assert AllowedValues(["approve", "reject"]).check("approved")
    licence = AllowedValues(["MIT", "Apache-2.0"], label="Licence:")
    assert licence.check("text\n- Licence: `MIT`.\nmore") == ""
    assert licence.check("text\nLicence: GPL-3.0\nLicence: MIT")
    assert licence.check("no such line") == ""
    assert AllowedValues(["low"], field="risk.level").check('{"risk": {"level": "low"}}') == ""
    assert AllowedValues(["low"], field="risk.level").check('{"risk": {"level": "high"}}')
    assert AllowedValues(["low"], field="risk.level").check("{}")


class Point:
    name = "mine"

    def load(self) -> Any:
        return Mine


class Mine:
    reads = frozenset(("text", "call"))
    name = "mine"

    def __init__(self, word: str) -> None:
        self.word = word

    def check(self, text: str) -> str:
        if "break" in text:
            raise RuntimeError(text)
        return "a word that may not be said" if self.word in text else ""


def plugin(monkeypatch: pytest.MonkeyPatch, *points: Point, **options: str) -> Any:
    monkeypatch.setattr(validators, "entry_points", lambda group: points)
    given = {"answers": [{"kind": "plugin", "name": "mine", "roles": ["backend"], "options": options}]}
    return validators_for(Guardrails.model_validate(given).answers, "backend")


def test_a_plug_in_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = plugin(monkeypatch, Point(), word="magic")
    assert found.check("magic")


def test_a_plug_in_that_is_not_there_or_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for points, options in (((), {"word": "a"}), ((Point(), Point()), {"word": "a"}), ((Point(),), {"other": "a"})):
        with pytest.raises(ConfigError):
            plugin(monkeypatch, *points, **options)


def test_rules_are_for_their_roles() -> None:
    rules = Guardrails.model_validate({"answers": [{"kind": "allowed-values", "values": ["a"], "roles": ["docs"]}]})
    assert validators_for(rules.answers, "backend") == ()
    assert len(validators_for(rules.answers, "docs")) == 1


def desk(*given: Any, **more: Any) -> AnswerDesk:
    secrets = (KnownSecret("the key", VALUE.encode()),)
    return Guards(GuardSettings(secrets=secrets, validators=given, **more), Label).answer()


def text(words: str) -> Held:
    return Held("text", arguments=words.encode())


def call(**arguments: Any) -> Held:
    return Held("call", "write_file", arguments=json.dumps(arguments).encode())


def test_a_text_that_does_not_fit_is_replaced_by_words_that_say_why() -> None:
    found = desk(SPRING).judge_text(text("take org.springframework:spring-core:6.1.0"))
    assert not found.allowed
    assert found.text.startswith("[vestibule] [model.answer.text]")
    assert "org.springframework:spring-core 6.1.0 is not within [5.3,6.0)" in found.text


def test_a_call_that_writes_a_version_out_of_range_is_refused() -> None:
    found = desk(SPRING).judge_call(call(path="pom.xml", content=POM.format("6.1.0")))
    assert found is not None
    assert found.rule == "model.call.guard"
    assert desk(SPRING).judge_call(call(path="pom.xml", content=POM.format("5.3.9"))) is None


def test_what_only_the_json_of_a_call_looks_like_is_no_package() -> None:
    rules = VersionRules("npm", {"*": "[2.0.0,3.0.0)"})
    assert desk(rules).judge_call(call(path="1.0.0", content="hello")) is None
    assert desk(rules).judge_call(call(path="a", content='{"left-pad": "1.0.0"}')) is not None


def test_an_answer_that_fails_shows_the_providers_error_and_none_of_its_text() -> None:
    it = desk(JsonOfSchema(SCHEMA))
    it.judge_text(text("half an answ"))
    assert it.see(b"text", "half an answ") == b""
    assert it.see(b"error", "overloaded", last=True, failed=True) == b"error"


def test_a_validator_that_breaks_denies() -> None:
    assert not desk(Mine("x")).judge_text(text("break")).allowed
    assert desk(Mine("x")).judge_call(call(content="break")) is not None


@pytest.mark.parametrize("form", ["json", "text", "no json"])
def test_a_known_value_in_a_call_is_refused_without_saying_it(form: str) -> None:
    words = json.dumps({"a": "".join(f"\\u{ord(c):04x}" for c in VALUE)}) if form == "json" else f"{{ {VALUE}"
    held = Held("call", "run", arguments=words.encode(), form="text" if form == "text" else "json")
    found = desk().judge_call(held)
    assert found is not None
    assert found.rule == "model.call.secret"
    assert VALUE not in found.model_dump_json()


def test_a_value_escaped_in_the_arguments_json_is_refused() -> None:
    raw = '{"a": "' + "".join(f"\\u{ord(c):04x}" for c in VALUE) + '"}'
    assert desk().judge_call(Held("call", "run", arguments=raw.encode())) is not None
    split = json.dumps({"parts": [VALUE[:7], VALUE[7:14], VALUE[14:]]})
    assert desk().judge_call(Held("call", "run", arguments=split.encode())) is not None


def test_a_large_text_that_was_not_kept_is_replaced() -> None:
    assert not desk().judge_text(Held("text", problem="oversized")).allowed


def test_answers_are_redacted_like_requests() -> None:
    it = desk(redact=("email",))
    found = it.judge_text(text("write to ann@example.com"))
    assert (found.allowed, found.text) == (False, "write to ⟦email-1⟧")
    cleared = Guards(GuardSettings(redact=("email",)), Label, (Confidentiality.INTERNAL,))
    assert not cleared.holds_text


def test_the_last_text_of_a_turn_is_judged_before_any_of_it_is_sent() -> None:
    it = desk(JsonOfSchema(SCHEMA))
    assert it.see(b"start", "") == b"start"
    assert it.judge_text(text("It is ok.")).allowed
    assert it.see(b"text", "It is ok.") == b""
    with pytest.raises(Refused) as raised:
        it.see(b"end", "", last=True)
    assert raised.value.refusal.rule == "model.answer.final"
    assert it.notes()["verdict"] == "model.answer.final"


def test_a_text_before_a_call_is_not_the_last_one() -> None:
    it = desk(JsonOfSchema(SCHEMA))
    it.judge_text(text("I look first."))
    assert it.see(b"text", "I look first.") == b""
    assert it.judge_call(call(path="a")) is None
    assert it.see(b"call", "") == b"textcall"
    assert it.see(b"end", "", last=True) == b"end"
    it.again()
    it.judge_text(text('{"verdict": "ok"}'))
    assert it.see(b"json", '{"verdict": "ok"}') == b""
    assert it.see(b"end", "", last=True) == b"jsonend"
