"""Where clients put their key."""

from __future__ import annotations

from vestibule.boundary.models import asgi


def bearer(scope: asgi.Scope) -> tuple[bytes, ...]:
    """The bearer token, if there is an authorization header; `b""` when that is of another scheme."""
    found = asgi.header(scope, b"authorization")
    if not found:
        return ()
    scheme, _, value = found.partition(b" ")
    return (value.strip() if scheme.lower() == b"bearer" else b"",)
