"""Streams that official clients read otherwise than their bytes look: no call reaches a program undecided."""

from __future__ import annotations

import json

import pytest
from anthropic_wire import AnthropicWire, end, event, start, text, tool
from hold_matrix import Player, open_house, says_stream
from models_house import House

from vestibule.boundary.models.hold.anthropic import AnthropicStream
from vestibule.boundary.models.wire.sse import Frames, WireError

WIRE = AnthropicWire()


def hidden_in_a_ping(blank: bytes) -> bytes:
    """A call, and the end of its turn, as the value of a ping; for readers of blank lines of mixed line ends, events
    of their own between two pings."""
    inner = tool(0, "harm", '{"path": "secret"}') + end("tool_use")
    values = inner.removesuffix(b"\n\n").split(b"\n\n")
    data = b'event: ping\ndata: {"type": "ping", "x": [' + blank
    data += (blank + b"event: ping\ndata: ," + blank).join(values)
    return data + blank + b"event: ping\ndata: ]}\n\n"


@pytest.mark.parametrize("blank", [b"\n\r", b"\r\n\r"], ids=["lf-cr", "crlf-cr"])
def test_a_blank_line_of_mixed_ends_hides_no_call_from_the_hold(house: House, blank: bytes) -> None:
    data = start() + hidden_in_a_ping(blank) + text(0, "fine") + end("end_turn")
    with Player(says_stream(data)) as player:
        reading = WIRE.read(house, open_house(house, WIRE, player), stream=True)
    assert not reading.calls
    assert not [item for item in house.decider.asked if item.action == "model.tool_call"]


@pytest.mark.parametrize("blank", [b"\n\r", b"\r\n\r", b"\n\n\r", b"\r\n\n", b"\n\n", b"\r\r"])
def test_a_frame_is_one_event_for_every_reader(blank: bytes) -> None:
    data = b'data: {"a":' + blank + b"data: 1}\n\n"
    try:
        found = Frames().feed(data)
    except WireError:
        return
    assert [frame.data for frame in found] == [b'{"a":', b"1}"]


def unnamed(data: bytes) -> bytes:
    return data.partition(b"\n")[2]


def call_in_pieces(*pieces: tuple[str, bool]) -> bytes:
    """A call whose pieces are events with a name, or without."""
    data = event(
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "tool_use", "id": "toolu_0", "name": "look", "input": {}},
        }
    )
    for piece, named in pieces:
        delta = event(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "input_json_delta", "partial_json": piece},
            }
        )
        data += delta if named else unnamed(delta)
    return data + event({"type": "content_block_stop", "index": 0})


def test_every_reader_puts_the_same_pieces_together(house: House) -> None:
    """The official clients pass over events without a name."""
    pieces = (('{"more": [', False), ('{"path": "secret"}', True), ('], "path": "open"}', False))
    whole = json.loads("".join(piece for piece, _ in pieces))
    data = start() + call_in_pieces(*pieces) + end("tool_use")
    with Player(says_stream(data)) as player:
        reading = WIRE.read(house, open_house(house, WIRE, player), stream=True)
    assert reading.error is None
    assert [found for _, found in reading.calls] == [whole], reading


@pytest.mark.parametrize("name", [b"event:  ping", b"event: ping ", b"event: ping\t", b"event:\tping"])
def test_a_name_with_more_space_is_another_name(name: bytes) -> None:
    for more in (b"", b"\r"):
        with pytest.raises(WireError, match="differ"):
            AnthropicStream().feed(start() + name + more + b'\ndata: {"type": "ping"}' + more + b"\n" + more + b"\n\n")


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_json_for_some_readers_is_no_event(word: str) -> None:
    value = b'event: ping\ndata: {"type": "ping", "x": ' + word.encode() + b"}\n\n"
    with pytest.raises(WireError, match="no JSON"):
        AnthropicStream().feed(start() + value)
