"""Layers: joined by strictness, refused when broken, read from nowhere but where they were named."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_vocabulary import EXPECTED, GOOD, request

from vestibule.core.errors import ConfigError, DependencyDown
from vestibule.core.ports import Decider, PolicyInput
from vestibule.core.verdict import Ruling, Verdict, strictest
from vestibule.policy import PolicySet, layers, native, policy_set
from vestibule.policy.engine import EngineError, Program
from vestibule.policy.layers import Layer

FREEZE = b"""package vestibule

default decision := {"verdict": "allow", "reasons": []}

decision := {"verdict": "deny", "reasons": deny} if count(deny) > 0

decision := {"verdict": "hold", "reasons": ["acme.second_pair_of_eyes"]} if {
	count(deny) == 0
	input.action == "context.exec"
}

deny contains "acme.freeze" if {
	input.action == "context.write"
	startswith(input.resource.path, "src/")
}
"""
ALLOW_ALL = b'package vestibule\n\ndefault decision := {"verdict": "allow", "reasons": []}\n'


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """PolicySet.load without the trial in a child process, which has tests of its own."""
    monkeypatch.setattr("vestibule.policy.lint.try_decisions", lambda sources: "")
    made: list[PolicySet] = []

    def make(*args: object, **kwargs: object) -> PolicySet:
        policy = PolicySet.load(*args, **kwargs)  # type: ignore[arg-type]
        made.append(policy)
        return policy

    yield make
    for policy in made:
        policy.close()


def test_it_is_a_decider(shipped: PolicySet) -> None:
    decider: Decider = shipped
    assert decider.digest.startswith("sha256:")


def test_an_organisation_tightens(load, tmp_path: Path) -> None:
    (tmp_path / "freeze.rego").write_bytes(FREEZE)
    policy = load([tmp_path])
    verdict = policy.decide(request("context.write"))
    assert (verdict.ruling, verdict.reasons) == (Ruling.DENY, ("acme.freeze",))
    assert verdict.refusals[0].reason == "The organisation policy does not allow this."
    assert policy.decide(request("context.exec")).ruling is Ruling.HOLD
    assert policy.decide(request("context.read")).allowed


def test_nobody_below_can_loosen(load, tmp_path: Path) -> None:
    (tmp_path / "all.rego").write_bytes(ALLOW_ALL)
    policy = load([tmp_path], {".vestibule/policy/all.rego": ALLOW_ALL})
    for action in GOOD:
        assert policy.decide(request(action)).ruling == EXPECTED[action]
        assert policy.decide(request(action, facts={})).ruling is Ruling.DENY


def test_a_repository_tightens_what_the_organisation_allows(load, tmp_path: Path) -> None:
    (tmp_path / "all.rego").write_bytes(ALLOW_ALL)
    policy = load([tmp_path], {".vestibule/policy/freeze.rego": FREEZE, ".vestibule/config.yaml": b"\xff"})
    assert policy.decide(request("context.write")).reasons == ("acme.freeze",)


def test_a_layer_that_is_silent_denies(load) -> None:
    policy = load(
        (), {"p.rego": b'package vestibule\ndecision := {"verdict": "allow", "reasons": []} if input.facts.x\n'}
    )
    verdict = policy.decide(request("context.read"))
    assert (verdict.ruling, verdict.reasons) == (Ruling.DENY, ("policy.undefined",))


def test_two_organisation_folders_are_two_layers(load, tmp_path: Path) -> None:
    for name, text in (("one", ALLOW_ALL), ("two", FREEZE)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "p.rego").write_bytes(text)
    policy = load([tmp_path / "one", tmp_path / "two"])
    assert [layer.name for layer in policy.layers] == ["shipped", "organisation", "organisation 2"]
    assert not policy.decide(request("context.write")).allowed


def test_the_digest_names_every_byte_and_the_order(load, tmp_path: Path) -> None:
    (tmp_path / "p.rego").write_bytes(ALLOW_ALL)
    digests = {
        load().digest,
        load([tmp_path]).digest,
        load((), {"p.rego": ALLOW_ALL}).digest,
        load((), {"p.rego": ALLOW_ALL + b"\n"}).digest,
        load((), {"q.rego": ALLOW_ALL}).digest,
    }
    assert len(digests) == 5
    assert load([tmp_path]).digest in digests
    tested = load((), {"p.rego": ALLOW_ALL, "p_test.rego": b"package vestibule\ntest_x := true\n"})
    assert tested.digest == load((), {"p.rego": ALLOW_ALL}).digest


def test_only_bytes_handed_in_make_the_repository_layer(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".vestibule" / "policy").mkdir(parents=True)
    (tmp_path / ".vestibule" / "policy" / "evil.rego").write_bytes(b"broken {")
    monkeypatch.chdir(tmp_path)
    assert [layer.name for layer in load((), {}).layers] == ["shipped"]


@pytest.mark.parametrize("kind", ["missing", "empty", "only-tests", "file", "hidden"])
def test_an_organisation_folder_without_policy_refuses_to_start(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "policy"
    if kind == "file":
        folder.write_bytes(ALLOW_ALL)
    elif kind != "missing":
        folder.mkdir()
    if kind == "only-tests":
        (folder / "a_test.rego").write_bytes(b"package vestibule\ntest_a := true\n")
    if kind == "hidden":
        (folder / "..data").mkdir()
        (folder / "..data" / "a.rego").write_bytes(ALLOW_ALL)
    with pytest.raises(DependencyDown) as found:
        PolicySet.load([folder])
    assert found.value.refusal.rule == "dependency.policy"


def test_an_unreadable_policy_refuses_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.rego").write_bytes(ALLOW_ALL)

    def fail(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(DependencyDown, match="cannot be read"):
        PolicySet.load([tmp_path])


@pytest.mark.parametrize(
    "source",
    [
        "",
        "package vestibule",
        "package vestibule\ndefault decision := {",
        'package vestibule\ndefault decision := {"verdict": "allow", "reasons": []}\n',
        'package vestibule\ndefault decision := {"verdict": "deny", "reasons": []}\n',
        'package vestibule\ndecision := "deny"\n',
    ],
)
def test_a_broken_shipped_bundle_refuses_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    (tmp_path / "lib.rego").write_text(source)
    monkeypatch.setattr(layers, "SHIPPED", tmp_path)
    with pytest.raises((DependencyDown, ConfigError)):
        PolicySet.load()


def test_a_missing_shipped_bundle_refuses_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "SHIPPED", tmp_path / "gone")
    with pytest.raises(DependencyDown):
        PolicySet.load()


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"a.rego": b"\xff\xfe"}, "not UTF-8"),
        ({"a.rego": b"#" * (256 * 1024 + 1)}, "larger than 256 KiB"),
        ({f"{n}.rego": b"package vestibule\n" for n in range(65)}, "more than 64 files"),
    ],
)
def test_repository_policy_out_of_bounds_is_a_configuration_error(files: dict[str, bytes], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        PolicySet.load((), files)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        True,
        "allow",
        [],
        {},
        {"verdict": "allow"},
        {"verdict": "ALLOW", "reasons": []},
        {"verdict": "permit", "reasons": []},
        {"verdict": "allow", "reasons": {}},
        {"verdict": "allow", "reasons": [1]},
        {"verdict": "deny", "reasons": []},
        {"verdict": "hold", "reasons": []},
        {"verdict": "allow", "reasons": [], "extra": 1},
        {"verdict": "deny", "reasons": ["Spaces are no rule name"]},
        {"verdict": "deny", "reasons": ["a" * 201]},
        {"verdict": "deny", "reasons": ["a"] * 65},
        {"verdict": ["allow"], "reasons": []},
    ],
    ids=repr,
)
def test_an_answer_of_another_shape_is_a_deny(load, monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    policy = load()
    monkeypatch.setattr(Program, "value", lambda self, document: answer)
    verdict = policy.decide(request("context.read"))
    assert (verdict.ruling, verdict.reasons) == (Ruling.DENY, ("policy.error",))


@pytest.mark.parametrize("error", [RuntimeError, ValueError, MemoryError, RecursionError, OSError, AssertionError])
def test_an_exception_from_the_engine_is_a_deny_and_not_remembered(
    load, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    policy = load()

    def fail(self: Program, document: object) -> object:
        raise error("broken")

    with monkeypatch.context() as patch:
        patch.setattr(Program, "value", fail)
        assert policy.decide(request("context.read")).reasons == ("policy.error",)
    assert policy.decide(request("context.read")).allowed


def test_an_engine_that_reports_an_error_is_a_deny(load, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load()
    monkeypatch.setattr(native._library, "regoOutputOk", lambda output: False)
    assert policy.decide(request("context.read")).reasons == ("policy.error",)


def test_one_layer_that_fails_denies_although_the_others_allow(load) -> None:
    failing = b"""package vestibule

default decision := {"verdict": "allow", "reasons": []}

decision := {"verdict": "deny", "reasons": ["acme.big"]} if to_number(input.resource.id) > 3
"""
    policy = load((), {"p.rego": failing})
    assert policy.decide(request("context.read", resource={"id": "5"})).reasons == ("acme.big",)
    assert policy.decide(request("context.read", resource={"id": "x"})).reasons == ("policy.error",)


def test_conflicting_rules_are_a_deny(load) -> None:
    both = b"""package vestibule

default decision := {"verdict": "allow", "reasons": []}

decision := {"verdict": "deny", "reasons": ["acme.a"]} if input.action == "context.read"

decision := {"verdict": "allow", "reasons": []} if input.action == "context.read"
"""
    assert load((), {"p.rego": both}).decide(request("context.read")).reasons == ("policy.error",)


def test_a_policy_that_does_not_end_is_a_deny_until_its_threads_end(load, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(threading.enumerate())
    policy = load()
    policy._worker._timeout = 0.05
    ended = threading.Event()
    original = Program.value

    def hang(self: Program, document: dict[str, object]) -> object:
        if document["action"] == "context.list":
            ended.wait(30)
        return original(self, document)

    monkeypatch.setattr(Program, "value", hang)
    for number in range(4):
        slow = request("context.list", resource={"id": str(number)})
        assert policy.decide(slow).reasons == ("policy.error",)
    assert policy.decide(request("context.read")).reasons == ("policy.error",), "too many threads are stuck"
    ended.set()
    for thread in set(threading.enumerate()) - before:
        if thread.name == "vestibule-policy":
            thread.join(10)
    policy._worker._timeout = 10.0
    assert policy.decide(request("context.read")).allowed


def test_another_thread_takes_over_after_one_time_out(load, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load()
    policy._worker._timeout = 0.5
    ended = threading.Event()
    original = Program.value

    def hang(self: Program, document: dict[str, object]) -> object:
        if document["action"] == "context.list":
            ended.wait(30)
        return original(self, document)

    monkeypatch.setattr(Program, "value", hang)
    assert policy.decide(request("context.list")).reasons == ("policy.error",)
    assert policy.decide(request("context.read")).allowed
    ended.set()


def test_a_closed_set_denies() -> None:
    policy = PolicySet.load()
    policy.close()
    policy.close()
    assert policy.decide(request("context.read")).reasons == ("policy.error",)


@pytest.mark.parametrize("value", [1.5, "\ud800", pytest.param(object(), id="object"), 1 << 64, {"a": 0.5}], ids=repr)
def test_input_without_a_canonical_form_is_a_deny(shipped: PolicySet, value: object) -> None:
    verdict = shipped.decide(request("context.read", {"extra": value}))
    assert verdict.ruling is Ruling.DENY
    assert verdict.reasons[0] in ("policy.input", "policy.error")


def test_input_too_large_or_too_deep_is_a_deny(shipped: PolicySet) -> None:
    assert shipped.decide(request("context.read", {"x": "a" * 300_000})).reasons == ("policy.input",)
    deep: object = "x"
    for _ in range(40):
        deep = [deep]
    assert not shipped.decide(request("context.read", {"x": deep})).allowed


def test_a_nul_does_not_cut_a_string_short(load) -> None:
    exact = b"""package vestibule

default decision := {"verdict": "deny", "reasons": ["acme.other"]}

decision := {"verdict": "allow", "reasons": []} if input.resource.id == "src/a.py"
"""
    policy = load((), {"p.rego": exact})
    assert policy.decide(request("context.read", resource={"id": "src/a.py"})).allowed
    assert policy.decide(request("context.read", resource={"id": "src/a.py\0../../x"})).reasons == ("acme.other",)


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\nb", "tab\t", "é", "\U0001f600", "${x}", '{{"x"}}', "a\\nb"])
def test_strings_compare_in_policy_as_they_are(text: str) -> None:
    quoted = __import__("json").dumps(text, ensure_ascii=False)
    program = Program({"p.rego": f"package vestibule\ndecision := input.s == {quoted}\n"})
    assert program.value({"s": text}) is True
    assert program.value({"s": text + "x"}) is False
    echo = Program({"p.rego": "package vestibule\ndecision := [input.s]\n"})
    assert echo.value({"s": text}) == [text]


def test_answers_are_remembered_only_for_identical_input(load, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load()
    asked: list[str] = []
    original = Program.value

    def count(self: Program, document: dict[str, object]) -> object:
        asked.append(str(document["action"]))
        return original(self, document)

    monkeypatch.setattr(Program, "value", count)
    for _ in range(3):
        assert policy.decide(request("context.read")).allowed
    assert len(asked) == 1
    assert not policy.decide(request("context.read", {"in_read": False})).allowed
    assert not policy.decide(request("context.read", {"in_read": 1})).allowed, "1 is not true"
    assert len(asked) == 3


def test_what_is_remembered_is_bounded(load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_set, "CACHE_ENTRIES", 3)
    policy = load()
    for number in range(8):
        policy.decide(request("token.issue", resource={"id": str(number)}))
    assert len(policy._cache) == 3


def test_many_threads_get_the_right_answers(shipped: PolicySet) -> None:
    def ask(number: int) -> bool:
        inside = number % 2 == 0
        verdict = shipped.decide(request("context.read", {"in_read": inside}, resource={"id": str(number)}))
        return verdict.allowed is inside

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(400)))


def test_explain_names_the_facts_that_decided(shipped: PolicySet) -> None:
    found = shipped.explain(request("context.write", {"in_write": False, "protected": True}))
    assert found.deciding_facts == ("in_write", "protected")
    assert found.layers[0].reasons == ("context.write.protected", "context.write.scope")
    allowed = shipped.explain(request("context.write"))
    assert set(allowed.deciding_facts) == set(GOOD["context.write"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
ANY_FACTS = st.dictionaries(
    st.sampled_from(sorted({name for facts in GOOD.values() for name in facts})) | st.text(max_size=6), JSON, max_size=8
)


FREE = {"findings", "finding_rules", "is_requester", "self_approval", "paid"}
ANY_REQUEST = st.fixed_dictionaries(
    {
        "action": st.sampled_from(sorted(GOOD)) | st.text(max_size=12),
        "subject": st.dictionaries(st.sampled_from(["id", "kind"]), JSON),
        "resource": st.dictionaries(st.sampled_from(["id", "path", "choice", "tool"]), JSON),
        "task": st.dictionaries(st.sampled_from(["read", "write", "tools", "agent"]), JSON),
        "facts": ANY_FACTS,
    }
)


def _never_raises_never_allows_wrongly(policy: PolicySet, parts: dict[str, Any]) -> None:
    action, facts = parts["action"], parts["facts"]
    verdict = policy.decide(PolicyInput(**parts))
    right = action in GOOD and all(
        name in facts and type(facts[name]) is type(value) and (facts[name] == value or name in FREE)
        for name, value in GOOD[action].items()
    )
    assert verdict.ruling is Ruling.DENY or right
    assert verdict.allowed or (verdict.reasons and verdict.refusals)


@settings(max_examples=200, deadline=None)
@given(parts=ANY_REQUEST)
def test_decide_never_raises_and_never_allows_what_is_not_right(shipped: PolicySet, parts: dict[str, Any]) -> None:
    _never_raises_never_allows_wrongly(shipped, parts)


@pytest.mark.slow
def test_ten_thousand_requests_never_raise_and_never_allow_what_is_not_right(shipped: PolicySet) -> None:
    chance = random.Random(20260917)
    odd = [
        None,
        True,
        False,
        0,
        1,
        -1,
        1 << 70,
        0.5,
        "",
        "allow",
        "path.nul",
        "a b",
        "\0",
        "\ud800",
        [],
        [None],
        {},
        {"a": 1},
    ]
    names = sorted({name for facts in GOOD.values() for name in facts})
    for _ in range(10_000):
        action = chance.choice([*GOOD, "", "nothing"])
        facts = dict(GOOD.get(action, {}))
        for _ in range(chance.randrange(4)):
            facts[chance.choice(names)] = chance.choice(odd)
        for _ in range(chance.randrange(2)):
            facts.pop(chance.choice(names), None)
        parts = {part: {chance.choice(["id", "kind", "path", "choice", "read"]): chance.choice(odd)} for part in PARTS}
        _never_raises_never_allows_wrongly(shipped, {"action": action, "facts": facts, **parts})


PARTS = ("subject", "resource", "task", "labels")


@given(st.lists(st.sampled_from(list(Ruling)), max_size=6), st.sampled_from(list(Ruling)))
def test_another_layer_never_loosens(rulings: list[Ruling], more: Ruling) -> None:
    def joined(items: list[Ruling]) -> Ruling:
        return strictest(Verdict(ruling=item, reasons=("a",)) for item in items).ruling

    before, after = joined(rulings), joined([*rulings, more])
    assert after.strictness >= (before.strictness if rulings else 0)
    assert after.strictness >= more.strictness
    assert joined(list(reversed([*rulings, more]))) is after
    assert joined([*rulings, more, more]) is after


def test_a_layer_is_a_value() -> None:
    assert Layer("a", {}, {}) == Layer("a", {}, {})
    with pytest.raises(EngineError):
        Program({"a.rego": "package vestibule\ndecision := {"})
