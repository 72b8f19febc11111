"""From operator configuration and a model's name to one upstream.

Rules it keeps:
1. Upstreams come from operator configuration only; a model's name selects among them and can name no host.
2. A key is read from its source at request time, is never stored here, and a missing one refuses.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vestibule.config.schema import KeySource, Provider
from vestibule.core.errors import ConfigError, DependencyDown


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where requests of one run go. `model` is the name that the provider knows."""

    provider: str
    api: str
    base_url: str
    model: str
    key: Callable[[], str]

    @property
    def scripted(self) -> bool:
        return self.api == "scripted"


@dataclass(frozen=True, slots=True)
class ProviderTable:
    """Every provider the operator defined."""

    providers: Mapping[str, Provider]
    environ: Mapping[str, str] | None = None

    def choose(self, model: str, api: str = "anthropic") -> tuple[str, Provider, str]:
        """The provider's name, the provider, and the model's name there.

        `provider/model` names both; else the provider whose `models` patterns match; else the only provider that
        serves the adapter's API (a scripted one serves any API, but only what its `models` name).

        Raises:
            ConfigError: exit 2, naming what to configure.
        """
        if not model:
            raise ConfigError(
                "the agent needs a model, and none is named",
                next_step="Give --model, or `model:` under the agent in .vestibule/config.yaml.",
            )
        prefix, _, rest = model.partition("/")
        if rest and prefix in self.providers:
            return prefix, self._serving(prefix, api), rest
        named = [
            name
            for name, provider in self.providers.items()
            if provider.api in (api, "scripted")
            and any(fnmatch.fnmatchcase(model, pattern) for pattern in provider.models)
        ]
        if len(named) > 1:
            raise ConfigError(
                f"the model {model!r} is served by several providers: {', '.join(sorted(named))}",
                next_step=f"Name one: --model {min(named)}/{model}.",
            )
        if named:
            return named[0], self.providers[named[0]], model
        serving = [name for name, provider in self.providers.items() if provider.api == api and not provider.models]
        if len(serving) == 1:
            return serving[0], self.providers[serving[0]], model
        if not serving:
            raise ConfigError(
                f"no provider serves the model {model!r} with the API {api!r}",
                next_step="Define one under `models:` in the operator's configuration (VESTIBULE_CONFIG), "
                "or add the model to a provider's `models`.",
            )
        raise ConfigError(
            f"several providers could serve the model {model!r}: {', '.join(sorted(serving))}",
            next_step=f"Name one: --model {min(serving)}/{model}.",
        )

    def upstream(self, model: str, api: str = "anthropic", *, scripted: tuple[str, str] | None = None) -> Upstream:
        """The upstream of a task's model. `scripted` is the address and key of the running scripted provider.

        Raises:
            ConfigError: nothing serves it, or a scripted provider is not running.
        """
        name, provider, bare = self.choose(model, api)
        if provider.api == "scripted":
            if scripted is None:
                raise ConfigError(f"the scripted provider {name!r} is not running")
            url, secret = scripted
            return Upstream(name, "scripted", url.rstrip("/"), bare, lambda: secret)
        environ = os.environ if self.environ is None else self.environ
        return Upstream(
            name, provider.api, provider.base_url.rstrip("/"), bare, lambda: read_key(name, provider.key, environ)
        )

    def _serving(self, name: str, api: str) -> Provider:
        provider = self.providers[name]
        if provider.api not in (api, "scripted"):
            raise ConfigError(
                f"the provider {name!r} speaks {provider.api!r}, and the agent needs {api!r}",
                next_step="Choose another provider or another agent.",
            )
        return provider


def read_key(provider: str, source: KeySource | None, environ: Mapping[str, str]) -> str:
    """The provider's key, now.

    Raises:
        DependencyDown: `provider_key`.
    """
    if source is None:
        return ""
    place = f"the variable {source.env}" if source.env else f"the file {source.file}"
    key = ""
    if source.env:
        key = environ.get(source.env, "").strip()
    elif source.file:
        try:
            key = Path(source.file).expanduser().read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            key = ""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise DependencyDown(
            "provider_key",
            f"The key of the model provider {provider!r} is missing.",
            fact=f"expected in {place}",
            agent="Stop here; a person has to provide the key outside the sandbox.",
            person=f"Set {place} for the process that runs vestibule, then resume the run.",
        )
    return key
