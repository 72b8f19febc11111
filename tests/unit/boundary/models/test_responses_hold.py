"""Responses: what the shared matrix leaves out: kinds of calls, numbers, the last event, continuations."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hold_matrix import SCENARIOS, WHY, Played, by_rule, machine, play, splits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from responses_wire import (
    ResponsesWire,
    call_events,
    framed,
    function_call,
    item_events,
    message,
    message_events,
    response,
    streamed,
)

from vestibule.boundary.models.hold import responses as stream_module
from vestibule.boundary.models.hold.base import Decided, Held
from vestibule.boundary.models.hold.responses_items import held_call
from vestibule.boundary.models.wire.sse import WireError

WIRE = ResponsesWire()
THOUGHT: dict[str, Any] = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "I think."}],
    "encrypted_content": "Z0FBQUFB+/=",
}
CUSTOM: dict[str, Any] = {
    "id": "ctc_1",
    "type": "custom_tool_call",
    "status": "completed",
    "call_id": "call_c",
    "name": "apply_patch",
    "input": "*** Begin Patch\n*** Add File: mark-a.py\n+x\n*** End Patch",
}
SHELL: dict[str, Any] = {
    "id": "sh_1",
    "type": "shell_call",
    "status": "completed",
    "call_id": "call_s",
    "action": {"commands": ["ls", "rm -rf mark"]},
}
PATCH: dict[str, Any] = {
    "id": "apc_1",
    "type": "apply_patch_call",
    "status": "completed",
    "call_id": "call_p",
    "operation": {"type": "update_file", "path": "mark.py", "diff": "@@\n+x"},
}
LOCAL: dict[str, Any] = {
    "id": "lsh_1",
    "type": "local_shell_call",
    "status": "completed",
    "call_id": "call_l",
    "action": {"type": "exec", "command": ["cat", "mark"], "env": {}},
}
SEARCH: dict[str, Any] = {
    "id": "tsc_1",
    "type": "tool_search_call",
    "status": "completed",
    "call_id": "call_t",
    "execution": "client",
    "arguments": {"query": "mark"},
}
MCP: dict[str, Any] = {
    "id": "mcp_1",
    "type": "mcp_call",
    "status": "completed",
    "server_label": "far",
    "name": "mark",
    "arguments": "{}",
    "output": "secret",
}
APPROVAL: dict[str, Any] = {
    "id": "mcpr_1",
    "type": "mcp_approval_request",
    "server_label": "far",
    "name": "mark",
    "arguments": "{}",
}
KINDS = (CUSTOM, SHELL, PATCH, LOCAL, SEARCH, APPROVAL)


def deny(held: Held) -> Decided:
    return Decided(held.kind == "text", WHY)


def allow(_held: Held) -> Decided:
    return Decided(True)


def run(data: bytes, rule: Any = by_rule, **more: Any) -> Played:
    return play(machine(WIRE, stream=True, **more), [data], rule)


def values(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(frame.partition(b"data: ")[2]) for frame in data.split(b"\n\n") if b"data: " in frame]


def ended(found: Played) -> dict[str, Any]:
    last = values(found.out)[-1]
    assert last["type"] == "response.completed"
    return last["response"]


def call_stream(item: dict[str, Any]) -> bytes:
    return streamed([item], list(item_events(0, item)))


@pytest.mark.parametrize("item", KINDS, ids=[item["type"] for item in KINDS])
def test_every_kind_of_call_waits_and_is_released_as_it_came(item: dict[str, Any]) -> None:
    data = call_stream(item)
    found = run(data, allow)
    assert len(found.held) == 1
    assert found.out == data
    assert b"mark" not in found.before[0]
    whole = json.dumps(response([item])).encode()
    assert play(machine(WIRE, stream=False), [whole], allow).out == whole


@pytest.mark.parametrize("item", KINDS, ids=[item["type"] for item in KINDS])
def test_every_kind_of_call_is_replaced_by_a_message(item: dict[str, Any]) -> None:
    found = run(call_stream(item), deny)
    assert b"mark" not in found.out
    assert found.blocked
    (shown,) = ended(found)["output"]
    assert shown["type"] == "message"
    assert shown["content"][0]["text"] == WHY
    kinds = [value["type"].removeprefix("response.") for value in values(found.out)]
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [value["sequence_number"] for value in values(found.out)] == list(range(9))


@pytest.mark.parametrize(
    ("item", "name", "namespace", "form", "arguments"),
    [
        (function_call(0, "look", '{"a":1}', namespace="mcp__x"), "look", "mcp__x", "json", '{"a":1}'),
        (function_call(0, "look", "{}", namespace="functions"), "look", "", "json", "{}"),
        (CUSTOM, "apply_patch", "", "text", CUSTOM["input"]),
        (SHELL, "shell", "", "json", json.dumps(SHELL["action"])),
        (PATCH, "apply_patch", "", "json", json.dumps(PATCH["operation"])),
        (LOCAL, "local_shell", "", "json", json.dumps(LOCAL["action"])),
        (SEARCH, "tool_search", "", "json", '{"query": "mark"}'),
        (APPROVAL, "mark", "mcp:far", "json", "{}"),
    ],
)
def test_calls_are_read_as_what_they_ask_for(
    item: dict[str, Any], name: str, namespace: str, form: str, arguments: str
) -> None:
    found = held_call(item)
    assert found[1:6] == (name, namespace, arguments.encode(), form, "")
    assert run(call_stream(item), allow).held == [found]


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ({**function_call(0, "look", "{}"), "encrypted_function_args": ["path"]}, "shape"),
        ({**function_call(0, "look", "{}"), "caller": {"type": "program", "caller_id": "p"}}, "shape"),
        ({**function_call(0, "look", "{}"), "arguments": {"path": "a"}}, "shape"),
        ({**function_call(0, "look", "{}"), "namespace": ["x"]}, "shape"),
        (function_call(0, "look", '{"a": "\ud800"}'), "shape"),
        (function_call(0, "look", "{", "incomplete"), "cut"),
        ({**SHELL, "environment": {"type": "container_reference", "container_id": "c"}}, "shape"),
        ({**SHELL, "action": None}, "shape"),
        ({**SEARCH, "execution": "server"}, "shape"),
    ],
)
def test_a_call_that_cannot_be_judged_is_never_released(item: dict[str, Any], problem: str) -> None:
    assert held_call(item).problem == problem
    found = run(call_stream(item), allow)
    assert found.held[0].problem == problem
    assert found.scanned.denied == 1
    assert ended(found)["output"][0]["type"] == "message"


def _pieces(item: dict[str, Any], change: Any) -> bytes:
    events = list(call_events(0, item, fragments_of(item)))
    change(events)
    return streamed([item], events)


def fragments_of(item: dict[str, Any]) -> list[str]:
    text = item["arguments"]
    return [text[:5], text[5:]]


@pytest.mark.parametrize(
    "change",
    [
        lambda events: events[1].update(delta='{"pax'),
        lambda events: events[1].update(delta=7),
        lambda events: events[3].update(arguments='{"path":"b"}'),
        lambda events: events[0]["item"].update(name="harm"),
        lambda events: events[0]["item"].update(call_id="call_9"),
        lambda events: events[0]["item"].update(namespace="other"),
        lambda events: events[0]["item"].update(arguments='{"path":"b"}'),
        lambda events: events[2].update(item_id="fc_9"),
        lambda events: events.pop(1),
    ],
)
def test_pieces_that_say_another_thing_than_the_whole_are_no_call(change: Any) -> None:
    item = function_call(0, "look", '{"path":"a"}')
    assert run(_pieces(item, lambda _events: None), allow).held[0].problem == ""
    found = run(_pieces(item, change), allow)
    assert [held.problem for held in found.held] == ["shape"]
    assert b"function_call" not in found.out


def test_a_shell_command_that_is_streamed_otherwise_is_no_call() -> None:
    place = {"output_index": 0, "command_index": 0}
    begun, done = item_events(0, SHELL)
    for text, problem in (("ls", ""), ("id", "shape")):
        middle = [
            {"type": "response.shell_call_command.added", **place, "command": ""},
            {"type": "response.shell_call_command.delta", **place, "delta": text},
            {"type": "response.shell_call_command.done", **place, "command": text},
        ]
        found = run(streamed([SHELL], [begun, *middle, done]), allow)
        assert found.held[0].problem == problem


LOOK = function_call(0, "look", '{"path":"a"}')


@pytest.mark.parametrize(
    "final",
    [
        [function_call(0, "harm", '{"path":"a"}')],
        [function_call(0, "look", '{"path":"b"}')],
        [function_call(0, "look", '{"path":"a"}', namespace="x")],
        [LOOK, function_call(1, "harm", "{}")],
        [LOOK, LOOK],
        [LOOK, {**LOOK, "type": "computer_call"}],
        ["x"],
    ],
)
def test_the_last_event_may_repeat_only_what_was_judged(final: list[Any]) -> None:
    data = streamed(final, list(call_events(0, LOOK, fragments_of(LOOK))))
    found = run(data, allow)
    assert isinstance(found.error, WireError)
    assert b"response.completed" not in found.out


def test_a_failed_answer_shows_no_call_that_was_not_judged() -> None:
    begun = {"type": "response.created", "response": response([], "in_progress")}
    failed = {"type": "response.failed", "response": response([LOOK], "failed")}
    part = list(call_events(0, LOOK, fragments_of(LOOK)))[:-1]
    found = run(framed([begun, *part, failed]), allow)
    assert found.told.failed
    assert found.error is None
    assert not found.held
    assert values(found.out)[-1]["response"]["output"] == []
    assert b"function_call" not in found.out


def test_what_was_allowed_goes_before_an_error_and_what_was_held_does_not() -> None:
    begun = {"type": "response.created", "response": response([], "in_progress")}
    first = list(call_events(0, LOOK, fragments_of(LOOK)))
    second = list(call_events(1, function_call(1, "look", '{"path":"mark"}'), ['{"path":"mark"}']))[:-1]
    error = {"type": "error", "message": "broken", "code": None, "param": None}
    found = run(framed([begun, *first, *second, error]), allow)
    assert found.told.failed
    assert b"call_0" in found.out
    assert b"mark" not in found.out
    assert values(found.out)[-1]["type"] == "error"


def test_thoughts_stay_as_they_are_and_numbers_follow_a_denied_call() -> None:
    harm = function_call(1, "harm", '{"note":"mark"}')
    summary = {"item_id": "rs_1", "output_index": 0, "summary_index": 0}
    thought = [
        {"type": "response.output_item.added", "output_index": 0, "item": {**THOUGHT, "summary": []}},
        {"type": "response.reasoning_summary_text.delta", **summary, "delta": "I think."},
        {"type": "response.reasoning_summary_text.done", **summary, "text": "I think."},
        {"type": "response.output_item.done", "output_index": 0, "item": THOUGHT},
    ]
    look = function_call(2, "look", '{"path":"a"}')
    middle = [*thought, *call_events(1, harm, [harm["arguments"]]), *call_events(2, look, [look["arguments"]])]
    data = streamed([THOUGHT, harm, look], middle)
    found = run(data)
    assert data.startswith(found.before[0])
    numbers = [value["sequence_number"] for value in values(found.out)]
    assert numbers == list(range(len(numbers)))
    assert ended(found)["output"][0] == THOUGHT
    assert [item["type"] for item in ended(found)["output"]] == ["reasoning", "message", "function_call"]
    assert ended(found)["output"][2] == look
    assert not found.blocked
    assert found.text.count("I think.") == 1


def test_a_second_call_behind_a_held_one_waits_for_it() -> None:
    first, second = function_call(0, "look", '{"note":"one"}'), function_call(1, "look", '{"note":"two"}')
    runs = [list(call_events(i, item, [item["arguments"]])) for i, item in enumerate((first, second))]
    # The second is finished, and judged, while the first has not ended.
    middle = [*runs[0][:2], *runs[1], *runs[0][2:]]
    data = streamed([first, second], middle)
    for chunks in splits(data):
        found = play(machine(WIRE, stream=True), chunks)
        assert found.out == data
        assert [held.arguments for held in found.held] == [b'{"note":"two"}', b'{"note":"one"}']
        assert b"note" not in found.before[1]


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
    monkeypatch.setattr(stream_module, "MAX_WAITING", 4_000)
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
