"""The machines of the Gemini API beyond the matrix: texts held, several candidates, ends, errors, what is no answer."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from gemini_wire import GeminiWire, call, content, event, text, thought, usage
from hold_matrix import OUTPUT_TOKENS, WHY, Played, by_rule, machine, play, splits
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.boundary.models.hold.base import MAX_HELD, Decided, Held
from vestibule.boundary.models.hold.gemini_reader import continued, held_call
from vestibule.boundary.models.wire.sse import WireError
from vestibule.core.money import NANO
from vestibule.cost.prices import Tokens

WIRE = GeminiWire()
DONE = usage(OUTPUT_TOKENS)
END = event(content(text(""), reason="STOP", counted=DONE))
LOOK, HARM = call("look", '{"path": "a"}'), call("harm", '{"path": "b"}')
ASKED = {"contents": [{"role": "user", "parts": [{"text": "go"}]}]}


def stream(data: bytes, **more: Any) -> Played:
    """The same however it is split."""
    first = play(machine(WIRE, stream=True, **more), [data])
    for chunks in splits(data):
        again = play(machine(WIRE, stream=True, **more), chunks)
        assert (again.out, again.held, again.text) == (first.out, first.held, first.text)
        assert (again.error is None) == (first.error is None)
    return first


def parts(data: bytes) -> list[dict[str, Any]]:
    """All parts of a stream, in their order."""
    events = [json.loads(line[5:]) for line in data.splitlines() if line.startswith(b"data:")]
    return [
        part
        for value in events
        for candidate in value.get("candidates") or ()
        for part in (candidate.get("content") or {}).get("parts") or ()
    ]


def reasons(data: bytes) -> list[str]:
    events = [json.loads(line[5:]) for line in data.splitlines() if line.startswith(b"data:")]
    return [item["finishReason"] for value in events for item in value["candidates"] if "finishReason" in item]


# --- calls ----------------------------------------------------------------------------------------------


def test_several_calls_between_texts_of_one_chunk_are_asked_about_at_once() -> None:
    chunk = content(text("a"), LOOK, text("b"), HARM, LOOK, reason="STOP", counted=DONE)
    found = stream(event(chunk))
    assert [held.name for held in found.held] == ["look", "harm", "look"]
    shown = parts(found.out)
    assert [part.get("text") or part["functionCall"]["name"] for part in shown] == ["a", "look", "b", WHY, "look"]
    assert reasons(found.out) == ["STOP"]
    assert not found.blocked


def test_text_flows_before_a_call_and_the_chunk_with_the_end_waits_for_it() -> None:
    answer = machine(WIRE, stream=True)
    assert answer.feed(event(content(text("a")))).out == event(content(text("a")))
    step = answer.feed(event(content(LOOK)) + END)
    assert (step.out, len(step.held)) == (b"", 1)
    step = answer.decide([Decided(True)])
    assert step.out == event(content(LOOK))
    assert not answer.told.stopped
    step = answer.end()
    assert step.out == END
    assert answer.told.stopped


def test_signature_of_a_thought_beside_a_call_stays_and_goes_with_a_denied_one() -> None:
    signed = call("look", "{}", signature="c2ln"), call("harm", "{}", signature="c2ln")
    found = stream(event(content(*signed)) + END)
    assert parts(found.out)[:2] == [json.loads(signed[0]), {"text": WHY}]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ('{"name": "look", "args": {"path": "a", "path": "b"}}', "json"),
        ('{"name": "harm", "name": "look", "args": {}}', "json"),
        ('{"name": "look", "args": {"deep": [{"a": 1, "a": 2}]}}', "json"),
        ('{"name": "look", "args": {"path": "\\ud800"}}', "json"),
        ('{"name": "look", "args": "{}"}', "shape"),
        ('{"name": "look", "args": {}, "partialArgs": [{"jsonPath": "$.path", "stringValue": "x"}]}', "shape"),
        ('{"name": "look", "willContinue": true}', "shape"),
        ('{"name": "look", "args": {}, "id": 7}', "shape"),
        ('{"name": "look", "partial_args": []}', "shape"),
        ('"look"', "shape"),
        ("null", "shape"),
    ],
)
def test_a_call_that_two_readers_could_read_differently_is_denied(given: str, problem: str) -> None:
    found = stream(event(content(f'{{"functionCall": {given}}}', LOOK)) + END)
    assert [held.problem for held in found.held] == [problem, ""]
    assert parts(found.out)[0] == {"text": WHY}


def test_a_call_without_arguments_is_whole() -> None:
    assert held_call({"name": "look"}).arguments == b"{}"
    assert held_call({"name": "look", "args": None}).problem == ""
    assert held_call({"name": "look", "args": {"a": "x" * MAX_HELD}}) == Held("call", "look", problem="oversized")


@pytest.mark.parametrize(
    "part",
    [
        '{"function_call": {"name": "harm", "args": {}}}',  # the SDK for Python reads this name too
        '{"text": "a", "functionCall": {"name": "harm", "args": {}}}',
        '{"text": "a", "text": "b"}',
        '{"functionCall": {"name": "look"}, "functionCall": {"name": "harm"}}',
        '{"executableCode": {"language": "PYTHON", "code": "x"}}',
        '{"codeExecutionResult": {"outcome": "OUTCOME_OK"}}',
        '{"toolCall": {"toolType": "URL_CONTEXT"}}',
        '{"inlineData": {"mimeType": "image/png", "data": ""}}',
        '{"functionResponse": {"name": "look", "response": {}}}',
        '{"text": 7}',
        '{"text": "a", "thought": "yes"}',
        '"text"',
        "null",
    ],
)
@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
def test_a_part_of_an_unknown_kind_is_no_answer(part: str, streamed: bool) -> None:
    whole = content(part, reason="STOP", counted=DONE)
    data = event(whole) if streamed else whole.encode()
    found = play(machine(WIRE, stream=streamed), [data])
    assert found.error is not None
    assert found.out == b""


def test_what_a_providers_tool_leaves_passes_when_policy_named_the_tool() -> None:
    from vestibule.boundary.models.formats.base import Offered

    tools = (Offered("code_execution", provider=True),)
    chunk = content('{"executableCode": {"language": "PYTHON", "code": "x"}}', reason="STOP", counted=DONE)
    data = event(chunk.replace('"index": 0', '"index": 0, "groundingMetadata": {"webSearchQueries": []}'))
    assert stream(data, tools=tools).out == data


# --- around the parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra",
    [
        '"automaticFunctionCallingHistory": [{"parts": [{"functionCall": {"name": "harm"}}]}]',
        '"automatic_function_calling_history": [{"parts": [{"function_call": {"name": "harm"}}]}]',
        '"candidates_": [], "some": {"functionCall": {"name": "harm"}}',
    ],
)
def test_fields_that_are_not_known_are_left_out(extra: str) -> None:
    chunk = content(text("a"), reason="STOP", counted=DONE)
    found = stream(event(chunk[:-1] + f", {extra}}}"))
    assert found.error is None
    assert b"harm" not in found.out
    assert parts(found.out) == [{"text": "a"}]


def test_a_candidate_or_content_that_stands_twice_or_is_spelt_otherwise_is_no_answer() -> None:
    good = content(text("a"), reason="STOP", counted=DONE)
    for bad in (
        good.replace('"candidates"', '"candidates": [], "candidates"'),
        good.replace('"content"', '"content": {}, "content"'),
        good.replace('"parts"', '"parts": [], "parts"'),
        good.replace('"parts"', '"part_s"'),
        good.replace('"role": "model"', '"role": "user"'),
        good.replace('"index": 0', '"index": -1'),
        good.replace('"index": 0', '"index": 8'),
        good.replace('"index": 0', '"index": true'),
        "[1]",
        '{"candidates": {}}',
        '{"candidates": [7]}',
    ):
        assert stream(event(bad)).error is not None, bad
        assert play(machine(WIRE, stream=False), [bad.encode()]).error is not None, bad


def test_lines_that_are_no_data_are_left_out_or_no_answer() -> None:
    """The SDK for Python reads lines without a field's name, and comments, as data."""
    first = event(content(text("a")))
    assert stream(b": ping\r\n\r\n" + first + b": ping\n\n" + END).out == first + END
    commented = b": ping\n" + first
    assert parts(stream(commented + END).out) == [{"text": "a"}, {"text": ""}]
    assert b"ping" not in stream(commented + END).out
    bare = content(HARM).encode() + b"\r\n\r\n"
    for bad in (bare, b"harm\n\n", b"event: x\n" + first, first[:-4] + b"\ndata: {}\n\n"):
        found = stream(bad + END)
        assert found.error is not None, bad
        assert found.out == b""


# --- ends -----------------------------------------------------------------------------------------------


def test_an_answer_without_a_reason_is_incomplete_and_charged_by_no_partial_count() -> None:
    found = stream(event(content(text("a"), counted=usage(7))))
    assert found.error is not None
    assert not found.told.reported
    assert found.told.tokens.input > 0


@pytest.mark.parametrize("cut", [1, 3, 20])
def test_a_half_event_at_the_end_is_incomplete(cut: int) -> None:
    assert stream(event(content(text("a"))) + END[:-cut]).error is not None
    # After the reason as well: what a client would make of it, nobody looked at.
    assert stream(END + event(content(HARM))[:-cut]).error is not None


def test_a_provider_that_gives_its_reason_in_each_chunk_is_read_on() -> None:
    data = b"".join(event(content(part, reason="STOP", counted=DONE)) for part in (text("a"), HARM, text("b")))
    found = stream(data)
    assert found.error is None
    assert not found.blocked  # its end has been sent before anyone could know
    assert parts(found.out) == [{"text": "a"}, {"text": WHY}, {"text": "b"}]
    assert stream(data.replace(b"harm", b"look")).out == data.replace(b"harm", b"look")


def test_counts_after_the_reason_belong_to_the_answer() -> None:
    data = event(content(text("a"), reason="STOP")) + event(f'{{"usageMetadata": {DONE}}}')
    found = stream(data)
    assert found.out == data
    assert found.told.tokens.output == OUTPUT_TOKENS


def test_a_prompt_that_was_blocked_is_an_answer() -> None:
    data = event(f'{{"promptFeedback": {{"blockReason": "SAFETY"}}, "usageMetadata": {usage()}}}')
    found = stream(data)
    assert (found.out, found.error, found.told.stop_reason) == (data, None, "SAFETY")
    assert found.told.reported
    whole = data[6:].strip()
    assert play(machine(WIRE, stream=False), [whole]).out == whole


def test_each_candidate_has_to_end() -> None:
    first = event(content(text("a"), reason="STOP"))
    second = event(content(text("b"), index=1))
    last = event(content(HARM, reason="MAX_TOKENS", counted=DONE, index=1))
    assert stream(first + second).error is not None
    found = stream(first + second + last)
    assert found.error is None
    assert not found.blocked
    assert reasons(found.out) == ["STOP", "MAX_TOKENS"]


@pytest.mark.parametrize("reason", ["MAX_TOKENS", "SAFETY", "MALFORMED_FUNCTION_CALL"])
def test_a_turn_that_ended_otherwise_is_not_continued(reason: str) -> None:
    found = stream(event(content(HARM, reason=reason, counted=DONE)))
    assert not found.blocked
    assert reasons(found.out) == [reason]


@pytest.mark.parametrize(
    "shape",
    [
        b'data: {"error": {"code": 503, "message": "m", "status": "UNAVAILABLE"}}\r\n\r\n',
        b'{"error": {"code": 503, "message": "m", "status": "UNAVAILABLE"}}',
        b'data: {"also": 1, "error": {"code": 503, "message": "m", "status": "UNAVAILABLE"}}\n\n',
        b'{\n  "error": {\n    "code": 503,\n    "message": "m",\n    "status": "UNAVAILABLE"\n  }\n}\n',
    ],
)
def test_an_error_within_an_answer_ends_it_and_drops_what_was_held(shape: bytes) -> None:
    first = event(content(text("a")))
    found = stream(first + shape)
    assert found.told.failed
    head, bare = found.out[: len(first)], found.out[len(first) :]
    assert head == first
    # Bare, as its SDKs want it: as an event, that for JavaScript takes it for an answer without candidates.
    assert bare.startswith(b'{"error":')
    assert json.loads(bare)["error"]["code"] == 503
    held = play(machine(WIRE, stream=True, hold_text=True), [first + shape])
    assert held.out == bare


# --- usage ----------------------------------------------------------------------------------------------


def test_counts_are_cumulative_and_kinds_do_not_overlap() -> None:
    early = json.dumps({"promptTokenCount": 100, "candidatesTokenCount": 3})
    late = json.dumps(
        {
            "promptTokenCount": 100,
            "cachedContentTokenCount": 80,
            "toolUsePromptTokenCount": 5,
            "candidatesTokenCount": 9,
            "thoughtsTokenCount": 30,
            "totalTokenCount": 144,
        }
    )
    data = event(content(text("a"), counted=early)) * 3 + event(content(text(""), reason="STOP", counted=late))
    found = stream(data)
    assert found.told.tokens == Tokens(input=25, cache_read=80, output=39)


@pytest.mark.parametrize(
    ("given", "tokens"),
    [
        ({"promptTokenCount": 5, "cachedContentTokenCount": 50}, Tokens(input=0, cache_read=5)),
        ({"promptTokenCount": 5, "candidatesTokenCount": -4}, Tokens(input=5)),
        ({"promptTokenCount": 5, "candidatesTokenCount": True}, Tokens(input=5)),
    ],
)
def test_nonsense_counts_make_nothing_cheaper(given: dict[str, Any], tokens: Tokens) -> None:
    found = stream(event(content(text("a"), reason="STOP", counted=json.dumps(given))))
    assert found.told.tokens == tokens


# --- held texts -----------------------------------------------------------------------------------------


def test_texts_that_follow_one_another_are_judged_as_one() -> None:
    data = (
        event(content(thought("Hm.")))
        + event(content(text("one ")))
        + event(content(text("two"), LOOK))
        + event(content(text("three")))
        + END
    )
    found = stream(data, hold_text=True)
    assert [held.kind for held in found.held] == ["text", "call", "text"]
    assert [held.arguments for held in found.held if held.kind == "text"] == [b"one two", b"three"]
    assert found.out == data


def test_a_denied_text_leaves_nothing_of_it_wherever_its_pieces_were() -> None:
    data = event(content(text("one "))) + event(content(text("secret"), LOOK)) + event(content(text("x"))) + END
    for ruling, shown in ((Decided(False, "[no]"), ["[no]"]), (Decided(False), [])):

        def rule(held: Held, ruling: Decided = ruling) -> Decided:
            return ruling if b"secret" in held.arguments else by_rule(held)

        found = play(machine(WIRE, stream=True, hold_text=True), [data], rule)
        assert b"secret" not in found.out
        assert b"one" not in found.out
        assert [part["text"] for part in parts(found.out) if part.get("text")] == [*shown, "x"]
        whole = content(text("one "), text("secret"), LOOK, text("x"), reason="STOP", counted=DONE)
        found = play(machine(WIRE, stream=False, hold_text=True), [whole.encode()], rule)
        said = json.loads(found.out)["candidates"][0]["content"]["parts"]
        assert [part["text"] for part in said if "text" in part] == [*shown, "x"]


def test_held_text_is_bounded() -> None:
    answer = machine(WIRE, stream=True, hold_text=True)
    chunk = event(content(text("x" * (1 << 20))))
    with pytest.raises(WireError):  # noqa: PT012
        for _ in range(12):
            answer.feed(chunk)


# --- continuing -----------------------------------------------------------------------------------------


def test_the_model_is_shown_its_own_turn_and_why_its_calls_were_refused() -> None:
    answer = machine(WIRE, stream=True)
    signed = call("harm", '{"path": "b"}', key="call_1", signature="c2ln")
    data = event(content(thought("Hm."))) + event(content(text("I do."))) + event(content(signed, HARM)) + END
    found = play(answer, [data], close=False)
    assert found.blocked
    assert reasons(found.out) == []
    body = answer.again(ASKED)
    assert body["contents"][0] == ASKED["contents"][0]
    assert body["contents"][1] == {
        "role": "model",
        "parts": [json.loads(thought("Hm.")), {"text": "I do."}, json.loads(signed), json.loads(HARM)],
    }
    assert body["contents"][2] == {
        "role": "user",
        "parts": [
            {"functionResponse": {"id": "call_1", "name": "harm", "response": {"error": WHY}}},
            {"functionResponse": {"name": "harm", "response": {"error": WHY}}},
        ],
    }
    rest = play(answer, [event(content(text("Well."))) + END])
    assert [part["text"] for part in parts(found.out + rest.out)] == ["Hm.", "I do.", WHY, WHY, "Well.", ""]
    last = json.loads(rest.out.splitlines()[-2][5:])["usageMetadata"]
    assert last["candidatesTokenCount"] + last["thoughtsTokenCount"] == 2 * OUTPUT_TOKENS
    assert rest.told.tokens.output == OUTPUT_TOKENS


def test_an_answer_that_is_closed_ends_as_the_api_ends_one() -> None:
    found = stream(event(content(HARM, reason="STOP", counted=DONE)))
    assert found.blocked
    assert reasons(found.out) == ["STOP"]
    assert json.loads(found.out.splitlines()[-2][5:])["usageMetadata"]["totalTokenCount"] > 0


@pytest.mark.parametrize(
    "given", ["null", '{"name": "\\ud800"}', '{"name": "a b", "args": 7}', '{"args": {"a": "\\udfff"}}']
)
def test_calls_that_are_none_are_shown_in_a_form_that_can_be_sent(given: str) -> None:
    answer = machine(WIRE, stream=False)
    whole = content(text(b"\\ud800".decode("unicode-escape")), f'{{"functionCall": {given}}}', reason="STOP")
    found = play(answer, [whole.encode()], lambda _: Decided(False, WHY), close=False)
    assert found.blocked
    body = answer.again(ASKED)
    json.dumps(body, ensure_ascii=False).encode("utf-8")
    (result,) = body["contents"][2]["parts"]
    assert result["functionResponse"]["name"]
    assert isinstance(body["contents"][1]["parts"][1]["functionCall"].get("args", {}), dict)


def test_nothing_of_the_request_is_changed_by_continuing() -> None:
    body = {**ASKED, "tools": []}
    found = continued(body, [json.loads(HARM)], [(json.loads(HARM), WHY)])
    assert body == {**ASKED, "tools": []}
    assert found["tools"] == []
    assert len(found["contents"]) == 3


# --- anything -------------------------------------------------------------------------------------------

_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 9)
    | st.sampled_from(["", "a", "harm", "look", "STOP", "model", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "candidates",
                        "content",
                        "parts",
                        "text",
                        "functionCall",
                        "function_call",
                        "name",
                        "args",
                        "role",
                    ),
                    *(
                        "index",
                        "finishReason",
                        "usageMetadata",
                        "promptTokenCount",
                        "thought",
                        "error",
                        "promptFeedback",
                    ),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=16,
)
_PARTS = st.lists(
    st.one_of(st.sampled_from([text("a"), LOOK, HARM, thought("t")]), _VALUES.map(json.dumps)), max_size=4
)


@given(
    chunks=st.lists(
        st.one_of(
            _VALUES.map(json.dumps),
            st.builds(lambda found, end: content(*found, reason="STOP" if end else ""), _PARTS, st.booleans()),
        ),
        max_size=5,
    ),
    size=st.integers(1, 60),
    hold_text=st.booleans(),
    streamed=st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_no_denied_call_leaves_whatever_a_provider_says(
    chunks: list[str], size: int, hold_text: bool, streamed: bool
) -> None:
    data = b"".join(event(item) for item in chunks) if streamed else "".join(chunks[:1]).encode()
    pieces = [data[i : i + size] for i in range(0, len(data), size)] if streamed else [data]
    found = play(machine(WIRE, stream=streamed, hold_text=hold_text), pieces)
    out = found.out
    if found.told.failed:
        return
    shown = parts(out) if streamed else []
    if not streamed and out:
        shown = [
            p for c in json.loads(out).get("candidates") or () for p in (c.get("content") or {}).get("parts") or ()
        ]
    for part in shown:
        assert "function_call" not in part
        if "functionCall" in part:
            assert part["functionCall"]["name"] == "look"
    if found.error is None:
        assert len([held for held in found.held if held.kind == "call"]) == found.scanned.calls


_COUNT = st.integers(0, 2_000_000)


@given(
    counts=st.fixed_dictionaries(
        {"promptTokenCount": _COUNT},
        optional={
            "toolUsePromptTokenCount": _COUNT,
            "candidatesTokenCount": _COUNT,
            "thoughtsTokenCount": _COUNT,
        },
    ),
    cached=st.integers(0, 100),
)
@settings(max_examples=100, deadline=None)
def test_usage_is_read_and_priced_as_genai_prices_does(counts: dict[str, int], cached: int) -> None:
    import genai_prices
    from models_house import table

    counts = {**counts, "cachedContentTokenCount": counts["promptTokenCount"] * cached // 100}
    found = play(
        machine(WIRE, stream=True), [event(content(text("a"), reason="STOP", counted=json.dumps(counts)))]
    ).told.tokens
    response = {"modelVersion": "gemini-2.5-pro", "usageMetadata": counts}
    theirs = genai_prices.extract_usage(response, provider_id="google")
    price = table().find("gemini-2.5-pro", datetime.now(UTC))
    assert price is not None
    assert (found.all_input, found.output) == (theirs.usage.input_tokens, theirs.usage.output_tokens or 0)
    assert found.cache_read == (theirs.usage.cache_read_tokens or 0)
    nano = theirs.calc_price().total_price * NANO
    assert price.cost(found) == math.ceil(nano)
