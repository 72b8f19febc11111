"""The host of gateways when something breaks: its loop, a socket, a start that does not come, an end without end."""

from __future__ import annotations

import asyncio
import queue
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from vestibule.core.errors import DependencyDown
from vestibule.pipeline import hosting
from vestibule.pipeline.hosting import GatewayHost, loopback_listener


async def never(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await asyncio.Event().wait()


@pytest.fixture
def deaths() -> queue.Queue[str]:
    return queue.Queue()


@pytest.fixture
def host(deaths: queue.Queue[str]) -> Iterator[GatewayHost]:
    made = GatewayHost(deaths.put)
    yield made
    made.stop()


def test_a_gateway_that_ends_is_reported_by_name_and_no_other(host: GatewayHost, deaths: queue.Queue[str]) -> None:
    for name in ("context", "models"):
        host.serve(name, never, loopback_listener())
    host.kill("models")
    assert deaths.get(timeout=5) == "models"
    assert deaths.empty()


def test_a_loop_that_breaks_reports_every_gateway(
    host: GatewayHost, deaths: queue.Queue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    for name in ("context", "models"):
        host.serve(name, never, loopback_listener())
    host.loop.call_soon_threadsafe(sys.exit, 3)
    assert {deaths.get(timeout=5), deaths.get(timeout=5)} == {"context", "models"}


def test_a_gateway_whose_socket_is_gone_does_not_start(host: GatewayHost) -> None:
    listener = loopback_listener()
    listener.close()
    with pytest.raises(DependencyDown):
        host.serve("context", never, listener)


def test_a_gateway_that_does_not_start_in_time_is_a_dependency_down(
    host: GatewayHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(hosting, "START_SECONDS", 0.05)
    monkeypatch.setattr(GatewayHost, "_serve", slow)
    with pytest.raises(DependencyDown) as caught:
        host.serve("context", never, loopback_listener())
    assert caught.value.name == "gateway"


def test_stopping_is_bounded_although_a_request_never_ends(host: GatewayHost, deaths: queue.Queue[str]) -> None:
    listener = loopback_listener()
    host.serve("context", never, listener)
    with socket.create_connection(listener.getsockname(), timeout=5) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        started = time.monotonic()
        host.stop()
        assert time.monotonic() - started < hosting.STOP_SECONDS + 2
    assert deaths.empty(), "an end that was asked for is no death"
