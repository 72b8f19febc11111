"""Responses: held texts, what is not known, bounds, continued answers, properties."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hold_matrix import SCENARIOS, WHY, Played, by_rule, machine, play
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from responses_items import (
    APPROVAL,
    CUSTOM,
    LOCAL,
    LOOK,
    MCP,
    PATCH,
    SEARCH,
    SHELL,
    THOUGHT,
    WIRE,
    allow,
    call_stream,
    deny,
    ended,
    run,
    values,
)
from responses_wire import call_events, framed, function_call, item_events, message, message_events, response, streamed

from vestibule.boundary.models.hold import responses as stream_module
from vestibule.boundary.models.hold.base import Decided


def test_text_is_held_for_guards_and_replaced_by_what_they_say() -> None:
    item = message(0, "Buy mark-1.2")
    data = streamed([item], list(message_events(0, "Buy mark-1.2", item=item)))
    found = run(data, lambda held: Decided(False, "Buy nothing."), hold_text=True)
    assert found.held[0][:1] == ("text",)
    assert found.held[0].arguments == b"Buy mark-1.2"
    assert b"mark" not in found.out
    assert ended(found)["output"][0]["content"][0]["text"] == "Buy nothing."
    assert not found.blocked
    assert run(data, allow, hold_text=True).out == data
    whole = json.dumps(response([item])).encode()
    replaced = play(machine(WIRE, stream=False, hold_text=True), [whole], lambda held: Decided(False, "No."))
    assert json.loads(replaced.out)["output"][0]["content"][0]["text"] == "No."


def test_a_text_that_ends_otherwise_than_it_was_streamed_is_judged_as_both() -> None:
    item = message(0, "harmless")
    events = list(message_events(0, "harmless", item=item))
    events[2]["delta"] = "mark "
    found = run(streamed([item], events), allow, hold_text=True)
    assert found.held[0].arguments == b"mark less\nharmless"
    assert "mark" in run(streamed([item], events)).text
    assert "harmless" in run(streamed([item], events)).text


@pytest.mark.parametrize(
    "events",
    [
        [{"type": "response.audio.delta", "delta": "x"}],
        [{"type": "response.output_item.added", "output_index": 0, "item": {"type": "computer_call", "id": "c"}}],
        [{"type": "response.output_item.added", "output_index": 0, "item": {"type": "web_search_call", "id": "c"}}],
        [{"type": "response.output_item.added", "output_index": 0, "item": {"type": "program", "id": "c"}}],
        [{"type": "response.output_item.added", "output_index": True, "item": message(0, "x")}],
        [{"type": "response.output_item.added", "output_index": -1, "item": message(0, "x")}],
        [*list(message_events(0, "x")), *list(message_events(0, "x"))],
        [{"type": "response.output_text.delta", "output_index": 0, "delta": "x"}],
        [{"type": "response.created", "response": response([], "in_progress")}],
        [{"type": "response.in_progress", "response": response([LOOK], "in_progress")}],
        [*list(call_events(0, LOOK, []))[:1], {"type": "response.output_text.delta", "output_index": 0, "delta": "x"}],
        [*list(message_events(0, "x"))[:1], *list(call_events(0, LOOK, []))[-1:]],
        [*list(call_events(0, LOOK, [])), *list(call_events(0, LOOK, []))[-1:]],
        [{"no": "type"}],
    ],
)
def test_what_is_not_known_is_no_answer(events: list[dict[str, Any]]) -> None:
    for event in events:
        event.setdefault("type", "")
    found = run(streamed([], events), allow)
    assert found.error is not None
    assert b"function_call" not in found.out


def test_a_providers_own_tool_passes_only_where_policy_named_one() -> None:
    item = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}}
    data = call_stream(item)
    assert run(data, deny).error is not None
    assert play(stream_module.ResponsesStream(provider_tools=True), [data], deny).out == data


def test_an_mcp_call_of_the_providers_is_judged_and_does_not_end_the_turn() -> None:
    said = message(1, "Done.")
    data = streamed([MCP, said], [*item_events(0, MCP), *message_events(1, "Done.", item=said)])
    found = run(data, deny)
    assert found.scanned.denied == 1
    assert not found.blocked
    assert b"secret" not in found.out
    assert [item["type"] for item in ended(found)["output"]] == ["message", "message"]


def test_a_key_that_stands_twice_in_an_event_is_no_answer() -> None:
    data = call_stream(LOCAL).replace(b'"command":["cat","mark"]', b'"command":["cat"],"command":["cat","mark"]')
    assert run(data, allow).error is not None
    whole = json.dumps(response([LOCAL])).replace('"env": {}', '"env": {}, "env": {"A": "1"}').encode()
    found = play(machine(WIRE, stream=False), [whole], by_rule)
    assert found.held[0].problem == "json"
    assert found.scanned.denied == 1


def test_more_than_may_wait_is_denied_and_what_stands_behind_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "MAX_WAITING_BYTES", 4_000)
    harm, text = function_call(0, "look", '{"note":"mark"}'), message(1, "word " * 2_000)
    events = list(call_events(0, harm, [harm["arguments"]]))
    data = streamed([harm, text], [*events[:2], *message_events(1, "word " * 2_000, item=text), *events[2:]])
    found = run(data, allow)
    assert [held.problem for held in found.held] == ["oversized"]
    assert b"mark" not in found.out
    assert [item["type"] for item in ended(found)["output"]] == ["message", "message"]
    assert found.blocked


def test_a_call_that_grows_too_large_is_denied_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "MAX_HELD", 100)
    look = function_call(0, "look", json.dumps({"note": "x" * 300}))
    events = list(call_events(0, look, [look["arguments"]]))
    answer = machine(WIRE, stream=True)
    begun = {"type": "response.created", "response": response([], "in_progress")}
    step = answer.feed(framed([begun, *events[:2]]))
    assert [held.problem for held in step.held] == ["oversized"]
    assert WHY.encode() in answer.decide([Decided(False, WHY)]).out


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_the_model_is_shown_why_and_its_next_answer_continues_this_one(stream: bool) -> None:
    harm = function_call(1, "harm", '{"path":"a"}')
    first = [THOUGHT, harm]
    final = message(0, "Another way.", 2)
    if stream:
        one = streamed(first, [*item_events(0, THOUGHT), *call_events(1, harm, [harm["arguments"]])])
        two = streamed([final], list(message_events(0, "Another way.", item=final)), number=2)
    else:
        one, two = (json.dumps(value).encode() for value in (response(first), response([final], number=2)))
    answer = machine(WIRE, stream=stream)
    before = play(answer, [one], close=False)
    assert before.blocked
    body = answer.again({"model": "m", "input": "go"})
    assert body["input"] == [
        {"role": "user", "content": "go"},
        THOUGHT,
        harm,
        {"type": "function_call_output", "call_id": "call_1", "output": WHY},
    ]
    after = play(answer, [two])
    assert after.error is None
    out = before.out + after.out
    result = ended(Played(out=out)) if stream else json.loads(out)
    assert result["id"] == "resp_1"
    assert [item["type"] for item in result["output"]] == ["reasoning", "message", "message"]
    assert result["output"][2] == final
    assert result["usage"]["output_tokens"] == 18
    assert result["usage"]["output_tokens_details"]["reasoning_tokens"] == 4
    assert result["usage"]["total_tokens"] == 58
    if stream:
        events = values(out)
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert sum(event["type"] == "response.created" for event in events) == 1
        assert [event["output_index"] for event in events if event["type"] == "response.output_item.done"] == [0, 1, 2]


def test_a_turn_without_its_thoughts_goes_back_without_ids() -> None:
    bare = {**THOUGHT, "encrypted_content": None}
    harm = function_call(1, "harm", '{"path":"a"}')
    answer = machine(WIRE, stream=True)
    play(
        answer,
        [streamed([bare, harm], [*item_events(0, bare), *call_events(1, harm, [harm["arguments"]])])],
        close=False,
    )
    sent = answer.again({"input": [{"role": "user", "content": "go"}]})["input"]
    assert sent[1] == {key: value for key, value in harm.items() if key != "id"}
    assert len(sent) == 3


@pytest.mark.parametrize(
    ("item", "last"),
    [
        (CUSTOM, {"type": "custom_tool_call_output", "call_id": "call_c", "output": WHY}),
        (LOCAL, {"type": "function_call_output", "call_id": "call_l", "output": WHY}),
        (PATCH, {"type": "apply_patch_call_output", "call_id": "call_p", "status": "failed", "output": WHY}),
        (
            APPROVAL,
            {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": False, "reason": WHY},
        ),
        (SEARCH, {"role": "developer", "content": WHY}),
        (
            SHELL,
            {
                "type": "shell_call_output",
                "call_id": "call_s",
                "output": [{"stdout": "", "stderr": WHY, "outcome": {"type": "exit", "exit_code": 1}}],
            },
        ),
    ],
)
def test_each_kind_of_call_gets_its_kind_of_result(item: dict[str, Any], last: dict[str, Any]) -> None:
    answer = machine(WIRE, stream=True)
    play(answer, [call_stream(item)], deny, close=False)
    assert answer.again({"input": []})["input"][-1] == last


def test_what_cannot_be_sent_back_is_told_in_words() -> None:
    large = function_call(0, "harm", json.dumps({"note": "x" * 70_000}))
    odd = function_call(1, "harm", '{"note": "\ud800"}')
    answer = machine(WIRE, stream=True)
    middle = [*call_events(0, large, [large["arguments"]]), *call_events(1, odd, [odd["arguments"]])]
    play(answer, [streamed([large, odd], middle)], close=False)
    shown, *results = answer.again({"input": []})["input"]
    assert shown == {**odd, "arguments": '{"note": "?"}'}
    assert results == [
        {"role": "developer", "content": WHY},
        {"type": "function_call_output", "call_id": "call_1", "output": WHY},
    ]


def test_numbers_that_a_provider_leaves_out_stay_left_out() -> None:
    data = b"".join(
        b"data: " + json.dumps({k: v for k, v in value.items() if k != "sequence_number"}).encode() + b"\n\n"
        for value in values(WIRE.stream(SCENARIOS["allow"]) or b"")
    )
    data += b"data: [DONE]\n\n"
    assert run(data).out == data


def test_comments_and_the_keepalive_event_pass() -> None:
    data = WIRE.stream(SCENARIOS["text"]) or b""
    data = data.replace(b"event: response.content_part.added", b": here\n\nevent: response.content_part.added", 1)
    data = data.replace(
        b"event: response.completed", b'event: keepalive\ndata: {"type":"keepalive"}\n\nevent: response.completed'
    )
    assert run(data).out == data


# --- properties -------------------------------------------------------------------------------------------
_ITEMS = st.lists(
    st.one_of(
        st.builds(lambda text: ("text", text), st.text(min_size=1, max_size=20)),
        st.builds(
            lambda name, note: ("call", name, json.dumps({"note": note})), st.sampled_from(["look", "harm"]), st.text()
        ),
    ),
    max_size=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_ITEMS, st.randoms(use_true_random=False), st.integers(1, 400))
def test_interleaved_items_keep_their_places(given_items: list[Any], random: Any, size: int) -> None:
    items = [
        message(i, item[1]) if item[0] == "text" else function_call(i, item[1], item[2])
        for i, item in enumerate(given_items)
    ]
    runs = [
        list(message_events(i, given[1]) if given[0] == "text" else call_events(i, items[i], [given[2]]))
        for i, given in enumerate(given_items)
    ]
    middle = []
    while left := [run for run in runs if run]:
        middle.append(random.choice(left).pop(0))
    data = streamed(items, middle)
    found = play(machine(WIRE, stream=True), [data[i : i + size] for i in range(0, len(data), size)])
    assert found.error is None
    harmful = [item for item in items if item.get("name") == "harm"]
    if not harmful:
        assert found.out == data
    shown = ended(found)["output"]
    assert [item["id"] for item in shown if item["type"] == "function_call"] == [
        item["id"] for item in items if item.get("name") == "look"
    ]
    assert sum(item["type"] == "message" and item["content"][0]["text"] == WHY for item in shown) == len(harmful)
    numbers = [value["sequence_number"] for value in values(found.out)]
    assert numbers == list(range(len(numbers)))
    done = {value["output_index"] for value in values(found.out) if value["type"] == "response.output_item.done"}
    assert done == set(range(len(items)))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
_STREAM = values(WIRE.stream(SCENARIOS["mixed"]) or b"")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_changed_event_is_a_wire_error_or_an_answer_without_what_is_denied(data: Any) -> None:
    events = json.loads(json.dumps(_STREAM))
    for _ in range(data.draw(st.integers(1, 3))):
        event = events[data.draw(st.integers(0, len(events) - 1))]
        target = data.draw(st.sampled_from([event, event.get("item"), event.get("response"), event.get("part")]))
        if isinstance(target, dict) and target:
            key = data.draw(st.sampled_from(sorted(target)))
            if data.draw(st.booleans()):
                target[key] = data.draw(_JSON)
            else:
                del target[key]
    if data.draw(st.booleans()):
        events.insert(data.draw(st.integers(0, len(events))), events[data.draw(st.integers(0, len(events) - 1))])
    raw = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    found = play(machine(WIRE, stream=True), [raw])
    assert b"mark-1-harm" not in found.out


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_a_wire_error_or_an_answer(data: bytes) -> None:
    found = play(machine(WIRE, stream=True), [data])
    assert found.error is not None
    whole = play(machine(WIRE, stream=False), [data])
    assert whole.error is not None
