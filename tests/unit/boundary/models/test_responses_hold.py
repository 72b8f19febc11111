"""Responses: kinds of calls, pieces that contradict each other, numbers, the last event."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hold_matrix import WHY, machine, play, splits
from responses_items import (
    APPROVAL,
    CUSTOM,
    KINDS,
    LOCAL,
    LOOK,
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
from responses_wire import (
    call_events,
    framed,
    function_call,
    item_events,
    response,
    streamed,
)

from vestibule.boundary.models.hold.responses_items import held_call
from vestibule.boundary.models.wire.sse import WireError


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


def test_a_server_that_gives_new_ids_in_its_last_event_is_understood() -> None:
    harm = function_call(1, "harm", '{"note":"mark"}')
    middle = [*call_events(0, LOOK, fragments_of(LOOK)), *call_events(1, harm, [harm["arguments"]])]
    final = [{**item, "id": f"fc_new_{n}", "call_id": f"call_new_{n}"} for n, item in enumerate((LOOK, harm))]
    found = run(streamed(final, middle))
    assert found.error is None
    assert [item["type"] for item in ended(found)["output"]] == ["function_call", "message"]
    assert b"mark" not in found.out


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
