"""Copilot CLI, unmodified, in two modes, with our gateway as its provider: no account of anybody's takes part.

MCP-only (default): only our server's tools are available; what it does crosses the context gateway call by call.
Native: its own tools run inside the sandbox on the view; our tools are there as well.

Rules it keeps:
1. Configuration comes by variables, options and files of the tmpfs HOME; custom instructions of the repository are off.
2. The provider is ours by address and kind; `COPILOT_OFFLINE` keeps it from every other service.
3. The repository's instructions come from its base commit, before the prompt.
4. Updates and its own servers are off for speed and silence; the missing route holds them.
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
from vestibule.agents.verified import COPILOT

PACKAGE = "@github/copilot"
_CONFIG = "vestibule-mcp.json"
MAX_DENIALS = 50
_PROVIDERS = {
    "anthropic": {"COPILOT_PROVIDER_TYPE": "anthropic", "COPILOT_PROVIDER_BASE_URL": f"{MODELS_URL}/anthropic"},
    "responses": {
        "COPILOT_PROVIDER_TYPE": "openai",
        "COPILOT_PROVIDER_WIRE_API": "responses",
        "COPILOT_PROVIDER_BASE_URL": f"{MODELS_URL}/openai/v1",
    },
    "chat": {
        "COPILOT_PROVIDER_TYPE": "openai",
        "COPILOT_PROVIDER_WIRE_API": "completions",
        "COPILOT_PROVIDER_BASE_URL": f"{MODELS_URL}/openai/v1",
    },
}


class Copilot:
    """`adapter: copilot`."""

    name = "copilot"
    needs_model = True
    about = About(
        program="copilot",
        modes=("mcp", "native"),
        reads=(
            "**/agents.md",
            "**/claude.md",
            "**/gemini.md",
            "**/.github/copilot{,-*,/**}",
            "**/.github/hooks{,/**}",
            "**/.github/instructions{,/**}",
            "**/.mcp.json",
        ),
        verified=COPILOT,
        cli="copilot-cli",
        apis=("responses", "chat", "anthropic"),
    )

    def program_version(self, tools: tuple[Path, ...]) -> str:
        return npm_version(npm_program("copilot", PACKAGE, tools))

    def plan(self, situation: Situation) -> Plan:
        config = {
            "mcpServers": {
                MCP_SERVER: {
                    "type": "http",
                    "url": CONTEXT_URL,
                    "headers": {"Authorization": f"Bearer {situation.token}"},
                    "tools": ["*"],
                }
            }
        }
        argv = [
            str(npm_program("copilot", PACKAGE, situation.tools)),
            "--prompt",
            told(situation.instructions) + prompt(situation.task),
            "--output-format",
            "json",
            "--no-auto-update",
            "--no-custom-instructions",
            "--no-ask-user",
            "--disable-builtin-mcps",
            "--additional-mcp-config",
            f"@/home/agent/{_CONFIG}",
        ]
        if situation.native:
            argv += ["--allow-all-tools"]
        else:
            argv += [f"--available-tools={MCP_SERVER}", f"--allow-tool={MCP_SERVER}"]
        env = {
            **environment(situation),
            **_PROVIDERS[situation.api],
            "COPILOT_PROVIDER_API_KEY": situation.token,
            "COPILOT_MODEL": situation.task.agent.model,
            "COPILOT_OFFLINE": "true",
        }
        return Plan(argv=tuple(argv), env=env, home_files={_CONFIG: json.dumps(config).encode()})

    def last_message(self, transcript: bytes) -> str:
        for event in last_events(transcript):
            data = event.get("data")
            if event.get("type") == "assistant.message" and isinstance(data, dict) and data.get("content"):
                return words(data.get("content"))
        return tail(transcript)

    def own_denials(self, transcript: bytes) -> tuple[str, ...]:
        found: list[str] = []
        for event in last_events(transcript):
            data = event.get("data")
            if (
                event.get("type") == "tool.execution_complete"
                and isinstance(data, dict)
                and data.get("success") is False
            ):
                found.append(words(data.get("toolName") or data.get("toolCallId"), 100))
        return tuple(name for name in found if name)[:MAX_DENIALS]
