"""The adapters there are. Explicit: a package cannot add one by being installed."""

from __future__ import annotations

from vestibule.agents.base import Adapter
from vestibule.core.errors import UsageError

ADAPTERS = ("command", "reference", "claude-code", "codex", "opencode", "gemini", "copilot")


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
    if name == "codex":
        from vestibule.agents.codex import Codex

        return Codex()
    if name == "opencode":
        from vestibule.agents.opencode import OpenCode

        return OpenCode()
    if name == "gemini":
        from vestibule.agents.gemini import Gemini

        return Gemini()
    if name == "copilot":
        from vestibule.agents.copilot import Copilot

        return Copilot()
    raise UsageError(f"There is no agent or adapter {name!r}.", next_step=f"Adapters: {', '.join(ADAPTERS)}.")
