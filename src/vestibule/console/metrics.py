"""`GET /metrics` for Prometheus, on a loopback socket of its own.

Rules it keeps:
1. Whoever asks shows the scrape token (`Authorization: Bearer …`), compared in constant time, before anything is read.
   Other users of the machine reach the socket, and what is spent on what is not theirs to know.
2. The console's own outer wall stands before it (`guard.Guard`): loopback only, under its own name, no other site.
3. One page is made at a time, and one is good for a second: asking often costs no more.
4. A page that cannot be made is an error (503), never an empty or a stale one: an alert on silence must see silence.
"""

from __future__ import annotations

import hmac
import secrets
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from vestibule.console.guard import Guard, Origin
from vestibule.core.errors import DependencyDown, VestibuleError
from vestibule.cost.exposition import CONTENT_TYPE

TOKEN_FILE = "metrics.token"
FRESH_SECONDS = 1.0


def build_metrics_app(page: Callable[[], str], token: str, origin: Origin) -> ASGIApp:
    """An ASGI application that answers `/metrics` at `origin` with what `page` returns."""
    return Guard(_App(page, token), origin)


class _App:
    def __init__(self, page: Callable[[], str], token: str) -> None:
        self._page = page
        self._expected = b"Bearer " + token.encode()
        self._lock = threading.Lock()
        self._made: tuple[float, bytes] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        if scope["path"] != "/metrics" or scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 404, b"There is /metrics.\n")
            return
        shown = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(shown) != 1 or not hmac.compare_digest(shown[0], self._expected):
            challenge = (b"www-authenticate", b'Bearer realm="metrics"')
            await _answer(send, 401, b"The scrape token is missing or wrong.\n", challenge)
            return
        try:
            body = await run_in_threadpool(self._body)
        except VestibuleError as error:
            await _answer(send, 503, f"{error.what}\n".encode())
            return
        await _answer(send, 200, b"" if scope["method"] == "HEAD" else body, kind=CONTENT_TYPE.encode())

    def _body(self) -> bytes:
        with self._lock:
            if self._made is None or time.monotonic() - self._made[0] > FRESH_SECONDS:
                self._made = None
                self._made = (time.monotonic(), self._page().encode())
            return self._made[1]


async def _answer(
    send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes], kind: bytes = b"text/plain; charset=utf-8"
) -> None:
    head = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


def scrape_token(home: Path) -> str:
    """The token in `metrics.token` of the state folder, made at first use. Readable by this user alone.

    Raises:
        DependencyDown: `state`: it cannot be read or made, or others may read it.
    """
    path = home / TOKEN_FILE
    try:
        if not path.exists():
            made = home / f"{TOKEN_FILE}.{secrets.token_hex(8)}"
            made.touch(mode=0o600, exist_ok=False)
            made.write_text(secrets.token_urlsafe(32) + "\n", "ascii")
            try:
                path.hardlink_to(made)  # of two that begin at once the first one's stands
            except FileExistsError:
                pass
            finally:
                made.unlink()
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise DependencyDown(
                "state", "Others can read the scrape token.", fact=str(path), person=f"Run `rm {path}` and start again."
            )
        token = path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise DependencyDown("state", "The scrape token cannot be used.", fact=f"{path}: {error}") from None
    if len(token) < 32:
        raise DependencyDown("state", "The scrape token is too short.", fact=str(path), person=f"Run `rm {path}`.")
    return token
