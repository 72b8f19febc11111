"""Plain tool calls are answered without the SDK's transport, in exactly the SDK's words: the SDK is the oracle."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from context_fake import fill, make_endpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vestibule.boundary.context.catalogue import Tool
from vestibule.boundary.context.direct import Direct
from vestibule.boundary.context.tools import Answer
from vestibule.boundary.context.wire.jsonrpc import Message

MODERN, HANDSHAKE = "2026-07-28", "2025-11-25"
PREFIX = "io.modelcontextprotocol/"
META = {
    f"{PREFIX}protocolVersion": MODERN,
    f"{PREFIX}clientInfo": {"name": "test", "version": "1"},
    f"{PREFIX}clientCapabilities": {},
}
ODD = 'é\u2028\x7f"\\/\t\x01\r\n\U0001f4a5</script>'
CALL = {"name": "read_file", "arguments": {"path": "src/odd.txt"}}


class Pair:
    """The same request to an endpoint as it is, and to one whose every call goes through the SDK."""

    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.ours, self.sdk = make_endpoint(folder, loop), make_endpoint(folder, loop)
        for endpoint in (self.ours, self.sdk):
            endpoint.runner.stdout = ODD.encode()
            assert endpoint.rpc("ping").status == 200  # the SDK is loaded
        self.direct = 0
        direct = self.ours.app._protocol._loaded.result().direct
        revision = direct.revision

        def counted(*given: Any) -> Any:
            found = revision(*given)
            self.direct += found is not None
            return found

        direct.revision = counted
        self.sdk.app._protocol._loaded.result().direct.revision = lambda *_: None

    def same(self, message: Any, headers: list[tuple[str, str]]) -> tuple[int, Any]:
        """Asserts that both answer and record alike, and gives the answer."""
        found, body = [], json.dumps(message).encode()
        for endpoint in (self.ours, self.sdk):
            answer = endpoint.http(body, extra=headers)
            events = [event.model_dump() for event in endpoint.log.events]
            endpoint.log.events.clear()
            found.append((answer.status, answer.headers, answer.body, events))
        assert found[0] == found[1]
        return found[0][0], json.loads(found[0][2]) if found[0][2] else None

    def call(self, version: str, params: Any, *headers: tuple[str, str], number: Any = 1) -> tuple[int, Any]:
        routing = list(headers) or routing_of(version, params)
        return self.same({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}, routing)


def routing_of(version: str, params: Any) -> list[tuple[str, str]]:
    found = [("mcp-protocol-version", version)]
    if version == MODERN:
        found += [("mcp-method", "tools/call"), ("mcp-name", str(params.get("name")))]
    return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("direct")
    fill(folder)
    (folder / "src/odd.txt").write_text(ODD)
    loop = asyncio.new_event_loop()
    found = Pair(folder, loop)
    yield found
    for endpoint in (found.ours, found.sdk):
        endpoint.app.close()
        endpoint.workspace.close()
    loop.close()


PLAIN: list[dict[str, Any]] = [
    CALL,
    {**CALL, "_meta": {"progressToken": "p", "other": [1, {"a": None}]}},
    {"name": "read_file", "arguments": {"path": "src/none.py"}},
    {"name": "read_file", "arguments": {"path": "src/odd.txt", "start_line": 99}},
    {"name": "read_file", "arguments": {"path": "../x"}},
    {"name": "run_command", "arguments": {"argv": ["pytest", "é\U0001f4a5"]}},
    {"name": "list_files", "arguments": None},
    {"name": "list_files"},
    {"name": "get_task", "arguments": {}},
    {"name": "no_such_tool", "arguments": {"a": 1.5}},
    {**CALL, "task": {"ttl": 5}, "inputResponses": {"a": 1}, "requestState": "x"},
]


@pytest.mark.parametrize("number", [7, 0, -(1 << 62), 'id-é"\\\u2028', ""])
@pytest.mark.parametrize("version", [MODERN, HANDSHAKE])
def test_plain_calls_get_the_sdk_s_bytes(pair: Pair, version: str, number: int | str) -> None:
    before = pair.direct
    answered = 0
    for call in PLAIN:
        meta = {**META, **call.get("_meta", {})} if version == MODERN else call.get("_meta", {})
        status, answer = pair.call(version, {**call, "_meta": meta}, number=number)
        assert answer["id"] == number
        answered += status == 200
    assert answered == 9
    assert pair.direct - before == answered, "the plain calls went the long way"


def test_a_client_s_metadata_is_no_reason_for_the_long_way(pair: Pair) -> None:
    before = pair.direct
    for more in (
        {f"{PREFIX}clientCapabilities": {"sampling": {}, "elicitation": {}, "roots": {"listChanged": True}}},
        {f"{PREFIX}clientInfo": {"name": "claude-code", "version": "2.1", "title": "x"}},
        {"progressToken": 3, "traceparent": "00-" + "0" * 32},
        {f"{PREFIX}logLevel": "debug"},
    ):
        assert pair.call(MODERN, {**CALL, "_meta": {**META, **more}})[0] == 200
    assert pair.direct - before == 4


MISFITS: list[tuple[str, dict[str, Any], list[tuple[str, str]]]] = [
    ("no metadata", CALL, []),
    ("metadata is a list", {**CALL, "_meta": [1]}, []),
    ("no version", {**CALL, "_meta": {k: v for k, v in META.items() if "Version" not in k}}, []),
    ("no capabilities", {**CALL, "_meta": {k: v for k, v in META.items() if "Capab" not in k}}, []),
    ("capabilities are a list", {**CALL, "_meta": {**META, f"{PREFIX}clientCapabilities": []}}, []),
    ("another version", {**CALL, "_meta": {**META, f"{PREFIX}protocolVersion": "2099-01-01"}}, []),
    ("version is a number", {**CALL, "_meta": {**META, f"{PREFIX}protocolVersion": 3}}, []),
    ("no name header", {**CALL, "_meta": META}, [("mcp-protocol-version", MODERN), ("mcp-method", "tools/call")]),
    ("no method header", {**CALL, "_meta": META}, [("mcp-protocol-version", MODERN), ("mcp-name", "read_file")]),
    (
        "another name",
        {**CALL, "_meta": META},
        [("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", "get_task")],
    ),
    (
        "another method",
        {**CALL, "_meta": META},
        [("mcp-protocol-version", MODERN), ("mcp-method", "tools/list"), ("mcp-name", "read_file")],
    ),
    ("a version nobody knows", {**CALL, "_meta": META}, [("mcp-protocol-version", "2099-01-01")]),
    ("no version header", CALL, [("x-other", "1")]),
    ("an older revision", CALL, [("mcp-protocol-version", "2025-06-18")]),
    ("a token that is no token", {**CALL, "_meta": {"progressToken": []}}, [("mcp-protocol-version", HANDSHAKE)]),
]


@pytest.mark.parametrize(("what", "params", "headers"), MISFITS, ids=[item[0] for item in MISFITS])
def test_what_is_not_plain_is_answered_by_the_sdk(
    pair: Pair, what: str, params: dict[str, Any], headers: list[tuple[str, str]]
) -> None:
    before = pair.direct
    status, answer = pair.call(MODERN, params, *headers)
    assert pair.direct == before, what
    assert status in (200, 400)
    assert status == 200 or "error" in answer


@pytest.mark.parametrize("name", ["mcp-protocol-version", "mcp-method", "mcp-name"])
def test_a_routing_header_that_comes_twice_is_no_plain_call(pair: Pair, name: str) -> None:
    params = {**CALL, "_meta": META}
    routing = routing_of(MODERN, params)
    before = pair.direct
    status, answer = pair.call(MODERN, params, *routing, *[item for item in routing if item[0] == name])
    assert (status, answer["error"]["code"]) == (400, -32020)
    assert pair.direct == before


def test_a_name_in_base64_is_the_name_it_stands_for(pair: Pair) -> None:
    for name, status in ((b"read_file", 200), (b"get_task", 400), (b"\xff", 400)):
        header = f"=?base64?{base64.b64encode(name).decode()}?="
        routing = [("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", header)]
        assert pair.call(MODERN, {**CALL, "_meta": META}, *routing)[0] == status


def test_a_tool_with_mirrored_arguments_is_the_sdk_s() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "x-mcp-header": "A"}}}
    tools = [Tool("mirrored", "", schema, read_only=True), Tool("plain", "", {"type": "object"}, read_only=True)]
    direct = Direct(tools, {"name": "x", "version": "1"})
    for name, version in (("mirrored", None), ("plain", MODERN)):
        params = {"name": name, "arguments": {"a": "x"}, "_meta": META}
        headers = [(key.encode(), value.encode()) for key, value in routing_of(MODERN, params)]
        assert direct.revision(Message("tools/call", params, 1), params, headers) == version
    assert direct.revision(Message("tools/list", {}, 1), {"_meta": META}, headers) is None


def test_a_text_that_json_cannot_carry_is_an_error_and_not_half_an_answer() -> None:
    direct = Direct((), {"name": "x", "version": "1"})
    for version in (MODERN, HANDSHAKE):
        with pytest.raises(UnicodeEncodeError):
            direct.reply(version, 1, Answer(("\udc80",)))


numbers = st.integers(-(1 << 70), 1 << 70) | st.floats(allow_nan=False)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
metas = st.fixed_dictionaries(
    {},
    optional={
        f"{PREFIX}protocolVersion": st.sampled_from([MODERN, MODERN, MODERN, HANDSHAKE]) | values,
        f"{PREFIX}clientCapabilities": st.just({}) | values,
        f"{PREFIX}clientInfo": st.just({"name": "a", "version": "b"}) | values,
        f"{PREFIX}logLevel": st.sampled_from(["debug", "x"]) | values,
        "progressToken": values,
        "other": values,
    },
)
calls = st.fixed_dictionaries(
    {"name": st.sampled_from(["read_file", "list_files", "get_task", "nothing"])},
    optional={
        "arguments": st.just({"path": "src/odd.txt"}) | st.dictionaries(st.text(max_size=5), values, max_size=2),
        "_meta": metas | st.builds(lambda more: {**META, **more}, metas) | values,
        "task": values,
    },
)
routings = st.lists(
    st.sampled_from(
        [
            ("mcp-protocol-version", MODERN),
            ("mcp-protocol-version", HANDSHAKE),
            ("mcp-method", "tools/call"),
            ("mcp-name", "read_file"),
            ("mcp-name", "list_files"),
            ("mcp-param-path", "x"),
        ]
    ),
    max_size=4,
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(version=st.sampled_from([MODERN, HANDSHAKE]), params=calls, other=st.none() | routings)
def test_whatever_a_client_sends_both_answer_alike(
    pair: Pair, version: str, params: dict[str, Any], other: list[tuple[str, str]] | None
) -> None:
    pair.call(version, params, *(routing_of(version, params) if other is None else other or [("x-none", "1")]))
