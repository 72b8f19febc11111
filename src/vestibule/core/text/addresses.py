"""Where a name may lead: global addresses, and others only where the operator lists the exact host. Pure.

Rules this module keeps:
1. A name of the outside never leads back inside: loopback, private, link-local (and so metadata services), multicast,
   reserved and unspecified addresses are refused, in IPv4, in IPv6, and where IPv6 carries an IPv4 address.
2. A host that the operator lists as an inner one may lead to loopback and private addresses; to link-local ones, and
   to services that give credentials, it does not lead either.
3. Every address of a name is judged; those that pass are dialled as they were judged, never looked up again.

Sources: RFC 6890 registries as `ipaddress` has them, RFC 4291 §2.5.5 (mapped), RFC 6052 (64:ff9b::/96), RFC 3056
(6to4), RFC 4380 (Teredo).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_METADATA = frozenset(
    ipaddress.ip_address(text) for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16")
)
"""Services that give cloud credentials; some have addresses that count as global."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def reaches_outside(text: str) -> bool:
    """Whether an address, in plain notation, is a global unicast one and carries no other."""
    return _all(text, _plainly_global)


def reaches_inner(text: str) -> bool:
    """Whether it is an ordinary unicast address, global or not."""
    return _all(text, _ordinary)


def _all(text: str, judge: Callable[[Address], bool]) -> bool:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return all(judge(item) for item in _carried(address))


def _plainly_global(address: Address) -> bool:
    return address.is_global and not address.is_multicast and not address.is_reserved and address not in _METADATA


def _ordinary(address: Address) -> bool:
    return (
        address not in _METADATA
        and not address.is_link_local
        and not address.is_multicast
        and not address.is_unspecified
        and (not address.is_reserved or address.is_loopback)
    )


def _carried(address: Address) -> Iterable[Address]:
    yield address
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            yield address.ipv4_mapped
        if address.sixtofour is not None:
            yield address.sixtofour
        if address.teredo is not None:
            yield from address.teredo
        if any(address in network for network in _NAT64):
            yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def choose(addresses: Iterable[str], *, private: bool) -> tuple[str, ...]:
    """Those that may be dialled, in order. `private`: the operator lists exactly this host as an inner one."""
    return tuple(item for item in addresses if reaches_outside(item) or (private and reaches_inner(item)))
