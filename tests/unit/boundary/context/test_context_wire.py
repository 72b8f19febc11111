"""Strict JSON-RPC, name filters that cannot run away, and fuzzed paths."""

from __future__ import annotations

import json
import random
import time
import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest
from context_fake import READ, WRITE, Endpoint, make_task
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vestibule.boundary.context.rights import Rights
from vestibule.boundary.context.rules import plan
from vestibule.boundary.context.wire.filters import BadFilter, parse_filter
from vestibule.boundary.context.wire.jsonrpc import BadMessage, parse
from vestibule.core.text import globs
from vestibule.core.text.paths import normalise_path

CALL = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}}

BAD = {
    "no JSON": b"{",
    "not UTF-8": b'{"jsonrpc":"2.0","id":1,"method":"\xff"}',
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(CALL).encode(),
    "batch": json.dumps([CALL]).encode(),
    "empty batch": b"[]",
    "scalar": b"3",
    "same key twice": b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/list"}',
    "same key twice, deep": b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":{"path":"src/a","path":"../b"}}}',
    "same key twice, escaped": b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"path":"a","p\\u0061th":"b"}}',
    "NaN": b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":NaN}}',
    "infinity": b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1e999}}',
    "huge integer": b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":' + b"9" * 5000 + b"}}",
    "deep": b'{"jsonrpc":"2.0","id":1,"method":"x","params":' + b'{"a":' * 60 + b"1" + b"}" * 60 + b"}",
    "very deep": b"[" * 200_000,
    "version": b'{"jsonrpc":"1.0","id":1,"method":"ping"}',
    "null id": b'{"jsonrpc":"2.0","id":null,"method":"ping"}',
    "boolean id": b'{"jsonrpc":"2.0","id":true,"method":"ping"}',
    "float id": b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}',
    "object id": b'{"jsonrpc":"2.0","id":{},"method":"ping"}',
    "surrogate id": b'{"jsonrpc":"2.0","id":"\\ud800","method":"ping"}',
    "long id": json.dumps({**CALL, "id": "x" * 300}).encode(),
    "response": b'{"jsonrpc":"2.0","id":1,"result":{}}',
    "unknown member": b'{"jsonrpc":"2.0","id":1,"method":"ping","extra":1}',
    "list of parameters": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}',
    "method of another type": b'{"jsonrpc":"2.0","id":1,"method":1}',
    "call without id": b'{"jsonrpc":"2.0","method":"tools/call","params":{}}',
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_message_that_two_parsers_could_read_differently_is_400(endpoint: Endpoint, body: bytes) -> None:
    answer = endpoint.http(body)
    assert answer.status == 400
    assert answer.json["error"]["code"] in (-32700, -32600, -32602)
    assert endpoint.log.events == []


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"name": 1},
        {"name": "read_file", "arguments": []},
        {"name": "read_file", "arguments": "{}"},
        {"name": "\ud800"},
        {"name": "get_task", "_meta": {"x": "\udfff"}},
    ],
)
def test_call_without_a_readable_shape_is_400_and_nothing_runs(endpoint: Endpoint, params: dict[str, Any]) -> None:
    assert endpoint.rpc("tools/call", params).status == 400
    assert endpoint.log.events == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_message_or_refused(body: bytes) -> None:
    try:
        parse(body)
    except BadMessage as error:
        assert str(error)  # noqa: PT017 - either is fine


TRICKS = [
    *("..", ".", "", "/", "\\", ".git", ".GIT", "git~1", "src", "src/..", "%2e%2e", "\0", "\n", "~", "C:", "con"),
    *(":", " ", "\u202e", "\u200d", "\uff0e\uff0e", "\u2215", "\u2024\u2024", "/workspace", "/workspace/", "etc"),
    *("passwd", "secret", "CLAUDE.md", "greet.py", "\ud800", "é", "e\u0301", "link", "a" * 256),
]
ODD = st.sampled_from(TRICKS)
PATH = st.lists(ODD | st.text(max_size=4), min_size=1, max_size=6).map("/".join) | st.text(max_size=30)


def check_path(path: str) -> None:
    """Whatever the path: it has no normal form and says so, or is exactly decided on that form."""
    for tool, more in (("read_file", {}), ("write_file", {"content": "x"})):
        call = plan(tool, {"path": path, **more}, RIGHTS)
        (step,) = call.steps
        facts = step.facts
        assert not any(unicodedata.category(char) in ("Cc", "Cs") for char in step.resource["id"])
        if facts["path_ok"]:
            got = call.arguments["path"]
            assert got == normalise_path(got) == step.resource["path"]
            assert not got.startswith("/")
            assert ".." not in got.split("/")
            assert ".git" not in got.casefold().split("/")
            inside = "in_read" if tool == "read_file" else "in_write"
            allowed = READ if tool == "read_file" else WRITE
            assert facts[inside] is (globs.first_match(got, allowed) is not None)
        else:
            assert facts["path_rule"].startswith("path.")
            assert call.arguments == {}
            assert facts.get("in_read", False) is False
            assert facts.get("in_write", False) is False


@settings(max_examples=500, deadline=None)
@given(path=PATH)
@example(path="/workspace/")
@example(path="/workspace/../../etc/passwd")
@example(path="./~")
def test_no_path_is_ever_allowed_that_leads_outside_or_beyond_the_scope(path: str) -> None:
    check_path(path)


def test_twenty_thousand_paths_made_of_tricks_are_decided_on_their_normal_form() -> None:
    source = random.Random(20_000)
    joints = ["/", "//", "/./", "/../", "", "\\", "%2f"]
    for _ in range(20_000):
        parts = [source.choice(TRICKS) for _ in range(source.randint(1, 5))]
        check_path("".join(part + source.choice(joints) for part in parts[:-1]) + parts[-1])


RIGHTS = Rights(make_task().scope)


@pytest.fixture
def fuzzed(endpoint: Endpoint) -> Iterator[Endpoint]:
    """An endpoint for many examples; afterwards nothing lies beside the workspace or beyond the write scope."""
    yield endpoint
    assert {item.name for item in endpoint.folder.parent.iterdir()} == {"workspace"}
    assert (endpoint.folder / "secret/key.txt").read_text() == "classified Hello\n"
    assert (endpoint.folder / ".git/HEAD").read_text() == "ref: refs/heads/main\n"
    there = {str(item.relative_to(endpoint.folder)) for item in endpoint.folder.rglob("*") if item.is_file()}
    new = there - {item.path for item in endpoint.view.files} - {"secret/key.txt", ".git/HEAD"}
    assert all(globs.first_match(path, WRITE) for path in new), new


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=PATH, content=st.text(max_size=5))
def test_no_path_makes_the_endpoint_fail_or_write_outside(fuzzed: Endpoint, content: str, path: str) -> None:
    for tool, arguments in (
        ("write_file", {"path": path, "content": content}),
        ("read_file", {"path": path}),
        ("list_files", {"path": path, "glob": content or None}),
        ("search_files", {"path": path, "query": content or "x"}),
    ):
        assert fuzzed.call(tool, **arguments).status in (200, 400, 403)


PIECE = st.sampled_from(["*", "**", "?", "a", "b", "ab", "/", "[ab]", "[!a]", ".", "a*", "*.b"])


@settings(max_examples=500, deadline=None)
@given(
    pattern=st.lists(PIECE, min_size=1, max_size=6).map("".join),
    path=st.lists(st.sampled_from(["a", "b", "ab", ".a", "a.b", "bb"]), min_size=1, max_size=4).map("/".join),
)
def test_filters_mean_what_role_globs_mean(pattern: str, path: str) -> None:
    try:
        globs.check_glob(pattern)
        found = parse_filter(pattern)
    except (globs.ImpossibleGlob, BadFilter):
        return
    parts = pattern.split("/")
    if any("**" in part and part != "**" for part in parts) or "" in parts or "." in parts:
        return  # spelled in ways on which matchers differ
    expected = globs.matches(path, pattern if "/" in pattern else f"**/{pattern}")
    assert found.matches(path) is expected


@pytest.mark.parametrize("pattern", ["*a" * 100 + "b", "**/" * 60 + "b", "*" * 200 + "b", "?*" * 100 + "b"])
def test_filters_cannot_run_away(pattern: str) -> None:
    started = time.process_time()
    found = parse_filter(pattern)
    for path in ("a" * 250, "/".join(["a" * 8] * 400)):
        assert not found.matches(path)
    assert time.process_time() - started < 2


NONSENSE = [
    "",
    "/etc/*",
    "!a",
    "~/x",
    "a\\b",
    "{a",
    "a}",
    "{a}",
    "{a,{b,c}}",
    "[",
    "[a",
    "[]",
    "a]",
    "x" * 257,
    "{a,b}" * 5,
]


@pytest.mark.parametrize("pattern", NONSENSE)
def test_filters_that_make_no_sense_are_refused(pattern: str) -> None:
    with pytest.raises(BadFilter):
        parse_filter(pattern)


@pytest.mark.parametrize(
    ("below", "reached"),
    [
        ("", True),
        ("src", True),
        ("src/any/where", True),
        ("docs", True),
        ("docs/deeper", False),
        ("secret", False),
        ("infra", False),
        ("pyproject.toml", True),
        ("pyproject.toml/x", False),
        ("srcx", False),
    ],
)
def test_folders_are_reached_only_when_something_readable_can_lie_there(below: str, reached: bool) -> None:
    assert RIGHTS.reaches(below) is reached
    if below:
        spelled = Rights(make_task(read=("{src/**,docs/*.md,pyproject.toml}",)).scope)
        assert spelled.reaches("src/any") is True
