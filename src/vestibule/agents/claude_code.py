"""Claude Code, the unmodified CLI, in two modes.

MCP-only (default): no built-in tools at all; everything it does crosses the context gateway call by call.
Native: its own tools run inside the sandbox on the view; web tools are off, our tools are there as well.

Rules it keeps:
1. Settings come from the tmpfs HOME only (`--setting-sources user`, `--strict-mcp-config`): files in the
   repository start no hook and no server and redirect nothing (CVE-2025-59536, CVE-2026-21852). The view leaves
   them out as well; neither is trusted alone.
2. Every model alias points at the task's model, so that hidden side calls are priced and allowed like the rest.
3. The repository's instructions come from its base commit in a file of the tmpfs HOME, as system prompt: no file of
   the working tree is memory, and an `@path` in them is text, not an import.
4. Telemetry, updates and error reports are off for speed and silence; the missing route is what holds them.
"""

from __future__ import annotations

import json
from pathlib import Path

from vestibule.agents.base import (
    CONTEXT_URL,
    MCP_SERVER,
    MODELS_URL,
    About,
    Plan,
    Situation,
    environment,
    last_events,
    npm_program,
    npm_version,
    prompt,
    tail,
    told,
    words,
)
from vestibule.agents.verified import CLAUDE_CODE

PACKAGE = "@anthropic-ai/claude-code"
_CONFIG = "vestibule-mcp.json"
_INSTRUCTIONS = "vestibule-instructions.md"
SILENT = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_BUG_COMMAND": "1",
    "CLAUDE_CODE_ENABLE_TELEMETRY": "0",
}
_WEB_TOOLS = "WebFetch,WebSearch"

MAX_DENIALS = 50
"""Refusals of the program's own that are kept for display."""


class ClaudeCode:
    """`adapter: claude-code`."""

    name = "claude-code"
    needs_model = True
    about = About(
        program="claude",
        modes=("mcp", "native"),
        reads=(
            "**/claude.md",
            "**/claude.local.md",
            "**/.claude{,/**}",
            "**/.claude-plugin{,/**}",
            "**/.mcp.json",
            "**/.lsp.json",
            "**/.worktreeinclude",
            "**/skill.md",
        ),
        verified=CLAUDE_CODE,
        cli="claude-code",
    )

    def program_version(self, tools: tuple[Path, ...]) -> str:
        return npm_version(npm_program("claude", PACKAGE, tools))

    def plan(self, situation: Situation) -> Plan:
        task = situation.task
        model = task.agent.model
        config = {
            "mcpServers": {
                MCP_SERVER: {
                    "type": "http",
                    "url": CONTEXT_URL,
                    "headers": {"Authorization": f"Bearer {situation.token}"},
                }
            }
        }
        argv = [
            str(npm_program("claude", PACKAGE, situation.tools)),
            "-p",
            prompt(task),
            "--output-format",
            "stream-json",
            "--verbose",
            "--model",
            model,
            "--setting-sources",
            "user",
            "--mcp-config",
            f"/home/agent/{_CONFIG}",
            "--strict-mcp-config",
        ]
        home_files = {_CONFIG: json.dumps(config).encode()}
        if situation.instructions:
            home_files[_INSTRUCTIONS] = told(situation.instructions).encode("utf-8", "replace")
            argv += ["--append-system-prompt-file", f"/home/agent/{_INSTRUCTIONS}"]
        if situation.native:
            # The walls are the sandbox's; its own prompts would only make a headless run fail.
            argv += ["--dangerously-skip-permissions", "--disallowedTools", _WEB_TOOLS]
        else:
            # Whatever our server offers: which calls are allowed is decided there, call by call.
            argv += ["--tools", "", "--allowedTools", f"mcp__{MCP_SERVER}"]
        env = {
            **environment(situation),
            **SILENT,
            "ANTHROPIC_BASE_URL": f"{MODELS_URL}/anthropic",
            "ANTHROPIC_AUTH_TOKEN": situation.token,
            "ANTHROPIC_MODEL": model,
            "ANTHROPIC_SMALL_FAST_MODEL": model,
            "ANTHROPIC_DEFAULT_HAIKU_MODEL": model,
            "ANTHROPIC_DEFAULT_SONNET_MODEL": model,
            "ANTHROPIC_DEFAULT_OPUS_MODEL": model,
            "CLAUDE_CODE_SUBAGENT_MODEL": model,
            "MCP_TIMEOUT": "30000",
        }
        return Plan(argv=tuple(argv), env=env, home_files=home_files)

    def last_message(self, transcript: bytes) -> str:
        for event in last_events(transcript):
            if event.get("type") == "result":
                return words(event.get("result"))
        # It ended before it could say so in its own form: whatever it printed last.
        return tail(transcript)

    def own_denials(self, transcript: bytes) -> tuple[str, ...]:
        for event in last_events(transcript):
            if event.get("type") == "result":
                found = event.get("permission_denials")
                items = found[:MAX_DENIALS] if isinstance(found, list) else []
                names = (words(item.get("tool_name"), 100) for item in items if isinstance(item, dict))
                return tuple(name for name in names if name)
        return ()
