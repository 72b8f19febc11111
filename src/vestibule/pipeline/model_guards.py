"""What the guards of a run's model texts know: its keys and tokens, the operator's canaries and validators."""

from __future__ import annotations

from collections.abc import Iterable

from vestibule.boundary.models.guards.desk import Guards, GuardSettings
from vestibule.boundary.models.guards.validators import validators_for
from vestibule.boundary.models.providers import Upstream
from vestibule.config.guardrails import Guardrails
from vestibule.core.labels import RunLabel
from vestibule.core.text.secrets import KnownSecret
from vestibule.identity.tokens import TaskTokens
from vestibule.pipeline.providers import known_secrets
from vestibule.pipeline.record import RunRecord
from vestibule.pipeline.services import Services


def guards_of(
    services: Services, record: RunRecord, tokens: TaskTokens, upstreams: Iterable[Upstream], labels: RunLabel
) -> Guards:
    """The guards of one attempt. Made before the tokens are forgotten.

    Raises:
        ConfigError: a validator cannot be made.
        DependencyDown: `provider_key`.
    """
    config = services.operator.guardrails
    secrets = (
        *known_secrets(services, record),
        # The agent's own token is no secret here: it opens nothing elsewhere, and `env` in a shell shows it.
        KnownSecret("the probe's token", tokens.probe_token.encode()),
        *(KnownSecret(f"the canary {name}", value.encode()) for name, value in sorted(config.canaries.items())),
    )
    return Guards(
        settings_of(config, record.role, secrets),
        lambda: labels.current,
        (upstream.clearance for upstream in upstreams),
    )


def settings_of(config: Guardrails, role: str, secrets: tuple[KnownSecret, ...]) -> GuardSettings:
    return GuardSettings(
        secrets=secrets,
        mark_results=config.mark_results,
        redact=config.redact,
        redact_for=config.redact_for,
        validators=validators_for(config.answers, role),
    )
