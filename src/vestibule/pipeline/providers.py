"""Which provider a run's model requests go to; the scripted one is started here, on loopback, under its own name."""

from __future__ import annotations

import contextlib
import secrets
from datetime import datetime
from pathlib import Path

from vestibule.agents.registry import adapter
from vestibule.boundary.models.formats.base import FormatName
from vestibule.boundary.models.providers import Upstream, upstream_for
from vestibule.boundary.models.routing import Route, resolve
from vestibule.config.load import operator_config_path
from vestibule.core.errors import ConfigError, DependencyDown
from vestibule.core.text.secrets import KnownSecret
from vestibule.cost.prices import CeilingPrices, FreePrices, ModelPrice, PriceBook, Prices
from vestibule.identity.keys import read_key, secret_of
from vestibule.pipeline.hosting import GatewayHost, loopback_listener
from vestibule.pipeline.record import RunRecord
from vestibule.pipeline.services import Services


def upstreams_of(services: Services, record: RunRecord, host: GatewayHost) -> tuple[tuple[Upstream, ...], Prices]:
    """The upstreams in their order (none for an agent without a model) and the prices of their requests.

    Raises:
        ConfigError: the provider or its script is not usable.
        DependencyDown: `provider_key`.
    """
    if not record.provider:
        return (), _NoPrices()
    prices = price_book(services)
    routes = routes_of(services, record)[1]
    if not record.scripted:
        found = tuple(
            upstream_for(services.operator.models, route.name, route.model, environ=services.environ)
            for route in routes
        )
        for upstream in found:
            upstream.key()
        return found, prices
    from vestibule.boundary.models.scripted.provider import build_scripted_app

    (route,) = routes
    script = Path(route.provider.script).expanduser()
    try:
        data = script.read_bytes()
    except OSError as error:
        raise ConfigError(f"the script cannot be read: {error.strerror}", where=str(script)) from None
    key = secrets.token_urlsafe(24)
    app = build_scripted_app(data, str(script), key)
    listener = loopback_listener()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    host.serve("scripted provider", app, listener)
    upstream = upstream_for(services.operator.models, route.name, route.model, scripted=(address, key))
    return (upstream,), FreePrices(prices, (route.model,))


def routes_of(services: Services, record: RunRecord) -> tuple[FormatName, tuple[Route, ...]]:
    """The wire format of the run's agent, and its upstreams in their order.

    Raises:
        ConfigError: the configuration does not serve the run's model any more.
    """
    operator, model = services.operator, record.agent.model
    formats = adapter(record.agent.adapter).about.apis
    # The row names the provider that was chosen when the run began; an alias names its providers itself.
    name = model if model in operator.model_aliases else f"{record.provider}/{model}"
    return resolve(operator.models, operator.model_aliases, name, formats)


def price_book(services: Services) -> Prices:
    """The prices of this installation: the compiled table, the shipped overlay and the operator's files.

    Raises:
        ConfigError: a price file of the operator's cannot be used.
    """
    folder = operator_config_path(services.environ).parent
    files = tuple(folder / Path(name).expanduser() for name in services.operator.prices)
    book = PriceBook(services.home, files=files, providers=services.operator.models)
    most = services.operator.budget.unknown_price_usd
    return book if most is None else CeilingPrices(book, most)


class _NoPrices:
    """An agent without a model has nothing to price; whatever it asks for is unknown, and so refused."""

    def find(self, model: str, at: datetime, provider: str = "") -> ModelPrice | None:  # noqa: ARG002
        return None


def known_secrets(services: Services, record: RunRecord) -> tuple[KnownSecret, ...]:
    """Values that must never leave in a change: the keys of the run's provider and of its upstream servers."""
    found: list[KnownSecret] = []
    routes = routes_of(services, record)[1] if record.provider and not record.scripted else ()
    for route in routes:
        if route.provider.key is not None:
            key = read_key(route.provider.key, services.environ, account=route.provider.api == "vertex")
            found.append(KnownSecret(f"the key of {route.name}", secret_of(key.encode())))
    for use in record.scope.upstreams:
        server = services.operator.upstreams.get(use.server)
        if server is not None and server.key is not None:
            with contextlib.suppress(DependencyDown):  # a key that cannot be read was never sent anywhere
                key = read_key(server.key, services.environ)
                found.append(KnownSecret(f"the key of the upstream server {use.server}", key.encode()))
    return tuple(found)
