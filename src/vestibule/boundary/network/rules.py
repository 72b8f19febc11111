"""Which names a sandbox has, and why every other one is refused. Pure.

Rules it keeps:
1. A sandbox's network namespace is empty: a name exists inside only if it is in the plan, with a loopback address and
   a listener of its own made from outside. Everything else fails at once, by address as by name.
2. Gateways come first and keep their addresses, whatever a role names.
3. Names are canonical before they are compared; an address in any notation is no name.
4. What a role names and this version does not carry is said, never silently missing.
"""

from __future__ import annotations

from collections.abc import Iterable

from vestibule.core.base import Noun
from vestibule.core.refusal import Refusal, refusal
from vestibule.core.text.names import NameRefused, canonical_endpoint, canonical_host, inside_address

PORT = 80


class NetworkPlan(Noun):
    """The names inside, in order, their loopback addresses, and what was asked for but is not there."""

    addresses: dict[str, str]
    denied: tuple[Refusal, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """For `SandboxSpec.names`: the sandbox gives the n-th name the n-th address, as here."""
        return tuple(self.addresses)


def plan(gateways: Iterable[str], hosts: Iterable[str] = (), registries: Iterable[str] = ()) -> NetworkPlan:
    """The names of one sandbox. `hosts` are `name:port` as a role writes them, `registries` ecosystems.

    Raises:
        NameRefused: a gateway's name is no host name (a mistake of ours, not of a role).
    """
    names = list(dict.fromkeys(canonical_host(name) for name in gateways))
    denied = [_not_carried(host) for host in hosts] + [_not_carried(f"registry {name}") for name in registries]
    return NetworkPlan(
        addresses={name: inside_address(position) for position, name in enumerate(names)}, denied=tuple(denied)
    )


def resolve(name: str, known: NetworkPlan) -> str | Refusal:
    """`network.resolve`: the loopback address of a name inside, else why there is none."""
    try:
        canonical = canonical_host(name)
    except NameRefused as error:
        return _refused("network.name", f"{error}.", name)
    found = known.addresses.get(canonical)
    return found if found is not None else _refused("network.host", "This name is not part of the task.", canonical)


def connect(endpoint: str, known: NetworkPlan) -> str | Refusal:
    """`network.connect`: the name behind `host:port` or `address:port`, else why it leads nowhere."""
    host, separator, port = endpoint.rpartition(":")
    by_address = {address: name for name, address in known.addresses.items()}
    name = by_address.get(host.strip("[]"))
    if separator and name is None:
        try:
            name, _ = canonical_endpoint(endpoint)
        except NameRefused:
            return _refused("network.address", "Addresses lead nowhere from inside a sandbox; only names do.", endpoint)
    if name is None or name not in known.addresses:
        return _refused("network.host", "This name is not part of the task.", endpoint)
    if port != str(PORT):
        return _refused("network.port", f"Behind this name only port {PORT} exists.", endpoint)
    return name


def _not_carried(what: str) -> Refusal:
    return refusal(
        "network.not_carried",
        "Hosts and registries beside the gateways are not reachable from a sandbox in this version.",
        fact=what,
        agent="Work without it: use what the workspace and the installed tools hold.",
        person="Put what the task needs into the repository or the operator's tools (sandbox.tools).",
    )


def _refused(rule: str, reason: str, fact: str) -> Refusal:
    return refusal(
        rule,
        reason,
        fact=fact[:300],
        agent="Do without this connection; the task's names are in /etc/hosts.",
        person="Nothing to do unless the task needs it; then name it in the role's network section.",
    )
