"""Copilot CLI, unmodified, in two modes, with our gateway as its provider: no account of anybody's takes part.

MCP-only (default): only our server's tools are available; what it does crosses the context gateway call by call.
Native: its own tools run inside the sandbox on the view; web tools, skills and agents are off, our tools are there too.

Rules it keeps:
1. Configuration comes by variables, options and files of the tmpfs HOME. The folder is not trusted, so that files of
   the repository configure nothing; custom instructions and hooks are off beside that.
2. The provider is ours by address and kind; `COPILOT_OFFLINE` keeps it from every other service.
3. The repository's instructions come from its base commit, before the prompt.
4. Telemetry, updates, memories and its own servers are off for speed and silence; the missing route holds them.
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
_NOT_NATIVE = ("web_fetch", "fetch_copilot_cli_documentation", "skill", "store_memory", "session_store_sql")
_AGENTS = ("task", "read_agent", "write_agent", "list_agents")
"""Agents within the agent: their descriptions are read from `.github/agents` even where the folder is not trusted."""
MAX_DENIALS = 50
MAX_ARGUMENT = 96 * 1024
"""Bytes of instructions in an argument, of which Linux takes 128 KiB at most; `get_task` gives them whole."""
_SETTINGS = {
    "disableAllHooks": True,
    "memory": False,
    "autoUpdate": False,
    "includeCoAuthoredBy": False,
    "ide": {"autoConnect": False},
}
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
            "**/skill.md",
            ".github/copilot-instructions.md",
            ".github/copilot*{,/**}",
            ".github/instructions{,/**}",
            ".github/agents{,/**}",
            ".github/skills{,/**}",
            ".github/hooks{,/**}",
            ".github/extensions{,/**}",
            ".github/{lsp,plugin}.json",
            ".github/plugin{,/**}",
            "**/.claude{,/**}",
            "**/.mcp.json",
            "**/mcp.json",
            "**/.lsp.json",
            "**/.agents{,/**}",
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
            _cut(told(situation.instructions)) + prompt(situation.task),
            "--output-format",
            "json",
            "--no-auto-update",
            "--disable-client-telemetry",
            "--no-remote",
            "--no-remote-export",
            "--no-custom-instructions",
            "--no-ask-user",
            "--disable-builtin-mcps",
            "--additional-mcp-config",
            f"@/home/agent/{_CONFIG}",
        ]
        if situation.native:
            argv += ["--allow-all-tools", f"--excluded-tools={','.join((*_NOT_NATIVE, *_AGENTS))}"]
        else:
            argv += [f"--available-tools={MCP_SERVER}", f"--allow-tool={MCP_SERVER}"]
        env = {
            **environment(situation),
            **_PROVIDERS[situation.api],
            "COPILOT_PROVIDER_API_KEY": situation.token,
            "COPILOT_MODEL": situation.task.agent.model,
            "COPILOT_OFFLINE": "true",
        }
        files = {_CONFIG: json.dumps(config).encode(), ".copilot/settings.json": json.dumps(_SETTINGS).encode()}
        return Plan(argv=tuple(argv), env=env, home_files=files)

    def last_message(self, transcript: bytes) -> str:
        for event in last_events(transcript):
            data = event.get("data")
            if event.get("type") == "assistant.message" and isinstance(data, dict) and data.get("content"):
                return words(data.get("content"))
        return tail(transcript)

    def own_denials(self, transcript: bytes) -> tuple[str, ...]:
        names: dict[str, str] = {}
        failed: list[str] = []
        for event in last_events(transcript):
            data = event.get("data")
            if not isinstance(data, dict):
                continue
            # Newest first: a call's end comes before the message that asked for it, which alone has its name.
            if event.get("type") == "tool.execution_complete" and data.get("success") is False:
                failed.append(words(data.get("toolCallId"), 100))
            asked = data.get("toolRequests")
            for item in asked[:MAX_DENIALS] if isinstance(asked, list) else ():
                if isinstance(item, dict):
                    names[words(item.get("toolCallId"), 100)] = words(item.get("name"), 100)
        return tuple(name for call in failed if (name := names.get(call) or call))[:MAX_DENIALS]


def _cut(text: str) -> str:
    data = text.encode("utf-8", "replace")
    if len(data) <= MAX_ARGUMENT:
        return text
    return data[:MAX_ARGUMENT].decode("utf-8", "ignore") + "\n(cut here: get_task gives the instructions whole)\n"
