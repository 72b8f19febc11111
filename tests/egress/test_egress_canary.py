"""The proof before the agent starts: it passes over a live guard, and over nothing else."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

import pytest

from tests.egress.world import Authority, Live, World, hello, web
from vestibule.boundary.network.canary import refuses_connection, refuses_name
from vestibule.core.ports import RESOLVER


def test_a_live_guard_refuses_both_and_says_so_in_the_log(world: World) -> None:
    found: list[bool] = []

    def prove(live: Live) -> None:
        with live.sandbox.connect(RESOLVER[1]) as sock:
            found.append(refuses_name(sock))
        with live.sandbox.connect("docs.example.com:443") as sock:
            found.append(refuses_connection(sock))

    with web(hello, world.authority.context) as port:
        done = world.run("true", {"docs.example.com:443": port}, meanwhile=prove)
    assert found == [True, True]
    assert done.decided() == [("docs.example.com:443", "deny", ("network.sni",))]
    assert done.sink.intents("network.resolve")[0].resource.endswith(".invalid")


@pytest.fixture
def answering() -> Callable[[Callable[[socket.socket], None]], socket.socket]:
    """A client of somebody who answers as given."""

    def make(talk: Callable[[socket.socket], None]) -> socket.socket:
        ours, theirs = socket.socketpair()

        def run() -> None:
            with theirs, contextlib.suppress(OSError):
                talk(theirs)

        threading.Thread(target=run, daemon=True).start()
        return ours

    return make


def _known(sock: socket.socket) -> None:
    query = sock.recv(600)
    sock.sendall(len(query[2:]).to_bytes(2, "big") + query[2:4] + b"\x81\x80" + query[6:])


def _other_number(sock: socket.socket) -> None:
    query = sock.recv(600)
    sock.sendall(len(query[2:]).to_bytes(2, "big") + b"\0\0\x81\x83" + query[6:])


@pytest.mark.parametrize(
    "talk",
    [
        _known,
        _other_number,
        lambda sock: None,
        lambda sock: sock.sendall(b"\0\x04abcd"),
        lambda sock: sock.sendall(b"\0"),
    ],
)
def test_no_refusal_of_a_name_is_no_proof(
    answering: Callable[..., socket.socket], talk: Callable[[socket.socket], None]
) -> None:
    assert not refuses_name(answering(talk), seconds=0.5)


def test_a_connection_that_is_answered_or_left_open_is_no_proof(
    answering: Callable[..., socket.socket], tmp_path: object, world: World
) -> None:
    assert isinstance(world.authority, Authority)

    def serve(sock: socket.socket) -> None:
        with world.authority.context.wrap_socket(sock, server_side=True):
            pass

    assert not refuses_connection(answering(serve), seconds=2)
    assert not refuses_connection(answering(lambda sock: threading.Event().wait(2) and None), seconds=0.2)
