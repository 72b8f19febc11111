"""opencode, the unmodified CLI, in two modes.

MCP-only (default): no built-in tool is on; what it does crosses the context gateway call by call.
Native: its own tools run inside the sandbox on the view; web tools are off, our tools are there as well.

Rules it keeps:
1. Its configuration is one file in the tmpfs HOME. No switch keeps the program from running plugins of a folder
   `.opencode/` where it works: MCP-only it works in an empty folder of its HOME, native only the view holds them.
2. Every model it may ask for (titles too) is the task's.
3. The repository's instructions come from its base commit, in a file of the tmpfs HOME.
4. Updates, sharing, its model list and language servers are off for speed and silence; the missing route holds them.
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
    last_events,
    npm_program,
    npm_version,
    prompt,
    tail,
    told,
    words,
)
from vestibule.agents.verified import OPENCODE

PACKAGE = "opencode-ai"
_CONFIG = ".config/opencode/opencode.json"
_PLUGIN = "@opencode-ai/plugin"
_INSTALLED = {
    ".config/opencode/package-lock.json": json.dumps({"packages": {"": {"dependencies": {_PLUGIN: "*"}}}}).encode(),
    ".config/opencode/node_modules/.keep": b"",
}
"""What makes the program take the package that helps to write plugins for installed: it asks no package registry."""
_INSTRUCTIONS = "vestibule-instructions.md"
_AWAY = "vestibule-empty"
_OFF = ("webfetch", "websearch", "codesearch", "skill", "question")
MAX_DENIALS = 50
_OWN_REFUSALS = ("The user rejected permission", "The user has specified a rule")
"""How the program begins what it refused itself; what a tool failed with reads otherwise."""
SILENT = {
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_PROJECT_CONFIG": "1",
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
    "OPENCODE_DISABLE_CLAUDE_CODE": "1",
    "OPENCODE_DISABLE_EXTERNAL_SKILLS": "1",
    "OPENCODE_DISABLE_SHARE": "1",
    "OPENCODE_PURE": "1",
}


class OpenCode:
    """`adapter: opencode`."""

    name = "opencode"
    needs_model = True
    about = About(
        program="opencode",
        modes=("mcp", "native"),
        reads=(
            "**/agents.md",
            "**/claude.md",
            "**/skill.md",
            "**/.claude{,/**}",
            "**/.opencode{,/**}",
            "**/{,.}opencode.json{,c}",
            "**/.agents{,/**}",
        ),
        verified=OPENCODE,
        cli="opencode",
        apis=("chat",),
    )

    def program_version(self, tools: tuple[Path, ...]) -> str:
        return npm_version(npm_program("opencode", PACKAGE, tools))

    def plan(self, situation: Situation) -> Plan:
        files = {**_INSTALLED, _CONFIG: json.dumps(_config(situation)).encode()}
        if situation.instructions:
            files[_INSTRUCTIONS] = told(situation.instructions).encode("utf-8", "replace")
        program = npm_program("opencode", PACKAGE, situation.tools)
        argv = [str(program), "run", "--format", "json", "--title", situation.task.run]
        if not situation.native:
            # It touches no file itself, so it need not see any: plugins of a folder run by lying above where it works.
            files[f"{_AWAY}/.keep"] = b""
            argv += ["--dir", f"/home/agent/{_AWAY}"]
        return Plan(
            argv=(*argv, "--", prompt(situation.task)),
            env={**environment(situation), **SILENT},
            home_files=files,
        )

    def last_message(self, transcript: bytes) -> str:
        for event in last_events(transcript):
            part = event.get("part")
            if event.get("type") == "text" and isinstance(part, dict):
                return words(part.get("text"))
        return tail(transcript)

    def own_denials(self, transcript: bytes) -> tuple[str, ...]:
        found: list[str] = []
        for event in last_events(transcript):
            part = event.get("part")
            state = part.get("state") if isinstance(part, dict) else None
            error = state.get("error") if isinstance(state, dict) else None
            if isinstance(error, str) and error.startswith(_OWN_REFUSALS):
                found.append(words(part.get("tool") if isinstance(part, dict) else "", 100))
        return tuple(name for name in found if name)[:MAX_DENIALS]


def _config(situation: Situation) -> dict[str, Any]:
    model = situation.task.agent.model
    ours = f"{MCP_SERVER}_*"
    bearer = "Bearer {env:VESTIBULE_TASK_TOKEN}"
    config: dict[str, Any] = {
        "provider": {
            "vestibule": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "vestibule",
                "options": {"baseURL": f"{MODELS_URL}/openai/v1", "apiKey": "{env:VESTIBULE_TASK_TOKEN}"},
                "models": {model: {"name": model}},
            }
        },
        "model": f"vestibule/{model}",
        "small_model": f"vestibule/{model}",
        "enabled_providers": ["vestibule"],
        "mcp": {
            MCP_SERVER: {
                "type": "remote",
                "url": CONTEXT_URL,
                "oauth": False,
                "enabled": True,
                "headers": {"Authorization": bearer},
            }
        },
        "autoupdate": False,
        "share": "disabled",
        "snapshot": False,
        "lsp": False,
        "formatter": False,
    }
    if situation.native:
        # The walls are the sandbox's; a question of its own would only end a headless run. The last match counts.
        config["permission"] = {"*": "allow", **dict.fromkeys(_OFF, "deny")}
    else:
        config["permission"] = {"*": "deny", ours: "allow"}
    if situation.instructions:
        config["instructions"] = [f"/home/agent/{_INSTRUCTIONS}"]
    return config
