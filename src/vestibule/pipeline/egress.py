"""The network of one attempt: the plan from role and operator, the gateway that carries it out, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from vestibule.boundary.network.report import EgressReport
from vestibule.boundary.network.rules import NetworkPlan, plan
from vestibule.config.schema import OperatorConfig
from vestibule.core.base import Noun
from vestibule.core.errors import Refused
from vestibule.core.labels import Label
from vestibule.core.model import Finding
from vestibule.core.ports import KernelConnect, RunningSandbox
from vestibule.core.refusal import refusal
from vestibule.core.verdict import Ruling
from vestibule.pipeline.record import RunRecord
from vestibule.pipeline.registries import registries_of
from vestibule.pipeline.services import Services

if TYPE_CHECKING:
    from vestibule.boundary.network.gateway import EgressGateway
    from vestibule.core.crossing import Crossing

ECOSYSTEMS = ("pip", "npm", "go")
"""Registries whose clients can be asked, for learning to tell their hosts from others."""


class RunNetwork(Noun):
    """The names inside, and what the clients of registries are given to find theirs."""

    plan: NetworkPlan
    env: dict[str, str] = {}
    home_files: dict[str, bytes] = {}


def may_learn(operator: OperatorConfig) -> None:
    """Raises Refused (`network.learn`) where the operator does not let runs learn."""
    if operator.network.learn:
        return
    raise Refused(
        refusal(
            "network.learn",
            "Learning is not allowed here, so only listed names are reached.",
            fact="--egress learn",
            agent="Do without it.",
            person="The operator allows it with `network.learn: true`; it lets through names that nobody listed.",
        )
    )


def network_of(services: Services, record: RunRecord, gateways: tuple[str, ...]) -> RunNetwork:
    """The names that the agent's sandbox has."""
    network = services.operator.network
    configured = {str(name): tuple(items) for name, items in network.registries.items()}
    found = registries_of(record.scope.registries, configured, services.environ) if record.scope.registries else {}
    planned = plan(
        gateways,
        record.scope.hosts,
        record.scope.registries,
        registry_hosts={name: item.hosts for name, item in found.items()},
        ceiling=network.hosts,
        programs=record.scope.host_programs,
    )
    return RunNetwork(
        plan=planned,
        env={key: value for item in found.values() for key, value in item.env.items()},
        home_files={key: value for item in found.values() for key, value in item.files.items()},
    )


def egress_of(
    services: Services, record: RunRecord, network: RunNetwork, crossing: Crossing, sandbox: RunningSandbox
) -> EgressGateway:
    """The gateway behind the sandbox's other names. Raises Refused: it would learn, and may not."""
    from vestibule.boundary.network.gateway import EgressGateway
    from vestibule.boundary.network.learning import Learning
    from vestibule.boundary.network.limits import NetworkLimits
    from vestibule.boundary.network.outside import Outside

    terms = services.operator.network
    learning = None
    if record.egress == "learn":
        may_learn(services.operator)
        learning = Learning(sandbox.listen, ceiling=terms.hosts)
    return EgressGateway(
        crossing=crossing,
        actor=services.actor(record, "agent"),
        probe=services.actor(record, "probe"),
        plan=network.plan,
        outside=Outside(private=frozenset(terms.private), pins={key: _place(to) for key, to in terms.pins.items()}),
        who=sandbox.programs_of,
        clearance=terms.clearance,
        gives=Label(integrity=terms.integrity),
        learning=learning,
        limits=NetworkLimits(
            sent_bytes=terms.sent_mb << 20, received_bytes=terms.received_mb << 20, rate_bytes=terms.rate_kb << 10
        ),
    )


def _place(pin: str) -> tuple[str, int]:
    host, _, port = pin.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def egress_report(
    services: Services, record: RunRecord, gateway: EgressGateway, connects: Iterable[KernelConnect] | None
) -> EgressReport:
    """What the attempt did, its alarms in the log. `connects`: what the kernel saw, None where nobody looks.

    Raises:
        DependencyDown: `audit`; an alarm could not be recorded.
    """
    from vestibule.boundary.network.learning import config_block, needs

    report = gateway.report(connects)
    for alarm in report.alarms:
        services.note(record, "host.connect", alarm.fact, verdict=Ruling.HOLD, reasons=(alarm.rule,))
    if report.mode == "learn":
        configured = {str(name): tuple(items) for name, items in services.operator.network.registries.items()}
        names = dict.fromkeys((*configured, *ECOSYSTEMS)) if report.learned else ()
        known = {name: item.hosts for name, item in registries_of(names, configured, services.environ).items()}
        found = needs(report, known)
        report = report.model_copy(update={"needs": found, "config_block": config_block(found, record.role)})
    return report


def egress_findings(record: RunRecord) -> tuple[Finding, ...]:
    """What a reviewer has to know about the attempt's connections; each of them holds the change."""
    report = record.network
    if report is None:
        return ()
    found = [
        Finding(
            rule=alarm.rule,
            severity="error",
            verdict=Ruling.HOLD,
            message=f"{_ALARMS.get(alarm.rule, 'Two sources about the network disagree.')} {alarm.fact}",
        )
        for alarm in report.alarms
    ]
    through = [need.key for need in report.needs if not need.refused]
    if through:
        found.append(
            Finding(
                rule="network.learned",
                severity="warning",
                verdict=Ruling.HOLD,
                message=f"The agent worked with names that nobody listed: {', '.join(through)}.",
            )
        )
    return tuple(found)


_ALARMS = {
    "network.unrecorded": "The kernel saw a connection that no gateway recorded.",
    "network.unseen": "A gateway recorded connections that the kernel did not see.",
    "network.unnamed": "A program connected to an address inside that was given to no name.",
}
