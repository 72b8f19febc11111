"""What may not become policy, and that each allowed built-in does what it is documented to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_vocabulary import request

from vestibule.core.errors import ConfigError, DependencyDown
from vestibule.policy import PolicySet, engine, trial
from vestibule.policy.builtins import ALLOWED
from vestibule.policy.engine import EngineError, Program
from vestibule.policy.layers import Layer, shipped_layer
from vestibule.policy.lint import Problem, lint
from vestibule.policy.testing import run_tests
from vestibule.policy.tokens import UnreadableRego, tokens

DEFAULT = 'default decision := {"verdict": "allow", "reasons": []}\n'
HEAD = "package vestibule\n" + DEFAULT


def problems(source: str, monkeypatch: pytest.MonkeyPatch | None = None) -> list[Problem]:
    return lint(Layer("repository", {"p.rego": source}, {}))


@pytest.fixture
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vestibule.policy.lint.try_decisions", lambda sources: "")


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize(
    ("body", "line", "what"),
    [
        (
            'decision := {"verdict": "deny", "reasons": ["a"]} if http.send({"url": input.x}).status == 1',
            3,
            "http.send",
        ),
        ("x := opa.runtime()", 3, "opa.runtime"),
        ("x := time.now_ns()", 3, "time.now_ns"),
        ("x if time.parse_rfc3339_ns(input.t) < 5", 3, "time.parse_rfc3339_ns"),
        ('x := net.cidr_contains("10.0.0.0/8", input.ip)', 3, "net.cidr_contains"),
        ('x := rand.intn("a", 10)', 3, "rand.intn"),
        ("x := io.jwt.decode(input.t)", 3, "io.jwt.decode"),
        ('x := regex.is_valid("(")', 3, "regex.is_valid"),
        ("x := numbers.range(1, 100000000)", 3, "numbers.range"),
        ("x := walk(input)", 3, "walk"),
        ('x := uuid.rfc4122("a")', 3, "uuid.rfc4122"),
        ("x := my.own(1)", 3, "my.own"),
        ('x := replace(input.x, "", "-")', 3, "never ends"),
        ("x := replace(input.x, ``, `-`)", 3, "never ends"),
        ('x := replace(input.x, input.y, "-")', 3, "never ends"),
        ('x := replace(concat(",", ["a", input.x]), concat("", []), "-")', 3, "never ends"),
        ("x := undefined_function(1)", 3, "undefined_function"),
        ("x := http . send({})", 3, "http.send"),
        ("x := opa.runtime ()", 3, "opa.runtime"),
        ('x := data.http["send"]({})', 3, "computed name"),
        ('deny contains "acme.x" if inptu.action == "merge"', 3, "inptu"),
        ('deny contains "acme.x" if input.tags[i] == "a"', 3, "`i`"),
        ("x if input.a with input as {}", 3, "with"),
        ("allow { true }", 3, "v0"),
        ('deny["acme.x"] { input.a }', 3, "v0"),
        ('x = "a" { input.a }', 3, "v0"),
        ("f(y) = z { z := y }", 3, "v0"),
        ("import data.other.thing", 3, "import data.other.thing"),
        ("import future.keywords.if", 3, "import"),
        ("x := " + "[" * 40 + "]" * 40, 3, "nested"),
        ("x := [1", 3, "not closed"),
        ("x := 1]", 3, "closes nothing"),
        ("x := $`a`", 3, "does not belong"),
        ('x := "never closed', 3, "does not belong"),
    ],
)
def test_a_policy_that_could_fail_open_is_refused(body: str, line: int, what: str) -> None:
    found = [item for item in problems(HEAD + body + "\n") if item.severity == "error"]
    assert found, body
    assert any(item.line == line and what in item.what for item in found), found


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("", "empty"),
        ("# only a comment\n", "empty"),
        ("package other\n" + DEFAULT, "package"),
        ("package vestibule_evil\n" + DEFAULT, "package"),
        (DEFAULT, "package"),
        ("package vestibule\nallow := true\n", "nothing defines `decision`"),
    ],
)
def test_a_file_that_is_no_policy_of_ours_is_refused(source: str, what: str) -> None:
    assert any(what in item.what for item in problems(source) if item.severity == "error")


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize(
    "body",
    [
        'import rego.v1\ndeny contains "acme.x" if input.action == "merge"',
        "import input.facts as seen\nx if seen.approved",
        'x if {\n\tsome tag in input.resource.tags\n\tstartswith(tag, "v")\n}',
        "x if every tag in input.resource.tags { is_string(tag) }",
        "f(name, value) if name == value\ny if f(1, 1)",
        "x := {y | some y in input.facts.a; y > 1}",
        'x := [pair | some key, value in input.facts.a; pair := {"k": key, "v": value}]',
        "x := y if {\n\t[y, _] := input.facts.pair\n}",
        'x := "a" if input.facts.b\nelse := "c"',
        'x if not named\nnamed if input.resource.id in {"a", "b"}',
        "x := `raw { string`",
        'x := object.get(input.facts, ["a", "b"], false) # with { a comment',
        "x if {\n\tinput.facts.a == 1\n} else := false if {\n\tinput.facts.b\n}",
        "x := input.facts.a - 1",
    ],
)
def test_good_policy_is_accepted(body: str) -> None:
    asked = 'decision := {"verdict": "deny", "reasons": ["acme.x"]} if data.vestibule.%s\n'
    name = (body.split("deny contains")[1:] and "deny") or ("y" if "\ny if" in body else "x")
    assert problems(HEAD + asked % name + body + "\n") == []


@pytest.mark.usefixtures("no_child")
def test_no_default_is_a_warning() -> None:
    found = problems('package vestibule\ndecision := {"verdict": "allow", "reasons": []} if input.action == "merge"\n')
    assert [item.severity for item in found] == ["warning"]


def test_the_shipped_bundle_has_no_problem() -> None:
    assert lint(shipped_layer()) == []


def test_the_engine_sees_no_built_in_of_the_shipped_bundle_that_lint_does_not_allow(tmp_path: Path) -> None:
    whole = Program(shipped_layer().sources)._whole
    whole.interpreter.save_bundle(str(tmp_path / "plan"), whole.bundle)
    plan = json.loads((tmp_path / "plan" / "plan.json").read_text())
    operators = {"lt", "gt", "lte", "gte", "equal", "neq", "minus", "plus", "or", "and"}
    called = {item["name"] for item in plan["static"]["builtin_funcs"]}
    assert {name for name in called if not name.startswith("internal.")} <= ALLOWED | operators


def test_the_known_fail_open_example_refuses_to_start() -> None:
    example = b"""package vestibule

default decision := {"verdict": "allow", "reasons": []}

decision := {"verdict": "deny", "reasons": deny} if count(deny) > 0

deny contains "acme.expired" if time.parse_rfc3339_ns(input.resource.expires) < 1
"""
    with pytest.raises(ConfigError, match=r"p\.rego:7: the function `time\.parse_rfc3339_ns`") as found:
        PolicySet.load((), {"p.rego": example})
    assert found.value.exit_code == 2


def test_the_known_fail_open_example_denies_even_without_lint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vestibule.policy.lint.require_fit", lambda layer: None)
    example = b"""package vestibule
default decision := {"verdict": "allow", "reasons": []}
decision := {"verdict": "deny", "reasons": deny} if count(deny) > 0
deny contains "acme.expired" if time.parse_rfc3339_ns(input.resource.expires) < 1
"""
    policy = PolicySet.load((), {"p.rego": example})
    expired = request("context.read", resource={"id": "a", "expires": "2020-01-01T00:00:00Z"})
    assert policy.decide(expired).reasons == ("policy.error",)
    policy.close()


@pytest.mark.parametrize(
    "body",
    ["a := b\nb := a", "f(x) := f(x)\na := f(1)", 'decision := {"verdict": "no", "reasons": []} if input.labels == {}'],
)
def test_what_does_not_run_is_refused_by_trying_it(body: str) -> None:
    source = HEAD + body.replace("a := ", 'decision := {"verdict": "deny", "reasons": a} if a\na := ', 1) + "\n"
    found = problems(source)
    assert any("does not compile or run" in item.what for item in found)


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize(
    ("body", "what"),
    [
        ('denny contains "acme.x" if input.action == "merge"', "nothing asks for `denny`"),
        ("x if y\ny if x", "nothing asks for `x`"),
        ('deny contains "acme.x" if input.action == "context.raed"', "there is no action"),
        ('deny contains "acme.x" if input.action in {"merge", "context.del"}', "there is no action"),
        ('deny contains "acme.x" if input.fact.walls == false', "an input has no `fact`"),
        ("import input.fact", "an input has no `fact`"),
        ('deny contains "acme.x" if data.acme.frozen', "`data` outside the package"),
        ('deny contains "acme.x" if data["acme"].frozen', "`data` outside the package"),
        ('deny contains "acme.x" if not input.resource.id in {"a"}', "read in two ways"),
        ('deny contains "acme.x" if not startswith(input.resource.id, "a")', "read in two ways"),
        ('deny contains "acme.x" if {\n\tnot lower(input.task.role) == "a"\n}', "read in two ways"),
        ('deny contains "acme.x" if not input.resource["id"] in {"a"}', "read in two ways"),
    ],
)
def test_a_rule_that_cannot_speak_is_refused(body: str, what: str) -> None:
    asked = 'decision := {"verdict": "deny", "reasons": deny} if count(deny) > 0\n\ndeny contains "acme.y" if false\n\n'
    found = problems(HEAD + "\n" + asked + body + "\n")
    assert [item.severity for item in found if what in item.what] == ["error"]


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize(
    "body",
    [
        'some name in input.facts.names\n\tnot name in {"a"}',
        "some name in input.facts.names\n\tnot is_string(name)",
        'not input.subject.kind == "person"',
        "not input.facts.approved",
        "not named",
    ],
)
def test_a_negation_that_engines_agree_on_is_accepted(body: str) -> None:
    text = f'deny contains "acme.x" if {{\n\t{body}\n\tcount(deny_names) == named_count\n}}\n'
    text += 'named if input.action == "merge"\n\ndeny_names := {"a"}\n\nnamed_count := 1\n'
    found = problems(HEAD + 'decision := {"verdict": "deny", "reasons": deny} if count(deny) > 0\n\n' + text)
    assert not [item for item in found if "read in two ways" in item.what]


def test_a_source_that_ends_the_engine_ends_a_child_and_not_this_process() -> None:
    # `with` around a call of one's own function: std::terminate in regopy 1.5.2
    tests = 'package vestibule\ntest_x if count(needed) > 0 with input as {"action": "merge"}\n'
    [(passed, why)] = trial.try_rules({**shipped_layer().sources, "x_test.rego": tests}, ["test_x"])
    assert passed or "ended with" in why
    assert not passed or engine.VERSION != "regopy 1.5.2"


def test_no_child_is_a_broken_dependency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial.sys, "executable", "/nonexistent/python")
    with pytest.raises(DependencyDown) as found:
        trial.try_decisions({"p.rego": HEAD})
    assert found.value.name == "policy"


def test_a_child_that_hangs_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "TIMEOUT_SECONDS", 0.001)
    assert trial.try_decisions({"p.rego": HEAD}) == "the policy takes too long"


def test_tests_beside_a_policy_are_run() -> None:
    tests = """package vestibule
test_good if decision.verdict == "allow"
test_false := false
test_undefined if input.nothing
"""
    layer = Layer("folder", {"p.rego": HEAD}, {"p_test.rego": tests})
    assert [(item.name, item.passed) for item in run_tests(layer)] == [
        ("test_good", True),
        ("test_false", False),
        ("test_undefined", False),
    ]


KNOWN_ANSWERS: list[tuple[str, object]] = [
    ("count([1, 2])", 2),
    ("count(set())", 0),
    ("sum([1, 2])", 3),
    ("max([1, 3, 2])", 3),
    ("min({3, 1})", 1),
    ("sort([2, 1])", [1, 2]),
    ("sort(union({{1}, {2}}))", [1, 2]),
    ("sort(intersection({{1, 2}, {2}}))", [2]),
    ("array.concat([1], [2])", [1, 2]),
    ("array.slice([1, 2, 3], 1, 2)", [2]),
    ("array.reverse([1, 2])", [2, 1]),
    ('object.get({"a": 1}, "b", 7)', 7),
    ('sort(object.keys({"b": 1, "a": 2}))', ["a", "b"]),
    ('object.remove({"a": 1, "b": 2}, ["a"])', {"b": 2}),
    ('object.filter({"a": 1, "b": 2}, ["a"])', {"a": 1}),
    ('object.union({"a": 1}, {"a": 2})', {"a": 2}),
    ('object.subset({"a": 1, "b": 2}, {"a": 1})', True),
    ('concat("-", ["a", "b"])', "a-b"),
    ('contains("abc", "b")', True),
    ('contains("abc", "x")', False),
    ('startswith("abc", "ab")', True),
    ('startswith("abc", "b")', False),
    ('endswith("abc", "bc")', True),
    ('indexof("abc", "c")', 2),
    ('lower("AB")', "ab"),
    ('upper("ab")', "AB"),
    ('replace("aba", "a", "x")', "xbx"),
    ('split("a/b", "/")', ["a", "b"]),
    ('sprintf("%s-%d", ["a", 1])', "a-1"),
    ('substring("abcd", 1, 2)', "bc"),
    ('trim("xax", "x")', "a"),
    ('trim_left("xax", "x")', "ax"),
    ('trim_right("xax", "x")', "xa"),
    ('trim_prefix("abc", "a")', "bc"),
    ('trim_suffix("abc", "c")', "ab"),
    ('trim_space(" a ")', "a"),
    ('strings.any_prefix_match("abc", ["x", "a"])', True),
    ('strings.any_suffix_match("abc", ["x", "c"])', True),
    ('regex.match("^a+$", "aab")', False),
    ('regex.match("^a+b$", "aab")', True),
    ('glob.match("src/**", ["/"], "src/a/b.py")', True),
    ('glob.match("src/*", ["/"], "src/a/b.py")', False),
    ("abs(-2)", 2),
    ("ceil(1.2)", 2),
    ("floor(1.8)", 1),
    ("round(1.6)", 2),
    ('to_number("12")', 12),
    ("format_int(15, 16)", "f"),
    ("type_name(true)", "boolean"),
    ("is_array([1])", True),
    ("is_boolean(true)", True),
    ("is_null(null)", True),
    ("is_number(1)", True),
    ("is_object({})", True),
    ("is_set(set())", True),
    ('is_string("a")', True),
    ('semver.compare("1.2.0", "1.10.0")', -1),
    ('semver.is_valid("1.2")', False),
]


def test_every_allowed_built_in_has_a_known_answer() -> None:
    assert {name for name in ALLOWED if not any(f"{name}(" in call for call, _ in KNOWN_ANSWERS)} == set()


@pytest.mark.parametrize(("call", "answer"), KNOWN_ANSWERS, ids=str)
def test_an_allowed_built_in_gives_its_documented_answer(call: str, answer: object) -> None:
    assert Program({"p.rego": f"package vestibule\ndecision := {call}\n"}).value({}) == answer


@given(st.text(max_size=60))
def test_the_tokenizer_reads_or_refuses_any_text(text: str) -> None:
    lines = range(1, text.count("\n") + 2)
    try:
        places = [item.line for item in tokens(text)]
    except UnreadableRego as error:
        places = [error.line]
    assert all(place in lines for place in places)


@given(st.lists(st.sampled_from(["decision", ":=", "{", "}", "if", "(", ")", "input", ".", "x", "\n", "[", "]", "="])))
def test_lint_never_raises(words: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vestibule.policy.lint.try_decisions", lambda sources: "")
        problems("package vestibule\n" + " ".join(words))


def test_a_program_that_does_not_parse_says_where() -> None:
    with pytest.raises(EngineError, match=r"a\.rego"):
        Program({"a.rego": "package vestibule\ndecision := if {\n"})
