"""The network of one attempt: the plan from role and operator, and the gateway that carries it out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vestibule.boundary.network.rules import NetworkPlan, plan
from vestibule.pipeline.record import RunRecord
from vestibule.pipeline.registries import registry_hosts
from vestibule.pipeline.services import Services

if TYPE_CHECKING:
    from vestibule.boundary.network.gateway import EgressGateway
    from vestibule.core.crossing import Crossing


def network_of(services: Services, record: RunRecord, gateways: tuple[str, ...]) -> NetworkPlan:
    """The names that the agent's sandbox has."""
    network = services.operator.network
    hosts = {str(name): tuple(items) for name, items in network.registries.items()}
    return plan(
        gateways,
        record.scope.hosts,
        record.scope.registries,
        registry_hosts=registry_hosts(record.scope.registries, hosts, services.environ)
        if record.scope.registries
        else {},
        ceiling=network.hosts,
    )


def egress_of(services: Services, record: RunRecord, network: NetworkPlan, crossing: Crossing) -> EgressGateway:
    """The gateway behind the sandbox's other names."""
    from vestibule.boundary.network.gateway import EgressGateway
    from vestibule.boundary.network.limits import NetworkLimits

    terms = services.operator.network
    return EgressGateway(
        crossing=crossing,
        actor=services.actor(record, "agent"),
        plan=network,
        private=frozenset(terms.private),
        clearance=terms.clearance,
        limits=NetworkLimits(
            sent_bytes=terms.sent_mb << 20, received_bytes=terms.received_mb << 20, rate_bytes=terms.rate_kb << 10
        ),
    )
