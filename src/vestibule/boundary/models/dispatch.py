"""What is sent to a provider for a request that was allowed: address, headers, body, and how its answer is read.

Rules it keeps:
1. The address comes from the upstream alone; of a request only its format, operation and model's name take part.
2. A body goes on byte for byte as it came, unless something of it has to be another (the model's name, `changed`), or
   the provider speaks another format or dialect. It is checked in the format it came in, and priced by its bytes there.
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
from vestibule.boundary.models.routing import upstream_format
from vestibule.boundary.models.translate import Translation
from vestibule.boundary.models.translate.dialects import dialect_of
from vestibule.boundary.models.translate.ways import way
from vestibule.boundary.models.wire.strict_json import BadJson, dump

_USER_AGENT = f"vestibule/{__version__}"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One HTTP request to a provider. `headers` hold the key, so it is never shown."""

    provider: str
    url: str
    body: bytes
    headers: Mapping[str, str] = field(repr=False)
    way: Translation | None = None
    """What its answer has to go through to be one in the client's format."""


def outgoing(asked: Asked, raw: bytes, upstream: Upstream, headers: Mapping[str, str], key: str) -> Outgoing:
    """The request for `upstream`. `raw` are the bytes that `asked.body` was parsed from, if it is unchanged.

    Raises:
        FieldRefused: it cannot be written (a lone surrogate), or not be said to this provider.
    """
    target = upstream_format(upstream.speaks, asked.format)
    if target is None:
        raise FieldRefused("endpoint", "this model's provider does not speak this API")
    native = by_name(target)
    body = by_name(asked.format).for_model(asked.body, upstream.model)
    dialect = dialect_of(upstream.api, upstream.speaks)
    passage = way(asked.format, target, dialect, place=_place(upstream), model=upstream.model)
    own = headers
    if passage is not None:
        if asked.operation == "count":
            raise FieldRefused("endpoint", "this model's provider counts no tokens")
        body = passage.request(body)
        own = passage.headers(stream=asked.stream)
    data = raw if body is asked.body and not asked.changed else written(body)
    sent = {
        **own,
        "content-type": "application/json",
        "accept-encoding": "identity",
        "user-agent": _USER_AGENT,
        **upstream.credentials(key),
    }
    back = passage if target != asked.format or dialect == "watsonx" else None
    return Outgoing(upstream.provider, upstream.url(asked, native.path(asked, upstream.model)), data, sent, back)


def _place(upstream: Upstream) -> dict[str, str]:
    """watsonx: whose project or space pays."""
    config = upstream.config
    if config is None:
        return {}
    found = {"project_id": config.project, "space_id": config.space}
    return {key: value for key, value in found.items() if value}


def written(body: dict[str, Any]) -> bytes:
    """A body of our own writing. Raises `FieldRefused`."""
    try:
        return dump(body)
    except BadJson as error:
        raise FieldRefused("json", str(error)) from None
