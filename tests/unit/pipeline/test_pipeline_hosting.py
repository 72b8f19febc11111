"""Gateways are served until they are told to end, and an end that nobody asked for is reported."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from vestibule.pipeline.hosting import GatewayHost, loopback_listener


class App:
    """Answers at once; below /slow never, and notes how such a request ended."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.ended: list[str] = []
        self.scopes: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(dict(scope))
        if scope["path"] == "/slow":
            self.entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.ended.append("cancelled")
                raise
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


class Hosted:
    """A host with one gateway."""

    def __init__(self) -> None:
        self.app, self.died = App(), threading.Event()
        self.host = GatewayHost(lambda _: self.died.set())
        listener = loopback_listener()
        self.port = int(listener.getsockname()[1])
        self.host.serve("context", self.app, listener)

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)


@pytest.fixture
def hosted() -> Iterator[Hosted]:
    found = Hosted()
    yield found
    found.host.stop()


def test_a_gateway_answers_and_adds_no_headers_of_its_own(hosted: Hosted) -> None:
    connection = hosted.connection()
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"ok")
    assert {name.lower() for name, _ in answer.getheaders()} == {"content-length"}


def test_a_gateway_ends_at_once_although_clients_stay_connected(hosted: Hosted) -> None:
    idle, slow = hosted.connection(), hosted.connection()
    idle.request("GET", "/")
    assert idle.getresponse().read() == b"ok"
    slow.request("GET", "/slow")
    assert hosted.app.entered.wait(10)
    began = time.perf_counter()
    hosted.host.stop()
    took = time.perf_counter() - began
    assert hosted.app.ended == ["cancelled"]
    assert not hosted.died.is_set()
    # uvicorn's own end takes two to three tenths of a second; this is some milliseconds on a busy machine too.
    assert took < 1.0
    with contextlib.suppress(ConnectionError, http.client.HTTPException):
        assert slow.getresponse().status == 500
    with pytest.raises(ConnectionError):
        hosted.connection().connect()


def test_what_a_client_says_of_a_proxy_is_not_believed(hosted: Hosted) -> None:
    connection = hosted.connection()
    connection.request("GET", "/", headers={"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"})
    connection.getresponse().read()
    assert hosted.app.scopes[-1]["client"][0] == "127.0.0.1"
    assert hosted.app.scopes[-1]["scheme"] == "http"


def test_an_end_that_nobody_asked_for_is_reported(hosted: Hosted) -> None:
    hosted.host.kill("context")
    assert hosted.died.wait(10)
    with pytest.raises(ConnectionError):
        hosted.connection().connect()


def test_stopping_twice_is_stopping_once(hosted: Hosted) -> None:
    hosted.host.stop()
    hosted.host.stop()
    assert not hosted.died.is_set()
