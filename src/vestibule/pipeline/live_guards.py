"""Guards proved live, per run: before the agent starts, one forbidden call per crossing must come back refused.

The commonest defect of such systems is the guard that is silently not there. So each guard is asked, over the
path that the agent will use, for something it must refuse; if the refusal does not come back, the run does not start.
Probes are events with subject `probe`: they count neither as decisions nor as cost nor as trust.
"""

from __future__ import annotations

from vestibule.agents.base import CONTEXT_HOST, MODELS_HOST
from vestibule.boundary.network.rules import NetworkPlan
from vestibule.core.errors import DependencyDown
from vestibule.core.ports import RESOLVER, RunningSandbox
from vestibule.pipeline.record import RunRecord
from vestibule.pipeline.services import Services


def prove(services: Services, record: RunRecord, sandbox: RunningSandbox, token: str, network: NetworkPlan) -> None:
    """Ask each guard for what it must refuse.

    Raises:
        DependencyDown: `guard`, naming the one that let it through or did not answer.
    """
    from vestibule.boundary.changes.gateway import Changes
    from vestibule.boundary.context import canary as context
    from vestibule.boundary.models import canary as models
    from vestibule.boundary.network import canary as egress

    with sandbox.connect(CONTEXT_HOST) as connection:
        if context.forbidden_call(connection, token) is None:
            raise _dead("context", "a file outside every scope was not refused")
    with sandbox.connect(MODELS_HOST) as connection:
        if models.forbidden_call(connection, token) is None:
            raise _dead("models", "a provider-side tool was not refused before dispatch")
    reached = sorted(target for target, error in sandbox.probe_egress().items() if error == "connected")
    if reached:
        raise _dead("network", f"reached {', '.join(reached)} from inside")
    with sandbox.connect(RESOLVER[1]) as connection:
        if not egress.refuses_name(connection):
            raise _dead("network", "a name that is not the task's was not refused")
    named = next((rule for rule in network.rules if rule.tls), None)
    if named is not None:
        with sandbox.connect(named.key) as connection:
            if not egress.refuses_connection(connection):
                raise _dead("network", f"a connection to {named.key} under another name was not refused")
    Changes().canary(services.crossing(record), services.actor(record, "probe"))
    services.note(record, "guards.live", "context, models, network, changes")


def _dead(crossing: str, fact: str) -> DependencyDown:
    return DependencyDown(
        "guard",
        f"The guard of the {crossing} crossing is not live, so the agent was not started.",
        fact=fact,
        person="This should never happen: run `vestibule doctor`, and report it with its output.",
    )
