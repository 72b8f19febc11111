"""From operator configuration to upstreams: where requests go, with which credentials.

Rules it keeps:
1. Upstreams come from operator configuration only; nothing of a request takes part in their address but the model's
   name that the operator gave.
2. A key is read from its source at request time, is never stored here, and a missing one refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from vestibule.boundary.models.formats.base import FormatName
from vestibule.config.providers import Provider
from vestibule.core.errors import ConfigError
from vestibule.core.labels import Confidentiality
from vestibule.identity.keys import read_key

if TYPE_CHECKING:
    from vestibule.boundary.models.formats.base import Asked

WATSONX_VERSION = "2025-02-11"


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where requests of one run go: `model` is the name the provider knows, `clearance` bounds what it may learn."""

    provider: str
    api: str
    base_url: str
    model: str
    key: Callable[[], str]
    clearance: Confidentiality = Confidentiality.SECRET
    speaks: tuple[FormatName, ...] = ("anthropic",)
    config: Provider | None = None
    """Its configuration; None for one that is made in a test or is scripted."""

    @property
    def scripted(self) -> bool:
        return self.api == "scripted"

    @property
    def dialect(self) -> str:
        """How its format differs from the one it speaks; empty: not at all."""
        return "watsonx" if self.api == "watsonx" else ""

    def credentials(self, key: str) -> dict[str, str]:
        """The header that carries the key, or the token that it was exchanged for."""
        if not key:
            return {}
        if self.api in ("anthropic", "scripted"):
            return {"x-api-key": key}
        if self.api == "azure":
            return {"api-key": key}
        if self.api == "gemini":
            return {"x-goog-api-key": key}
        return {"authorization": f"Bearer {key}"}

    def url(self, asked: Asked, path: str) -> str:
        """The address of one request; `path` is what the format's own API has, `/models/…` for Gemini's."""
        config = self.config
        if self.api == "azure" and config is not None:
            if config.api_version:
                tail = path.partition("?")[0]
                return (
                    f"{self.base_url}/openai/deployments/{quote(self.model, safe='')}{tail}"
                    f"?api-version={config.api_version}"
                )
            return f"{self.base_url}/openai/v1{path}"
        if self.api == "vertex" and config is not None:
            tail = path[path.index("/models/") :]
            return f"{self.base_url}/v1/projects/{config.project}/locations/{config.location}/publishers/google{tail}"
        if self.api == "watsonx" and config is not None:
            stream = "_stream" if asked.stream else ""
            return f"{self.base_url}/ml/v1/text/chat{stream}?version={config.api_version or WATSONX_VERSION}"
        return self.base_url + path


def upstream_for(
    providers: Mapping[str, Provider],
    name: str,
    model: str,
    *,
    scripted: tuple[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Upstream:
    """The upstream of a run, from its provider's name and the model's name there.

    `scripted` is the address (`http://127.0.0.1:PORT`) and the key of the running scripted provider.

    Raises:
        ConfigError: the provider is not defined (any more), or is scripted and not running.
    """
    provider = providers.get(name)
    if provider is None:
        raise ConfigError(
            f"the model provider {name!r} is not defined",
            next_step="Define it under `models:` in the operator's configuration (VESTIBULE_CONFIG).",
        )
    if provider.api == "scripted":
        if scripted is None:
            raise ConfigError(f"the scripted provider {name!r} is not running")
        url, secret = scripted
        return Upstream(name, "scripted", url.rstrip("/"), model, lambda: secret, provider.clearance, provider.formats)
    source = provider.key
    return Upstream(
        name,
        provider.api,
        provider.base_url.rstrip("/"),
        model,
        lambda: read_key(source, environ, account=provider.api == "vertex") if source is not None else "",
        provider.clearance,
        provider.formats,
        provider,
    )
