"""Which names a sandbox has, who may use them, and why every other one is refused. Pure.

Rules it keeps:
1. A sandbox's network namespace is empty: a name exists inside only if it is in the plan, with a loopback address and
   one listener per port of its own, made from outside. Everything else fails at once, by address as by name.
2. Gateways come first and keep their addresses, whatever a role names.
3. Names are canonical before they are compared; an address in any notation is no name.
4. What a role names and cannot be carried is said, never silently missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from vestibule.boundary.network.wire.client_hello import NotAHello
from vestibule.core.base import Noun
from vestibule.core.refusal import Refusal, refusal
from vestibule.core.text.names import NameRefused, canonical_endpoint, canonical_host, inside_address

PORT = 80
TLS_PORTS = frozenset({443, 8443, 9443, 4443, 853, 993, 995, 465, 636})
"""Ports on which a connection has to begin with a ClientHello that names the host."""

WRITABLE = ("/workspace", "/tmp", "/home/agent", "/dev/shm", "/proc", "/var/tmp", "/opt/setup")  # noqa: S108 - inside
"""Where a sandbox's program can put files: nothing there is a program that a rule names."""

LEARN_PORTS = (443, 80, 22, 8443, 8080)
"""Ports on which a learned name has a listener; the port is not known before the connection comes."""

_SPECIAL = frozenset({"arpa", "internal", "invalid", "local", "localhost", "onion", "test"})
"""Top-level names that no resolver of the outside answers (RFC 6761, RFC 6762, RFC 7686), and our own."""


class Rule(Noun):
    """A name and port that this task may reach. `programs`: only these (by file name); empty: any."""

    host: str
    port: int
    programs: tuple[str, ...] = ()
    because: str = "hosts"
    """`hosts`, the registry it belongs to, or `learned`."""

    @property
    def key(self) -> str:
        """As listeners and the log name it."""
        return f"{self.host}:{self.port}"

    @property
    def tls(self) -> bool:
        return self.port in TLS_PORTS


class NetworkPlan(Noun):
    """The names inside, in order, with their loopback addresses, the rules, and what was asked for but is not there."""

    addresses: dict[str, str]
    rules: tuple[Rule, ...] = ()
    denied: tuple[Refusal, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The gateways, for `SandboxSpec.names`: the sandbox gives the n-th name the n-th address, as here."""
        hosts = {rule.host for rule in self.rules}
        return tuple(name for name in self.addresses if name not in hosts)

    @property
    def endpoints(self) -> tuple[tuple[str, int], ...]:
        """For `SandboxSpec.endpoints`."""
        return tuple((rule.host, rule.port) for rule in self.rules)

    def rule(self, key: str) -> Rule | None:
        """The rule of `host:port`."""
        return next((rule for rule in self.rules if rule.key == key), None)


def plan(
    gateways: Iterable[str],
    hosts: Iterable[str] = (),
    registries: Iterable[str] = (),
    *,
    registry_hosts: Mapping[str, Iterable[str]] | None = None,
    ceiling: Iterable[str] | None = None,
    programs: Mapping[str, tuple[str, ...]] | None = None,
) -> NetworkPlan:
    """The names of one sandbox.

    `hosts` are `name:port` as a role writes them, `registries` ecosystems; `registry_hosts` gives the `name:port`s of
    each from the operator's client configuration. `ceiling` is what the operator lets any role name (None: anything).
    `programs` limits a `name:port` to some programs.

    Raises:
        NameRefused: a gateway's name is no host name (a mistake of ours, not of a role).
    """
    names = list(dict.fromkeys(canonical_host(name) for name in gateways))
    known = registry_hosts or {}
    limit = None if ceiling is None else {":".join(map(str, canonical_endpoint(item))) for item in ceiling}
    denied: list[Refusal] = []
    rules: dict[str, Rule] = {}
    asked = [(host, "hosts") for host in hosts]
    for name in registries:
        if not known.get(name):
            denied.append(_no_registry(name))
        asked += [(host, f"registry {name}") for host in known.get(name, ())]
    for text, because in asked:
        try:
            host, port = canonical_endpoint(text)
        except NameRefused as error:
            denied.append(_refused("network.name", f"{error}.", text))
            continue
        rule = Rule(host=host, port=port, because=because, programs=(programs or {}).get(text, ()))
        if host in names:
            denied.append(_refused("network.gateway", "This name is a gateway's.", text))
        elif limit is not None and because == "hosts" and rule.key not in limit:
            denied.append(_beyond_ceiling(text))
        else:
            rules.setdefault(rule.key, rule)
    everything = [*names, *dict.fromkeys(rule.host for rule in rules.values())]
    return NetworkPlan(
        addresses={name: inside_address(position) for position, name in enumerate(everything)},
        rules=tuple(rules.values()),
        denied=tuple(denied),
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
    if port != str(PORT) if name in known.names else known.rule(f"{name}:{port}") is None:
        return _refused("network.port", "Behind this name that port does not exist.", endpoint)
    return name


def learnable(name: str) -> str | None:
    """The canonical form of a name that learning may let in; None for what is no name of the outside."""
    try:
        canonical = canonical_host(name)
    except NameRefused:
        return None
    labels = canonical.split(".")
    return canonical if len(labels) > 1 and labels[-1] not in _SPECIAL else None


def resolve_facts(name: str, known: NetworkPlan) -> dict[str, Any]:
    """The facts of `network.resolve`."""
    found = resolve(name, known)
    name_rule = found.rule if isinstance(found, Refusal) and found.rule == "network.name" else ""
    return {"name_rule": name_rule, "listed": isinstance(found, str)}


def name_rule(rule: Rule, hello: str | NotAHello | None) -> str:
    """What is wrong with the name that a connection itself gives; `hello` None where no TLS is expected."""
    if isinstance(hello, NotAHello):
        return hello.rule
    if not rule.tls:
        return ""
    return "" if hello == rule.host else "network.sni"


def program_rule(rule: Rule, programs: Iterable[str]) -> str:
    """What is wrong with who asks: `programs` are the paths of all that hold the connection, none when not known."""
    if not rule.programs:
        return ""
    held = tuple(programs)
    return "" if held and all(_is_program(path, rule.programs) for path in held) else "network.program"


def _is_program(path: str, named: Iterable[str]) -> bool:
    """Whether a path is one of these programs: of that name (a version may follow, or `-` and a helper's name), and
    where the agent cannot write, so that a copy under another's name is not it."""
    if not path.startswith("/") or any(path.startswith(f"{place}/") for place in WRITABLE):
        return False
    file = path.rsplit("/", 1)[-1].removesuffix(" (deleted)")
    return any(re.fullmatch(rf"{re.escape(name)}[0-9.]*(-[A-Za-z0-9._-]+)?", file) for name in named)


def connect_facts(
    rule: Rule | None,
    *,
    hello: str | NotAHello | None,
    programs: Iterable[str],
    address: str,
    budget: str,
    cleared: bool,
    learned: bool = False,
    learn_allowed: bool = False,
) -> dict[str, Any]:
    """The facts of `network.connect`. `address` and `budget` are rules that are broken, "" for none."""
    known = rule is not None
    return {
        "listed": known,
        "program_rule": program_rule(rule, programs) if rule else "",
        "name_rule": name_rule(rule, hello) if rule else "",
        "address_rule": address,
        "budget_rule": budget,
        "cleared": cleared,
        "learned": learned,
        "learn_allowed": learn_allowed,
    }


def _no_registry(name: str) -> Refusal:
    return refusal(
        "network.registry",
        "The hosts of this registry are not known: the operator's client has no configuration that names them.",
        fact=f"registry {name}",
        agent="Work without it: use what the workspace and the installed tools hold.",
        person="Configure the client on this machine, or name the hosts under `network.registries` of the operator.",
    )


def _beyond_ceiling(what: str) -> Refusal:
    return refusal(
        "network.ceiling",
        "The organisation does not let a role reach this host.",
        fact=what,
        agent="Work without it: use what the workspace and the installed tools hold.",
        person="Add it to the operator's `network.hosts`, or take it out of the role.",
    )


def _refused(rule: str, reason: str, fact: str) -> Refusal:
    return refusal(
        rule,
        reason,
        fact=fact[:300],
        agent="Do without this connection; the task's names are in /etc/hosts.",
        person="Nothing to do unless the task needs it; then name it in the role's network section.",
    )
