"""Who may look: one-time login links, and the sessions they become.

Rules it keeps:
1. A login token has 256 bits, works once, and expires; only its hash is kept.
2. A session has a new 256-bit secret that no visitor chose (no fixation); only its hash is kept.
3. Each session has its own form token; comparison takes the same time whatever is given.
4. Failed logins are counted; beyond the limit every attempt is refused until the window has passed.
5. Sessions end: when idle, after a working day, on sign-out, and with the process.

The cookie is `HttpOnly`, `SameSite=Strict`, `Path=/`. It carries neither `Secure` nor the `__Host-` prefix, because
loopback has no TLS and not every browser treats it as secure. Cookies know no ports (RFC 6265 section 8.5): another
server on this machine's loopback that the same browser visits receives it too; `Origin`, `Sec-Fetch-Site` and the form
token keep such a page from deciding, but a hostile server run by another user could replay the cookie.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from vestibule.core.errors import Refused
from vestibule.core.model import Person
from vestibule.core.refusal import refusal

LOGIN_SECONDS = 900
IDLE_SECONDS = 3600
SESSION_SECONDS = 8 * 3600
MAX_LIVE = 16
FAILURES = 10
WINDOW_SECONDS = 60


@dataclass(slots=True)
class Flash:
    """A message that the next page shows once."""

    kind: str
    text: str


@dataclass(slots=True)
class Session:
    """A signed-in browser. `presented` records which parts of which view this browser was sent."""

    person: Person
    form_token: str
    started: float
    seen: float
    presented: dict[str, set[int]] = field(default_factory=dict)
    flash: Flash | None = None

    def form_token_matches(self, given: str) -> bool:
        return hmac.compare_digest(self.form_token.encode(), given.encode("utf-8", "replace"))

    def present(self, view: str, files: Iterable[int]) -> set[int]:
        """Remembers that these files of this view were sent; returns all that were."""
        known = self.presented.pop(view, set())
        known.update(files)
        self.presented[view] = known
        while len(self.presented) > 64:
            self.presented.pop(next(iter(self.presented)))
        return known

    def take_flash(self) -> Flash | None:
        found, self.flash = self.flash, None
        return found


class Sessions:
    """Login tokens and sessions of one console, in memory. `person` is who the process's user is."""

    def __init__(self, person: Person, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.person = person
        self._clock = clock
        self._lock = threading.Lock()
        self._logins: dict[bytes, float] = {}
        self._live: dict[bytes, Session] = {}
        self._failures: deque[float] = deque()

    def issue_login(self) -> str:
        """A new login token, 43 URL-safe characters. The oldest of too many unused ones ends."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._logins[_hash(token)] = self._clock() + LOGIN_SECONDS
            while len(self._logins) > MAX_LIVE:
                self._logins.pop(next(iter(self._logins)))
        return token

    def redeem(self, token: str, previous: str = "") -> str:
        """Exchanges a login token for a session secret. A `previous` session of that browser ends.

        Raises:
            Refused: `console.login` for an unknown, used or expired token, `console.rate` after too many of them.
        """
        now = self._clock()
        with self._lock:
            while self._failures and self._failures[0] <= now - WINDOW_SECONDS:
                self._failures.popleft()
            if len(self._failures) >= FAILURES:
                raise Refused(_TOO_MANY)
            expires = self._logins.pop(_hash(token), None)
            if expires is None or expires <= now:
                self._failures.append(now)
                raise Refused(_NO_LOGIN)
            self._live.pop(_hash(previous), None)
            secret = secrets.token_urlsafe(32)
            self._live[_hash(secret)] = Session(self.person, secrets.token_urlsafe(32), now, now)
            while len(self._live) > MAX_LIVE:
                self._live.pop(next(iter(self._live)))
        return secret

    def get(self, secret: str) -> Session | None:
        """The live session of a cookie's value, else None."""
        now = self._clock()
        key = _hash(secret)
        with self._lock:
            session = self._live.get(key)
            if session is None:
                return None
            if now - session.seen > IDLE_SECONDS or now - session.started > SESSION_SECONDS:
                del self._live[key]
                return None
            session.seen = now
            return session

    def end(self, secret: str) -> None:
        with self._lock:
            self._live.pop(_hash(secret), None)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


_NO_LOGIN = refusal(
    "console.login",
    "This login link does not work any more.",
    fact=f"a link works once and for {LOGIN_SECONDS // 60} minutes",
    agent="The console is for people.",
    person="Open the newest link that the command in your terminal printed, or decide with `vestibule review`.",
)
_TOO_MANY = refusal(
    "console.rate",
    "Too many logins failed.",
    fact=f"{FAILURES} within {WINDOW_SECONDS} seconds",
    agent="The console is for people.",
    person=f"Wait {WINDOW_SECONDS} seconds, then open your login link again.",
)
