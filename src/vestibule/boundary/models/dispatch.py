"""What is sent to a provider for a request that was allowed: address, headers, body, and how its answer is read.

Rules it keeps:
1. The address comes from the upstream alone; of a request only its format, operation and model's name take part.
2. A body goes on byte for byte as it came, unless something of it has to be another (the model's name, `changed`).
3. The key is added here and nowhere else, in the place where this provider's API wants it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vestibule import __version__
from vestibule.boundary.models.fields.kit import FieldRefused
from vestibule.boundary.models.formats import by_name
from vestibule.boundary.models.formats.base import Asked
from vestibule.boundary.models.providers import Upstream
from vestibule.boundary.models.wire.strict_json import BadJson, dump

_USER_AGENT = f"vestibule/{__version__}"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One HTTP request to a provider. `headers` hold the key, so it is never shown."""

    provider: str
    url: str
    body: bytes
    headers: Mapping[str, str] = field(repr=False)


def outgoing(asked: Asked, raw: bytes, upstream: Upstream, headers: Mapping[str, str], key: str) -> Outgoing:
    """The request for `upstream`. `raw` are the bytes that `asked.body` was parsed from, if it is unchanged.

    Raises:
        FieldRefused: it cannot be written (a lone surrogate).
    """
    native = by_name(asked.format)
    body = native.for_model(asked.body, upstream.model)
    data = raw if body is asked.body and not asked.changed else written(body)
    sent = {
        **headers,
        "content-type": "application/json",
        "accept-encoding": "identity",
        "user-agent": _USER_AGENT,
        **upstream.credentials(key),
    }
    return Outgoing(upstream.provider, upstream.url(asked, native.path(asked, upstream.model)), data, sent)


def written(body: dict[str, Any]) -> bytes:
    """A body of our own writing. Raises `FieldRefused`."""
    try:
        return dump(body)
    except BadJson as error:
        raise FieldRefused("json", str(error)) from None
