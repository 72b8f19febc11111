"""Any program as the agent: a formatter, a fixer, a script of the team's own."""

from __future__ import annotations

from pathlib import Path

from vestibule.agents.base import About, Plan, Situation, environment, tail
from vestibule.core.errors import UsageError


class Command:
    """`--agent command -- CMD …`. The program may ignore the gateways; there is a model where one is named."""

    name = "command"
    needs_model = False
    about = About(apis=("anthropic", "responses", "chat", "gemini"))

    def program_version(self, tools: tuple[Path, ...]) -> str:  # noqa: ARG002
        return "any"

    def plan(self, situation: Situation) -> Plan:
        if not situation.command:
            raise UsageError(
                "The agent `command` needs a command.", next_step="Add it after two dashes: … -- ruff check --fix src"
            )
        return Plan(argv=situation.command, env=environment(situation))

    def last_message(self, transcript: bytes) -> str:
        return tail(transcript)

    def own_denials(self, transcript: bytes) -> tuple[str, ...]:  # noqa: ARG002
        return ()
