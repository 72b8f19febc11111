"""Gemini CLI, unmodified, in two modes.

MCP-only (default): every built-in tool is excluded; what it does crosses the context gateway call by call.
Native: its own tools run inside the sandbox on the view; web tools are off, our tools are there as well.

Rules it keeps:
1. Settings come from the tmpfs HOME; the folder is not trusted as such, so files of the repository configure nothing.
   The program reads `.env` files: the variables that say where it talks to are set already, and win over them.
2. The model's address, its key and the MCP server are ours.
3. The repository's instructions come from its base commit, in a file of the tmpfs HOME.
4. Telemetry, usage statistics and updates are off for speed and silence; the missing route holds them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vestibule.agents.base import (
    CONTEXT_URL,
    MCP_SERVER,
    MODELS_URL,
    About,
    Plan,
    Situation,
    environment,
    npm_program,
    npm_version,
    prompt,
    tail,
    told,
    words,
)
from vestibule.agents.verified import GEMINI
from vestibule.core.tool_names import BUILT_IN

PACKAGE = "@google/gemini-cli"
_WEB_TOOLS = ("google_web_search", "web_fetch")
MAX_DENIALS = 50


class Gemini:
    """`adapter: gemini`."""

    name = "gemini"
    needs_model = True
    about = About(
        program="gemini",
        modes=("mcp", "native"),
        reads=("**/gemini.md", "**/agents.md", "**/.gemini{,/**}", "**/.env", "**/.geminiignore"),
        verified=GEMINI,
        cli="gemini-cli",
        apis=("gemini",),
    )

    def program_version(self, tools: tuple[Path, ...]) -> str:
        return npm_version(npm_program("gemini", PACKAGE, tools))

    def plan(self, situation: Situation) -> Plan:
        model = situation.task.agent.model
        files = {".gemini/settings.json": json.dumps(_settings(situation)).encode()}
        if situation.instructions:
            files[".gemini/GEMINI.md"] = told(situation.instructions).encode("utf-8", "replace")
        program = npm_program("gemini", PACKAGE, situation.tools)
        argv = [str(program), "--prompt", prompt(situation.task), "--skip-trust", "-o", "json", "-m", model, "--yolo"]
        env = {
            **environment(situation),
            "GOOGLE_GEMINI_BASE_URL": f"{MODELS_URL}/gemini",
            "GEMINI_API_KEY": situation.token,
            "GEMINI_MODEL": model,
            "GEMINI_TELEMETRY_ENABLED": "false",
            "GEMINI_CLI_NO_RELAUNCH": "true",
            "NO_BROWSER": "true",
        }
        return Plan(argv=tuple(argv), env=env, home_files=files)

    def last_message(self, transcript: bytes) -> str:
        return words(_result(transcript).get("response")) or tail(transcript)

    def own_denials(self, transcript: bytes) -> tuple[str, ...]:
        stats = _result(transcript).get("stats")
        tools = stats.get("tools") if isinstance(stats, dict) else None
        by_name = tools.get("byName") if isinstance(tools, dict) else None
        if not isinstance(by_name, dict):
            return ()
        failed = (name for name, item in by_name.items() if isinstance(item, dict) and item.get("fail"))
        return tuple(words(name, 100) for name in failed)[:MAX_DENIALS]


def _settings(situation: Situation) -> dict[str, Any]:
    built_in = tuple(name for row in BUILT_IN for name in row.of("gemini-cli"))
    return {
        "mcpServers": {
            MCP_SERVER: {
                "httpUrl": CONTEXT_URL,
                "headers": {"Authorization": f"Bearer {situation.token}"},
                "trust": True,
            }
        },
        "tools": {"exclude": list(_WEB_TOOLS if situation.native else built_in)},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False, "disableAutoUpdate": True},
        "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}},
        "ide": {"enabled": False},
        "model": {"name": situation.task.agent.model},
    }


def _result(transcript: bytes) -> dict[str, Any]:
    """The one JSON object that it prints at its end; other lines may stand before it."""
    begin = transcript.rfind(b"\n{\n")
    for data in (transcript, transcript[begin + 1 :] if begin >= 0 else b""):
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return {}
