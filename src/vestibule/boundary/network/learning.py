"""Learning what a task would need: names that nobody listed get an address inside, and go through the same guards.

Rules this module keeps:
1. Learning lets in names, never addresses; handshake, addresses, budgets and policy are as for any other name.
2. The organisation's ceiling holds while learning too.
3. It is bounded: so many names, so many ports; what comes after is a name that is not there.
4. What it prints is the least that would have let the work through, and what else that would let through.

A name that is learned is looked up outside, so that its labels reach the name servers of whoever owns it. That is
how learning can carry data out, and why only the operator allows it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from vestibule.boundary.network.report import EgressReport, Need, Reached
from vestibule.boundary.network.rules import LEARN_PORTS, TLS_PORTS, Rule, learnable
from vestibule.core.errors import DependencyDown
from vestibule.core.text.names import inside_address

Listen = Callable[[str, int], socket.socket]
"""One more listener inside: (loopback address, port). Blocking. Raises `DependencyDown`."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A name that was let in: its address inside, and a listener for each of its rules."""

    address: str
    listeners: tuple[tuple[Rule, socket.socket], ...]


class Learning:
    """Makes listeners for names on the fly. `ceiling`: what the operator lets any role reach; None: anything."""

    def __init__(self, listen: Listen, *, ceiling: Iterable[str] | None = None) -> None:
        self._listen = listen
        self._ceiling = None if ceiling is None else frozenset(ceiling)

    def may(self, key: str) -> bool:
        """Whether the organisation lets a role reach `name:port` at all."""
        return self._ceiling is None or key in self._ceiling

    async def admit(self, name: str, position: int) -> Lesson | None:
        """Listeners for the name; None for what is no name of the outside, or when the sandbox does not answer."""
        canonical = learnable(name)
        if canonical is None:
            return None
        address = inside_address(position)
        try:
            sockets = await asyncio.to_thread(self._listeners, address)
        except DependencyDown:
            return None
        return Lesson(
            address,
            tuple((Rule(host=canonical, port=port, because="learned"), sock) for port, sock in sockets),
        )

    def _listeners(self, address: str) -> list[tuple[int, socket.socket]]:
        made: list[tuple[int, socket.socket]] = []
        try:
            for port in LEARN_PORTS:
                sock = self._listen(address, port)
                made.append((port, sock))
        except BaseException:
            for _, sock in made:
                sock.close()
            raise
        return made


def needs(report: EgressReport, registries: Mapping[str, Iterable[str]] | None = None) -> tuple[Need, ...]:
    """What the task used beyond its rules, by name."""
    belongs = {key: name for name, keys in (registries or {}).items() for key in keys}
    rows: dict[str, list[Reached]] = {}
    for row in report.connections:
        if row.because == "learned":
            rows.setdefault(row.key, []).append(row)
    found = []
    for key, same in sorted(rows.items()):
        through = [row for row in same if row.verdict == "allow"]
        programs = tuple(dict.fromkeys(_file(row.program) for row in same if row.program))
        first = same[0]
        found.append(
            Need(
                host=first.host,
                port=first.port,
                programs=programs,
                registry=belongs.get(key, ""),
                count=sum(row.count for row in same),
                sent=sum(row.sent for row in same),
                received=sum(row.received for row in same),
                refused="" if through else first.rule,
                also=also_allowed(first.host, first.port, programs, report.shared.get(first.host, ())),
            )
        )
    return tuple(found)


def config_block(found: Iterable[Need], role: str) -> str:
    """The smallest addition to `.vestibule/config.yaml` that would have let the same through; "" for nothing."""
    hosts = []
    registries: dict[str, None] = {}
    for need in found:
        if need.refused:
            continue
        if need.registry:
            registries[need.registry] = None
        elif need.programs:
            hosts.append(f'        - {{host: "{need.key}", programs: [{", ".join(map(_quoted, need.programs))}]}}')
        else:
            hosts.append(f'        - "{need.key}"')
    if not hosts and not registries:
        return ""
    lines = ["roles:", f"  {role}:", "    network:"]
    if hosts:
        lines += ["      hosts:", *hosts]
    if registries:
        lines.append(f"      registries: [{', '.join(registries)}]")
    return "\n".join(lines) + "\n"


def also_allowed(host: str, port: int, programs: tuple[str, ...], shared: tuple[str, ...]) -> tuple[str, ...]:
    """What a rule for this name, port and these programs lets through besides what was seen."""
    found = [f"everything that {host} serves on port {port}, uploads as well as downloads, for any account there"]
    if port not in TLS_PORTS:
        found.append("connections without TLS: no name is compared in them, so any site on the same server")
    if shared:
        found.append(f"it shares a server with {', '.join(shared)}: one server for many names")
    interpreters = [name for name in programs if name.startswith(_INTERPRETERS)]
    if interpreters:
        found.append(f"any script that {', '.join(interpreters)} runs, not only the one that ran now")
    if not programs:
        found.append("any program: which one asked could not be told")
    return tuple(found)


_INTERPRETERS = ("python", "node", "ruby", "perl", "php", "java", "bash", "sh", "deno", "bun")


def _file(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _quoted(name: str) -> str:
    plain = name.replace("-", "").replace("_", "").replace(".", "").isalnum() and not name[0].isdigit()
    return name if plain else '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
