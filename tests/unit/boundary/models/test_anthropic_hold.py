"""Anthropic's answer machines: what they leave untouched, what they refuse to call an answer, and how they go on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic_wire import AnthropicWire, block, end, event, start, text, tool
from hold_matrix import SCENARIOS, WHY, Held, by_rule, machine, play, splits
from hold_matrix import asked as matrix_asked
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.boundary.models.call_rules import House, judge_call
from vestibule.boundary.models.formats.base import Offered
from vestibule.boundary.models.hold.anthropic import AnthropicStream
from vestibule.boundary.models.hold.anthropic_blocks import MAX_SHOWN
from vestibule.boundary.models.hold.anthropic_whole import AnthropicCount, AnthropicWhole
from vestibule.boundary.models.hold.base import MAX_HELD, Decided, Step
from vestibule.boundary.models.wire.sse import Frames, WireError
from vestibule.core.model import Scope
from vestibule.core.tool_names import ToolNames

WIRE = AnthropicWire()
THINKING = block(
    0,
    {"type": "thinking", "thinking": "", "signature": ""},
    {"type": "thinking_delta", "thinking": "Let me see: ü"},
    {"type": "signature_delta", "signature": "c2lnbmF0dXJl=="},
)
REDACTED = block(1, {"type": "redacted_thinking", "data": "b3BhcXVl"})
CITED = block(
    2,
    {"type": "text", "text": "As it says: "},
    {"type": "text_delta", "text": "blue"},
    {"type": "citations_delta", "citation": {"type": "char_location", "cited_text": "the sky is blue"}},
)
PING = event({"type": "ping"})


def never(held: Held) -> Decided:
    return Decided(False, WHY)


def always(held: Held) -> Decided:
    return Decided(True)


def events(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(frame.data) for frame in Frames().feed(data) if frame.data]


def stream(*parts: bytes, rule: Any = by_rule, **more: Any) -> Any:
    return play(AnthropicStream(**more), parts, rule)


# --- what passes untouched -------------------------------------------------------------------------------


def test_thoughts_signatures_citations_and_pings_pass_byte_for_byte_beside_a_denied_call() -> None:
    before = b": comment\n\n" + start() + PING + THINKING + REDACTED + CITED
    data = before + tool(3, "harm", '{"path": "secret"}') + PING + end("tool_use")
    for parts in splits(data):
        found = stream(*parts)
        assert found.out.startswith(before)
        assert b"secret" not in found.out
        assert "the sky is blue" in found.text
        assert "As it says: blue" in found.text
        assert "Let me see: ü" in found.text
        assert found.scanned.blocks == 4
    assert found.blocked


def test_model_is_shown_its_thoughts_and_its_refused_call_as_it_made_them() -> None:
    answer = AnthropicStream()
    play(answer, [start() + THINKING + REDACTED + CITED + tool(3, "harm", '{"a": [1]}') + end("tool_use")], close=False)
    assert answer.blocked
    body = {"model": "m", "messages": [{"role": "user", "content": "go"}], "max_tokens": 5}
    again = answer.again(body)
    assert again["messages"][0] == body["messages"][0]
    assert {key: again[key] for key in ("model", "max_tokens")} == {"model": "m", "max_tokens": 5}
    assert again["messages"][1] == {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Let me see: ü", "signature": "c2lnbmF0dXJl=="},
            {"type": "redacted_thinking", "data": "b3BhcXVl"},
            {"type": "text", "text": "As it says: blue"},
            {"type": "tool_use", "id": "toolu_3", "name": "harm", "input": {"a": [1]}},
        ],
    }
    result = {"type": "tool_result", "tool_use_id": "toolu_3", "is_error": True, "content": WHY}
    assert again["messages"][2] == {"role": "user", "content": [result]}
    assert len(body["messages"]) == 1


def test_ping_within_a_held_call_goes_ahead_and_keeps_the_client_alive() -> None:
    answer = AnthropicStream()
    half = tool(0, "look", '{"path"', stop=False)
    assert answer.feed(start() + half).out == start()
    assert answer.feed(PING).out == PING
    assert answer.feed(b": comment\n\n").out == b": comment\n\n"


# --- continuation ----------------------------------------------------------------------------------------


def go_on(first: bytes, second: bytes, **more: Any) -> tuple[bytes, AnthropicStream]:
    answer = AnthropicStream(**more)
    out = play(answer, [first], close=False).out
    answer.again({"messages": []})
    return out + play(answer, [second]).out, answer


def test_continued_message_has_one_start_dense_indices_one_end_and_all_output() -> None:
    first = start() + text(0, "a") + tool(1, "harm", "{}") + end("tool_use", 7)
    second = start() + PING + text(0, "b") + tool(1, "look", '{"path": "x"}') + end("tool_use", 5)
    for parts in splits(second):
        answer = AnthropicStream()
        out = play(answer, [first], close=False).out
        answer.again({"messages": []})
        out += play(answer, parts).out
        found = events(out)
        kinds = [item["type"] for item in found]
        assert kinds.count("message_start") == kinds.count("message_delta") == kinds.count("message_stop") == 1
        starts = [item["index"] for item in found if item["type"] == "content_block_start"]
        assert starts == [0, 1, 2, 3]
        assert [item["index"] for item in found if "index" in item] == sorted(i["index"] for i in found if "index" in i)
        (last,) = (item for item in found if item["type"] == "message_delta")
        assert last["usage"]["output_tokens"] == 12
        assert last["delta"]["stop_reason"] == "tool_use"
        assert answer.told.tokens.output == 5  # of this provider answer: each is paid for itself
        assert kinds[-1] == "message_stop"


def test_turn_that_is_blocked_again_stays_blocked_and_can_be_ended() -> None:
    denied = start() + tool(0, "harm", "{}") + end("tool_use", 4)
    answer = AnthropicStream()
    out = play(answer, [denied], close=False).out
    for _ in range(3):
        assert answer.blocked
        answer.again({"messages": []})
        assert not answer.blocked
        out += play(answer, [denied], close=False).out
    out += answer.close()
    found = events(out)
    assert [item["index"] for item in found if item["type"] == "content_block_start"] == [0, 1, 2, 3]
    assert found[-2]["delta"]["stop_reason"] == "end_turn"
    assert found[-2]["usage"]["output_tokens"] == 16
    assert found[-1] == {"type": "message_stop"}


def test_error_within_a_continuation_passes_and_ends_it() -> None:
    error = event({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}})
    out, answer = go_on(start() + tool(0, "harm", "{}") + end("tool_use"), start() + error + text(0, "never"))
    assert out.endswith(error)
    assert answer.told.failed


@pytest.mark.parametrize("size", [10, MAX_SHOWN + 1])
def test_refused_call_is_shown_again_with_its_arguments_only_if_they_are_short(size: int) -> None:
    given = {"note": "x" * size}
    streamed, whole = AnthropicStream(), AnthropicWhole()
    play(streamed, [start() + tool(0, "harm", json.dumps(given)) + end("tool_use")], close=False)
    message = {"type": "message", "content": [{"type": "tool_use", "id": "t", "name": "harm", "input": given}]}
    play(whole, [json.dumps({**message, "stop_reason": "tool_use"}).encode()], close=False)
    for answer in (streamed, whole):
        shown = answer.again({"messages": []})["messages"][0]["content"][0]["input"]
        assert shown == (given if size == 10 else {})


def test_turn_too_long_to_be_shown_again_ends_instead() -> None:
    deltas = [{"type": "text_delta", "text": "x" * (1 << 20)}] * 9
    answer = AnthropicStream()
    data = start() + block(0, {"type": "text", "text": ""}, *deltas) + tool(1, "harm", "{}") + end("tool_use")
    found = play(answer, [data], close=False)
    assert not found.blocked
    assert events(found.out)[-2]["delta"]["stop_reason"] == "end_turn"


def test_half_a_surrogate_pair_does_not_break_a_continuation() -> None:
    said = block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "HALF"}).replace(b"HALF", b"\\ud83d")
    answer = AnthropicStream()
    play(answer, [start() + said + tool(1, "harm", "{}") + end("tool_use")], close=False)
    json.dumps(answer.again({"messages": []}), ensure_ascii=False).encode("utf-8")


# --- calls that two readers would read in two ways --------------------------------------------------------


def test_key_twice_in_arguments_given_at_the_start_denies_the_call() -> None:
    begin = b'{"type": "tool_use", "id": "t", "name": "look", "input": {"path": "a", "path": "b"}}'
    raw = b'data: {"type": "content_block_start", "index": 0, "content_block": ' + begin + b"}\n\n"
    data = start() + raw + event({"type": "content_block_stop", "index": 0}) + end("tool_use")
    found = stream(data, rule=always)
    assert [held.problem for held in found.held] == ["json"]
    assert b'"b"' not in found.out


@pytest.mark.parametrize(
    "raw",
    [
        (
            b'{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}, '
            b'"content_block": {"type": "tool_use", "id": "t", "name": "harm", "input": {}}}'
        ),
        (
            b'{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "type": "tool_use", '
            b'"input": {"a": 1, "a": 2}, "id": "t", "name": "look"}}'
        ),
        b'{"type": "ping", "type": "content_block_start"}',
        b'{"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_reason": "tool_use"}}',
    ],
)
def test_key_twice_anywhere_else_is_no_answer(raw: bytes) -> None:
    found = stream(start() + b"data: " + raw + b"\n\n", rule=always)
    assert "twice" in str(found.error)
    assert found.out in (b"", start())


@pytest.mark.parametrize(
    "raw",
    [
        b'{"type": "message", "content": [], "content": [{"type": "text", "text": "x"}]}',
        b'{"type": "message", "content": [{"type": "text", "type": "tool_use", "text": "x"}]}',
        b'{"type": "message", "usage": {"output_tokens": 1, "output_tokens": 0}, "content": []}',
        b'{"type": "message", "content": [{"type": "tool_use", "name": "a", "name": "b", "id": "t", "input": {}}]}',
    ],
)
def test_key_twice_in_a_whole_message_is_no_answer(raw: bytes) -> None:
    with pytest.raises(WireError, match="twice"):
        AnthropicWhole().feed(raw)


def test_characters_split_between_two_pieces_are_one_and_half_of_one_denies() -> None:
    pair = tool(0, "look", '{"path": "XX', 'YY"}').replace(b"XX", b"\\ud83d").replace(b"YY", b"\\ude00")
    found = stream(start() + pair + end("tool_use"), rule=always)
    assert json.loads(found.held[0].arguments) == {"path": "😀"}
    half = tool(0, "look", '{"path": "XX"}').replace(b"XX", b"\\ud83d")
    found = stream(start() + half + end("tool_use"), rule=always)
    assert found.held[0].problem == "json"
    assert b"ud83d" not in found.out


@pytest.mark.parametrize("given", [[], None, "x", {"a": 1}])
def test_arguments_in_two_places_or_of_another_kind_deny_the_call(given: Any) -> None:
    begin = {"type": "tool_use", "id": "t", "name": "look", "input": given}
    data = block(0, begin, {"type": "input_json_delta", "partial_json": '{"path": "b"}'})
    found = stream(start() + data + end("tool_use"), rule=always)
    assert found.held[0].problem == "shape"
    assert b'"look"' not in found.out


def test_arguments_given_whole_at_the_start_are_judged() -> None:
    data = start() + block(0, {"type": "tool_use", "id": "t", "name": "look", "input": {"path": "b"}}) + end("tool_use")
    found = stream(data)
    assert json.loads(found.held[0].arguments) == {"path": "b"}
    assert found.out == data


# --- what is no answer -----------------------------------------------------------------------------------

OPEN = event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
TEXT = event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}})
STOP = event({"type": "content_block_stop", "index": 0})


@pytest.mark.parametrize(
    "data",
    [
        OPEN,
        end("end_turn"),
        start() + start(),
        event({"type": "message_start", "message": {"content": [{"type": "tool_use"}]}}),
        start() + TEXT,
        start() + STOP,
        start() + OPEN + OPEN,
        start() + OPEN + end("end_turn"),
        start() + OPEN + STOP + STOP,
        start() + OPEN + TEXT.replace(b'"index": 0', b'"index": 1'),
        start() + OPEN.replace(b'"index": 0', b'"index": 1'),
        start() + OPEN.replace(b'"index": 0', b'"index": false'),
        start() + OPEN.replace(b'"index": 0', b'"index": 0.0'),
        start() + text(0, "x") + end("end_turn").partition(b"event: message_stop")[0] + text(1, "y") + end("end_turn"),
        start() + block(0, {"type": "text", "text": ""}, {"type": "input_json_delta", "partial_json": "{}"}),
        start() + block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": ["x"]}),
        start() + block(0, {"type": "text", "text": {"a": 1}}),
        start() + block(0, {"type": "tool_use", "name": "look", "input": {}}, {"type": "text_delta", "text": "x"}),
        start() + block(0, {"type": "tool_use", "name": "look", "input": {}}, {"type": "input_json_delta"}),
        start() + block(0, {"type": "something_new"}),
        start() + block(0, {"type": ["text"]}),
        start() + block(0, {"type": "server_tool_use", "name": "web_search", "input": {}}),
        start() + block(0, {"type": "mcp_tool_use", "name": "x", "input": {}}),
        start() + block(0, {"type": "web_search_tool_result", "tool_use_id": "t", "content": []}),
        start() + event({"type": "something_new"}),
        start() + b"event: ping\n" + OPEN.partition(b"\n")[2],
        start() + b"data: [1]\n\n",
        start(),
    ],
)
def test_stream_that_is_no_answer(data: bytes) -> None:
    found = stream(data, rule=always)
    assert found.error is not None


def test_nothing_follows_the_end_or_an_error() -> None:
    error = event({"type": "error", "error": {"type": "api_error", "message": "x"}})
    good = start() + text(0, "x") + end("end_turn")
    assert stream(good + text(1, "y")).out == good
    found = stream(start() + error + text(0, "y") + end("end_turn"))
    assert found.out == start() + error
    assert (found.told.failed, found.told.stopped) == (True, False)


def test_reports_of_usage_on_the_way_pass_and_count() -> None:
    report = event({"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 3}})
    data = start() + report + text(0, "x") + end("end_turn")
    found = stream(data)
    assert found.out == data
    assert found.told.tokens.output == 9


def test_call_denied_at_another_end_than_tool_use_ends_so() -> None:
    found = stream(start() + tool(0, "harm", "{}") + end("max_tokens"))
    assert not found.blocked
    assert events(found.out)[-2]["delta"]["stop_reason"] == "max_tokens"


# --- texts that are held (for guards) ---------------------------------------------------------------------


def test_held_text_leaves_only_when_allowed_and_calls_as_ever() -> None:
    data = start() + THINKING + REDACTED + CITED + tool(3, "look", "{}") + end("tool_use")

    def no_text(held: Held) -> Decided:
        return Decided(held.kind == "call", "")

    for parts in splits(data):
        found = stream(*parts, hold_text=True)
        assert found.out == data
        assert [held.kind for held in found.held] == ["text", "call"]
        assert found.held[0].arguments == b"As it says: blue"
        assert b"blue" not in found.before[0]
    found = stream(data, hold_text=True, rule=no_text)
    assert b"blue" not in found.out
    assert "blue" not in found.text.replace("the sky is blue", "")
    indices = [item["index"] for item in events(found.out) if item["type"] == "content_block_start"]
    assert indices == [0, 1, 2, 3]
    assert all(held.problem == "" for held in found.held)


def test_held_text_beyond_the_bound_cannot_be_released() -> None:
    deltas = [{"type": "text_delta", "text": "x" * (1 << 20)}] * 9
    data = start() + block(0, {"type": "text", "text": ""}, *deltas) + end("end_turn")
    found = stream(data, hold_text=True, rule=always)
    assert found.held[0].problem == "oversized"
    assert len(found.out) < 2_000
    whole = {"type": "message", "content": [{"type": "text", "text": "x" * (MAX_HELD + 1)}], "stop_reason": "end_turn"}
    found = play(AnthropicWhole(hold_text=True), [json.dumps(whole).encode()], always)
    assert found.held[0].problem == "oversized"
    assert len(found.out) < 2_000


def test_held_text_of_a_whole_message() -> None:
    message = {"type": "message", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    data = json.dumps(message).encode()
    assert play(AnthropicWhole(hold_text=True), [data], always).out == data
    found = play(
        AnthropicWhole(hold_text=True), [data], lambda held: Decided(held.arguments == b"a", "" if held.id else "gone")
    )
    assert [item["text"] for item in json.loads(found.out)["content"]] == ["a", "gone"]
    found = play(AnthropicWhole(hold_text=True), [data], lambda held: Decided(False))
    assert all(item["text"] for item in json.loads(found.out)["content"])  # an empty text could not be sent back


# --- tools that the provider carries out, named by policy --------------------------------------------------

RESULT = {
    "type": "web_search_tool_result",
    "tool_use_id": "toolu_0",
    "content": [{"type": "web_search_result", "title": "a title", "url": "https://docs.example.com/x"}],
}
SEARCH = tool(0, "web_search", '{"query": "q-mark"}', kind="server_tool_use") + block(1, RESULT) + text(2, "found")


def test_provider_tool_and_its_result_pass_when_policy_named_it() -> None:
    data = start() + SEARCH + end("end_turn")
    for parts in splits(data):
        found = stream(*parts, rule=always, provider_tools=True)
        assert found.out == data
        assert [held.name for held in found.held] == ["web_search"]
        assert "a title" in found.text
        assert "https://docs.example.com/x" in found.text


def test_result_of_a_denied_provider_tool_is_not_shown() -> None:
    found = stream(start() + SEARCH + end("end_turn"), rule=never, provider_tools=True)
    assert b"docs.example.com" not in found.out
    assert b"q-mark" not in found.out
    assert [item["content_block"]["type"] for item in events(found.out) if "content_block" in item] == ["text"] * 3
    content = [{"type": "server_tool_use", "id": "toolu_0", "name": "web_search", "input": {"query": "q"}}, RESULT]
    message = {"type": "message", "content": content, "stop_reason": "end_turn"}
    found = play(AnthropicWhole(provider_tools=True), [json.dumps(message).encode()], never)
    assert b"docs.example.com" not in found.out
    assert "docs.example.com" not in found.text


def test_denied_call_beside_an_allowed_provider_tool_is_answered_and_the_search_shown_again() -> None:
    data = start() + SEARCH + tool(3, "harm", "{}") + end("tool_use")
    answer = AnthropicStream(provider_tools=True)
    play(answer, [data], lambda held: Decided(held.name == "web_search", WHY), close=False)
    assert answer.blocked
    content, results = (turn["content"] for turn in answer.again({"messages": []})["messages"])
    assert content[0] == {
        "type": "server_tool_use",
        "id": "toolu_0",
        "name": "web_search",
        "input": {"query": "q-mark"},
    }
    assert content[1] == RESULT
    assert [item["tool_use_id"] for item in results] == ["toolu_3"]


def test_request_that_offers_a_provider_tool_gets_a_machine_that_knows_it() -> None:
    tools = (Offered("web_search", provider=True),)
    data = start() + SEARCH + end("end_turn")
    assert play(machine(WIRE, stream=True, tools=tools), [data], always).out == data
    assert play(machine(WIRE, stream=True), [data], always).error is not None


def test_call_of_a_provider_tool_is_no_unknown_tool_when_it_was_offered_as_one() -> None:
    """Judged like any call; policy named it for the request, and no program inside the walls carries it out."""
    house = House(ToolNames("claude-code", {}).normal, lambda: Scope(read=("**",), write=()))
    held = Held("call", "web_search", arguments=b'{"query": "q"}')
    for provider in (True, False):
        tools = (Offered("web_search", provider=provider),)
        found = judge_call(held, matrix_asked(WIRE, stream=True, tools=tools), house)
        assert found.facts["tool_known"] is provider
        assert (found.refusal is None) is provider
    own = Held("call", "Bash", arguments=b'{"command": "x"}')
    asked = matrix_asked(WIRE, stream=True, tools=(Offered("Bash", provider=True),))
    assert judge_call(own, asked, house).facts["native_allowed"] is False


# --- counts ----------------------------------------------------------------------------------------------


def test_count_of_tokens_passes_and_costs_nothing() -> None:
    answer = AnthropicCount()
    assert answer.feed(b'{"input_tokens": 14}') == Step(b'{"input_tokens": 14}')
    assert answer.told.reported
    assert sum(answer.told.tokens) == 0


@pytest.mark.parametrize(
    "data", [b"{}", b'{"input_tokens": "1"}', b'{"input_tokens": -1}', b'{"input_tokens": 1, "content": []}', b"[1]"]
)
def test_what_is_no_count_is_no_answer(data: bytes) -> None:
    with pytest.raises(WireError):
        AnthropicCount().feed(data)


# --- whatever comes --------------------------------------------------------------------------------------

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["text", "tool_use", "mark-look", "x", "\ud83d"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "input", "name", "index", "content", "id"]), inner, max_size=4
        )
    ),
    max_leaves=6,
)
_BLOCK = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["text", "thinking", "tool_use", "redacted_thinking", "server_tool_use", "web_search_tool_result"]
        )
        | _VALUES
    },
    optional={"id": st.text(max_size=3) | _VALUES, "name": _VALUES, "input": _VALUES, "text": _VALUES},
)
_DELTA = st.one_of(
    st.builds(lambda x: {"type": "text_delta", "text": x}, st.text(max_size=5) | _VALUES),
    st.builds(lambda x: {"type": "input_json_delta", "partial_json": x}, st.text(max_size=5) | _VALUES),
    st.builds(lambda x: {"type": "signature_delta", "signature": x}, _VALUES),
    st.builds(lambda x: {"type": "citations_delta", "citation": x}, _VALUES),
    _VALUES,
)
_EVENTS = st.one_of(
    st.builds(lambda i, b: {"type": "content_block_start", "index": i, "content_block": b}, st.integers(0, 2), _BLOCK),
    st.builds(lambda i, d: {"type": "content_block_delta", "index": i, "delta": d}, st.integers(0, 2), _DELTA),
    st.builds(lambda i: {"type": "content_block_stop", "index": i}, st.integers(0, 2)),
    st.builds(
        lambda r, u: {"type": "message_delta", "delta": {"stop_reason": r}, "usage": u},
        st.sampled_from([None, "tool_use", "end_turn"]),
        _VALUES,
    ),
    st.sampled_from([{"type": "message_stop"}, {"type": "ping"}, {"type": "error"}, {"type": "message_start"}]),
    st.builds(lambda m: {"type": "message_start", "message": m}, _VALUES),
    _VALUES,
)


def _raw(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


# Frames that are mostly in order, so that machines are led far, with anything between them.
_ORDERED = st.sampled_from(
    [
        text(0, "x"),
        tool(0, "look", '{"mark": 1}'),
        tool(1, "harm", '{"mark": 1}'),
        tool(2, "look", '{"mark": 1'),
        block(1, RESULT),
        end("tool_use"),
        start(),
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(_ORDERED | st.builds(_raw, _EVENTS) | st.binary(max_size=20), max_size=8),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_whatever_frames_come_no_denied_byte_leaves_and_only_wire_errors_are_raised(
    frames: list[bytes], hold_text: bool, provider_tools: bool, begun: bool
) -> None:
    answer = AnthropicStream(hold_text=hold_text, provider_tools=provider_tools)
    found = play(answer, [start(), *frames] if begun else frames, never, close=False)
    assert b"input_json_delta" not in found.out
    for item in _objects(found.out):
        assert item.get("content_block", {}).get("type") not in ("tool_use", "server_tool_use")
    if answer.blocked:
        json.dumps(answer.again({"messages": []}), ensure_ascii=False).encode("utf-8")
        again = play(answer, [start() + text(0, "on") + end("end_turn")], never)
        assert again.error is None
        starts = [item["index"] for item in events(found.out + again.out) if item["type"] == "content_block_start"]
        assert starts == list(range(len(starts)))


def _objects(data: bytes) -> list[dict[str, Any]]:
    found = []
    for frame in Frames().feed(data):
        value = json.loads(frame.data) if frame.data else None
        if isinstance(value, dict) and isinstance(value.get("content_block", {}), dict):
            found.append(value)
    return found


@settings(max_examples=300, deadline=None)
@given(st.lists(_BLOCK | _VALUES, max_size=4), _VALUES, st.booleans(), st.booleans())
def test_whatever_message_comes_no_denied_call_leaves_and_only_wire_errors_are_raised(
    content: list[Any], usage: Any, hold_text: bool, provider_tools: bool
) -> None:
    data = json.dumps({"type": "message", "content": content, "usage": usage, "stop_reason": "tool_use"}).encode()
    answer = AnthropicWhole(hold_text=hold_text, provider_tools=provider_tools)
    found = play(answer, [data], never, close=False)
    if found.out:
        kinds = {item["type"] for item in json.loads(found.out)["content"]}
        assert not kinds & {"tool_use", "server_tool_use"}
    if answer.blocked:
        json.dumps(answer.again({"messages": []}), ensure_ascii=False).encode("utf-8")


@given(st.binary(max_size=200))
def test_whatever_bytes_come_only_wire_errors_are_raised(data: bytes) -> None:
    for answer in (AnthropicStream(), AnthropicWhole(), AnthropicCount()):
        play(answer, [data], never)


def test_matrix_denied_calls_never_leave_in_the_continuation_either() -> None:
    data = WIRE.stream(SCENARIOS["mixed"])
    assert data is not None
    assert data.count(b"mark-1-harm") == 1
    assert b"mark-1-harm" not in stream(data).out
