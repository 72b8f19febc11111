"""The one host-name canonicaliser (RFC 1123 names, RFC 5891 A-labels). Anything else is refused.

An IP literal in any notation, a NUL, a trailing dot, a wildcard or a non-ASCII label is no name:
a suffix check and a resolver must never read the same bytes differently.
"""

from __future__ import annotations

import re

_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)\Z")
_NUMERIC = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)\Z")


class NameRefused(ValueError):
    """Not a canonical host name."""


def canonical_host(text: str) -> str:
    """Lower-case ASCII host name without a trailing dot.

    Raises:
        NameRefused: anything that is not plainly a DNS name.
    """
    if not text.isascii():
        raise NameRefused(f"{text!r}: write internationalised names as A-labels (xn--…)")
    name = text.lower()
    if len(name) > 253 or not name:
        raise NameRefused(f"{text!r}: a host name has 1 to 253 characters")
    labels = name.split(".")
    if not all(_LABEL.match(label) for label in labels):
        raise NameRefused(f"{text!r} is no host name")
    if _NUMERIC.match(labels[-1]):
        raise NameRefused(f"{text!r} is an IP address, not a name")
    return name


def canonical_endpoint(text: str) -> tuple[str, int]:
    """`host:port` → (canonical host, port 1–65535)."""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isascii() or not port.isdigit() or len(port) > 5 or not 0 < int(port) < 65536:
        raise NameRefused(f"{text!r}: write host:port, for example docs.example.com:443")
    return canonical_host(host), int(port)


def inside_address(position: int) -> str:
    """The loopback address of the n-th name inside a sandbox (from 0): 127.64.0.1, 127.64.0.2, …

    Raises:
        ValueError: no address is left in 127.64.0.0/16.
    """
    if not 0 <= position < 65534:
        raise ValueError("a sandbox has at most 65,534 names")
    high, low = divmod(position + 1, 256)
    return f"127.64.{high}.{low}"
