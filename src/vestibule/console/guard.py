"""The console's outer wall: what reaches a page, and what every answer carries.

Rules it keeps:
1. Only requests that came over loopback to the console's own socket, under its own name: exactly one `Host`, on a
   list (DNS rebinding). A sandbox's listeners have other addresses and names; both are refused.
2. A page is never framed, embedded or loaded by another site (`Sec-Fetch-*`, `frame-ancestors`, `X-Frame-Options`).
3. A POST comes from the console's own page: `Origin` is present and exactly the console's, `Sec-Fetch-Site`, when the
   browser sends it, is `same-origin`. SameSite alone does not do: another port of this host is the same site.
4. Bodies are small forms, read completely within a deadline before anything acts on them.
5. Every answer, errors included, carries the headers below: nothing is cached, no script runs, nothing is loaded
   from elsewhere.

Sources: Fetch standard (Origin serialisation, Sec-Fetch-*), CSP level 3, RFC 9110 sections 7.2 and 15.5.20.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 64 << 10
MAX_TARGET = 4096
BODY_SECONDS = 10.0

CSP = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-security-policy", CSP.encode()),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-embedder-policy", b"require-corp"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    (b"cache-control", b"no-store"),
    (b"x-robots-tag", b"noindex"),
)
REFERRER = b"referrer-policy"
# With `no-referrer` a browser sends `Origin: null` on forms; `same-origin` tells other sites as little.
SAME_ORIGIN = b"same-origin"

_EMBEDDED = frozenset({"iframe", "frame", "embed", "object", "fencedframe", "worker", "sharedworker", "serviceworker"})


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the console listens: a loopback address and a port."""

    host: str
    port: int

    def __post_init__(self) -> None:
        if self.host not in ("127.0.0.1", "::1"):
            raise ValueError(f"the console listens on 127.0.0.1 or ::1 only, not on {self.host!r}")

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.authority}"

    @property
    def names(self) -> frozenset[str]:
        """The `Host` values that mean this console."""
        found = {self.authority, f"localhost:{self.port}"}
        return frozenset(found | {name.rpartition(":")[0] for name in found} if self.port == 80 else found)

    @property
    def cookie(self) -> str:
        """The session cookie's name. Cookies know no ports, so the name does."""
        return f"vestibule_session_{self.port}"


class Guard:
    """Raw ASGI around the console's application."""

    def __init__(self, app: ASGIApp, origin: Origin) -> None:
        self._app = app
        self._origin = origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            return
        sender = _with_headers(send)
        refused = self._refusal(scope)
        if refused is None and scope["method"] == "POST":
            body = await _body(scope, receive)
            if isinstance(body, bytes):
                receive = _replay(body, receive)
            else:
                refused = body
        if refused is not None:
            await _answer(sender, *refused)
            return
        await self._app(scope, receive, sender)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        server = scope.get("server")
        if server is None or tuple(server) != (self._origin.host, self._origin.port) or not _loopback(scope):
            return 403, "The console answers on its own loopback address only."
        hosts = _values(scope, b"host")
        if len(hosts) != 1 or hosts[0].lower() not in self._origin.names:
            return 421, f"This is no name of the console. Open {self._origin.url}/ instead."
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "The console knows GET, HEAD and POST."
        if len(scope.get("raw_path") or b"") + len(scope.get("query_string", b"")) > MAX_TARGET:
            return 414, "The address is too long."
        return self._fetch_refusal(scope, hosts[0].lower())

    def _fetch_refusal(self, scope: Scope, host: str) -> tuple[int, str] | None:
        sites, modes = _values(scope, b"sec-fetch-site"), _values(scope, b"sec-fetch-mode")
        if any(value in _EMBEDDED for value in _values(scope, b"sec-fetch-dest")):
            return 403, "The console is never shown inside another page."
        if scope["method"] == "POST":
            if _values(scope, b"origin") != [f"http://{host}"] or any(site != "same-origin" for site in sites):
                return 403, "A decision is sent from the console's own page only. Open the run again and decide there."
            return None
        if any(site in ("cross-site", "same-site") for site in sites) and modes != ["navigate"]:
            return 403, "Other sites load nothing from the console."
        if any("prefetch" in value for value in _values(scope, b"sec-purpose") + _values(scope, b"purpose")):
            return 403, "The console is not loaded ahead of time."
        return None


async def _body(scope: Scope, receive: Receive) -> bytes | tuple[int, str]:
    """The whole body, or why not."""
    kinds = _values(scope, b"content-type")
    if len(kinds) != 1 or kinds[0].partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        return 415, "The console takes forms of its own only."
    lengths = _values(scope, b"content-length")
    if lengths and not re.fullmatch(r"[0-9]{1,9}", lengths[0]):
        return 400, "The length of the body is no number."
    if lengths and int(lengths[0]) > MAX_BODY:
        return 413, f"The form is larger than {MAX_BODY >> 10} KiB. Write a shorter reason."
    found = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return 400, "The form did not arrive completely."
                found += message.get("body", b"")
                if len(found) > MAX_BODY:
                    return 413, f"The form is larger than {MAX_BODY >> 10} KiB. Write a shorter reason."
                if not message.get("more_body", False):
                    return bytes(found)
    except TimeoutError:
        return 408, "The form took too long to arrive."


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replayed() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _with_headers(send: Send) -> Send:
    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            ours = {name for name, _ in HEADERS}
            kept = [
                (name, value)
                for name, value in message.get("headers", [])
                if name.lower() not in ours and not name.lower().startswith(b"access-control-")
            ]
            if not any(name.lower() == REFERRER for name, _ in kept):
                kept.append((REFERRER, SAME_ORIGIN))
            message = {**message, "headers": [*kept, *HEADERS]}
        await send(message)

    return sender


async def _answer(send: Send, status: int, sentence: str) -> None:
    body = sentence.encode() + b"\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    if status == 405:
        headers.append((b"allow", b"GET, HEAD, POST"))
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _loopback(scope: Scope) -> bool:
    client = scope.get("client")
    if not client:
        return False
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False
