"""The run's task tokens: what an agent shows at its own run's listeners, and nowhere else.

Rules it keeps:
1. A token is 256 random bits. It says nothing, opens nothing elsewhere, and only its digest is kept.
2. It is valid while the supervisor renews a lease of at most 900 s, and dies with the run.
3. Comparison takes the same time wherever two tokens differ, and every token is compared.
4. Agent and probe have different tokens, so that a probe is never counted as the agent or the reverse.

Why opaque and not a JWT: docs/adr/0004-task-tokens.md.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable

from vestibule.core.crossing import Actor

PREFIX = "vst_"
MAX_LEASE_SECONDS = 900.0
MAX_TOKEN_BYTES = 128


class TaskTokens:
    """Tokens of one attempt of one run. Thread-safe."""

    def __init__(
        self,
        agent: Actor,
        probe: Actor,
        *,
        lease_seconds: float = MAX_LEASE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` is monotonic and in seconds.

        Raises:
            ValueError: a lease of no time or of more than 900 s, or actors of the wrong kind.
        """
        if not 0 < lease_seconds <= MAX_LEASE_SECONDS:
            raise ValueError(f"a lease is more than 0 and at most {MAX_LEASE_SECONDS:.0f} seconds")
        if agent.kind != "agent" or probe.kind != "probe":
            raise ValueError("one actor is the agent, the other the probe")
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._lock = threading.Lock()
        self._ends = clock() + lease_seconds
        self._revoked = False
        self._tokens = {"agent": _new_token(), "probe": _new_token()}
        self._digests = ((_digest(self._tokens["agent"]), agent), (_digest(self._tokens["probe"]), probe))

    @property
    def agent_token(self) -> str:
        """For the sandbox's environment. Raises LookupError once it was forgotten."""
        return self._shown("agent")

    @property
    def probe_token(self) -> str:
        """For the supervisor's own probes; it never enters the sandbox. Raises LookupError once forgotten."""
        return self._shown("probe")

    def forget(self) -> None:
        """Keep digests only, once both tokens were handed over."""
        with self._lock:
            self._tokens.clear()

    def authenticate(self, token: bytes) -> Actor | None:
        """Who shows this token; None for a wrong, expired or revoked one."""
        found: Actor | None = None
        shown = hashlib.sha256(token).digest() if len(token) <= MAX_TOKEN_BYTES else bytes(32)
        for digest, actor in self._digests:
            if hmac.compare_digest(shown, digest):
                found = actor
        return found if self.live else None

    @property
    def live(self) -> bool:
        """Whether the lease still runs."""
        with self._lock:
            return not self._revoked and self._clock() < self._ends

    def renew(self) -> bool:
        """Another lease from now. False, and nothing happens, when the lease has ended or was revoked."""
        with self._lock:
            now = self._clock()
            if self._revoked or now >= self._ends:
                return False
            self._ends = now + self._lease_seconds
            return True

    def revoke(self) -> None:
        """The run is over. Idempotent, for ever."""
        with self._lock:
            self._revoked = True
            self._tokens.clear()

    def _shown(self, name: str) -> str:
        with self._lock:
            token = self._tokens.get(name)
        if token is None:
            raise LookupError(f"the {name} token was handed over or revoked; only its digest is kept")
        return token


def _new_token() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("ascii")).digest()
