"""What one run may use of the network, whatever its role says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NetworkLimits:
    """Ceilings. Bytes are counted per name and port over the whole run."""

    connections: int = 96
    """At once, over all names; DNS over TCP counts too. Each holds six descriptors at most."""
    hello_seconds: float = 10.0
    """For the ClientHello, from the accept."""
    dial_seconds: float = 15.0
    idle_seconds: float = 300.0
    sent_bytes: int = 256 << 20
    """To one name: what could carry data away."""
    received_bytes: int = 8 << 30
    rate_bytes: int = 0
    """Per second to and from one name; 0: no limit."""
    names: int = 500
    """Unknown names that are recorded one by one; further ones are counted."""
    queries: int = 100_000
    """DNS queries that are answered; further ones are dropped."""
    learned: int = 40
    """Names that learning lets in; each has one listener per port of `LEARN_PORTS`."""
    rows: int = 2_000
    """Different rows of the report (name, program, verdict, reason); further ones are one row."""
