"""The egress gateway of one run: connections that came in at a listener inside go out by name, or nowhere.

Rules this module keeps:
1. The listener a connection came in at says its name and port; nothing the client sends can change them.
2. Where TLS is expected the ClientHello must name exactly that host, before anything is dialled.
3. A name is looked up once, outside; only an address that was judged is dialled, and the address, never the name.
4. Every connection is decided and the decision durable before the dial. Whatever fails (policy, log, lookup, this
   module) closes the connection.
5. A DNS query is answered from the plan at once and goes no further. Unknown names are recorded.
6. Nobody can hold more than a fixed share: connections, time without a hello, time without a byte, bytes, queries.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from vestibule.boundary.network.addresses import choose
from vestibule.boundary.network.limits import NetworkLimits
from vestibule.boundary.network.relay import Meter, Spent, relay
from vestibule.boundary.network.rules import NetworkPlan, Rule, connect_facts, name_rule, resolve, resolve_facts
from vestibule.boundary.network.wire import dns
from vestibule.boundary.network.wire.client_hello import MAX_HELLO, NotAHello, read_hello
from vestibule.core.base import Noun
from vestibule.core.crossing import Actor, Crossing, Step
from vestibule.core.errors import Refused
from vestibule.core.labels import Confidentiality
from vestibule.core.ports import RESOLVER
from vestibule.core.text.sanitize import one_line

Lookup = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a name. Raises OSError when there are none."""

WhoAsks = Callable[[str, tuple[str, int], tuple[str, int]], str]
"""The path of the program behind a connection: (listener's key, its address, the client's), "" when not known."""

_log = logging.getLogger(__name__)


class Passage(Noun):
    """One connection as it ended, for the comparison with other sources. `address` is what was dialled."""

    key: str
    client: tuple[str, int]
    program: str = ""
    verdict: str
    rule: str = ""
    address: str = ""
    sent: int = 0
    received: int = 0


async def system_lookup(host: str, port: int) -> list[str]:
    """The host's own resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


def nobody_known(_: str, __: tuple[str, int], ___: tuple[str, int]) -> str:
    """Where nobody can tell which program asks."""
    return ""


class EgressGateway:
    """Serves the listeners of one sandbox. Everything on one loop."""

    def __init__(
        self,
        *,
        crossing: Crossing,
        actor: Actor,
        plan: NetworkPlan,
        lookup: Lookup = system_lookup,
        who: WhoAsks = nobody_known,
        private: frozenset[str] = frozenset(),
        clearance: Confidentiality = Confidentiality.INTERNAL,
        limits: NetworkLimits | None = None,
    ) -> None:
        """`private`: hosts that the operator lists as inner ones. `clearance`: how confidential a run may be that
        sends anything out."""
        self.plan = plan
        self.passages: list[Passage] = []
        self.unknown: dict[str, int] = {}
        """Names that were asked for and are not in the plan, with how often."""
        self._crossing = crossing
        self._actor = actor
        self._lookup = lookup
        self._who = who
        self._private = private
        self._clearance = clearance
        self._limits = limits or NetworkLimits()
        self._meters: dict[str, Meter] = {}
        self._open: set[asyncio.Task[None]] = set()
        self._queries = 0
        self._closing = False

    async def serve(self, listeners: Mapping[str, socket.socket]) -> None:
        """Serve the listeners of the plan's rules and of the resolver until cancelled or one of them breaks."""
        own = {key: sock.dup() for key, sock in listeners.items()}  # theirs may be closed while we wait on them
        work = [self._accept(rule, own[rule.key]) for rule in self.plan.rules]
        udp, tcp = (own.get(key) for key in RESOLVER)
        if udp is not None and tcp is not None:
            work += [self._datagrams(udp), self._streams(tcp)]
        tasks = [asyncio.ensure_future(item) for item in work]
        try:
            await asyncio.gather(*tasks)
        finally:
            self._closing = True
            for sock in own.values():
                sock.close()
            for task in (*tasks, *self._open):
                task.cancel()
            await asyncio.gather(*tasks, *self._open, return_exceptions=True)

    # --- connections ------------------------------------------------------------------------------------------

    async def _accept(self, rule: Rule, listener: socket.socket) -> None:
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            client, peer = await loop.sock_accept(listener)
            client.setblocking(False)
            if self._closing or len(self._open) >= self._limits.connections:
                client.close()
                continue
            task = asyncio.ensure_future(self._connection(rule, client, (str(peer[0]), int(peer[1]))))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _connection(self, rule: Rule, client: socket.socket, peer: tuple[str, int]) -> None:
        with contextlib.closing(client):
            try:
                await self._pass(rule, client, peer)
            except Refused as refused:
                self._note(rule, peer, "deny", rule_=refused.refusal.rule)
            except OSError as error:
                self._note(rule, peer, "allow", rule_=type(error).__name__)
            except Exception:  # noqa: BLE001 - fails closed, whatever it was
                _log.exception("the egress gateway failed")
                self._note(rule, peer, "deny", rule_="dependency.network")

    async def _pass(self, rule: Rule, client: socket.socket, peer: tuple[str, int]) -> None:
        first, hello = await self._hello(rule, client)
        program = self._who(rule.key, client.getsockname()[:2], peer)
        # Of a connection that gives another name nothing goes out, not even a lookup.
        addresses, address_rule = ((), "") if name_rule(rule, hello) else await self._addresses(rule)
        meter = self._meter(rule)
        spent = meter.sent + len(first) > meter.sent_limit or meter.received >= meter.received_limit
        facts = connect_facts(
            rule,
            hello=hello,
            program=program,
            address=address_rule,
            budget="network.bytes" if spent else "",
            cleared=self._crossing.labels.current.flows_to(self._clearance),
        )
        resource = {
            "id": rule.key,
            "host": rule.host,
            "port": rule.port,
            "program": one_line(program, 200),
            "outward": True,
        }

        async def effect() -> tuple[Passage, bool, dict[str, Any]]:
            return await self._carry(rule, client, peer, program, addresses, first, meter)

        passage = await self._crossing.cross_all(self._actor, [Step("network.connect", resource, facts)], effect)
        self.passages.append(passage)

    async def _carry(  # noqa: PLR0917 - one caller
        self,
        rule: Rule,
        client: socket.socket,
        peer: tuple[str, int],
        program: str,
        addresses: tuple[str, ...],
        first: bytes,
        meter: Meter,
    ) -> tuple[Passage, bool, dict[str, Any]]:
        outside, address = await self._dial(rule, addresses)
        with contextlib.closing(outside):
            try:
                counted = await relay(client, outside, meter, idle=self._limits.idle_seconds, first=first)
                ended, sent, received = counted.ended, counted.sent, counted.received
            except Spent as spent:
                ended, sent, received = spent.rule, 0, 0
        passage = Passage(
            key=rule.key,
            client=peer,
            program=program,
            verdict="allow",
            rule="" if ended == "closed" else ended,
            address=address,
            sent=sent,
            received=received,
        )
        details = {"address": address, "sent": sent, "received": received, "ended": ended, "client": list(peer)}
        return passage, ended in ("closed", "idle"), details

    async def _dial(self, rule: Rule, addresses: tuple[str, ...]) -> tuple[socket.socket, str]:
        """A connection to the first address that answers; each was judged."""
        failure: OSError = ConnectionRefusedError()
        loop = asyncio.get_running_loop()
        for address in addresses[:4]:
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            sock.setblocking(False)
            try:
                async with asyncio.timeout(self._limits.dial_seconds):
                    await loop.sock_connect(sock, (address, rule.port))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock, address
            except OSError as error:  # TimeoutError is one
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
        raise failure

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

    async def _addresses(self, rule: Rule) -> tuple[tuple[str, ...], str]:
        """Those that may be dialled, and the rule that is broken when there are none."""
        try:
            async with asyncio.timeout(self._limits.dial_seconds):
                found = await self._lookup(rule.host, rule.port)
        except OSError:  # TimeoutError and gaierror are such
            return (), "network.unresolved"
        allowed = choose(found, private=rule.host in self._private)
        return allowed, "" if allowed else "network.private"

    def _meter(self, rule: Rule) -> Meter:
        limits = self._limits
        if rule.key not in self._meters:
            self._meters[rule.key] = Meter(limits.sent_bytes, limits.received_bytes, limits.rate_bytes)
        return self._meters[rule.key]

    def _note(self, rule: Rule, peer: tuple[str, int], verdict: str, *, rule_: str) -> None:
        self.passages.append(Passage(key=rule.key, client=peer, verdict=verdict, rule=rule_))

    # --- names ------------------------------------------------------------------------------------------------

    async def _datagrams(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        while True:
            await _readable(sock)
            try:
                data, peer = sock.recvfrom(dns.MAX_QUERY + 1)
            except (BlockingIOError, ConnectionError):
                continue
            reply = await self._answer(data)
            if reply is not None:
                with contextlib.suppress(OSError):
                    sock.sendto(reply, peer)  # one datagram to a loopback peer; a full buffer loses it, as UDP may

    async def _streams(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(listener)
            client.setblocking(False)
            if self._closing or len(self._open) >= self._limits.connections:
                client.close()
                continue
            task = asyncio.ensure_future(self._stream(client))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _stream(self, client: socket.socket) -> None:
        """DNS over TCP (RFC 7766), one query after the other."""
        loop = asyncio.get_running_loop()
        with contextlib.closing(client), contextlib.suppress(OSError):
            while True:
                async with asyncio.timeout(self._limits.hello_seconds):
                    size = int.from_bytes(await _exactly(loop, client, 2), "big")
                    if not 0 < size <= dns.MAX_QUERY:
                        return
                    reply = await self._answer(await _exactly(loop, client, size))
                    if reply is None:
                        return
                    await loop.sock_sendall(client, len(reply).to_bytes(2, "big") + reply)

    async def _answer(self, data: bytes) -> bytes | None:
        self._queries += 1
        if self._queries > self._limits.queries:
            return None
        try:
            question = dns.parse_query(data)
        except dns.BadQuery as bad:
            return dns.refused(bad)
        reply, known = dns.answer(question, self._inside)
        if not known:
            await self._unknown(question.name)
        return reply

    def _inside(self, name: str) -> str | None:
        found = resolve(name, self.plan)
        return found if isinstance(found, str) else None

    async def _unknown(self, name: str) -> None:
        """Record a name that is not there, once; the refusal is the answer itself."""
        shown = one_line(name, 253)
        seen = self.unknown.get(shown, 0)
        if seen or len(self.unknown) < self._limits.names:
            self.unknown[shown] = seen + 1
        else:
            self.unknown["(others)"] = self.unknown.get("(others)", 0) + 1
            return
        if seen:
            return
        step = Step("network.resolve", {"id": shown, "host": shown}, resolve_facts(name, self.plan))
        with contextlib.suppress(Refused):
            await self._crossing.cross_all(self._actor, [step], _nothing)


async def _nothing() -> tuple[None, bool, dict[str, Any]]:
    return None, True, {}


async def _readable(sock: socket.socket) -> None:
    """Returns when something can be read. uvloop has no `sock_recvfrom`, so datagrams are waited for like this."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    descriptor = sock.fileno()  # asked now: the socket may be closed while we wait
    loop.add_reader(descriptor, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


async def _exactly(loop: asyncio.AbstractEventLoop, sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = await loop.sock_recv(sock, count - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return data
