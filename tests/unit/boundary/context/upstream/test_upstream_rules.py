"""Arguments, names, pins, breaker and cache of upstream servers: the pure parts."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.upstream_fake import pinned, tool

from vestibule.boundary.context.upstream import names, pins, results
from vestibule.boundary.context.upstream.arguments import MAX_ARGUMENT_BYTES, check
from vestibule.boundary.context.upstream.breaker import MAX_PAUSE, Breaker
from vestibule.boundary.context.upstream.cache import MAX_ENTRIES, AnswerCache
from vestibule.boundary.context.upstream.results import show
from vestibule.boundary.context.upstream.wire import Response
from vestibule.config.schema import ArgumentRule, ToolRule
from vestibule.core.errors import DependencyDown
from vestibule.core.text.sanitize import show_hidden

SCHEMA = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "paths": {"type": "array", "items": {"type": "string"}},
        "state": {"type": "string"},
        "count": {"type": "integer", "minimum": 0},
        "issue": {"type": "string", "pattern": "^[A-Z]+-[0-9]+$"},
        "deep": {"type": "object"},
    },
    "additionalProperties": True,
}


def rule(extra: bool = False, **arguments: ArgumentRule) -> ToolRule:
    return ToolRule(tool="t", arguments=arguments, extra_arguments=extra)


def verdict(given: dict[str, Any], found: ToolRule | None = None, schema: dict[str, Any] | None = None) -> str:
    return check(given, SCHEMA if schema is None else schema, found).rule.removeprefix("upstream.argument.")


DOCS = ArgumentRule(paths=("guide/**", "*.md"), root="/srv/docs")


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/srv/docs/guide/a.txt", ""),
        ("/srv/docs/readme.md", ""),
        ("/srv/docs/guide//./a.txt", ""),
        ("/srv/docs/private/a.txt", "path.outside"),
        ("/srv/docs", "path.outside"),
        ("/srv/docs2/guide/a.txt", "path.outside"),
        ("/etc/passwd", "path.outside"),
        ("guide/a.txt", "path.outside"),
        ("/srv/docs/guide/../private/a", "path.traversal"),
        ("/srv/docs/guide/%2e%2e/x", "path.encoded"),
        ("/srv/docs/guide/a\0.md", "path.nul"),
        ("/srv/docs/guide/.git/config", "path.git"),
        ("/srv/docs/guide/a\u200b", "path.invisible"),
        ("/srv/docs/guide\\..\\a", "path.backslash"),
    ],
)
def test_a_path_is_normalised_and_stays_below_its_folder(path: str, wanted: str) -> None:
    assert verdict({"path": path}, rule(path=DOCS)) == wanted


def test_what_is_sent_is_the_normal_form_that_was_judged() -> None:
    found = check({"path": "/srv/docs/guide//./a.txt"}, SCHEMA, rule(path=DOCS))
    assert found.arguments == {"path": "/srv/docs/guide/a.txt"}


def test_each_item_of_a_list_is_judged() -> None:
    fine = ["/srv/docs/a.md", "/srv/docs/guide/b"]
    assert verdict({"paths": fine}, rule(paths=DOCS)) == ""
    assert verdict({"paths": [*fine, "/etc/passwd"]}, rule(paths=DOCS)) == "path.outside"
    assert verdict({"paths": [["/etc/passwd"]]}, rule(paths=DOCS)) == "type"


@pytest.mark.parametrize(
    ("given_", "found", "wanted"),
    [
        ({"state": "open"}, ArgumentRule(values=("open", "closed")), ""),
        ({"state": "all"}, ArgumentRule(values=("open", "closed")), "value"),
        ({"state": "ABC-1"}, ArgumentRule(pattern="[A-Z]+-[0-9]+"), ""),
        ({"state": "ABC-1; drop"}, ArgumentRule(pattern="[A-Z]+-[0-9]+"), "pattern"),
        ({"state": "x" * 11}, ArgumentRule(max_length=10), "length"),
        ({"state": {"a": 1}}, ArgumentRule(max_length=10), "type"),
    ],
)
def test_a_text_is_judged_by_values_pattern_and_length(
    given_: dict[str, Any], found: ArgumentRule, wanted: str
) -> None:
    assert verdict(given_, rule(state=found)) == wanted


@pytest.mark.parametrize(
    ("count", "wanted"),
    [(1, ""), (100, ""), (101, "range"), (0, "range"), (True, "type"), ("5", "type"), (1e9, "range")],
)
def test_a_number_is_judged_by_its_range(count: Any, wanted: str) -> None:
    assert verdict({"count": count}, rule(count=ArgumentRule(min=1, max=100))) == wanted


def test_a_whole_number_has_one_form_and_that_is_sent() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "more": {}}}
    found = check({"n": 1000.0, "more": [{"x": 1e3}, 0.5, -0.0, 1e300, True]}, schema, None)
    assert found.rule == ""
    assert repr(found.arguments) == "{'n': 1000, 'more': [{'x': 1000}, 0.5, 0, 1e+300, True]}"


def test_true_is_not_the_number_one() -> None:
    assert verdict({"count": True}, rule(count=ArgumentRule(values=(1,)))) == "value"


def test_an_argument_that_the_pinned_schema_does_not_name_is_refused() -> None:
    assert verdict({"bcc": "x"}) == "unknown"
    assert verdict({"bcc": "x"}, rule(extra=True)) == ""
    assert verdict({"bcc": "x"}, rule(extra=True), {**SCHEMA, "additionalProperties": False}) == "schema"
    assert verdict({"x": 1}, None, {"type": "object"}) == "unknown"


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        ({"count": 3}, ""),
        ({"count": -1}, "schema"),
        ({"count": "3"}, "schema"),
        ({"issue": "ABC-1"}, ""),
        ({"issue": "abc"}, "schema"),
        ({"issue": "A" * 2000 + "-1"}, "length"),
        ({"deep": {"a": "x" * MAX_ARGUMENT_BYTES}}, "size"),
        ({"state": "\ud800"}, "type"),
        ({"deep": {"a": float("inf")}}, "type"),
    ],
)
def test_arguments_fit_the_pinned_schema(given_: dict[str, Any], wanted: str) -> None:
    assert verdict(given_) == wanted


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/schema"}}},
        {"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}},
        {"type": "object", "properties": {"a": {"pattern": "(a+)+b"}}},
        {"type": "object", "properties": {"a": {"patternProperties": {"(x+)+y": {}}}}},
        {"type": "nothing", "properties": {"a": {}}},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
    ],
)
def test_a_schema_that_cannot_be_checked_allows_nothing(schema: dict[str, Any]) -> None:
    assert verdict({"a": "aaaa"}, None, schema) in {"schema_unusable", "schema"}


def test_no_reference_leads_out_of_a_schema_even_where_something_is(tmp_path: Path) -> None:
    (tmp_path / "anything.json").write_text("{}")
    schema = {"type": "object", "properties": {"a": {"$ref": (tmp_path / "anything.json").as_uri()}}}
    assert verdict({"a": "x"}, None, schema) == "schema_unusable"


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(st.text(max_size=8), st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
)
def test_checking_never_fails_and_what_is_refused_is_not_sent(given_: dict[str, Any]) -> None:
    found = check(given_, SCHEMA, rule(path=DOCS, count=ArgumentRule(max=3)))
    assert not found.rule or found.arguments == {}


# --- names -----------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from(["docs", "bugs"]), st.text(max_size=70), st.just("")), unique=True, max_size=20)
)
def test_no_two_tools_have_one_name_and_every_name_fits(tools: list[tuple[str, str, str]]) -> None:
    assigned, problems = names.assign(tools, ("read_file",))
    assert all(len(name) <= names.MAX_NAME and name.replace("-", "a").isidentifier() for name in assigned)
    looks = [names.skeleton(name) for name in assigned]
    assert len(set(looks)) == len(looks)
    assert {*assigned.values()} | {*problems} == {(server, item) for server, item, _ in tools}
    assert not {*assigned.values()} & {*problems}


def test_a_person_can_give_a_tool_another_name() -> None:
    assigned, problems = names.assign(
        [("docs", "read_file", "page_text"), ("docs", "search_files", "")], ("read_file",)
    )
    assert assigned == {"docs__page_text": ("docs", "read_file"), "docs__search_files": ("docs", "search_files")}
    assert not problems


def test_servers_whose_names_look_the_same_are_found() -> None:
    assert names.alike(["docs", "bugs"]) == []
    assert names.alike(["modern", "bugs", "modem"]) == [("modern", "modem")]


# --- pins ------------------------------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=5), _JSON, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_keys_changes_no_digest(schema: dict[str, Any], order: random.Random) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = list(value.items())
            order.shuffle(items)
            return {key: shuffled(item) for key, item in items}
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    assert pins.digest_of(shuffled(schema)) == pins.digest_of(schema)


@pytest.mark.parametrize(
    "change",
    [
        {"description": "Says it. "},
        {"description": "Says\u200b it."},
        {"inputSchema": {"type": "object"}},
        {"annotations": {"readOnlyHint": True}},
        {"title": "T"},
        {"outputSchema": {"type": "object"}},
    ],
)
def test_whatever_an_agent_could_be_shown_is_pinned(change: dict[str, Any]) -> None:
    one = tool("t")
    assert pins.rule_of("t", pinned("s", [one]), pins.catalogue([{**one, **change}])) == "upstream.changed"
    assert pins.rule_of("t", pinned("s", [one]), pins.catalogue([one])) == ""


def test_numbers_and_texts_are_told_apart() -> None:
    seen = {pins.digest_of({"default": value}) for value in (1, 1.5, "1", "1.5", True, None, [1], {"1": 1})}
    assert len(seen) == 8


def test_a_tool_too_long_to_be_looked_at_cannot_be_pinned() -> None:
    assert pins.catalogue([tool("t", "x" * pins.MAX_TOOL_BYTES)]) == {"t": None}


def test_pins_come_back_as_they_were_written(tmp_path: Path) -> None:
    folder = pins.PinFolder(tmp_path / "upstreams")
    assert folder.read("docs").tools == {}
    written = pinned("docs", [tool("a", "é \u202e", schema={"type": "object", "properties": {"x": {"default": 0.1}}})])
    folder.write(written)
    assert folder.read("docs") == written
    assert [path.name for path in folder.folder.iterdir()] == ["docs.json"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: text.replace("Says it.", "Says it!"),
        lambda text: text.replace('"server": "docs"', '"server": "bugs"'),
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace('"by"', '"who"'),
        lambda text: "[]",
        lambda text: "",
    ],
)
def test_a_pin_file_that_is_not_as_it_was_written_is_no_empty_set(tmp_path: Path, damage: Any) -> None:
    folder = pins.PinFolder(tmp_path)
    folder.write(pinned("docs", [tool("a")]))
    path = folder.path("docs")
    path.write_text(damage(path.read_text()))
    with pytest.raises(DependencyDown) as caught:
        folder.read("docs")
    assert caught.value.name == "upstream_pins"


def test_states_say_what_a_person_has_to_look_at() -> None:
    live = pins.catalogue([tool("same"), tool("other", "New."), tool("fresh")])
    found = pins.states(pinned("s", [tool("same"), tool("other"), tool("lost")]), live)
    assert found == {"same": "pinned", "other": "changed", "fresh": "unpinned", "lost": "gone"}


# --- breaker and cache -----------------------------------------------------------------------------------------


def test_the_breaker_opens_after_failures_in_a_row_and_tries_once() -> None:
    breaker = Breaker(3, 10)
    for _ in range(2):
        assert breaker.enter(0) == 0
        breaker.failure(0)
    breaker.success()
    for _ in range(3):
        assert breaker.enter(0) == 0
        breaker.failure(0)
    assert breaker.state == "open"
    assert breaker.enter(4) == 6
    assert breaker.enter(10) == 0
    assert breaker.state == "half-open"
    assert breaker.enter(10) > 0  # one at a time
    breaker.failure(10)
    assert breaker.enter(29) == 1  # twice as long
    assert breaker.enter(30) == 0
    breaker.success()
    assert breaker.state == "closed"
    assert breaker.enter(30) == 0


def test_the_pause_is_bounded() -> None:
    breaker, now = Breaker(1, 10), 0.0
    for _ in range(40):
        assert breaker.enter(now) == 0
        breaker.failure(now)
        now += breaker.enter(now)
    breaker.enter(now)
    breaker.failure(now)
    assert breaker.enter(now) == MAX_PAUSE


def test_answers_are_kept_for_their_time_and_within_bounds() -> None:
    cache = AnswerCache[str](10)
    cache.put("a", "1", 1, 0)
    assert cache.get("a", 9) == "1"
    assert cache.get("a", 10) is None
    for number in range(MAX_ENTRIES + 5):
        cache.put(str(number), "x", 1, 0)
    assert cache.get("0", 1) is None
    assert cache.get(str(MAX_ENTRIES + 4), 1) == "x"
    cache.put("large", "x", 9 << 20, 0)
    assert cache.get("large", 0) is None
    cache.clear()
    assert cache.get(str(MAX_ENTRIES), 1) is None
    never = AnswerCache[str](0)
    never.put("a", "1", 1, 0)
    assert never.get("a", 0) is None


def test_the_names_in_a_pin_file_are_the_tools_own(tmp_path: Path) -> None:
    folder = pins.PinFolder(tmp_path)
    folder.write(pinned("docs", [tool("a")]))
    path = folder.path("docs")
    found = json.loads(path.read_text())
    found["tools"]["b"] = found["tools"].pop("a")
    path.write_text(json.dumps(found))
    with pytest.raises(DependencyDown):
        folder.read("docs")


def test_what_cannot_be_shown_of_a_result_is_not_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def noted(part: str) -> str:
        seen.append(len(part))
        return show_hidden(part)

    monkeypatch.setattr(results, "show_hidden", noted)
    hidden = "\u200b" * 500_000
    answer = Response(1, {"content": [{"type": "text", "text": "ab"}, {"type": "text", "text": hidden}]})
    shown = show(answer, server="s", tool="t", limit=100)
    assert shown.cut
    assert max(seen) <= 101
    assert shown.received == 2 + 3 * len(hidden)
