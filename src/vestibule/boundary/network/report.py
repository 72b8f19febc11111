"""What one attempt did at the network crossing, and whether every source of it says the same. Pure.

Rules this module keeps:
1. A connection that the kernel saw and no gateway recorded is an alarm, and so is one that the kernel did not see.
2. What stays on a loopback address that leads to nobody outside is nobody's business.
3. The report is bounded, whatever the agent does: rows are counted, not listed.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from vestibule.core.base import Noun
from vestibule.core.ports import KernelConnect

OTHERS = "(others)"


class Reached(Noun):
    """Connections of one kind. `verdict` says how they were decided, `rule` why, or how they ended early."""

    host: str
    port: int
    program: str = ""
    verdict: Literal["allow", "hold", "deny"]
    rule: str = ""
    because: str = ""
    count: int = 1
    sent: int = 0
    received: int = 0

    @property
    def key(self) -> str:
        return f"{self.host}:{self.port}"


class Alarm(Noun):
    """Two sources that disagree. `rule` is `network.unrecorded`, `network.unseen` or `network.unnamed`."""

    rule: str
    fact: str


class Need(Noun):
    """A name and port that the task used and no rule lists. `registry`: the ecosystem that it is the operator's index
    of. `refused`: why it could not be used, "" when it was."""

    host: str
    port: int
    programs: tuple[str, ...]
    registry: str = ""
    count: int = 0
    sent: int = 0
    received: int = 0
    refused: str = ""
    also: tuple[str, ...] = ()
    """What else a rule for it would allow."""

    @property
    def key(self) -> str:
        return f"{self.host}:{self.port}"


class EgressReport(Noun):
    """Connections by kind, names that do not exist inside, and where sources disagree."""

    mode: Literal["named", "learn"] = "named"
    connections: tuple[Reached, ...] = ()
    unknown: dict[str, int] = {}
    """Names that were asked for and answered with NXDOMAIN, with how often."""
    turned_away: int = 0
    """Connections that were closed unseen, for there were too many at once."""
    learned: tuple[str, ...] = ()
    """Names that learning let in, asked for whether or not a connection followed."""
    programs: dict[str, tuple[str, ...]] = {}
    """Programs that a rule is for, by `name:port`."""
    shared: dict[str, tuple[str, ...]] = {}
    """Names that led to one address, by name."""
    alarms: tuple[Alarm, ...] = ()
    needs: tuple[Need, ...] = ()
    config_block: str = ""
    """What to add to `.vestibule/config.yaml` so that the same goes through; learning only."""

    def as_json(self) -> dict[str, Any]:
        """The `egress` object of `run --json` and `show --json`."""
        found = self.model_dump(mode="json", include={"mode", "unknown", "turned_away"})
        found["connections"] = [item.model_dump(mode="json") for item in self.connections]
        found["alarms"] = [item.model_dump(mode="json") for item in self.alarms]
        if self.mode == "learn":
            found |= {"learned": [item.model_dump(mode="json") for item in self.needs], "config": self.config_block}
        return found


class Rows:
    """Counts connections by kind. One loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows: dict[tuple[str, int, str, str, str, str], list[int]] = {}

    def add(self, row: Reached) -> None:
        key = (row.host, row.port, row.program, row.verdict, row.rule, row.because)
        if key not in self._rows and len(self._rows) >= self._most:
            key = (OTHERS, 0, "", row.verdict, "", "")
        counts = self._rows.setdefault(key, [0, 0, 0])
        counts[0] += row.count
        counts[1] += row.sent
        counts[2] += row.received

    def all(self) -> tuple[Reached, ...]:
        return tuple(
            Reached.model_validate(
                {
                    **dict(zip(("host", "port", "program", "verdict", "rule", "because"), key, strict=True)),
                    **dict(zip(("count", "sent", "received"), counts, strict=True)),
                }
            )
            for key, counts in self._rows.items()
        )


def reconcile(
    connections: Iterable[Reached],
    turned_away: int,
    addresses: Mapping[str, str],
    connects: Iterable[KernelConnect],
    *,
    others: Iterable[tuple[str, int]] = (),
) -> tuple[Alarm, ...]:
    """Where kernel, gateway and name map disagree about one attempt.

    `addresses` maps each name inside to the address it was given; `others` are listeners inside with records of their
    own (gateways, resolver). `connects` are what the kernel let through from the sandbox's processes; what it refused
    itself went nowhere and is no part of this.
    """
    names = {address: name for name, address in addresses.items()}
    elsewhere = set(others)
    recorded: Counter[tuple[str, int]] = Counter()
    for row in connections:
        recorded[row.host, row.port] += row.count
    seen: Counter[tuple[str, int]] = Counter()
    programs: dict[tuple[str, int], str] = {}
    alarms: list[Alarm] = []
    for item in connects:
        if item.refused or (item.address, item.port) in elsewhere:
            continue
        if not _loopback(item.address):
            alarms.append(Alarm(rule="network.unrecorded", fact=_said(item)))
        elif item.protocol == "udp":
            continue  # resolvers connect to what they found, to sort it (RFC 6724); nobody inside listens
        elif item.address in names:
            key = (names[item.address], item.port)
            seen[key] += item.count
            programs.setdefault(key, item.program)
        elif _given(item.address):
            alarms.append(Alarm(rule="network.unnamed", fact=_said(item)))
    spare = turned_away + recorded[OTHERS, 0]
    for key, count in sorted(seen.items()):
        missing = count - recorded[key]
        if missing > spare:
            fact = (
                f"{key[0]}:{key[1]} by {programs[key] or 'an unknown program'}: {count} seen, {recorded[key]} recorded"
            )
            alarms.append(Alarm(rule="network.unrecorded", fact=fact))
        spare -= max(0, min(missing, spare))
    for key, count in sorted(recorded.items()):
        if key[0] in addresses and count > seen[key]:
            fact = f"{key[0]}:{key[1]}: {count} recorded, {seen[key]} seen by the kernel"
            alarms.append(Alarm(rule="network.unseen", fact=fact))
    return tuple(dict.fromkeys(alarms))


def _said(item: KernelConnect) -> str:
    return f"{item.protocol} {item.address}:{item.port} by {item.program or 'an unknown program'}"


def _loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def _given(address: str) -> bool:
    """Whether it is of the range that names inside get theirs from."""
    return address.startswith("127.64.")
