"""Break each dependency of the model gateway, and the provider in every way it can lie: refused, counted, said."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

import anthropic
import models_house
import pytest
from models_house import MODEL, RUN, House
from sqlalchemy import select, text

from vestibule.boundary.models.upstream import UpstreamLimits
from vestibule.config.parts import KeySource
from vestibule.core.errors import DependencyDown
from vestibule.cost.prices import PriceBook
from vestibule.identity.keys import read_key
from vestibule.store import tables

HELLO = "version: 1\nturns: [{text: Hello, usage: {input_tokens: 5, output_tokens: 6}}]\n"
ASK = [{"role": "user", "content": "hi"}]


def sdk(house: House, url: str) -> anthropic.Anthropic:
    return models_house.sdk(house.token, url)  # type: ignore[no-any-return]


def create(house: House, url: str, **more: Any) -> Any:
    return sdk(house, url).messages.create(model=MODEL, max_tokens=100, messages=ASK, **more)  # type: ignore[call-overload]


def refused(house: House, url: str, rule: str) -> None:
    with pytest.raises(anthropic.APIStatusError) as caught:
        create(house, url)
    body = caught.value.body
    assert isinstance(body, dict)
    assert body["vestibule"]["rule"] == rule
    assert rule in body["error"]["message"]


def holds(house: House) -> list[str]:
    with house.db.read() as connection:
        return list(connection.execute(select(tables.holds.c.state)).scalars())


# --- our own dependencies -------------------------------------------------------------------------------


def test_audit_failing_means_no_dispatch_and_no_hold(house: House) -> None:
    provider = house.scripted(HELLO)
    url = house.open(provider)
    house.audit.broken = DependencyDown("audit", "The disk is full.")
    refused(house, url, "dependency.audit")
    house.audit.broken = RuntimeError("anything else")
    refused(house, url, "dependency.audit")
    assert provider.requests == 0
    assert holds(house) == ["released", "released"]


def test_decider_that_raises_means_no_dispatch_and_says_policy(house: House) -> None:
    provider = house.scripted(HELLO)
    url = house.open(provider)
    house.decider.broken = RuntimeError("engine crashed")
    refused(house, url, "dependency.policy")
    assert provider.requests == 0
    (event,) = house.audit.events
    assert event.reasons == ("dependency.policy",)
    assert holds(house) == ["released"]


def test_ledger_without_its_tables_means_no_dispatch(house: House) -> None:
    provider = house.scripted(HELLO)
    url = house.open(provider)
    with house.db.write() as connection:
        connection.execute(text("DROP TABLE holds"))
    refused(house, url, "dependency.database")
    assert provider.requests == 0
    (event,) = house.audit.events
    assert event.reasons[0] == "dependency.database"


def test_locked_ledger_means_no_dispatch(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    provider = house.scripted(HELLO)
    url = house.open(provider)
    with house.db.engine.connect() as connection:
        connection.execute(text("PRAGMA busy_timeout=50"))
    other = sqlite3.connect(house.folder / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        refused(house, url, "dependency.database")
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert provider.requests == 0


def test_run_without_opened_ceilings_is_refused(house: House) -> None:
    provider = house.scripted(HELLO)
    url = house.open(provider)
    with house.db.write() as connection:
        connection.execute(tables.budgets.delete())
    refused(house, url, "dependency.budget")
    assert provider.requests == 0


def test_missing_provider_key_is_said_plainly_and_nothing_leaves(house: House) -> None:
    provider = house.scripted(HELLO)
    house.key = lambda: read_key(KeySource(env="MODEL_KEY_FOR_TESTS"), {})
    url = house.open(provider)
    refused(house, url, "dependency.provider_key")
    assert provider.requests == 0
    assert holds(house) == []
    assert "MODEL_KEY_FOR_TESTS" in house.gateway.refusals[-1].next.person  # type: ignore[union-attr]


def test_key_is_read_at_request_time(house: House) -> None:
    environ: dict[str, str] = {}
    house.key = lambda: read_key(KeySource(env="MODEL_KEY_FOR_TESTS"), environ)
    url = house.open(house.scripted(HELLO))
    refused(house, url, "dependency.provider_key")
    environ["MODEL_KEY_FOR_TESTS"] = house.provider_key
    assert create(house, url).stop_reason == "end_turn"


def test_missing_price_table_refuses(house: House) -> None:
    def no_table() -> dict[str, Any]:
        raise ImportError("genai_prices")

    house.prices = PriceBook(None, compiler=no_table)
    provider = house.scripted(HELLO)
    url = house.open(provider)
    refused(house, url, "dependency.prices")
    assert provider.requests == 0


def test_local_failures_ask_the_program_not_to_retry(house: House) -> None:
    url = house.open(house.scripted(HELLO))
    house.audit.broken = DependencyDown("audit", "The disk is full.")
    with pytest.raises(anthropic.APIStatusError) as caught:
        create(house, url)
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_settling_that_fails_keeps_the_hold_and_the_paid_answer(house: House) -> None:
    url = house.open(house.scripted(HELLO))

    def locked(*_: Any) -> Future[None]:
        future: Future[None] = Future()
        future.set_exception(DependencyDown("database", "locked"))
        return future

    house.ledger.submit_settle = locked  # type: ignore[method-assign]
    assert create(house, url).content[0].text == "Hello"
    assert holds(house) == ["held"]
    found = outcome(house)
    assert found["result"] == "failed"
    assert found["settle_error"] == "dependency.database"


# --- the provider ---------------------------------------------------------------------------------------


class RawProvider:
    """A TCP server that says exactly what it is told to, then closes (or waits)."""

    def __init__(self, *parts: bytes, wait: bool = False) -> None:
        self._parts = parts
        self._wait = wait
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.requests = 0
        self.done = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._sock.getsockname()[1]}"

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._sock.accept()
            except OSError:
                return
            with connection:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65536)
                head, _, rest = data.partition(b"\r\n\r\n")
                length = next(
                    int(x.split(b":")[1]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length")
                )
                while len(rest) < length:
                    rest += connection.recv(65536)
                self.requests += 1
                try:
                    for part in self._parts:
                        connection.sendall(part)
                    if self._wait:
                        self.done.wait(20)
                except OSError:
                    continue

    def close(self) -> None:
        self.done.set()
        self._sock.close()


def http(
    body: bytes, *, status: str = "200 OK", kind: str = "application/json", more: str = "", length: int = -1
) -> bytes:
    size = len(body) if length < 0 else length
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {size}\r\n{more}\r\n".encode() + body


def event(value: dict[str, Any]) -> bytes:
    return f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode()


SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
START = event(
    {
        "type": "message_start",
        "message": {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": MODEL,
            "content": [],
            "usage": {"input_tokens": 40, "output_tokens": 1},
        },
    }
)
BLOCK = event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}) + event(
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Half"}}
)
END = (
    event({"type": "content_block_stop", "index": 0})
    + event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}})
    + event({"type": "message_stop"})
)
GOOD = json.dumps(
    {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": "x"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 4},
    }
).encode()


def behind(house: House, *parts: bytes, wait: bool = False, check: Callable[[str, RawProvider], None]) -> None:
    provider = RawProvider(*parts, wait=wait)
    try:
        check(house.open(provider.url), provider)
    finally:
        provider.close()


def outcome(house: House) -> dict[str, Any]:
    _wait(lambda: len(house.audit.of("outcome")) > 0)  # it follows the answer
    (found,) = house.audit.of("outcome")
    return {**found.details, "result": found.result}


def test_provider_down_is_an_error_without_cost(house: House) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    sock.close()
    url = house.open(f"http://127.0.0.1:{port}")
    refused(house, url, "dependency.provider")
    assert holds(house) == ["released"]
    found = outcome(house)
    assert found["result"] == "failed"
    assert found["usage"]["cost_nano_usd"] == 0


def test_provider_that_stays_down_asks_programs_to_stop_repeating(house: House) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    sock.close()
    url = house.open(f"http://127.0.0.1:{port}")
    seen = []
    for _ in range(3):
        with pytest.raises(anthropic.APIStatusError) as caught:
            create(house, url)
        seen.append(caught.value.response.headers.get("x-should-retry"))
    assert seen == [None, None, "false"]


@pytest.mark.parametrize(("status", "kind"), [(429, "rate_limit_error"), (500, "api_error"), (529, "overloaded_error")])
def test_provider_errors_pass_with_status_and_retry_after_and_cost_nothing(
    house: House, status: int, kind: str
) -> None:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": "later"}}).encode()

    def check(url: str, _: RawProvider) -> None:
        with pytest.raises(anthropic.APIStatusError) as caught:
            create(house, url)
        assert caught.value.status_code == status
        assert caught.value.response.headers["retry-after"] == "7"
        assert caught.value.response.content == body
        assert "anthropic-organization-id" not in caught.value.response.headers

    more = "retry-after: 7\r\nanthropic-organization-id: secret\r\n"
    behind(house, http(body, status=f"{status} X", more=more), check=check)
    assert holds(house) == ["settled"]
    assert house.ledger.usage(RUN).cost_nano_usd == 0
    assert outcome(house)["status"] == status


def test_content_length_that_lies_is_an_error_and_charges_the_hold(house: House) -> None:
    behind(house, http(GOOD, length=len(GOOD) + 50), check=lambda url, _: refused(house, url, "dependency.provider"))
    assert holds(house) == ["charged"]
    assert outcome(house)["charged_hold"] is True
    assert house.ledger.usage(RUN).cost_nano_usd > 0


def test_silent_provider_times_out(house: House) -> None:
    house.limits = UpstreamLimits(idle=0.2)
    behind(house, wait=True, check=lambda url, _: refused(house, url, "dependency.provider"))
    assert holds(house) == ["charged"]


def test_redirect_is_not_followed(house: House) -> None:
    other = RawProvider(http(GOOD))
    try:
        behind(
            house,
            http(b"", status="307 Temporary Redirect", more=f"location: {other.url}/\r\n"),
            check=lambda url, _: refused(house, url, "dependency.provider"),
        )
        assert other.requests == 0
    finally:
        other.close()


def test_compressed_answer_is_refused_unread(house: House) -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    behind(
        house,
        http(bomb, more="content-encoding: gzip\r\n"),
        check=lambda url, _: refused(house, url, "dependency.provider"),
    )


def test_oversized_answer_is_bounded(house: House) -> None:
    house.limits = UpstreamLimits(body_bytes=10_000)
    behind(house, http(b" " * 20_000), check=lambda url, _: refused(house, url, "dependency.provider"))
    assert holds(house) == ["charged"]


def test_answer_without_usage_charges_the_hold(house: House) -> None:
    body = json.dumps({**json.loads(GOOD), "usage": {}}).encode()

    def check(url: str, _: RawProvider) -> None:
        sdk(house, url).messages.with_raw_response.create(model=MODEL, max_tokens=100, messages=ASK)  # type: ignore[arg-type]

    behind(house, http(body), check=check)
    assert holds(house) == ["charged"]


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"", b"\xff"])
def test_answer_that_is_no_message_is_refused(house: House, body: bytes) -> None:
    behind(house, http(body), check=lambda url, _: refused(house, url, "dependency.provider"))


def test_page_of_a_middlebox_is_refused(house: House) -> None:
    behind(house, http(b"<html>", kind="text/html"), check=lambda url, _: refused(house, url, "dependency.provider"))


def stream(house: House, url: str) -> tuple[str, Any]:
    words = ""
    try:
        with sdk(house, url).messages.stream(model=MODEL, max_tokens=100, messages=ASK) as found:  # type: ignore[arg-type]
            for word in found.text_stream:
                words += word
    except anthropic.APIError as error:
        return words, error
    return words, None


def test_stream_passes_byte_for_byte(house: House) -> None:
    odd = b": a comment\n\n" + START.replace(b"\n", b"\r\n") + b'event: ping\ndata: {"type": "ping"}\n\n' + BLOCK + END

    def check(url: str, _: RawProvider) -> None:
        response = sdk(house, url).messages.with_raw_response.create(
            model=MODEL,
            max_tokens=100,
            messages=ASK,  # type: ignore[arg-type]
            stream=True,
        )
        assert response.http_response.read() == odd

    behind(house, SSE + odd, check=check)
    assert house.ledger.usage(RUN).output_tokens == 9


def test_stream_that_dies_ends_with_an_error_event_and_charges_the_whole_output(house: House) -> None:
    def check(url: str, _: RawProvider) -> None:
        words, error = stream(house, url)
        assert words == "Half"
        assert "dependency.provider" in str(error)

    behind(house, SSE + START + BLOCK + b'event: content_block_delta\ndata: {"type": "conte', check=check)
    usage = house.ledger.usage(RUN)
    assert (usage.input_tokens, usage.output_tokens) == (40, 100)
    assert outcome(house)["error"] == "dependency.provider"


def test_half_frame_never_reaches_the_client(house: House) -> None:
    def check(url: str, _: RawProvider) -> None:
        response = sdk(house, url).messages.with_raw_response.create(
            model=MODEL,
            max_tokens=100,
            messages=ASK,  # type: ignore[arg-type]
            stream=True,
        )
        data = response.http_response.read()
        assert data.startswith(START + BLOCK + b"event: error\n")

    behind(house, SSE + START + BLOCK + b"event: content_block_delta\ndata: {", check=check)


def test_stream_that_stalls_ends_with_an_error_event(house: House) -> None:
    house.limits = UpstreamLimits(idle=0.3)

    def check(url: str, _: RawProvider) -> None:
        words, error = stream(house, url)
        assert words == "Half"
        assert error is not None

    behind(house, SSE + START + BLOCK, wait=True, check=check)


def test_error_event_of_the_provider_passes_and_the_outcome_is_failed(house: House) -> None:
    overloaded = event({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}})

    def check(url: str, _: RawProvider) -> None:
        _, error = stream(house, url)
        assert "overloaded" in str(error)

    behind(house, SSE + START + overloaded, check=check)
    assert outcome(house)["result"] == "failed"


def test_stream_of_garbage_is_an_error(house: House) -> None:
    def check(url: str, _: RawProvider) -> None:
        _, error = stream(house, url)
        assert error is not None

    behind(house, SSE + b"data: no json\n\n", check=check)
    assert holds(house) == ["charged"]


def test_endless_frame_is_bounded(house: House) -> None:
    def check(url: str, _: RawProvider) -> None:
        _, error = stream(house, url)
        assert error is not None

    behind(house, SSE + b"data: " + b"x" * (9 << 20), check=check)


def test_client_that_leaves_does_not_escape_its_bill(house: House) -> None:
    gate = threading.Event()
    left = threading.Event()

    async def slow(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        await receive()
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": START + BLOCK, "more_body": True})
        await asyncio.to_thread(gate.wait, 10)
        await send({"type": "http.response.body", "body": END})

    url = house.open(slow)
    with sdk(house, url).messages.stream(model=MODEL, max_tokens=100, messages=ASK) as found:  # type: ignore[arg-type]
        next(iter(found.text_stream))
    left.set()
    gate.set()
    _wait(lambda: holds(house) == ["settled"])
    usage = house.ledger.usage(RUN)
    assert (usage.input_tokens, usage.output_tokens) == (40, 9)
    _wait(lambda: len(house.audit.of("outcome")) == 1)


def test_client_that_leaves_does_not_hold_the_gateway_for_ever(house: House) -> None:
    house.limits = UpstreamLimits(drain=0.2, idle=20)
    stop = threading.Event()

    async def endless(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        await receive()
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": START + BLOCK, "more_body": True})
        while not stop.is_set():
            await send({"type": "http.response.body", "body": b": still here\n\n", "more_body": True})
            await asyncio.sleep(0.02)

    url = house.open(endless)
    with sdk(house, url).messages.stream(model=MODEL, max_tokens=100, messages=ASK) as found:  # type: ignore[arg-type]
        next(iter(found.text_stream))
    _wait(lambda: holds(house) == ["settled"])
    stop.set()
    assert house.ledger.usage(RUN).output_tokens == 100


# --- bodies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "rule"),
    [
        (b'{"model":"claude-sonnet-5","model":"claude-opus-5","max_tokens":1,"messages":[]}', 400, "model.field.json"),
        (b"{", 400, "model.field.json"),
        (b"[]", 400, "model.field.json"),
        (b"\xff\xfe", 400, "model.field.json"),
        (b'{"a":' * 2000, 400, "model.field.json"),
        (b"[" * 200 + b"]" * 200, 400, "model.field.json"),
        (b'{"temperature": NaN}', 400, "model.field.json"),
        (b"{}", 403, "model.field.model"),
    ],
)
def test_bad_bodies_are_refused_recorded_and_cost_nothing(house: House, body: bytes, status: int, rule: str) -> None:
    provider = house.scripted(HELLO)
    url = house.open(provider)
    found_status, found = _post(house, url, body)
    assert found_status == status
    assert found["vestibule"]["rule"] == rule
    assert provider.requests == 0
    assert holds(house) == []
    assert [event.phase for event in house.audit.events] == ["intent"]


def test_body_beyond_32_mib_is_refused_without_being_read(house: House) -> None:
    url = house.open(house.scripted(HELLO))
    status, found = _post(house, url, b"", length=100 << 20)
    assert status == 413
    assert found["vestibule"]["rule"] == "model.field.size"


def _post(house: House, url: str, body: bytes, *, length: int = -1) -> tuple[int, Any]:
    import http.client
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    headers = {
        "x-api-key": house.token,
        "content-type": "application/json",
        "content-length": str(len(body) if length < 0 else length),
    }
    connection.request("POST", parts.path + "/v1/messages", body, headers)
    response = connection.getresponse()
    found = json.loads(response.read())
    connection.close()
    return response.status, found


def _wait(condition: Callable[[], bool], seconds: float = 10) -> None:
    import time

    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come about"
        threading.Event().wait(0.01)
