"""The real egress gateway behind the battery's sandboxes, with a fake outside to dial."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from tests.attacks.walls.outside import Outside
from tests.attacks.walls.stage import ADDRESSES
from vestibule.boundary.network import outside as way
from vestibule.boundary.network.gateway import EgressGateway
from vestibule.boundary.network.limits import NetworkLimits
from vestibule.boundary.network.outside import Outside as Way
from vestibule.boundary.network.rules import NetworkPlan, plan
from vestibule.core.crossing import Actor, Crossing
from vestibule.core.labels import Confidentiality, Integrity, Label, RunLabel
from vestibule.core.model import Event, Receipt
from vestibule.core.ports import RunningSandbox
from vestibule.policy import PolicySet

GATEWAY = "context.vestibule.internal"
HOSTS = (
    "docs.example.com:443",
    "docs.example.com:80",
    "inner.example.com:443",
    "rebind.example.com:443",
    "bulk.example.com:443",
)
REFUSED_HOSTS = ("*.example.com:443", "11.22.33.55:443", "[::1]:443", "docs.example.com.:443", "denied.example.com")
"""What no role can name; asked for in every plan of the battery."""


class Log:
    """An audit log that accepts everything."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def submit(self, event: Event) -> Future[Receipt]:
        self.events.append(event)
        done: Future[Receipt] = Future()
        done.set_result(Receipt(seq=len(self.events), time="t"))
        return done


class Egress:
    """Plans and gateways, one loop in a thread for each that is served."""

    def __init__(self, outside: Outside) -> None:
        self.outside = outside
        self.plan: NetworkPlan = plan((GATEWAY,), hosts=(*HOSTS, *REFUSED_HOSTS))
        self.log = Log()
        self.policy = PolicySet.load()
        # The fake outside is on this machine, so only what is loopback anywhere counts as this machine's own here.
        way.is_own = lambda address: address.startswith("127.") or address == "::1"

    async def lookup(self, host: str, port: int) -> list[str]:
        """The fake outside's names; every question is written down."""
        del port
        before = self.outside.lookups.count(host)
        self.outside.lookups.append(host)
        if host == "inner.example.com" or (host == "rebind.example.com" and before):
            return ["127.0.0.1"]
        if host == "other.example.com":
            return [ADDRESSES["other4"]]
        if host in ("docs.example.com", "bulk.example.com", "rebind.example.com"):
            return [ADDRESSES["allowed4"]]
        raise OSError("no such name")

    def gateway(self, hosts: tuple[str, ...] | None = None, *, secret: bool = False) -> EgressGateway:
        confidentiality = Confidentiality.SECRET if secret else Confidentiality.INTERNAL
        crossing = Crossing(
            decider=self.policy,
            audit=self.log,
            labels=RunLabel(Label(integrity=Integrity.MEMBER, confidentiality=confidentiality)),
        )
        return EgressGateway(
            crossing=crossing,
            actor=Actor("r0walls", "spiffe://vestibule.local/run/r0walls/agent/attacks", "agent"),
            plan=plan((), hosts=hosts) if hosts else self.plan,
            outside=Way(lookup=self.lookup),
            limits=NetworkLimits(hello_seconds=1.5, dial_seconds=2, idle_seconds=5, sent_bytes=1 << 20),
        )

    @contextlib.contextmanager
    def serving(
        self, sandbox: RunningSandbox, hosts: tuple[str, ...] | None = None, *, secret: bool = False
    ) -> Iterator[EgressGateway]:
        """The gateway of a sandbox, served until the block ends."""
        gateway = self.gateway(hosts, secret=secret)
        gateway.begin()
        loop = asyncio.new_event_loop()
        task: asyncio.Task[Any] | None = None
        started = threading.Event()

        def work() -> None:
            nonlocal task
            asyncio.set_event_loop(loop)
            task = loop.create_task(gateway.serve(dict(sandbox.listeners)))
            loop.call_soon(started.set)
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
            loop.close()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        started.wait(5)
        front = sandbox.listeners[GATEWAY].dup() if GATEWAY in sandbox.listeners else None
        if front is not None:
            threading.Thread(target=_answer, args=(front,), daemon=True).start()
        try:
            yield gateway
        finally:
            if front is not None:
                with contextlib.suppress(OSError):
                    front.shutdown(socket.SHUT_RDWR)  # wakes who waits there
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(lambda: task and task.cancel())
            thread.join(5)
            if thread.is_alive():
                raise RuntimeError("the egress gateway does not end")


def _answer(listener: socket.socket) -> None:
    """The place of a gateway for HTTP: answers everything with one line."""
    with contextlib.closing(listener), contextlib.suppress(OSError):
        listener.settimeout(120)
        while True:
            client, _ = listener.accept()
            with client, contextlib.suppress(OSError):
                client.settimeout(1)
                client.recv(65536)
                client.sendall(
                    b"HTTP/1.1 404 Not Found\r\nContent-Length: 15\r\nConnection: close\r\n\r\ngateway answers"
                )
