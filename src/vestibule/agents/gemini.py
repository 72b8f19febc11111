"""Gemini CLI, unmodified, in two modes.

MCP-only (default): its policy engine denies every tool but our server's, so that the model is offered no other;
what it does crosses the context gateway call by call.
Native: its own tools run inside the sandbox on the view; web tools are off, our tools are there as well.

Rules it keeps:
1. Settings and tool policies come from the tmpfs HOME. They are read while the folder is not trusted: settings of the
   repository are passed over. Trust is given by an option only then, for without it no MCP server is asked.
2. What a trusted folder would add by itself is off: hooks, extensions, skills, agents, `.env` files.
3. Two files are read in every trusted folder and no switch stops it: the view alone leaves them out. Of `GEMINI.md` the
   base commit's text is told anyway. Over `.gemini/.env` variables win that are set already: those that steer requests,
   prompts and shells are set here, to nothing where unused.
4. The model's address, its key and the MCP server are ours; whatever it asks a model for, it asks the task's model.
5. The repository's instructions come from its base commit, in a file of the tmpfs HOME.
6. Telemetry, usage statistics and updates are off for speed and silence; the missing route holds them.
"""

from __future__ import annotations

import json
import re
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

PACKAGE = "@google/gemini-cli"
_NOT_NATIVE = ("google_web_search", "web_fetch", "invoke_agent", "activate_skill")
_UNUSED = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "http_proxy",
    "https_proxy",
    "GEMINI_SYSTEM_MD",
    "GEMINI_WRITE_SYSTEM_MD",
    "GEMINI_CLI_CUSTOM_HEADERS",
    "GEMINI_SANDBOX",
    "GOOGLE_GENAI_API_VERSION",
    "GOOGLE_API_KEY",
    "GOOGLE_CLOUD_PROJECT",
    "GOOGLE_CLOUD_LOCATION",
    "BASH_ENV",
    "NODE_OPTIONS",
    "LD_PRELOAD",
)
"""Set to nothing, so that no `.env` file sets them."""
MAX_DENIALS = 50
MAX_RESULT = 4 << 20
MAX_OBJECTS = 20
_JSON = json.JSONDecoder()


class Gemini:
    """`adapter: gemini`."""

    name = "gemini"
    needs_model = True
    about = About(
        program="gemini",
        modes=("mcp", "native"),
        reads=(
            "**/gemini.md",
            "**/skill.md",
            "**/.{ai,claude,cline,codeium,copilot,cursor,cursorindexing,gemini,roo}ignore",
            "**/.gemini{,/**}",
            "**/.agents{,/**}",
        ),
        verified=GEMINI,
        cli="gemini-cli",
        apis=("gemini",),
    )

    def program_version(self, tools: tuple[Path, ...]) -> str:
        return npm_version(npm_program("gemini", PACKAGE, tools))

    def plan(self, situation: Situation) -> Plan:
        model = situation.task.agent.model
        files = {
            ".gemini/settings.json": json.dumps(_settings(situation)).encode(),
            ".gemini/policies/vestibule.toml": _policy(native=situation.native).encode(),
        }
        if situation.instructions:
            files[".gemini/GEMINI.md"] = _plain(told(situation.instructions)).encode("utf-8", "replace")
        words_to_it = _plain(prompt(situation.task))
        argv = [str(npm_program("gemini", PACKAGE, situation.tools)), "--prompt", words_to_it, "--skip-trust"]
        # The walls and gateways decide; its own questions, which nobody could answer, would only make calls fail.
        argv += ["-o", "json", "-m", model, "--yolo"]
        env = {
            **environment(situation),
            **dict.fromkeys(_UNUSED, ""),
            "GOOGLE_GEMINI_BASE_URL": f"{MODELS_URL}/gemini",
            "GEMINI_API_KEY": situation.token,
            "GEMINI_MODEL": model,
            "GEMINI_TELEMETRY_ENABLED": "false",
            # A second start of itself would find the folder trusted when it reads settings.
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
    model = situation.task.agent.model
    server = {"httpUrl": CONTEXT_URL, "headers": {"Authorization": f"Bearer {situation.token}"}, "trust": True}
    return {
        "mcpServers": {MCP_SERVER: server},
        "mcp": {"allowed": [MCP_SERVER]},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
        "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": True}},
        "advanced": {"ignoreLocalEnv": True, "autoConfigureMemory": False},
        "hooksConfig": {"enabled": False},
        "skills": {"enabled": False},
        "admin": {"extensions": {"enabled": False}},
        "experimental": {"enableAgents": False},
        "ide": {"enabled": False},
        "ui": {"escapePastedAtSymbols": True},
        # Side calls (loops, corrections, compression) go by aliases of other models; this holds for all of them.
        "modelConfigs": {"customOverrides": [{"match": {"overrideScope": "core"}, "modelConfig": {"model": model}}]},
        "model": {"name": model},
        # Built-in tools are not there at all: one that is only denied takes our tool of the same name with it.
        **({} if situation.native else {"tools": {"core": ["DiscoveredMCPTool", "_DiscoveredMCPTool"]}}),
    }


def _policy(*, native: bool) -> str:
    """Rules of the program's own engine: what is denied whatever its arguments is not offered to the model."""
    if native:
        return f'[[rule]]\ntoolName = {json.dumps(_NOT_NATIVE)}\ndecision = "deny"\npriority = 900\n'
    return (
        '[[rule]]\ntoolName = "*"\ndecision = "deny"\npriority = 900\n\n'
        f'[[rule]]\ntoolName = "*"\nmcpName = "{MCP_SERVER}"\ndecision = "allow"\npriority = 950\n'
    )


def _result(transcript: bytes) -> dict[str, Any]:
    """The one JSON object that it prints at its end; other lines may stand before it, and errors after it."""
    text = transcript[-MAX_RESULT:].decode("utf-8", "replace")
    begins = [found.start() for found in re.finditer(r"^\{", text, re.MULTILINE)]
    for begin in reversed(begins[-MAX_OBJECTS:]):
        try:
            value, _ = _JSON.raw_decode(text, begin)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and "session_id" in value:
            return value
    return {}


def _plain(text: str) -> str:
    """`text` with no `@path` in it that would be replaced by what the file holds: a title may hold any text."""
    return re.sub(r"(?<!\\)@", r"\\@", text)
