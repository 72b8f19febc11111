"""Codex, the unmodified CLI, in two modes.

MCP-only (default): its shell is off; what it does crosses the context gateway call by call. What the program keeps on
offering beside that (showing an image of the workspace, goals) reaches no further than the sandbox.
Native: its own tools run inside the sandbox on the view; its own sandbox is off, for it would be one within ours.

Rules it keeps:
1. All configuration is one file in the tmpfs HOME; the project is not trusted, so files of the repository configure
   nothing, and `AGENTS.md` of the working tree is not read (`project_doc_max_bytes`).
2. Provider and MCP server are ours by name and address; the token comes from the environment, never from a file.
3. The repository's instructions come from its base commit, before the prompt.
4. Web search, plugins, apps, update checks and analytics are off for speed and silence; the missing route holds them.
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
from vestibule.agents.verified import CODEX

PACKAGE = "@openai/codex"
MAX_DENIALS = 50


class Codex:
    """`adapter: codex`."""

    name = "codex"
    needs_model = True
    about = About(
        program="codex",
        modes=("mcp", "native"),
        reads=("**/agents.md", "**/agents.override.md", "**/.codex{,/**}", "**/.agents{,/**}", "**/skill.md"),
        verified=CODEX,
        cli="codex",
        apis=("responses",),
    )

    def program_version(self, tools: tuple[Path, ...]) -> str:
        return npm_version(npm_program("codex", PACKAGE, tools))

    def plan(self, situation: Situation) -> Plan:
        task = situation.task
        argv = [str(npm_program("codex", PACKAGE, situation.tools)), "exec", "--json", "--skip-git-repo-check"]
        argv += ["--dangerously-bypass-approvals-and-sandbox"] if situation.native else ["--sandbox", "read-only"]
        # After `--`, so that nothing of the ticket is taken for an option.
        argv += ["--", told(situation.instructions) + prompt(task)]
        return Plan(
            argv=tuple(argv),
            env={**environment(situation), "CODEX_HOME": "/home/agent/.codex"},
            home_files={".codex/config.toml": _toml(_config(situation)).encode()},
        )

    def last_message(self, transcript: bytes) -> str:
        for event in last_events(transcript):
            item = event.get("item")
            if event.get("type") == "item.completed" and isinstance(item, dict) and item.get("type") == "agent_message":
                return words(item.get("text"))
        return tail(transcript)

    def own_denials(self, transcript: bytes) -> tuple[str, ...]:
        found: list[str] = []
        for event in last_events(transcript):
            item = event.get("item")
            if isinstance(item, dict) and item.get("status") in ("failed", "declined"):
                found.append(words(item.get("tool") or item.get("command") or item.get("type"), 100))
        return tuple(name for name in found if name)[:MAX_DENIALS]


def _config(situation: Situation) -> dict[str, Any]:
    native = situation.native
    return {
        "model": situation.task.agent.model,
        "model_provider": "vestibule",
        "approval_policy": "never",
        "check_for_update_on_startup": False,
        "project_doc_max_bytes": 0,
        "web_search": "disabled",
        "disable_response_storage": True,
        "analytics": {"enabled": False},
        "history": {"persistence": "none"},
        "features": {
            "plugins": False,
            "apps": False,
            "multi_agent": False,
            **({} if native else {"shell_tool": False}),
        },
        "model_providers": {
            "vestibule": {
                "name": "vestibule",
                "base_url": f"{MODELS_URL}/openai/v1",
                "env_key": "VESTIBULE_TASK_TOKEN",
                "wire_api": "responses",
                "request_max_retries": 2,
                "stream_max_retries": 1,
            }
        },
        "mcp_servers": {
            MCP_SERVER: {
                "url": CONTEXT_URL,
                "bearer_token_env_var": "VESTIBULE_TASK_TOKEN",
                "required": True,
                "default_tools_approval_mode": "approve",
            }
        },
    }


def _toml(value: dict[str, Any], path: tuple[str, ...] = ()) -> str:
    """TOML of nested tables with plain values; JSON's strings are TOML's basic strings."""
    lines = [f"[{'.'.join(path)}]"] if path else []
    lines += [f"{key} = {json.dumps(item)}" for key, item in value.items() if not isinstance(item, dict)]
    tables = [_toml(item, (*path, key)) for key, item in value.items() if isinstance(item, dict)]
    return "\n".join((*lines, *tables)) + "\n"
