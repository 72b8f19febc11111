"""From operator configuration and a model's name to one upstream.

Rules it keeps:
1. Upstreams come from operator configuration only; a model's name selects among them and can name no host.
2. A key is read from its source at request time, is never stored here, and a missing one refuses.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vestibule.config.providers import Provider
from vestibule.core.errors import ConfigError
from vestibule.core.labels import Confidentiality
from vestibule.identity.keys import read_key


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where requests of one run go: `model` is the name the provider knows, `clearance` bounds what it may learn."""

    provider: str
    api: str
    base_url: str
    model: str
    key: Callable[[], str]
    clearance: Confidentiality = Confidentiality.SECRET

    def credentials(self, key: str) -> dict[str, str]:
        """The header that carries the key."""
        return {"x-api-key": key} if key else {}

    @property
    def scripted(self) -> bool:
        return self.api == "scripted"


@dataclass(frozen=True, slots=True)
class Route:
    """A model's name resolved: the provider's name, the provider, and what the provider calls the model."""

    name: str
    provider: Provider
    model: str


def resolve_provider(providers: Mapping[str, Provider], model: str, *, api: str = "anthropic") -> Route:
    """Which provider serves `model` for an agent that speaks `api`.

    `provider/model` names both; else the provider whose `models` patterns match; else the only provider of that API
    without a `models` list. A scripted provider speaks every API, but serves only what is asked of it by name.

    Raises:
        ConfigError: exit 2, naming what to configure.
    """
    if not model:
        raise ConfigError(
            "the agent needs a model, and none is named",
            next_step="Give --model, or `model:` under the agent in .vestibule/config.yaml.",
        )
    prefix, _, rest = model.partition("/")
    if rest and prefix in providers:
        if providers[prefix].api not in (api, "scripted"):
            raise ConfigError(
                f"the provider {prefix!r} speaks {providers[prefix].api!r}, and the agent needs {api!r}",
                next_step="Choose another provider or another agent.",
            )
        return Route(prefix, providers[prefix], rest)
    speaking = {name: provider for name, provider in providers.items() if provider.api in (api, "scripted")}
    found = [
        name
        for name, provider in speaking.items()
        if any(fnmatch.fnmatchcase(model, pattern) for pattern in provider.models)
    ] or [name for name, provider in speaking.items() if provider.api == api and not provider.models]
    if not found:
        raise ConfigError(
            f"no provider serves the model {model!r} with the API {api!r}",
            next_step="Define one under `models:` in the operator's configuration (VESTIBULE_CONFIG), "
            "or add the model to a provider's `models`.",
        )
    if len(found) > 1:
        raise ConfigError(
            f"several providers could serve the model {model!r}: {', '.join(sorted(found))}",
            next_step=f"Name one: --model {min(found)}/{model}.",
        )
    return Route(found[0], providers[found[0]], model)


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
        return Upstream(name, "scripted", url.rstrip("/"), model, lambda: secret, provider.clearance)
    source = provider.key
    return Upstream(
        name,
        provider.api,
        provider.base_url.rstrip("/"),
        model,
        lambda: read_key(source, environ) if source is not None else "",
        provider.clearance,
    )
