"""Keys that a provider wants exchanged for a token of an hour: IBM Cloud's (watsonx), Google's (Vertex).

Rules it keeps:
1. The address of the exchange is the operator's (`token_url`), reached like a provider: no redirect, judged addresses.
2. A token is kept in memory only, used until five minutes before its end, and asked for once however many wait.
3. An exchange that fails refuses the request before anything was sent: `dependency.provider_key`.
4. An exchange is an effect of its own: its event is durable before the key leaves, and says how it ended.

Sources: RFC 6749 section 4.4, RFC 7523 section 2.1 (JWT bearer), IBM Cloud IAM ("Generating an IAM token").
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from vestibule.boundary.models.providers import Upstream
from vestibule.config.parts import local_host
from vestibule.core.errors import DependencyDown

IAM_GRANT = "urn:ibm:params:oauth:grant-type:apikey"
JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
EARLY_SECONDS = 300
Post = Callable[[str, str, bytes], Awaitable[bytes]]
"""Provider's name, address, form → the answer's body. Raises `DependencyDown`."""
Record = Callable[[str], Awaitable[Callable[[bool], None]]]
"""Provider's name → what writes the outcome; the intent is durable when it returns. Raises `DependencyDown`."""


@dataclass(slots=True)
class _Kept:
    token: str
    until: float


class ExchangedKeys:
    """Tokens of one run's upstreams. Used from one loop."""

    def __init__(self, post: Post, record: Record, now: Callable[[], float] = time.time) -> None:
        self._post = post
        self._record = record
        self._now = now
        self._kept: dict[str, _Kept] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def secret(self, upstream: Upstream) -> str:
        """The key for a request, or the token that it was exchanged for.

        Raises:
            DependencyDown: `provider_key`.
        """
        if upstream.api not in ("watsonx", "vertex"):
            return upstream.key()
        kept = self._kept.get(upstream.provider)
        if kept is not None and kept.until > self._now():
            return kept.token
        async with self._locks.setdefault(upstream.provider, asyncio.Lock()):
            kept = self._kept.get(upstream.provider)
            if kept is None or kept.until <= self._now():
                kept = self._kept[upstream.provider] = await self._exchange(upstream)
            return kept.token

    async def _exchange(self, upstream: Upstream) -> _Kept:
        key, config = upstream.key(), upstream.config
        url = config.token_url if config is not None else ""
        if upstream.api == "vertex":
            account = _account(upstream.provider, key)
            url = url or str(account.get("token_uri", ""))
            form = {"grant_type": JWT_GRANT, "assertion": _assertion(upstream.provider, account, url, self._now())}
        else:
            form = {"grant_type": IAM_GRANT, "apikey": key}
        scheme, _, rest = url.partition("://")
        if scheme != "https" and (scheme != "http" or not local_host(rest.partition("/")[0])):
            raise _down(upstream.provider, "there is no token_url")
        close = await self._record(upstream.provider)
        try:
            kept = self._token(upstream.provider, await self._post(upstream.provider, url, urlencode(form).encode()))
        except BaseException:
            close(False)
            raise
        close(True)
        return kept

    def _token(self, provider: str, body: bytes) -> _Kept:
        try:
            value = json.loads(body)
            token, lasts = value["access_token"], value.get("expires_in", 3600)
        except (ValueError, KeyError, TypeError):
            raise _down(provider, "the answer of the exchange holds no token") from None
        if not isinstance(token, str) or not token.isascii() or not isinstance(lasts, (int, float)):
            raise _down(provider, "the answer of the exchange holds no token")
        return _Kept(token, self._now() + max(0, lasts - EARLY_SECONDS))


def _account(provider: str, key: str) -> dict[str, Any]:
    try:
        value = json.loads(key)
    except ValueError:
        raise _down(provider, "the key is no service account's file") from None
    if not isinstance(value, dict) or not all(isinstance(value.get(n), str) for n in ("client_email", "private_key")):
        raise _down(provider, "the key is no service account's file")
    return value


def _assertion(provider: str, account: dict[str, Any], audience: str, now: float) -> str:
    """A signed JWT that is exchanged for a token (RFC 7523)."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    claims = {
        "iss": account["client_email"],
        "scope": SCOPE,
        "aud": audience,
        "iat": int(now),
        "exp": int(now) + 3600,
    }
    signed = b".".join(_part(item) for item in ({"alg": "RS256", "typ": "JWT"}, claims))
    try:
        key = serialization.load_pem_private_key(account["private_key"].encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _down(provider, "the private key of the service account cannot be read") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise _down(provider, "the private key of the service account is of another kind than RSA")
    signature = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def _part(value: dict[str, Any]) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=")


def _down(provider: str, fact: str) -> DependencyDown:
    return DependencyDown(
        "provider_key",
        f"The key of the model provider {provider!r} cannot be exchanged for a token.",
        fact=fact,
        agent="Stop here; a person has to repair the provider's configuration.",
        person="Check the provider's key and token_url in the operator's configuration.",
    )
