"""Which upstreams answer for a model's name, and in which order they are asked. Pure, but for the breaker's memory.

Rules it keeps:
1. Upstreams come from operator configuration only; a model's name selects among them and can name no host.
2. Every upstream of an alias must be able to serve the agent's wire format, by itself or by translation: that is
   found out when a run starts, never in the middle of it.
3. An upstream that fails again and again is left alone for a while, for longer each time, as long as there is another;
   the last resort is asked in any case.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vestibule.boundary.models.formats.base import FormatName
from vestibule.config.providers import Provider
from vestibule.core.errors import ConfigError

TRANSLATED: frozenset[tuple[str, str]] = frozenset({("anthropic", "chat"), ("chat", "anthropic")})
"""(format of the agent, format of the upstream) between which there is a translation."""
LONGEST_PAUSE = 3600.0


@dataclass(frozen=True, slots=True)
class Route:
    """A model's name resolved: the provider's name, the provider, and what the provider calls the model."""

    name: str
    provider: Provider
    model: str

    def upstream_format(self, asked: str) -> FormatName | None:
        """The format in which a request of the format `asked` is sent to it; None when it cannot serve it."""
        return upstream_format(self.provider.formats, asked)


def upstream_format(spoken: Sequence[FormatName], asked: str) -> FormatName | None:
    """Of the formats that an upstream speaks the one for a request of the format `asked`; itself if it can."""
    for name in spoken:
        if name == asked:
            return name
    return next((name for name in spoken if (asked, name) in TRANSLATED), None)


def choose_format(formats: Iterable[FormatName], routes: Sequence[Route]) -> FormatName | None:
    """The format that an agent program is set to: the first of its own that every route serves, without a translation
    if one of them allows that."""
    own = tuple(formats)
    for name in own:
        if all(name in route.provider.formats for route in routes):
            return name
    return next((name for name in own if all(route.upstream_format(name) for route in routes)), None)


def resolve(
    providers: Mapping[str, Provider],
    aliases: Mapping[str, Sequence[str]],
    model: str,
    formats: Sequence[FormatName] = ("anthropic",),
) -> tuple[FormatName, tuple[Route, ...]]:
    """The wire format for the agent and the upstreams for `model`, in the order in which they are asked.

    `model` is an alias, or a name: `provider/model` names both; else the provider whose `models` patterns match; else
    the only provider of a fitting API without a `models` list.

    Raises:
        ConfigError: exit 2, naming what to configure.
    """
    if not model:
        raise ConfigError(
            "the agent needs a model, and none is named",
            next_step="Give --model, or `model:` under the agent in .vestibule/config.yaml.",
        )
    names = aliases.get(model, (model,))
    routes = tuple(_resolve_one(providers, name, formats) for name in names)
    if any(route.provider.api == "scripted" for route in routes) and len(routes) > 1:
        raise ConfigError(
            f"the alias {model!r} mixes a scripted provider with others",
            next_step="A scripted provider stands alone, so that nothing it says is taken for a model's.",
        )
    found = choose_format(formats, routes)
    if found is None:
        raise ConfigError(
            f"the agent speaks {' or '.join(formats)}, and not every provider of the model {model!r} serves that",
            next_step="Choose another provider or another agent; between anthropic and chat there is a translation.",
        )
    return found, routes


def _resolve_one(providers: Mapping[str, Provider], model: str, formats: Sequence[FormatName]) -> Route:
    prefix, _, rest = model.partition("/")
    if rest and prefix in providers:
        return Route(prefix, providers[prefix], rest)
    fitting = {
        name: provider
        for name, provider in providers.items()
        if any(upstream_format(provider.formats, asked) for asked in formats)
    }
    native = {name: item for name, item in fitting.items() if set(item.formats) & set(formats)}
    found = (
        [name for name, item in native.items() if _matches(item, model)]
        or [name for name, item in fitting.items() if _matches(item, model)]
        or [name for name, item in native.items() if item.api != "scripted" and not item.models]
    )
    if not found:
        raise ConfigError(
            f"no provider serves the model {model!r} for an agent that speaks {' or '.join(formats)}",
            next_step="Define one under `models:` in the operator's configuration (VESTIBULE_CONFIG), "
            "or add the model to a provider's `models`.",
        )
    if len(found) > 1:
        raise ConfigError(
            f"several providers could serve the model {model!r}: {', '.join(sorted(found))}",
            next_step=f"Name one: --model {min(found)}/{model}.",
        )
    return Route(found[0], providers[found[0]], model)


def _matches(provider: Provider, model: str) -> bool:
    return any(fnmatch.fnmatchcase(model, pattern) for pattern in provider.models)


@dataclass(slots=True)
class _State:
    failures: int = 0
    pauses: int = 0
    until: float = 0.0


class Breaker:
    """Who is left alone at the moment. One a gateway; used from one loop. `now` is a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._states: dict[str, _State] = {}

    def order(self, names: Sequence[str]) -> list[int]:
        """Positions of `names` in the order in which they are asked: those that are left alone come last."""
        now = self._now()
        resting = [self._states[name].until > now if name in self._states else False for name in names]
        return [i for i, rests in enumerate(resting) if not rests] + [i for i, rests in enumerate(resting) if rests]

    def resting(self, name: str) -> bool:
        return name in self._states and self._states[name].until > self._now()

    def worked(self, name: str) -> None:
        self._states.pop(name, None)

    def failed(self, name: str, *, allowed: int, pause: float) -> bool:
        """Whether it is left alone from now on. After its pause one failure is enough."""
        state = self._states.setdefault(name, _State())
        state.failures += 1
        if state.failures < allowed and not state.pauses:
            return False
        state.until = self._now() + min(LONGEST_PAUSE, pause * 2**state.pauses)
        state.pauses = min(state.pauses + 1, 12)
        state.failures = 0
        return True
