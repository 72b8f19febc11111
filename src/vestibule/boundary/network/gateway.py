"""The egress gateway of one run: connections that came in at a listener inside go out by name, or nowhere.

Rules this module keeps:
1. The listener a connection came in at says its name and port; nothing the client sends can change them.
2. Where TLS is expected the ClientHello must name exactly that host, before anything is looked up or dialled.
3. A name is looked up once, outside; only an address that was judged is dialled, and the address, never the name.
4. Every connection is decided and the decision durable before the dial. Whatever fails (policy, log, lookup, this
   module) closes the connection.
5. A DNS query is answered from the names inside at once and goes no further. Unknown names are recorded.
6. Nobody can hold more than a fixed share: connections, time without a hello, time without a byte, bytes, queries.
7. Every connection that the kernel completed is in the report, also those that were never served.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from vestibule.boundary.network.learning import Learning
from vestibule.boundary.network.limits import NetworkLimits
from vestibule.boundary.network.outside import Outside, Place
from vestibule.boundary.network.relay import Meter, ready, relay
from vestibule.boundary.network.report import OTHERS, EgressReport, Reached, Rows, reconcile
from vestibule.boundary.network.resolver import Resolver
from vestibule.boundary.network.rules import NetworkPlan, Rule, connect_facts, name_rule, resolve_facts
from vestibule.boundary.network.wire.client_hello import MAX_HELLO, NotAHello, read_hello
from vestibule.core.crossing import Actor, Crossing, Held, Step
from vestibule.core.errors import Refused
from vestibule.core.labels import Confidentiality, Label
from vestibule.core.ports import RESOLVER, KernelConnect
from vestibule.core.text.names import NameRefused, canonical_host
from vestibule.core.text.sanitize import one_line

WhoAsks = Callable[[Place, Place], tuple[str, ...]]
"""Paths of the programs that hold a connection: (the client's end, the listener's); none when not known. Blocking."""

_log = logging.getLogger(__name__)
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def nobody_known(_: Place, __: Place) -> tuple[str, ...]:
    """Where nobody can tell which program asks."""
    return ()


class EgressGateway:
    """Serves the listeners of one sandbox. Everything on one loop."""

    def __init__(
        self,
        *,
        crossing: Crossing,
        actor: Actor,
        plan: NetworkPlan,
        probe: Actor | None = None,
        outside: Outside | None = None,
        who: WhoAsks = nobody_known,
        clearance: Confidentiality = Confidentiality.INTERNAL,
        gives: Label | None = None,
        learning: Learning | None = None,
        limits: NetworkLimits | None = None,
    ) -> None:
        """`probe`: who acts until `begin`. `clearance`: how confidential a run may be that sends anything out.
        `gives`: the label of what comes in, joined before a byte of it does. `learning`: lets further names in."""
        self.plan = plan
        self.unknown: dict[str, int] = {}
        """Names that were asked for and are not there, with how often."""
        self._crossing = crossing
        self._agent = actor
        self._actor = probe or actor
        self._outside = outside or Outside()
        self._who = who
        self._clearance = clearance
        self._gives = gives
        self._learning = learning
        self._limits = limits or NetworkLimits()
        self._addresses = dict(plan.addresses)
        self._rules = {rule.key: rule for rule in plan.rules}
        self._meters: dict[str, Meter] = {}
        self._rows = Rows(self._limits.rows)
        self._turned_away = 0
        self._open: set[asyncio.Task[None]] = set()
        self._sockets: dict[str, socket.socket] = {}
        self._serving: asyncio.TaskGroup | None = None
        self._teaching = asyncio.Lock()
        self._led: dict[Place, set[str]] = {}
        self._resolver = Resolver(
            self._find, self._not_there, queries=self._limits.queries, seconds=self._limits.hello_seconds
        )

    def begin(self) -> None:
        """The agent starts: from here on what is asked is the agent's. Probes are in the log and in no report."""
        self._actor = self._agent
        self.unknown.clear()
        self._rows = Rows(self._limits.rows)

    def report(self, connects: Iterable[KernelConnect] | None = None) -> EgressReport:
        """What happened so far. `connects`: what the kernel saw, None where nobody looks."""
        rows = self._rows.all()
        own = [(self._addresses[name], 80) for name in self.plan.names if name in self._addresses]
        alarms = (
            ()
            if connects is None
            else reconcile(rows, self._turned_away, self._addresses, connects, others=[*own, ("127.0.0.1", 53)])
        )
        return EgressReport(
            mode="learn" if self._learning else "named",
            connections=rows,
            unknown=dict(self.unknown),
            turned_away=self._turned_away,
            learned=tuple(name for name in self._addresses if name not in self.plan.addresses),
            programs={rule.key: rule.programs for rule in self.plan.rules if rule.programs},
            shared={
                name: tuple(sorted(others - {name}))
                for others in self._led.values()
                if len(others) > 1
                for name in others
            },
            alarms=alarms,
        )

    async def serve(self, listeners: Mapping[str, socket.socket]) -> None:
        """Serve the listeners of the plan's rules and of the resolver until cancelled or one of them breaks."""
        wanted = (*(rule.key for rule in self.plan.rules), *(key for key in RESOLVER if key in listeners))
        # Copies, for theirs may be closed while we wait on them.
        self._sockets = {key: listeners[key].dup() for key in wanted}
        for sock in self._sockets.values():
            sock.setblocking(False)
        udp, tcp = (self._sockets.get(key) for key in RESOLVER)
        try:
            async with asyncio.TaskGroup() as group:
                self._serving = group
                for rule in self.plan.rules:
                    group.create_task(self._accept(self._sockets[rule.key], self._connector(rule)))
                if udp is not None and tcp is not None:
                    group.create_task(self._resolver.datagrams(udp))
                    group.create_task(self._accept(tcp, lambda client, _: self._resolver.stream(client)))
        finally:
            self._serving = None
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            self._drain()
            for sock in self._sockets.values():
                sock.close()

    # --- connections ------------------------------------------------------------------------------------------

    def _connector(self, rule: Rule) -> Callable[[socket.socket, Place], Awaitable[None]]:
        return lambda client, peer: self._connection(rule, client, peer)

    async def _accept(self, listener: socket.socket, serve: Callable[[socket.socket, Place], Awaitable[None]]) -> None:
        while True:
            # Not the loop's `sock_accept`: cancelled at the wrong moment it drops what it had accepted, uncounted.
            await ready(listener.fileno())
            try:
                client, peer = listener.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno in _SHORT:
                    await asyncio.sleep(0.2)  # other connections will end; this one waits in the kernel
                elif error.errno != errno.ECONNABORTED:
                    raise
                continue
            client.setblocking(False)
            if len(self._open) >= self._limits.connections:
                self._turned_away += 1
                client.close()
                continue
            self._aside(serve(client, (str(peer[0]), int(peer[1]))))

    def _aside(self, work: Awaitable[None]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _connection(self, rule: Rule, client: socket.socket, peer: Place) -> None:
        rows = self._rows  # a probe's connection is none of the agent's, however late it ends
        row = {"host": rule.host, "port": rule.port, "because": rule.because, "verdict": "deny"}
        try:
            with contextlib.closing(client):
                row |= await self._pass(rule, client, peer)
        except Held as held:
            row |= {"verdict": "hold", "rule": held.refusal.rule}
        except Refused as refused:
            row |= {"rule": refused.refusal.rule}
        except asyncio.CancelledError:
            row |= {"rule": "network.closed"}
            raise
        except Exception:  # noqa: BLE001 - fails closed, whatever it was
            _log.exception("the egress gateway failed")
            row |= {"rule": "dependency.network"}
        finally:
            rows.add(Reached.model_validate(row))

    async def _pass(self, rule: Rule, client: socket.socket, peer: Place) -> dict[str, Any]:
        """Decide about one connection and carry it; what the report says of it."""
        actor = self._actor
        first, hello = await self._hello(rule, client)
        held = await self._holders(rule, client, peer)
        program = one_line(held[0] if held else "", 200)
        # Of a connection that gives another name nothing goes out, not even a lookup.
        wrong = name_rule(rule, hello)
        places, address_rule = ((), "") if wrong else await self._places(rule)
        meter = self._meter(rule)
        learned = rule.because == "learned"
        facts = connect_facts(
            rule,
            hello=hello,
            programs=held,
            address=address_rule,
            budget="network.bytes" if meter.spent else "",
            cleared=self._crossing.labels.current.flows_to(self._clearance),
            learned=learned,
            learn_allowed=self._learning is not None,
        )
        resource = {
            "id": rule.key,
            "host": rule.host,
            "port": rule.port,
            "program": program,
            "programs": list(rule.programs),
            "outward": True,
        }

        async def effect() -> tuple[dict[str, Any], bool, dict[str, Any]]:
            return await self._carry(rule, client, peer, places, first, meter)

        step = Step("network.connect", resource, facts, reads=self._gives)
        try:
            return {"program": program, **await self._crossing.cross_all(actor, [step], effect)}
        except OSError as error:
            return {"program": program, "verdict": "allow", "rule": type(error).__name__}
        except Held as held_back:
            return {"program": program, "verdict": "hold", "rule": held_back.refusal.rule}
        except Refused as refused:
            return {"program": program, "rule": refused.refusal.rule}

    async def _carry(  # noqa: PLR0917 - one caller
        self, rule: Rule, client: socket.socket, peer: Place, places: tuple[Place, ...], first: bytes, meter: Meter
    ) -> tuple[dict[str, Any], bool, dict[str, Any]]:
        outside, place = await self._outside.dial(places, seconds=self._limits.dial_seconds)
        self._led.setdefault(place, set()).add(rule.host)
        with contextlib.closing(outside):
            counted = await relay(client, outside, meter, idle=self._limits.idle_seconds, first=first)
        client.close()
        sent, received, ended = counted.sent, counted.received, counted.ended
        row = {"verdict": "allow", "rule": "" if ended == "closed" else ended, "sent": sent, "received": received}
        details = {"address": place[0], "sent": sent, "received": received, "ended": ended, "client": list(peer)}
        return row, ended in ("closed", "idle"), details

    async def _holders(self, rule: Rule, client: socket.socket, peer: Place) -> tuple[str, ...]:
        """Asked for where it matters: a rule for some programs, and learning."""
        if not rule.programs and rule.because != "learned":
            return ()
        own = client.getsockname()
        return await asyncio.to_thread(self._who, peer, (str(own[0]), int(own[1])))

    async def _hello(self, rule: Rule, client: socket.socket) -> tuple[bytes, str | NotAHello | None]:
        """The bytes read so far, and the name in the ClientHello or what is wrong with it; None without TLS."""
        if not rule.tls:
            return b"", None
        loop = asyncio.get_running_loop()
        data = b""
        try:
            async with asyncio.timeout(self._limits.hello_seconds):
                while True:
                    part = await loop.sock_recv(client, MAX_HELLO + 1 - len(data))
                    if not part:
                        return data, NotAHello("network.tls", "The connection ended before its ClientHello.")
                    data += part
                    found = read_hello(data)
                    if found is not None:
                        return data, found.name
        except NotAHello as error:
            return data, error
        except TimeoutError:
            return data, NotAHello("network.tls", "No ClientHello came in time.")
        except OSError:
            return data, NotAHello("network.tls", "The connection broke before its ClientHello.")

    async def _places(self, rule: Rule) -> tuple[tuple[Place, ...], str]:
        if self._learning is not None and rule.because == "learned" and not self._learning.may(rule.key):
            return (), "network.ceiling"
        return await self._outside.places(rule.host, rule.port, seconds=self._limits.dial_seconds)

    def _meter(self, rule: Rule) -> Meter:
        limits = self._limits
        if rule.key not in self._meters:
            self._meters[rule.key] = Meter(limits.sent_bytes, limits.received_bytes, limits.rate_bytes)
        return self._meters[rule.key]

    def _drain(self) -> None:
        """Connections that the kernel completed and nobody took any more: closed, and in the report."""
        for key, listener in self._sockets.items():
            rule = self._rules.get(key)
            with contextlib.suppress(OSError):
                while rule is not None:
                    client, _ = listener.accept()
                    client.close()
                    row = Reached(
                        host=rule.host, port=rule.port, because=rule.because, verdict="deny", rule="network.closed"
                    )
                    self._rows.add(row)

    # --- names ------------------------------------------------------------------------------------------------

    async def _find(self, name: str) -> str | None:
        try:
            canonical = canonical_host(name)
        except NameRefused:
            return None
        found = self._addresses.get(canonical)
        if found is None and self._learning is not None and self._actor is self._agent:
            return await self._learn(self._learning, canonical)
        return found

    async def _learn(self, learning: Learning, name: str) -> str | None:
        """An address and listeners for a name that nobody listed; None when it is none, or there are too many."""
        async with self._teaching:
            if name in self._addresses:
                return self._addresses[name]
            learned = len(self._addresses) - len(self.plan.addresses)
            if self._serving is None or learned >= self._limits.learned:
                return None
            lesson = await learning.admit(name, len(self._addresses))
            if lesson is None or self._serving is None:
                return None
            for rule, listener in lesson.listeners:
                listener.setblocking(False)
                self._rules[rule.key] = rule
                self._sockets[rule.key] = listener
                self._serving.create_task(self._accept(listener, self._connector(rule)))
            self._addresses[name] = lesson.address
            return lesson.address

    def _not_there(self, name: str) -> None:
        """Record a name that is not there, once; the refusal is the answer, and it is given already."""
        shown = one_line(name, 253)
        seen = self.unknown.get(shown, 0)
        if not seen and len(self.unknown) >= self._limits.names:
            self.unknown[OTHERS] = self.unknown.get(OTHERS, 0) + 1
            return
        self.unknown[shown] = seen + 1
        if not seen:
            self._aside(self._record_unknown(self._actor, name, shown))

    async def _record_unknown(self, actor: Actor, name: str, shown: str) -> None:
        step = Step("network.resolve", {"id": shown, "host": shown}, resolve_facts(name, self.plan))
        with contextlib.suppress(Refused):
            await self._crossing.cross_all(actor, [step], _nothing)


async def _nothing() -> tuple[None, bool, dict[str, Any]]:
    return None, True, {}
