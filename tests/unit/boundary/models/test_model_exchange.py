"""One exchange with a provider, through the real gateway: continuation, heartbeats, faults, what is paid and said."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import anthropic
import pytest
from anthropic_wire import ASK, OFFERED, AnthropicWire, block, end, event, start, text, tool
from hold_matrix import FINAL, SCENARIOS, Player, Says, later, open_house, says_json, says_stream
from models_house import MODEL, RUN, House, sdk
from sqlalchemy import select

from vestibule.boundary.models import exchange
from vestibule.boundary.models.call_rules import MARK
from vestibule.boundary.models.hold.anthropic import AnthropicStream
from vestibule.boundary.models.hold.anthropic_whole import AnthropicWhole
from vestibule.boundary.models.serving import MAX_CONTINUED
from vestibule.boundary.models.upstream import UpstreamLimits
from vestibule.boundary.models.wire.sse import Frames
from vestibule.core.errors import DependencyDown
from vestibule.store import tables

WIRE = AnthropicWire()
HELLO = start() + text(0, "Hello ", "there") + end("end_turn")


def shown(scenario: str, *, stream: bool) -> bytes:
    found = (WIRE.stream if stream else WIRE.whole)(SCENARIOS[scenario] if scenario != "final" else FINAL)
    assert found is not None
    return found


def says(data: bytes, *, stream: bool = True, **more: Any) -> Says:
    return says_stream(data, **more) if stream else says_json(data, **more)


def open_at(house: House, player: Player) -> str:
    return open_house(house, WIRE, player)


def holds(house: House) -> list[str]:
    with house.db.read() as connection:
        return list(connection.execute(select(tables.holds.c.state)).scalars())


def outcomes(house: House) -> list[dict[str, Any]]:
    house.drain()
    found = [item for item in house.audit.of("outcome") if item.action == "model.request"]
    return [{**item.details, "result": item.result} for item in found]


def create(house: House, url: str) -> Any:
    return sdk(house.token, url).messages.create(model=MODEL, max_tokens=100, messages=ASK, tools=OFFERED)


def raw(house: House, url: str, *, stream: bool = True, path: str = "/v1/messages", **more: Any) -> socket.socket:
    """A client without an SDK: the request is sent, nothing is read."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)
    body = json.dumps(
        {"model": MODEL, "messages": ASK, "tools": OFFERED, "max_tokens": 100, "stream": stream, **more}
    ).encode()
    head = f"POST {parts.path}{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: {house.token}\r\n"
    connection.sendall(f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def everything(connection: socket.socket) -> bytes:
    found = b""
    with connection:
        while more := connection.recv(1 << 20):
            found += more
    return found


def unchunked(data: bytes) -> bytes:
    """The body of a chunked answer, as far as it came."""
    _, _, rest = data.partition(b"\r\n\r\n")
    found = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        found, rest = found + rest[:length], rest[length + 2 :]
        if not length:
            break
    return found


def kinds(data: bytes) -> list[str]:
    return [json.loads(frame.data)["type"] for frame in Frames().feed(data)]


# --- continuation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_refused_call_is_answered_within_the_same_message_and_each_request_is_governed(
    house: House, stream: bool
) -> None:
    answers = [says(shown(name, stream=stream), stream=stream) for name in ("deny", "final")]
    with Player(*answers) as player:
        reading = WIRE.read(house, open_at(house, player), stream=stream)
        done = outcomes(house)
    assert reading.error is None
    assert reading.calls == ()
    assert reading.stop == "end_turn"
    assert reading.text.startswith("I do it. " + MARK)
    assert reading.text.endswith("I go another way.")
    first, second = player.bodies
    assert second["messages"][:1] == first["messages"]
    assert [turn["role"] for turn in second["messages"][1:]] == ["assistant", "user"]
    (result,) = second["messages"][2]["content"]
    (called,) = [item for item in second["messages"][1]["content"] if item["type"] == "tool_use"]
    assert result["tool_use_id"] == called["id"]
    assert result["is_error"] is True
    assert MARK in result["content"]
    assert {**second, "messages": 0} == {**first, "messages": 0}
    assert holds(house) == ["settled", "settled"]
    assert house.ledger.usage(RUN).output_tokens == 18
    assert reading.output_tokens == 18
    assert [item["result"] for item in done] == ["ok", "ok"]
    assert [item["scanned"]["calls"] for item in done] == [1, 0]
    assert [item["scanned"]["blocks"] for item in done] == [2, 1]
    phases = [(item.phase, item.action) for item in house.audit.events if item.action == "model.request"]
    assert phases == [("intent", "model.request"), ("outcome", "model.request")] * 2


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_continuation_is_bounded_and_then_ends_the_turn(house: House, stream: bool) -> None:
    with Player(says(shown("deny", stream=stream), stream=stream)) as player:
        reading = WIRE.read(house, open_at(house, player), stream=stream)
        done = outcomes(house)
    assert player.requests == len(done) == MAX_CONTINUED + 1
    assert reading.error is None
    assert (reading.stop, reading.calls) == ("end_turn", ())
    assert reading.text.count(MARK) == MAX_CONTINUED + 1
    assert holds(house) == ["settled"] * (MAX_CONTINUED + 1)
    assert house.ledger.usage(RUN).output_tokens == 9 * (MAX_CONTINUED + 1)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_continuation_beyond_the_budget_is_refused_and_says_so(house: House, stream: bool) -> None:
    from vestibule.core.model import Budget

    with Player(says(shown("deny", stream=stream), stream=stream)) as player:
        url = open_at(house, player)
        WIRE.read(house, url, stream=stream)
        each = house.audit.of("intent")[0].details["reserved_nano_usd"]
        asked = player.requests
        house.budget = Budget(nano_usd=house.ledger.usage(RUN).cost_nano_usd + each)
        reading = WIRE.read(house, open_at(house, player), stream=stream)
    assert player.requests <= asked + 2
    assert reading.error is not None
    assert "budget.usd" in str(reading.error)


def test_provider_that_refuses_to_go_on_ends_the_stream_with_an_error(house: House) -> None:
    busy = json.dumps({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}).encode()
    with Player(says(shown("deny", stream=True)), says_json(busy, status="529 X")) as player:
        reading = WIRE.read(house, open_at(house, player), stream=True)
    assert "dependency.provider" in str(reading.error)
    assert reading.text.startswith("I do it. ")
    assert house.ledger.usage(RUN).output_tokens == 9


def test_log_that_breaks_between_two_requests_sends_no_second(house: House) -> None:
    decide = house.decider.decide

    def breaking(request: Any) -> Any:
        if request.action == "model.tool_call":
            house.audit.broken = DependencyDown("audit", "The disk is full.")
        return decide(request)

    house.decider.decide = breaking  # type: ignore[method-assign]
    with Player(says(shown("allow", stream=True))) as player:
        reading = WIRE.read(house, open_at(house, player), stream=True)
    assert "dependency.audit" in str(reading.error)
    assert reading.calls == ()
    assert player.requests == 1


# --- heartbeats ------------------------------------------------------------------------------------------


@pytest.fixture
def quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BEAT_SECONDS", 0.2)


@pytest.mark.usefixtures("quick_beats")
def test_stream_that_is_silent_behind_a_held_call_is_kept_alive_at_frame_borders(house: House) -> None:
    call = tool(1, "look", '{"path": ', '"a.py"}')
    data = start() + text(0, "a") + call + end("tool_use")
    cut = data.index(b'"partial_json"') + 5  # within a frame, within the call
    with Player(says_stream(data[:cut], 1.0, data[cut : cut + 9], 0.5, data[cut + 9 :])) as player:
        found = unchunked(everything(raw(house, open_at(house, player))))
    beat = b'event: ping\ndata: {"type": "ping"}\n\n'
    assert 4 <= found.count(beat) <= 20
    assert found.replace(beat, b"") == data
    assert set(kinds(found)) >= {"ping", "message_stop"}


@pytest.mark.usefixtures("quick_beats")
def test_stream_is_kept_alive_while_the_model_is_asked_again(house: House) -> None:
    slow = says_stream(0.0, 1.0, shown("final", stream=True))
    with Player(says(shown("deny", stream=True)), slow) as player:
        found = kinds(unchunked(everything(raw(house, open_at(house, player)))))
    place = len(found) - 1 - found[::-1].index("ping")
    assert found.count("ping") >= 4
    assert 0 < place < len(found) - 1
    assert found.count("message_start") == found.count("message_stop") == 1


@pytest.mark.usefixtures("quick_beats")
def test_lively_stream_and_whole_answer_get_no_heartbeat(house: House) -> None:
    pieces: list[bytes | float] = []
    for frame in Frames().feed(HELLO):
        pieces += [frame.raw, 0.05]
    with Player(says_stream(*pieces)) as player:
        assert unchunked(everything(raw(house, open_at(house, player)))) == HELLO
    body = shown("text", stream=False)
    with Player(Says((0.6, body), kind="application/json", length=len(body))) as player:
        found = everything(raw(house, open_at(house, player), stream=False))
    assert found.endswith(b"\r\n\r\n" + body)


# --- what was looked at ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_answer_with_a_call_that_nobody_judged_is_an_error(
    house: House, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that forgets to ask: its call is counted, and the answer's end does not pass."""
    if stream:
        monkeypatch.setattr(AnthropicStream, "_stop", lambda self, frame, value: (_let_through(self), None))
    else:
        look = AnthropicWhole._look
        monkeypatch.setattr(AnthropicWhole, "_look", lambda self, found: look(self, found) and None)
    with Player(says(shown("allow_two", stream=stream), stream=stream)) as player:
        reading = WIRE.read(house, open_at(house, player), stream=stream)
        (done,) = outcomes(house)
    assert "dependency.provider" in str(reading.error)
    assert done["result"] == "failed"
    assert "not looked at" in done["fact"]
    assert house.ledger.usage(RUN).output_tokens == 9


def _let_through(machine: Any) -> bytes:
    block, machine._open = machine._open, None
    machine.scanned.calls += 1
    return block.frames()  # type: ignore[no-any-return]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_block_of_an_unknown_kind_is_an_error_and_not_an_unscanned_success(house: House, stream: bool) -> None:
    data = start() + text(0, "a") + block(1, {"type": "something_new", "text": "x"}) + end("end_turn")
    if not stream:
        data = json.dumps(
            {
                "type": "message",
                "content": [{"type": "something_new"}],
                "usage": {"input_tokens": 40, "output_tokens": 9},
            }
        ).encode()
    with Player(says(data, stream=stream)) as player:
        reading = WIRE.read(house, open_at(house, player), stream=stream)
        (done,) = outcomes(house)
    assert "dependency.provider" in str(reading.error)
    assert done["result"] == "failed"
    if not stream:
        # It is no answer to use, and paid as the provider says.
        assert house.ledger.usage(RUN).output_tokens == 9


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("name", ["text", "allow", "mixed"])
def test_outcome_says_blocks_calls_and_bytes(house: House, name: str, stream: bool) -> None:
    scenario = SCENARIOS[name]
    with Player(says(shown(name, stream=stream), stream=stream)) as player:
        WIRE.read(house, open_at(house, player), stream=stream)
        (done,) = outcomes(house)
    assert done["scanned"]["blocks"] == len(scenario.parts)
    assert done["scanned"]["calls"] == len(scenario.calls)
    assert done["scanned"]["denied"] == len(scenario.calls) - len(scenario.released)
    assert done["scanned"]["text_bytes"] >= sum(len(part.text.encode()) for part in scenario.parts)
    assert done["scanned"]["call_bytes"] >= sum(len(part.arguments.encode()) for part in scenario.calls)


# --- counting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "?beta=true"])
def test_count_of_tokens_is_recorded_and_free(house: House, query: str) -> None:
    body = b'{"input_tokens": 2095}'
    with Player(says_json(body)) as player:
        connection = raw(house, open_at(house, player), path=f"/v1/messages/count_tokens{query}")
        assert everything(connection).endswith(body)
        (done,) = outcomes(house)
    assert player.paths == [f"/v1/messages/count_tokens{query}"]
    assert house.ledger.usage(RUN).cost_nano_usd == 0
    assert holds(house) == ["settled"]
    (intent,) = house.audit.of("intent")
    assert intent.details["operation"] == "count"
    assert done["result"] == "ok"
    assert done["usage"]["output_tokens"] == 0


def test_count_that_is_a_message_is_an_error(house: House) -> None:
    with Player(says_json(shown("allow", stream=False))) as player:
        found = everything(raw(house, open_at(house, player), path="/v1/messages/count_tokens"))
    assert b"dependency.provider" in found
    assert b"look" not in found


def test_sdk_counts(house: House) -> None:
    with Player(says_json(b'{"input_tokens": 7}')) as player:
        client = sdk(house.token, open_at(house, player))
        assert client.messages.count_tokens(model=MODEL, messages=ASK).input_tokens == 7
        assert client.beta.messages.count_tokens(model=MODEL, messages=ASK).input_tokens == 7


# --- faults of the provider ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 529])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_error_of_the_provider_passes_with_its_advice_and_costs_nothing(
    house: House, status: int, stream: bool
) -> None:
    body = json.dumps({"type": "error", "error": {"type": "api_error", "message": "later"}}).encode()
    with Player(says_json(body, status=f"{status} X", headers="retry-after: 7\r\n")) as player:
        reading = WIRE.read(house, open_at(house, player), stream=stream)
        (done,) = outcomes(house)
    assert isinstance(reading.error, anthropic.APIStatusError)
    assert reading.error.status_code == status
    assert reading.error.response.headers["retry-after"] == "7"
    assert (done["status"], done["result"]) == (status, "failed")
    assert house.ledger.usage(RUN).cost_nano_usd == 0


@pytest.mark.parametrize(("status", "paid"), [(429, False), (529, True)])
def test_error_that_is_cut_or_endless_is_bounded_and_paid_only_if_it_may_be(
    house: House, status: int, paid: bool
) -> None:
    for answer, fact in (
        (says_json(b'{"type": "err', status=f"{status} X", length=99, then="cut"), "ended"),
        (Says((b" " * (1 << 20), b" " * (1 << 20)), kind="application/json", status=f"{status} X"), "too large"),
    ):
        before = house.ledger.usage(RUN).cost_nano_usd if house.gateway else 0
        with Player(answer) as player:
            reading = WIRE.read(house, open_at(house, player), stream=False)
            assert fact in outcomes(house)[-1]["fact"]
        assert "dependency.provider" in str(reading.error)
        assert (house.ledger.usage(RUN).cost_nano_usd > before) == paid


@pytest.mark.parametrize("then", ["cut", "reset", "wait"])
@pytest.mark.parametrize("sent", ["nothing", "head", "start", "text", "call", "all_but_stop"])
def test_provider_that_dies_anywhere_is_one_error_and_one_payment(house: House, sent: str, then: Any) -> None:
    house.limits = UpstreamLimits(idle=0.3)
    call = tool(1, "look", '{"path": "mark"}', stop=False)
    data = {
        "nothing": b"",
        "head": b"event: mess",
        "start": start(),
        "text": start() + text(0, "Half"),
        "call": start() + text(0, "Half") + call,
        "all_but_stop": start() + text(0, "Half") + end("end_turn").partition(b"event: message_stop")[0],
    }[sent]
    with Player(says_stream(data, 0.05, then=then)) as player:
        found = unchunked(everything(raw(house, open_at(house, player))))
        (done,) = outcomes(house)
    whole = data if sent not in ("head", "call") else data[: data.rfind(b"\n\n") + 2] if sent == "call" else b""
    assert found.startswith(whole.partition(call)[0])
    last = Frames().feed(found)[-1]
    assert last.event == "error"
    assert "dependency.provider" in json.loads(last.data)["error"]["message"]
    assert b"mark" not in found
    assert player.requests == 1
    assert done["result"] == "failed"
    usage = house.ledger.usage(RUN)
    assert usage.requests == 1
    if sent in ("nothing", "head"):
        assert holds(house) == ["charged"]
    elif sent == "all_but_stop":
        assert (usage.input_tokens, usage.output_tokens) == (40, 9)
    else:
        assert (usage.input_tokens, usage.output_tokens) == (40, 100)


@pytest.mark.parametrize(
    "answer",
    [
        says_json(gzip.compress(b"\0" * 10_000_000), headers="content-encoding: gzip\r\n"),
        Says((gzip.compress(b"\0" * 10_000_000),), headers="content-encoding: gzip\r\n"),
        says_json(b"{}", length=50, then="cut"),
        says_json(b'{"type": "message", "content": []}', length=9),
        says_json(b"{}", headers="content-type: application/json\r\ntransfer-encoding: chunked\r\n"),
        Says((b"{}",), kind="text/html"),
    ],
    ids=["gzip", "gzip stream", "short", "long", "two lengths", "page"],
)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_answer_that_lies_about_itself_is_refused_and_charged(house: House, answer: Says, stream: bool) -> None:
    with Player(answer) as player:
        reading = WIRE.read(house, open_at(house, player), stream=stream)
        (done,) = outcomes(house)
    assert "dependency.provider" in str(reading.error)
    assert holds(house) == ["charged"]
    assert done["charged_hold"] is True
    assert player.requests == 1


def test_bytes_after_an_answer_are_no_other_requests_answer(house: House) -> None:
    """A content-length that is too short leaves bytes behind, here a whole forged answer."""
    good, forged = shown("text", stream=False), shown("allow", stream=False)
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(forged)}\r\n\r\n".encode()
    with Player(says_json(good + head + forged, length=len(good)), says_json(good)) as player:
        url = open_at(house, player)
        for _ in range(3):
            assert create(house, url).content[0].type == "text"
            time.sleep(0.05)


def test_connection_to_the_provider_is_kept_after_streams_and_answers(house: House) -> None:
    # The body's end comes a little after its last event.
    with Player(says_stream(HELLO, 0.01)) as player:
        url = open_at(house, player)
        for _ in range(4):
            assert unchunked(everything(raw(house, url))) == HELLO
    assert player.requests == 4
    assert player.connections == 1


def test_stream_whose_body_does_not_end_is_over_with_its_last_event(house: House) -> None:
    house.limits = UpstreamLimits(idle=20)
    with Player(says_stream(HELLO, then="wait")) as player:
        begun = time.monotonic()
        assert unchunked(everything(raw(house, open_at(house, player)))) == HELLO
        assert time.monotonic() - begun < 5
        assert outcomes(house)[0]["result"] == "ok"


# --- memory ----------------------------------------------------------------------------------------------


@pytest.fixture
def memory() -> Iterator[Any]:
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def _megabytes(piece: bytes, count: int) -> tuple[bytes, ...]:
    return (piece * ((1 << 20) // len(piece)),) * count


def test_body_of_100_mb_is_refused_in_bounded_memory(house: House, memory: Any) -> None:
    house.limits = UpstreamLimits(body_bytes=16 << 20)
    for answer in (
        Says(_megabytes(b" ", 100), kind="application/json"),
        Says(_megabytes(b" ", 100), kind="application/json", length=100 << 20),
        Says(_megabytes(b"[],", 15), kind="application/json"),
    ):
        with Player(answer) as player:
            reading = WIRE.read(house, open_at(house, player), stream=False)
        assert "dependency.provider" in str(reading.error)
    assert memory() < 80 << 20


def test_endless_frame_is_refused_in_bounded_memory(house: House, memory: Any) -> None:
    with Player(Says((b"data: ", *_megabytes(b"x", 100)))) as player:
        reading = WIRE.read(house, open_at(house, player), stream=True)
    assert "dependency.provider" in str(reading.error)
    assert memory() < 80 << 20


def test_stream_of_100_mb_flows_in_bounded_memory_to_a_client_that_reads_late(house: House, memory: Any) -> None:
    delta = event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x" * 65_000}})
    piece = delta * 15
    head, tail = block(0, {"type": "text", "text": ""}, stop=False), event({"type": "content_block_stop", "index": 0})
    with Player(says_stream(start() + head, *(piece,) * 100, tail + end("end_turn"))) as player:
        connection = raw(house, open_at(house, player))
        time.sleep(1.0)  # it does not read: the gateway stops reading too, and keeps no more than buffers
        assert memory() < 40 << 20
        size = 0
        with connection:
            while more := connection.recv(1 << 20):
                size += len(more)
    assert size > 97_000_000
    assert memory() < 60 << 20
    assert outcomes(house)[0]["usage"]["output_tokens"] == 9


# --- clients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", range(12))
def test_client_that_leaves_at_any_event_pays_what_the_provider_says(house: House, place: int) -> None:
    data = start() + text(0, "a", "b") + tool(1, "look", '{"path": ', '"a.py"}') + end("tool_use")
    frames = [frame.raw for frame in Frames().feed(data)]
    assert len(frames) == 12
    pieces: list[bytes | float] = [b"".join(frames[:place]), 0.1, *frames[place:]]
    with Player(says_stream(*pieces)) as player:
        connection = raw(house, open_at(house, player))
        connection.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            connection.recv(1 << 16)
        connection.close()
        later(lambda: holds(house) == ["settled"])
        (done,) = outcomes(house)
    usage = house.ledger.usage(RUN)
    assert (usage.requests, usage.input_tokens, usage.output_tokens) == (1, 40, 9)
    assert done["usage"]["output_tokens"] == 9
    assert player.requests == 1


def test_client_that_never_reads_is_as_good_as_gone_and_pays(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    from vestibule.boundary.models.asgi import Client

    monkeypatch.setattr(Client.__init__, "__kwdefaults__", {"write_seconds": 0.3})
    delta = event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x" * 65_000}})
    head, tail = block(0, {"type": "text", "text": ""}, stop=False), event({"type": "content_block_stop", "index": 0})
    answer = says_stream(start() + head, *(delta * 15,) * 20, tail + end("end_turn"))
    with Player(answer) as player, raw(house, open_at(house, player)):
        later(lambda: holds(house) == ["settled"], 20)
        (done,) = outcomes(house)
    assert done["usage"]["output_tokens"] == 9
    assert done["client_left"] is True
