"""The adapters there are. Explicit: a package cannot add one by being installed."""

from __future__ import annotations

from vestibule.agents.base import Adapter
from vestibule.core.errors import UsageError

ADAPTERS = ("command", "reference", "claude-code")


def adapter(name: str) -> Adapter:
    """Raises `UsageError` naming the ones there are."""
    if name == "command":
        from vestibule.agents.command import Command

        return Command()
    if name == "reference":
        from vestibule.agents.reference import Reference

        return Reference()
    if name == "claude-code":
        from vestibule.agents.claude_code import ClaudeCode

        return ClaudeCode()
    raise UsageError(f"There is no agent or adapter {name!r}.", next_step=f"Adapters: {', '.join(ADAPTERS)}.")
