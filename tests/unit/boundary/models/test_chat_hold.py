"""Calls in Chat Completions: what only this format has, beside the hold matrix."""

from __future__ import annotations

import json
from typing import Any

import pytest
from chat_wire import DONE, USAGE, ChatWire, begin, call_piece, call_start, chunk, event, head, tail, usage_event
from hold_matrix import WHY, Played, by_rule, machine, play
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.boundary.models.formats.base import Route
from vestibule.boundary.models.formats.chat import Chat
from vestibule.boundary.models.hold.base import Decided, Held
from vestibule.boundary.models.wire.chat import is_error, read_usage
from vestibule.boundary.models.wire.sse import Frames
from vestibule.cost.prices import Tokens

WIRE = ChatWire()


def run(data: bytes, rule: Any = by_rule, **more: Any) -> Played:
    return play(machine(WIRE, stream=True, **more), [data], rule)


def run_whole(value: dict[str, Any], rule: Any = by_rule, **more: Any) -> Played:
    return play(machine(WIRE, stream=False, **more), [json.dumps(value).encode()], rule)


def events(data: bytes) -> list[dict[str, Any]]:
    values = [json.loads(frame.data) for frame in Frames().feed(data) if frame.data not in (b"", b"[DONE]")]
    return [value for value in values if "error" not in value]


def message(data: bytes, index: int = 0) -> dict[str, Any]:
    """The answer as a simple program puts it together."""
    found: dict[str, Any] = {"content": "", "calls": {}, "end": None}
    for value in events(data):
        for choice in value["choices"]:
            if choice["index"] != index:
                continue
            delta = choice["delta"]
            found["content"] += delta.get("content") or ""
            for piece in delta.get("tool_calls") or ():
                name, words = found["calls"].setdefault(piece["index"], ["", ""])
                function = piece.get("function") or {}
                found["calls"][piece["index"]] = [
                    name + (function.get("name") or ""),
                    words + (function.get("arguments") or ""),
                ]
            found["end"] = choice["finish_reason"] or found["end"]
    return found


def whole_call(index: int, name: str, words: str = "{}", **more: Any) -> dict[str, Any]:
    return {
        "index": index,
        "id": f"c{index}",
        "type": "function",
        "function": {"name": name, "arguments": words},
        **more,
    }


def answer(message: dict[str, Any], end: str = "tool_calls", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": end}
    return {**head("chat.completion"), "choices": [choice], "usage": USAGE, **more}


# --- usage ---------------------------------------------------------------------------------------------------


def test_a_program_that_did_not_ask_for_usage_does_not_see_its_event() -> None:
    data = begin() + chunk({"content": "Hi"}) + tail("stop")
    shown, hidden = run(data, shows_usage=True), run(data, shows_usage=False)
    assert shown.out == data
    assert hidden.out == data.replace(usage_event(), b"")
    assert hidden.told.tokens == shown.told.tokens == Tokens(input=40, output=9)


def test_cached_tokens_are_part_of_the_prompt_and_are_taken_off() -> None:
    details = {"cached_tokens": 30, "cache_write_tokens": 5}
    usage = {"prompt_tokens": 40, "completion_tokens": 9, "prompt_tokens_details": details}
    assert read_usage(usage) == Tokens(input=5, cache_read=30, cache_write_5m=5, output=9)
    assert read_usage({**usage, "prompt_tokens_details": {"cached_tokens": 99}}).all_input == 40
    assert read_usage({**usage, "prompt_tokens_details": None}).input == 40


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 4}, {"prompt_tokens": True, "completion_tokens": True}])
def test_an_answer_without_counts_reports_none(usage: Any) -> None:
    assert not run_whole(answer({"content": "x"}, "stop", usage=usage)).told.reported
    assert not run(
        begin() + chunk({}, "stop") + event({**head("c"), "choices": [], "usage": usage}) + DONE
    ).told.reported


def test_usage_may_come_with_each_event() -> None:
    data = begin() + chunk({"content": "a"}, usage={**USAGE, "completion_tokens": 1}) + chunk({}, "stop", usage=USAGE)
    found = run(data + DONE)
    assert found.out == data + DONE
    assert found.told.tokens == Tokens(input=40, output=9)


# --- calls ---------------------------------------------------------------------------------------------------


def test_a_call_that_comes_whole_with_the_end_is_held() -> None:
    """Ollama and Gemini send it so, and say `stop`."""
    entry = [whole_call(0, "look"), whole_call(1, "harm", '{"note": "mark"}')]
    found = run(begin() + chunk({"tool_calls": entry}, "stop") + usage_event() + DONE)
    assert [held.name for held in found.held] == ["look", "harm"]
    assert b"mark" not in found.out
    assert message(found.out) == {"content": WHY, "calls": {0: ["look", "{}"]}, "end": "stop"}


def test_remaining_calls_are_numbered_from_zero() -> None:
    data = begin()
    for index, name in enumerate(("harm", "look", "harm", "look")):
        data += call_start(index, name) + call_piece(index, json.dumps({"path": str(index)}))
    found = message(run(data + tail("tool_calls")).out)
    assert found["calls"] == {0: ["look", '{"path": "1"}'], 1: ["look", '{"path": "3"}']}
    assert found["end"] == "tool_calls"
    assert found["content"] == f"{WHY}\n\n{WHY}"


def test_text_behind_a_call_waits_and_keeps_its_place() -> None:
    data = begin() + call_start(0, "look") + chunk({"content": "after"}) + call_piece(0, "{}") + tail("tool_calls")
    found = run(data)
    assert found.before == [begin()]
    assert found.out == data


@pytest.mark.parametrize(
    "pieces",
    [
        [whole_call(0, "look"), {"index": 0, "function": {"name": "harm"}}],
        [whole_call(0, "look"), {"index": 0, "id": "other", "function": {"arguments": ""}}],
        [whole_call(0, "look", type="mcp")],
        [whole_call(0, "look"), {"index": 0, "custom": {"input": "x"}}],
        [{"index": 0, "id": "c", "type": "function", "function": {"name": "look", "arguments": {"a": 1}}}],
        [{"index": 0, "id": "c", "type": "function", "function": {"name": ["look"], "arguments": "{}"}}],
        [{"index": 0, "id": "c", "type": "function", "function": {"name": "look", "arguments": "{}", "parsed": {}}}],
        [whole_call(0, "look", server="evil")],
        [whole_call(1, "look")],
    ],
)
def test_pieces_that_contradict_each_other_make_no_call(pieces: list[dict[str, Any]]) -> None:
    found = run(begin() + b"".join(chunk({"tool_calls": [piece]}) for piece in pieces) + tail("tool_calls"))
    assert [held.problem for held in found.held] == ["shape"]
    assert message(found.out)["calls"] == {}


def test_a_problem_is_never_released_whatever_is_decided() -> None:
    pieces = [whole_call(0, "look"), {"index": 0, "function": {"name": "harm"}}]
    found = run(
        begin() + b"".join(chunk({"tool_calls": [piece]}) for piece in pieces) + tail("tool_calls"),
        lambda held: Decided(True, "text"),
    )
    assert b"tool_calls" not in found.out.replace(b'"finish_reason": "tool_calls"', b"")


def test_a_key_that_stands_twice_in_an_event_spoils_its_calls_and_hides_none() -> None:
    twice = chunk({"tool_calls": [whole_call(0, "look")]}).replace(b'"name"', b'"name": "harm", "name"')
    found = run(begin() + twice + tail("tool_calls"))
    assert [held.problem for held in found.held] == ["json"]
    # Another reader would take the first of the two; an escape in the key hides it from a search.
    call = json.dumps([whole_call(0, "look")]).encode()
    for key in (b'"tool_calls"', b'"tool\\u005fcalls"'):
        hidden = chunk({"tool_calls": None}).replace(b'"tool_calls"', key + b": " + call + b", " + key)
        assert json.loads(Frames().feed(hidden)[0].data)["choices"][0]["delta"] == {"tool_calls": None}
        found = run(begin() + hidden + tail("stop"))
        assert found.error is not None
        assert b'"look"' not in found.out


def test_a_call_of_the_old_form_is_held_like_any_other() -> None:
    def data(name: str) -> bytes:
        first = chunk({"function_call": {"name": name, "arguments": ""}})
        return begin() + first + chunk({"function_call": {"arguments": '{"a": 1}'}}) + tail("function_call")

    allowed, denied = run(data("look")), run(data("harm"))
    assert allowed.out == data("look")
    assert allowed.held == [Held("call", "look", arguments=b'{"a": 1}')]
    assert b"function_call" not in denied.out
    assert denied.blocked
    assert message(denied.out) == {"content": WHY, "calls": {}, "end": "stop"}
    value = answer({"content": None, "function_call": {"name": "harm", "arguments": "{}"}}, "function_call")
    assert json.loads(run_whole(value).out)["choices"][0]["message"] == {"role": "assistant", "content": WHY}


def test_custom_calls_are_free_text() -> None:
    entry = {"index": 0, "id": "c", "type": "custom", "custom": {"name": "look", "input": "*** Begin"}}
    data = (
        begin() + chunk({"tool_calls": [entry]}) + chunk({"tool_calls": [{"index": 0, "custom": {"input": " Patch"}}]})
    )
    found = run(data + tail("tool_calls"), lambda held: Decided(True))
    assert found.held == [Held("call", "look", arguments=b"*** Begin Patch", form="text", id="c")]
    assert found.out == data + tail("tool_calls")


def test_a_length_reached_cuts_the_last_call_even_if_it_parses() -> None:
    data = begin() + call_start(0, "look") + call_piece(0, "{}") + call_start(1, "look")
    for end, problems in (("length", ["", "cut"]), ("content_filter", ["cut", "cut"]), ("new_reason", ["cut", "cut"])):
        assert [held.problem for held in run(data + tail(end)).held] == problems
        pieces = [whole_call(0, "look"), whole_call(1, "look", "")]
        whole = run_whole(answer({"content": None, "tool_calls": pieces}, end))
        assert [held.problem for held in whole.held] == problems


@pytest.mark.parametrize(
    "data",
    [
        begin() + chunk({}, "tool_calls") + call_start(0, "look") + DONE,
        begin() + call_start(0, "look") + DONE,
        begin() + call_start(0, "look") + call_piece(0, "{}"),
        begin() + chunk({"content": "x"}),
        begin() + chunk({"tool_calls": [{"index": -1, "function": {"name": "look"}}]}),
        begin() + chunk({"tool_calls": [{"index": "0", "function": {"name": "look"}}]}),
        begin() + chunk({"tool_calls": {"name": "look"}}),
        begin() + chunk({"tool_calls": ["look"]}),
        begin() + chunk({"function_call": "look"}),
        begin() + chunk({"content": [{"type": "text", "text": "x"}]}),
        begin() + chunk({"content": "x"}, index=1),
        begin() + chunk({"mcp_call": {"name": "harm"}}),
        begin() + chunk({"toolCalls": "x"}),
        begin() + chunk({"server_tool": [{"name": "harm"}]}),
        begin() + chunk({"blob": {"a": 1}}),
        begin() + chunk({"reasoning_details": [{"tool_calls": []}]}),
        begin() + event({**head("c"), "choices": [{"index": 0, "delta": {}, "message": {"tool_calls": [{}]}}]}),
        begin() + event({**head("c"), "choices": [], "tool_calls": [{"name": "harm"}]}),
        begin() + event({**head("c"), "choices": {}}),
        begin() + event({**head("c"), "choices": [{"index": True, "delta": {}}]}),
        begin() + event({**head("c"), "choices": [{"index": 0, "delta": []}]}),
        b"data: nope\n\n",
        b"data: [1]\n\n",
    ],
)
def test_what_is_no_answer_is_none(data: bytes) -> None:
    found = run(data)
    assert found.error is not None
    assert b'"look"' not in found.out
    assert b"harm" not in found.out


def test_thoughts_and_words_of_other_servers_flow_and_are_told() -> None:
    data = (
        begin()
        + chunk({"reasoning_content": "hm"})
        + chunk({"reasoning": "ah", "content": None, "tool_calls": None, "function_call": None})
        + chunk({"content": "Hi", "refusal": None, "extra": "word", "annotations": []})
        + event({**head("c"), "choices": [], "prompt_filter_results": [{"prompt_index": 0}]})
        + chunk({"refusal": "no"})
        + tail("stop")
    )
    found = run(data)
    assert found.out == data
    for words in ("hm", "ah", "Hi", "word", "no"):
        assert words in found.text
    assert found.scanned.blocks == 4


def test_an_error_within_the_answer_is_passed_on_and_ends_it() -> None:
    data = begin() + chunk({"content": "x"}) + event({"error": {"message": "overloaded", "type": "server_error"}})
    found = run(data)
    assert found.out == data
    assert found.told.failed
    assert found.error is None
    held = run(begin() + call_start(0, "look") + event({"error": {"message": "overloaded"}}))
    assert b'"look"' not in held.out


# --- several answers, texts held, continuations --------------------------------------------------------------------


def test_of_several_answers_each_is_judged_and_none_is_asked_again() -> None:
    data = begin() + chunk({"role": "assistant", "content": "b"}, index=1) + call_start(0, "harm")
    data += chunk({"tool_calls": [whole_call(0, "look")]}, index=1) + call_piece(0, '{"note": "mark"}')
    data += chunk({}, "tool_calls") + chunk({}, "tool_calls", index=1) + usage_event() + DONE
    body = {"model": "m", "messages": [{"role": "user", "content": "go"}], "n": 2, "stream": True}
    asked = Chat().read(body, Route("generate"), run="r1")
    found = play(Chat().stream(asked), [data])
    assert not found.blocked
    assert message(found.out) == {"content": WHY, "calls": {}, "end": "stop"}
    assert message(found.out, 1) == {"content": "b", "calls": {0: ["look", "{}"]}, "end": "tool_calls"}
    assert b"mark" not in found.out


def only(name: str) -> Any:
    said = Decided(name == "allow", "" if name == "drop" else "[no]")
    return lambda held: by_rule(held) if held.kind == "call" else said


def test_texts_wait_as_well_when_they_are_to_be_judged() -> None:
    data = begin() + chunk({"content": "se"}) + chunk({"content": "cret"}) + call_start(0, "look") + tail("tool_calls")
    allowed = run(data, only("allow"), hold_text=True)
    assert allowed.out == data
    assert [held.kind for held in allowed.held] == ["text", "call"]
    assert allowed.held[0].arguments == b"secret"
    assert allowed.before == [begin(), begin()]
    denied = run(data, only("deny"), hold_text=True)
    assert message(denied.out) == {"content": "[no]", "calls": {0: ["look", ""]}, "end": "tool_calls"}
    assert b"cret" not in denied.out
    dropped = run(data, only("drop"), hold_text=True)
    assert message(dropped.out)["content"] == ""
    value = answer({"content": "secret", "refusal": "secret too"}, "stop")
    whole = json.loads(run_whole(value, only("deny"), hold_text=True).out)["choices"][0]["message"]
    assert (whole["content"], whole["refusal"]) == ("[no]\n\n[no]", None)


def test_a_text_too_long_to_wait_is_not_said() -> None:
    piece = chunk({"content": "y" * 1_000_000})
    found = run(begin() + piece * 10 + tail("stop"), only("allow"), hold_text=True)
    assert [held.problem for held in found.held] == ["oversized"]
    assert b"yyy" not in found.out


def test_a_turn_of_denied_calls_goes_on_in_the_same_answer() -> None:
    first = begin() + chunk({"content": "I do it."}) + chunk({"reasoning_content": "hm"}) + call_start(0, "harm")
    first += call_piece(0, '{"path": "x"}') + tail("tool_calls")
    machine_ = machine(WIRE, stream=True)
    one = play(machine_, [first], close=False)
    assert one.blocked
    assert message(one.out) == {"content": f"I do it.\n\n{WHY}", "calls": {}, "end": None}
    assert b"[DONE]" not in one.out
    body = machine_.again({"model": "m", "messages": [{"role": "user", "content": "go"}]})
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": "I do it.",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "call_0", "type": "function", "function": {"name": "harm", "arguments": '{"path": "x"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_0", "content": WHY},
    ]
    second = (begin() + chunk({"content": "Else."}) + call_start(0, "look") + tail("tool_calls")).replace(
        b"chatcmpl-1", b"chatcmpl-2"
    )
    two = play(machine_, [second])
    whole = one.out + two.out
    assert message(whole) == {
        "content": f"I do it.\n\n{WHY}\n\nElse.",
        "calls": {0: ["look", ""]},
        "end": "tool_calls",
    }
    assert b"chatcmpl-2" not in whole
    assert sum("role" in choice["delta"] for value in events(whole) for choice in value["choices"]) == 1
    last = events(whole)[-1]["usage"]
    assert (last["prompt_tokens"], last["completion_tokens"], last["total_tokens"]) == (40, 18, 58)
    assert two.told.tokens.output == 9
    assert whole.endswith(DONE)


def test_a_whole_turn_of_denied_calls_goes_on_as_well() -> None:
    machine_ = machine(WIRE, stream=False)
    bad = whole_call(0, "harm", '{"a": 1, "a": 2')
    one = play(machine_, [json.dumps(answer({"content": "A.", "tool_calls": [bad]})).encode()], close=False)
    assert one.blocked
    assert not one.out
    body = machine_.again({"model": "m", "messages": [{"role": "user", "content": "go"}]})
    # A provider would refuse arguments that are no object.
    assert body["messages"][1]["tool_calls"][0]["function"]["arguments"] == "{}"
    two = play(machine_, [json.dumps(answer({"content": "B."}, "stop")).encode()])
    value = json.loads(two.out)
    assert value["choices"][0]["message"]["content"] == f"A.\n\n{WHY}\n\nB."
    assert value["usage"]["completion_tokens"] == 18


# --- anything ----------------------------------------------------------------------------------------------------

MARK = "mark-harm"
POOL = [
    begin(),
    chunk({"content": "Hi "}),
    chunk({"reasoning_content": "hm"}),
    call_start(0, "look"),
    call_start(0, "harm"),
    call_start(1, "harm"),
    call_start(1, "look"),
    call_piece(0, '{"a": '),
    call_piece(0, "1}"),
    call_piece(1, f'{{"note": "{MARK}"}}'),
    call_piece(2, "x"),
    chunk({"function_call": {"name": "harm", "arguments": f'"{MARK}"'}}),
    chunk({"tool_calls": [whole_call(0, "harm", f'{{"note": "{MARK}"}}')], "content": "both"}),
    chunk({}, "tool_calls"),
    chunk({}, "length"),
    chunk({"content": "end"}, "stop"),
    usage_event(),
    event({"error": {"message": "bad"}}),
    b": comment\n\n",
    DONE,
]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(POOL), max_size=14), st.booleans())
def test_any_order_of_events_leaks_nothing_and_fails_in_one_way(parts: list[bytes], hold_text: bool) -> None:
    data = b"".join(parts)
    found = run(data, lambda held: Decided(held.kind == "text" or held.name == "look", WHY), hold_text=hold_text)
    assert b"function_call" not in found.out.replace(b'"finish_reason": "function_call"', b"")
    for name, _ in message(found.out)["calls"].values():
        assert name == "look"
    if found.scanned.calls and found.error is None and not found.told.failed:
        assert sum(held.kind == "call" for held in found.held) == found.scanned.calls


def test_errors_of_servers_are_known() -> None:
    for body in (
        b'{"error": {"message": "x", "type": "t"}}',
        b'{"error": "model not found"}',
        b'{"object": "error", "message": "x"}',
        b'{"errors": [{"code": "c", "message": "x"}], "trace": "t"}',
    ):
        assert is_error(body)
    for body in (b"<html>", b"{}", b'{"choices": [{}], "error": {"message": "x"}}', b'{"error": null}'):
        assert not is_error(body)
