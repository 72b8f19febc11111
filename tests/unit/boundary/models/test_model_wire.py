"""The incremental parser of event streams: however the bytes are split, nothing is lost, added or miscounted."""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule.boundary.models.hold.anthropic import AnthropicStream
from vestibule.boundary.models.hold.anthropic_whole import AnthropicWhole
from vestibule.boundary.models.hold.base import Told
from vestibule.boundary.models.wire.anthropic import error_event, is_error, read_usage
from vestibule.boundary.models.wire.sse import (
    MAX_VALUES,
    Frames,
    WireError,
    loads,
    loads_marked,
    loads_once,
    word,
    written,
)
from vestibule.cost.prices import Tokens


def event(value: dict[str, Any], end: bytes = b"\n") -> bytes:
    return b"event: " + value["type"].encode() + end + b"data: " + json.dumps(value).encode() + end + end


START = {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}}
DELTA = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}
STOP = {"type": "message_stop"}
OPEN = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
CLOSE = {"type": "content_block_stop", "index": 0}
TEXT = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a\n\nb usage ü"}}


def stream(end: bytes = b"\n") -> bytes:
    comment = b": comment" + end + end
    return comment + b"".join(event(value, end) for value in (START, OPEN, TEXT, CLOSE, DELTA, STOP))


def feed(parts: list[bytes]) -> tuple[bytes, Told]:
    answer, out = AnthropicStream(), b""
    for part in parts:
        out += answer.feed(part).out
    with contextlib.suppress(WireError):
        out += answer.end().out
    return out, answer.told


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_split_at_every_byte_changes_nothing(end: bytes) -> None:
    data = stream(end)
    for cut in range(len(data) + 1):
        out, seen = feed([data[:cut], data[cut:]])
        assert out == data
        assert seen.tokens == Tokens(input=9, output=5)
        assert (seen.started, seen.reported, seen.stopped) == (True, True, True)
    out, seen = feed([data[i : i + 1] for i in range(len(data))])
    assert out == data
    assert seen.stopped


@given(st.lists(st.integers(0, 400), max_size=12))
def test_any_split_changes_nothing(cuts: list[int]) -> None:
    data = stream(b"\r\n")
    marks = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    out, seen = feed([data[a:b] for a, b in itertools.pairwise(marks)])
    assert out == data
    assert seen.tokens.output == 5


@given(st.binary(max_size=300))
def test_any_bytes_come_out_as_they_went_in(data: bytes) -> None:
    frames = Frames()
    try:
        out = b"".join(frame.raw for frame in frames.feed(data[:100]) + frames.feed(data[100:]))
    except WireError:
        assert any(byte not in b"\r\n" for byte in data)  # a line of no known field
    else:
        assert out + frames.rest == data


@pytest.mark.parametrize("line", [b"\x00data: {}", b" data: {}", b"data", b"dat: {}", b"{}"])
def test_a_line_of_no_known_field_is_an_error(line: bytes) -> None:
    for data in (line + b"\n\n", b"event: ping\n" + line + b"\n\n"):
        with pytest.raises(WireError):
            Frames().feed(data)
    assert len(Frames().feed(b": x\nid: 5\nretry: 3\nevent: ping\ndata: {}\n\n")) == 1


def test_output_is_the_largest_cumulative_report_never_the_sum() -> None:
    _, seen = feed([event(START)] + [event({**DELTA, "usage": {"output_tokens": n}}) for n in (10, 20, 15)])
    assert seen.tokens.output == 20


def test_an_explicit_zero_is_a_zero() -> None:
    _, seen = feed([event(START), event({**DELTA, "usage": {"output_tokens": 0}}), event(STOP)])
    assert seen.reported
    assert seen.tokens.output == 0


def test_the_placeholder_of_message_start_is_no_report() -> None:
    _, seen = feed([event(START), event(STOP)])
    assert not seen.reported


def test_event_name_may_be_missing() -> None:
    _, seen = feed([b"data: " + json.dumps(value).encode() + b"\n\n" for value in (START, DELTA, STOP)])
    assert (seen.started, seen.reported, seen.stopped) == (True, True, True)


def test_later_reports_may_correct_input_upwards() -> None:
    _, seen = feed([event(START), event({**DELTA, "usage": {"output_tokens": 5, "input_tokens": 30}})])
    assert seen.tokens.input == 30


def test_a_frame_without_end_is_bounded() -> None:
    frames = Frames(max_frame=100)
    with pytest.raises(WireError):
        frames.feed(b"data: " + b"x" * 200)


@pytest.mark.parametrize("data", [b"data: nope\n\n", b"data: [1]\n\n", b"data: " + b"[" * 5000 + b"\n\n"])
def test_events_that_are_no_objects_are_errors(data: bytes) -> None:
    with pytest.raises(WireError):
        feed([data])


def test_a_byte_order_mark_hides_no_event() -> None:
    # A client takes it away and reads an event, where a reader that leaves it finds a line of an unknown field.
    for data in (b"\xef\xbb\xbf" + event(OPEN), b"\xef\xbb\xbfdata: {}\n\n"):
        for cut in range(len(data)):
            with pytest.raises(WireError):
                feed([data[:cut], data[cut:]])


@pytest.mark.parametrize(
    "data", [b'{"a": "\xff"}', '{"a": 1}'.encode("utf-16"), b"\xef\xbb\xbf{}", b'{"a": 1} {}', b"nope", b"[1]"]
)
def test_json_of_providers_is_utf8_and_one_object(data: bytes) -> None:
    for read in (loads, loads_once, loads_marked):
        with pytest.raises(WireError):
            read(data)


def test_an_event_with_more_values_than_memory_is_for_is_an_error() -> None:
    for read in (loads, loads_once, loads_marked):
        with pytest.raises(WireError, match="too many"):
            read(b'{"a": [' + b"[]," * MAX_VALUES + b"[]]}")


def test_a_key_that_stands_twice_is_no_answer_or_marked() -> None:
    for data in (b'{"a": 1, "a": 2}', b'{"b": [{"a": 1, "\\u0061": 2}]}'):
        assert loads(data)
        with pytest.raises(WireError, match="twice"):
            loads_once(data)
    assert loads_once(b'{"a": {"a": 1}}') == {"a": {"a": 1}}


def test_half_a_surrogate_pair_is_written_as_it_came() -> None:
    (frame,) = Frames().feed(written({"a": "\ud83d"}))
    assert frame.data == b'{"a":"\\ud83d"}'


def test_cache_kinds_are_told_apart() -> None:
    usage = {
        "input_tokens": 1,
        "output_tokens": 2,
        "cache_read_input_tokens": 3,
        "cache_creation_input_tokens": 10,
        "cache_creation": {"ephemeral_5m_input_tokens": 6, "ephemeral_1h_input_tokens": 4},
    }
    assert read_usage(usage) == Tokens(input=1, cache_read=3, cache_write_5m=6, cache_write_1h=4, output=2)
    assert read_usage({"cache_creation_input_tokens": 7}).cache_write_5m == 7


@pytest.mark.parametrize("value", [-1, True, 1.5, "9", None, [], 10**30])
def test_nonsense_counts_are_not_believed(value: Any) -> None:
    tokens = read_usage({"input_tokens": value, "output_tokens": value})
    assert all(0 <= count <= 10**9 for count in tokens)
    if not isinstance(value, int) or isinstance(value, bool):
        assert tokens == Tokens()


def test_message_without_usage_reports_none() -> None:
    for usage in (None, {"input_tokens": 3}):
        answer = AnthropicWhole()
        answer.feed(json.dumps({"type": "message", "content": [], "usage": usage}).encode())
        assert not answer.told.reported


def test_only_the_apis_error_object_counts_as_its_error() -> None:
    assert is_error(b'{"type": "error", "error": {"type": "overloaded_error"}}')
    assert not is_error(b"<html>")
    assert not is_error(b'{"error": "x"}')


def test_error_event_is_one_whole_frame() -> None:
    (frame,) = Frames().feed(error_event("api_error", "a\n\nb", {"rule": "x"}))
    assert json.loads(frame.data)["error"]["message"] == "a\n\nb"


@pytest.mark.parametrize(("value", "expected"), [("end_turn", "end_turn"), ("END\n", ""), (5, ""), ("x" * 99, "")])
def test_only_enumeration_words_of_the_provider_are_kept(value: Any, expected: str) -> None:
    assert word(value) == expected
