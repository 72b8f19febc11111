"""`.vestibule/trust.yaml`: the rung of a ladder on which each agent version stands. People commit it; agents never can.

Rules it keeps:
1. Without an entry for exactly this agent version an agent stands on the first rung.
2. What cannot be read is an error, never the first or the last rung.
"""

from __future__ import annotations

from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from vestibule.config.load import validate
from vestibule.config.schema import RepoConfig
from vestibule.config.strict_yaml import parse

TRUST_PATH = ".vestibule/trust.yaml"
_HEAD = (
    "# The rung on which each agent version stands. Written by `vestibule trust apply`; it counts when it is\n"
    "# committed on the base branch. Delete an entry to send the agent back to the first rung.\n"
)


def _texts(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TrustStep(_Strict):
    """An agent version stands on `role` of `ladder`; the rest is the evidence that a person had."""

    agent: str
    ladder: str
    role: str
    version: str
    by: str
    time: str
    reason: str
    runs: Annotated[tuple[str, ...], BeforeValidator(_texts)] = ()
    """The clean runs behind it."""
    log: str = ""
    """`origin size root` of the audit log when it was applied."""


class TrustFile(_Strict):
    version: Literal[1] = 1
    steps: Annotated[tuple[TrustStep, ...], BeforeValidator(_texts), Field(max_length=1000)] = ()

    def step(self, agent: str, ladder: str, version: str) -> TrustStep | None:
        """The last entry for exactly this agent version."""
        found = [item for item in self.steps if (item.agent, item.ladder, item.version) == (agent, ladder, version)]
        return found[-1] if found else None

    def with_step(self, step: TrustStep) -> TrustFile:
        """The file with `step` in the place of what stood there for the same agent and ladder."""
        others = [item for item in self.steps if (item.agent, item.ladder) != (step.agent, step.ladder)]
        return TrustFile(steps=(*others, step))

    def dump(self) -> bytes:
        """As YAML, in the order of the entries."""
        document = self.model_dump(mode="json")
        return (_HEAD + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)).encode("utf-8")


def load_trust(data: bytes | None, name: str = TRUST_PATH) -> TrustFile:
    """The file from the bytes of the base commit; None is no file, and nobody has climbed.

    Raises:
        ConfigError: exit 2, naming file and line.
    """
    return TrustFile() if data is None else validate(TrustFile, parse(data, name))


def ladder_of(config: RepoConfig, role: str) -> str:
    """The ladder that the role stands on, "" if none."""
    return next((name for name, rungs in config.trust.ladders.items() if role in rungs), "")


def rung(config: RepoConfig, trust: TrustFile, ladder: str, agent: str, version: str) -> int:
    """How high an agent version stands: the index of its role in the ladder. A role that left the ladder counts 0."""
    rungs = config.trust.ladders[ladder]
    step = trust.step(agent, ladder, version)
    return rungs.index(step.role) if step is not None and step.role in rungs else 0


def may_take(config: RepoConfig, trust: TrustFile, role: str, agent: str, version: str) -> bool:
    """Whether this agent version may work in `role`: any role on no ladder, else one not above its rung."""
    ladder = ladder_of(config, role)
    if not ladder:
        return True
    return config.trust.ladders[ladder].index(role) <= rung(config, trust, ladder, agent, version)
