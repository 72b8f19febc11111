"""Answers and errors in the other format, and servers that speak Chat Completions in their own way."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import anthropic_wire as aw
import chat_wire as cw
import models_house
import openai
import pytest
from across import WAYS
from hold_matrix import FINAL, SCENARIOS, Player, Says, by_rule, says_json, says_stream
from hypothesis import given, settings
from hypothesis import strategies as st
from models_house import MODEL, House

from vestibule.boundary.models.dispatch import outgoing
from vestibule.boundary.models.fields.kit import FieldRefused
from vestibule.boundary.models.formats import by_name
from vestibule.boundary.models.formats.base import Asked, Route
from vestibule.boundary.models.hold.base import MAX_HELD
from vestibule.boundary.models.providers import Upstream
from vestibule.boundary.models.routing import TRANSLATED
from vestibule.boundary.models.translate import translate
from vestibule.boundary.models.translate.dialects import Finished, dialect_of, spelt
from vestibule.boundary.models.wire.sse import Frames, WireError
from vestibule.config.providers import SPOKEN, Provider
from vestibule.cost.prices import Tokens

AT_CHAT, AT_ANTHROPIC = WAYS["anthropic-at-chat"], WAYS["chat-at-anthropic"]
FORMATS: Any = ("anthropic", "responses", "chat", "gemini")


def way(client: Any, upstream: Any) -> Any:
    found = translate(client, upstream)
    assert found is not None
    return found


def events(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(frame.data) for frame in Frames().feed(data) if frame.data not in (b"", b"[DONE]")]


def test_there_is_a_translation_where_the_routes_count_on_one() -> None:
    found = {(a, b) for a in FORMATS for b in FORMATS if a != b and translate(a, b) is not None}
    assert found == TRANSLATED


# --- ends, usage, thoughts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "more", "expected"),
    [
        ("stop", {}, ("end_turn", None)),
        ("stop", {"stop_reason": "END"}, ("stop_sequence", "END")),
        ("length", {}, ("max_tokens", None)),
        ("content_filter", {}, ("refusal", None)),
    ],
)
def test_ends_of_chat_completions(reason: str, more: dict[str, Any], expected: tuple[str, Any]) -> None:
    choice = {"index": 0, "message": {"content": "x"}, "finish_reason": reason, **more}
    body = json.dumps({**cw.head("chat.completion"), "choices": [choice], "usage": cw.USAGE}).encode()
    whole = json.loads(way("anthropic", "chat").whole(body))
    assert (whole["stop_reason"], whole["stop_sequence"]) == expected
    last = cw.event({**cw.head("c"), "choices": [{"index": 0, "delta": {}, "finish_reason": reason, **more}]})
    delta = next(value for value in events(AT_CHAT.translated(cw.begin() + last + cw.DONE)) if "delta" in value)[
        "delta"
    ]
    assert (delta["stop_reason"], delta["stop_sequence"]) == expected


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
    ],
)
def test_ends_of_messages(reason: str, expected: str) -> None:
    data = AT_ANTHROPIC.translated(aw.start() + aw.text(0, "x") + aw.end(reason))
    assert events(data)[-2]["choices"][0]["finish_reason"] == expected
    message = {"type": "message", "content": [{"type": "text", "text": "x"}], "stop_reason": reason}
    assert json.loads(way("chat", "anthropic").whole(json.dumps(message).encode()))["choices"][0]["finish_reason"] == (
        expected
    )


def test_an_unknown_end_is_no_answer() -> None:
    with pytest.raises(WireError):
        AT_ANTHROPIC.translated(aw.start() + aw.end("new_reason"))
    with pytest.raises(WireError):
        AT_CHAT.translated(cw.begin() + cw.tail("new_reason"))


def test_kinds_of_tokens_fit_both_ways() -> None:
    details = {"cached_tokens": 30, "cache_write_tokens": 4}
    usage = {"prompt_tokens": 40, "completion_tokens": 9, "prompt_tokens_details": details}
    found = AT_CHAT.play([cw.begin() + cw.chunk({}, "stop") + cw.usage_event(usage) + cw.DONE])
    assert found.told.tokens == Tokens(input=6, cache_read=30, cache_write_5m=4, output=9)
    caches = {"cache_read_input_tokens": 30, "cache_creation_input_tokens": 4}
    back = AT_ANTHROPIC.play([aw.start(input_tokens=6, **caches) + aw.text(0, "x") + aw.end("end_turn")])
    assert back.told.tokens == Tokens(input=6, cache_read=30, cache_write_5m=4, output=9)
    assert back.told.reported


def test_without_counts_of_the_providers_none_are_told() -> None:
    found = AT_CHAT.play([cw.begin() + cw.chunk({}, "stop") + cw.DONE])
    assert found.told.stopped
    assert not found.told.reported
    whole = way("anthropic", "chat").whole(
        json.dumps({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}).encode()
    )
    answer = by_name("anthropic").whole(Asked("anthropic", "generate", MODEL, {}, False, 9, 1))
    answer.feed(whole)
    assert not answer.told.reported


def test_thoughts_stay_behind_or_flow_as_reasoning() -> None:
    assert b"hm" not in AT_CHAT.translated(cw.begin() + cw.chunk({"reasoning_content": "hm"}) + cw.tail("stop"))
    deltas = ({"type": "thinking_delta", "thinking": "hm"}, {"type": "signature_delta", "signature": "s"})
    thought = aw.block(0, {"type": "thinking", "thinking": "", "signature": ""}, *deltas)
    secret = aw.block(1, {"type": "redacted_thinking", "data": "zzz"})
    data = AT_ANTHROPIC.translated(
        aw.start() + thought + secret + aw.text(2, "a") + aw.text(3, "b") + aw.end("end_turn")
    )
    found = [value["choices"][0]["delta"] for value in events(data) if value["choices"]]
    assert found[1:-1] == [{"reasoning_content": "hm"}, {"content": "a"}, {"content": "\n\nb"}]
    assert b"zzz" not in data


def test_a_long_name_of_a_tool_comes_back_whole() -> None:
    long = "mcp__" + "a" * 90
    one = way("anthropic", "chat")
    tool = {"name": long, "input_schema": {"type": "object"}}
    ask = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}], "tools": [tool]}
    short = one.request(ask)["tools"][0]["function"]["name"]
    assert len(short) == 64
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": short, "arguments": "{}"}}
    stream = one.stream()
    data = stream.feed(cw.begin() + cw.chunk({"tool_calls": [call]}) + cw.tail("tool_calls"))
    assert long.encode() in data
    choice = {"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}
    assert long.encode() in one.whole(json.dumps({"choices": [choice]}).encode())


# --- calls that are none -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        {"name": "look", "arguments": {"path": "x"}},
        {"name": "look", "arguments": "{", "parsed": {"path": "x"}},
        {"name": ["look"], "arguments": "{}"},
        "look",
    ],
)
def test_a_call_nobody_can_read_is_denied_behind_a_translation(function: Any) -> None:
    entry = {"index": 0, "id": "c", "type": "function", "function": function}
    found = AT_CHAT.play([cw.begin() + cw.chunk({"tool_calls": [entry]}) + cw.tail("tool_calls")])
    assert [held.problem for held in found.held] == ["shape"]
    assert b"tool_use" not in found.out.replace(b'"stop_reason":"tool_use"', b"")


def test_a_key_that_stands_twice_is_seen_behind_a_translation() -> None:
    for data in (
        aw.start() + aw.tool(0, "look", '{"a": 1, "a": 2}') + aw.end("tool_use"),
        aw.start()
        + aw.block(0, {"type": "tool_use", "id": "t", "name": "look", "input": {"a": {"b": 1}}}).replace(
            b'{"b": 1}', b'{"b": 1, "b": 2}'
        )
        + aw.end("tool_use"),
    ):
        found = AT_ANTHROPIC.play([data])
        assert not by_rule(found.held[0]).allowed
        assert b": 2}" in found.held[0].arguments
    with pytest.raises(WireError):
        AT_ANTHROPIC.translated((aw.start() + aw.text(0, "x")).replace(b'"index": 0', b'"index": 1, "index": 0'))


def test_arguments_given_twice_are_no_arguments() -> None:
    begin = {"type": "tool_use", "id": "t", "name": "look", "input": {"path": "a"}}
    delta = {"type": "input_json_delta", "partial_json": '{"path": "b"}'}
    found = AT_ANTHROPIC.play([aw.start() + aw.block(0, begin, delta) + aw.end("tool_use")])
    assert not by_rule(found.held[0]).allowed


def test_a_call_too_large_is_said_to_be_so_behind_a_translation() -> None:
    words = "x" * 1_000_000
    data = cw.begin() + cw.call_start(0, "look") + b"".join(cw.call_piece(0, words) for _ in range(9))
    found = AT_CHAT.play([data + cw.tail("tool_calls")])
    assert [held.problem for held in found.held] == ["oversized"]
    assert len(found.out) < 10_000
    several = b"".join(cw.call_start(n, "look") + cw.call_piece(n, words * 8) for n in range(3))
    assert AT_CHAT.play([cw.begin() + several + cw.tail("tool_calls")]).error is not None
    whole = {"index": 0, "id": "c", "function": {"name": "look", "arguments": f'{{"a": "{"x" * MAX_HELD}"}}'}}
    body = json.dumps({"choices": [{"message": {"tool_calls": [whole]}, "finish_reason": "tool_calls"}]}).encode()
    answer = by_name("anthropic").whole(Asked("anthropic", "generate", MODEL, {}, False, 9, 1))
    assert [held.problem for held in answer.feed(way("anthropic", "chat").whole(body)).held] == ["oversized"]


# --- anything ----------------------------------------------------------------------------------------------------

CHAT_POOL = [
    cw.begin(),
    cw.chunk({"content": "Hi "}),
    cw.call_start(0, "look"),
    cw.call_start(0, "harm"),
    cw.call_start(1, "harm"),
    cw.call_piece(0, '{"a": 1}'),
    cw.call_piece(1, '{"note": "mark-harm"}'),
    cw.chunk({"function_call": {"name": "harm", "arguments": '{"note": "mark-harm"}'}}),
    cw.chunk({"content": "x"}, index=1),
    cw.chunk({}, "tool_calls"),
    cw.chunk({"content": "end"}, "stop"),
    cw.chunk({}, "length"),
    cw.usage_event(),
    cw.event({"error": {"message": "bad"}}),
    cw.event({"choices": None}),
    b"data: nope\n\n",
    cw.DONE,
]
MESSAGE_POOL = [
    aw.start(),
    aw.text(0, "Hi"),
    aw.text(1, "there"),
    aw.tool(0, "look", '{"a": 1}'),
    aw.tool(1, "harm", '{"note": "mark-harm"}'),
    aw.tool(0, "harm", '{"note": "mark-harm"}'),
    aw.tool(0, "look", '{"a"', stop=False),
    aw.event({"type": "content_block_stop", "index": 0}),
    aw.event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 5}}),
    aw.event({"type": "content_block_start", "index": 0, "content_block": {"type": "server_tool_use"}}),
    aw.event({"type": "ping"}),
    aw.event({"type": "new_event"}),
    aw.event({"type": "error", "error": {"type": "overloaded_error", "message": "bad"}}),
    aw.end("tool_use"),
    aw.end("end_turn"),
    b"data: []\n\n",
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(CHAT_POOL), max_size=12), st.integers(0, 3000))
def test_any_chat_events_leak_nothing_to_an_anthropic_client(parts: list[bytes], cut: int) -> None:
    data = b"".join(parts)
    found = AT_CHAT.play([data[:cut], data[cut:]])
    assert b"mark-harm" not in found.out
    assert found.error is not None or found.out == AT_CHAT.play([data]).out


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(MESSAGE_POOL), max_size=12), st.integers(0, 3000))
def test_any_message_events_leak_nothing_to_a_chat_client(parts: list[bytes], cut: int) -> None:
    data = b"".join(parts)
    found = AT_ANTHROPIC.play([data[:cut], data[cut:]])
    assert b"mark-harm" not in found.out


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "text", "tool_use", "stop", "end_turn"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "content", "choices", "message", "tool_calls", "function", "input"]), inner
        )
    ),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(JSON, st.sampled_from([("anthropic", "chat"), ("chat", "anthropic")]))
def test_any_json_is_an_answer_or_none(value: Any, ways: tuple[str, str]) -> None:
    data = json.dumps(value).encode()
    try:
        found = way(*ways).whole(data)
    except WireError:
        return
    assert isinstance(json.loads(found), dict)


# --- through the gateway -------------------------------------------------------------------------------------------


def test_errors_come_in_the_shape_of_the_client(house: House) -> None:
    body = json.dumps({"error": {"message": "slow down", "type": "rate_limit", "code": None}}).encode()
    with Player(Says((body,), kind="application/json", status="429 Too Many", length=len(body))) as player:
        url = house.open(player.url, form="chat").removesuffix("/openai/v1") + "/anthropic"
        client = models_house.sdk(house.token, url)
        with pytest.raises(anthropic.RateLimitError, match="slow down") as caught:
            client.messages.create(model=MODEL, max_tokens=9, messages=aw.ASK)
    assert caught.value.body == {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}


def test_errors_come_in_the_shape_of_the_other_client(house: House) -> None:
    body = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}).encode()
    with Player(Says((body,), kind="application/json", status="400 Bad", length=len(body))) as player:
        url = house.open(player.url, form="anthropic").removesuffix("/anthropic") + "/openai/v1"
        with pytest.raises(openai.BadRequestError, match="no") as caught:
            cw.sdk(house.token, url).chat.completions.create(model=MODEL, max_tokens=9, messages=cw.ASK)
    assert caught.value.type == "invalid_request_error"


def test_what_is_no_error_of_the_upstream_is_shown_as_none(house: House) -> None:
    """A proxy's page says nothing of whether it was billed: it is not passed on."""
    with Player(Says((b'{"detail": "x"}',), kind="application/json", status="500 Oops", length=15)) as player:
        url = house.open(player.url, form="chat").removesuffix("/openai/v1") + "/anthropic"
        with pytest.raises(anthropic.APIStatusError) as caught:
            models_house.sdk(house.token, url).messages.create(model=MODEL, max_tokens=9, messages=aw.ASK)
    assert caught.value.status_code == 502
    assert "dependency.provider" in str(caught.value.body)


def test_a_denied_turn_goes_on_across_a_translation(house: House) -> None:
    wire = cw.ChatWire()
    deny, final = wire.stream(SCENARIOS["deny"]) or b"", wire.stream(FINAL) or b""
    with Player(says_stream(deny), says_stream(final)) as player:
        house.decider.denied_tools.add("harm")
        url = house.open(player.url, form="chat").removesuffix("/openai/v1") + "/anthropic"
        reading = aw.AnthropicWire().read(house, url, stream=True)
        house.drain()
    assert reading.text.count("[vestibule]") == 1
    second = player.bodies[1]
    assert second["messages"][-1]["role"] == "tool"
    assert second["messages"][-1]["content"].startswith("The tool failed:")
    assert second["max_tokens"] == 100
    assert second["stream_options"] == {"include_usage": True}
    assert player.paths == ["/chat/completions", "/chat/completions"]


def test_tokens_are_not_counted_by_who_cannot(house: House) -> None:
    with Player(says_json(b"{}")) as player:
        url = house.open(player.url, form="chat").removesuffix("/openai/v1") + "/anthropic"
        with pytest.raises(anthropic.PermissionDeniedError, match="counts no tokens"):
            models_house.sdk(house.token, url).messages.count_tokens(model=MODEL, messages=aw.ASK)
    assert player.requests == 0


# --- dialects ------------------------------------------------------------------------------------------------------


def test_the_bound_is_said_in_the_word_that_the_server_knows() -> None:
    body = {"model": "m", "max_completion_tokens": 9, "store": False, "service_tier": "auto", "messages": []}
    assert spelt(body, "") is body
    assert spelt(body, "compatible") == {"model": "m", "max_tokens": 9, "messages": []}
    assert spelt({**body, "max_tokens": 5}, "compatible")["max_tokens"] == 5
    plain = {"model": "m", "max_tokens": 9}
    assert spelt(plain, "compatible") is plain
    assert dialect_of("openai", SPOKEN["openai"]) == dialect_of("azure", ("chat",)) == ""
    assert dialect_of("openai", ("chat",)) == "compatible"
    assert dialect_of("watsonx", SPOKEN["watsonx"]) == "watsonx"


def test_watsonx_gets_its_own_words_and_a_last_event() -> None:
    config = Provider(api="watsonx", base_url="https://wx.example.com", project="p", token_url="https://t.example.com")
    upstream = Upstream("wx", "watsonx", config.base_url, "ibm/granite", lambda: "k", speaks=("chat",), config=config)
    ask: dict[str, Any] = {
        "model": "g",
        "max_tokens": 9,
        "stream": True,
        "tools": [{"name": "look", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any"},
        "messages": aw.ASK,
    }
    asked = by_name("anthropic").read(ask, Route("generate"), run="r1")
    found = outgoing(asked, b"", upstream, {"anthropic-beta": "x"}, "k")
    assert "chat_stream" in found.url
    assert "anthropic-beta" not in found.headers
    assert json.loads(found.body) == {
        "messages": [{"role": "user", "content": "go"}],
        "max_tokens": 9,
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
        "model_id": "ibm/granite",
        "project_id": "p",
        "tool_choice_option": "required",
    }
    assert found.way is not None
    stream = found.way.stream()
    data = (cw.begin() + cw.chunk({"content": "Hi"}) + cw.chunk({}, "stop") + cw.usage_event()).replace(
        b"data: ", b"id: 1\nevent: message\ndata: "
    )
    assert b"message_stop" in stream.feed(data) + stream.end()


def test_a_last_event_is_added_to_whole_answers_only() -> None:
    whole = cw.begin() + cw.chunk({}, "stop")
    for data, end in (
        (whole, cw.DONE),
        (whole + cw.DONE, b""),
        (cw.begin(), b""),
        (whole + b"data: {", b""),
        (b"", b""),
    ):
        for cut in range(0, len(data) + 1, 7):
            stream = Finished()
            assert stream.feed(data[:cut]) + stream.feed(data[cut:]) == data
            assert stream.end() == end


def test_a_provider_of_another_format_is_refused() -> None:
    upstream = Upstream("x", "gemini", "https://g.example.com", "m", lambda: "", speaks=("gemini",))
    asked = by_name("chat").read({"model": "m", "messages": cw.ASK}, Route("generate"), run="r1")
    with pytest.raises(FieldRefused, match="speak"):
        outgoing(asked, b"", upstream, {}, "")
