"""Identifiers. A run id sorts by time and is safe in a branch name, a path and a host label."""

from __future__ import annotations

import re
import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32, lower case
RUN_ID = re.compile(r"r[0-9a-hjkmnp-tv-z]{14}\Z")

Sha = str
"""A git object name: 40 lower-case hex digits (SHA-1) or 64 (SHA-256)."""

SHA = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")


def new_run_id(unix_ms: int) -> str:
    """`r` + 9 digits of time (base 32, milliseconds) + 5 random digits."""
    digits = []
    value = unix_ms & ((1 << 45) - 1)
    for _ in range(9):
        value, index = divmod(value, 32)
        digits.append(_ALPHABET[index])
    random = "".join(secrets.choice(_ALPHABET) for _ in range(5))
    return "r" + "".join(reversed(digits)) + random


def new_id(prefix: str) -> str:
    """A random identifier with 80 bits of entropy: `<prefix>-<16 digits>`."""
    # 256 is a multiple of 32: every digit is as likely as any other.
    return f"{prefix}-" + "".join([_ALPHABET[byte & 31] for byte in secrets.token_bytes(16)])


def agent_identity(trust_domain: str, run: str, agent: str) -> str:
    """The SPIFFE id of an agent within a run (spiffe.io, SPIFFE-ID section 2)."""
    return f"spiffe://{trust_domain}/run/{run}/agent/{agent}"
