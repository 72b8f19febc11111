"""Codex, the unmodified CLI, in two modes.

MCP-only (default): its own tools are off; what it does crosses the context gateway call by call. What the program keeps
on offering beside that (lists of MCP resources, questions to a person) changes nothing, and nobody answers it.
Native: its own tools run inside the sandbox on the view; its own sandbox is off, for it would be one within ours.

Rules it keeps:
1. All configuration is one file in the tmpfs HOME; the project is not trusted, so files of the repository configure
   nothing, and `AGENTS.md` of the working tree is not read (`project_doc_max_bytes`).
2. Provider and MCP server are ours by name and address; the token comes from the environment, never from a file.
3. The repository's instructions come from its base commit, as the developer's words.
4. What it knows of the model is ours too: its own list offers newer models their tools as one that runs scripts, in
   which nobody could judge a call.
5. Web search, plugins, apps, update checks and analytics are off for speed and silence; the missing route holds them.
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
_HOME = "/home/agent/.codex"
_MODELS = "vestibule-models.json"
_SYSTEM = (
    "You are a coding agent at work in the current folder, with the tools that you are offered and nobody to ask. "
    "Read what a change touches before you make it. Change files with the tools for that, in small steps that each "
    "leave the code whole. Run the tests that cover what you changed where you can. Do not stop before the task is "
    "done or you know why it cannot be. Then say in a few plain words what you changed and what you could not check."
)
"""A model's entry needs a text of this kind; the program's own stands in the entries that are left out."""
_OFF = (
    # what talks to others, takes up other parties' files, or starts programs of a folder
    "plugins",
    "apps",
    "hooks",
    "skill_search",
    "skill_mcp_dependency_install",
    "tool_suggest",
    "remote_plugin",
    "image_generation",
    "browser_use",
    "computer_use",
    "shell_snapshot",
    # needs nobody at a run that ends by itself
    "goals",
    "enable_request_compression",
)
_OFF_IN_MCP = ("shell_tool", "unified_exec", "view_image")
MAX_DENIALS = 50
_FAILED_CALL = "tool call error:"
"""How the program begins what a tool server answered or failed with."""


class Codex:
    """`adapter: codex`."""

    name = "codex"
    needs_model = True
    about = About(
        program="codex",
        modes=("mcp", "native"),
        reads=(
            "**/agents.md",
            "**/agents.override.md",
            "**/skill.md",
            "**/.codex{,/**}",
            "**/.codex-plugin{,/**}",
            "**/.agents{,/**}",
        ),
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
        argv += ["--", prompt(task)]
        return Plan(
            argv=tuple(argv),
            env={**environment(situation), "CODEX_HOME": _HOME},
            home_files={
                ".codex/config.toml": _toml(_config(situation)).encode(),
                f".codex/{_MODELS}": json.dumps(_catalogue(task.agent.model, native=situation.native)).encode(),
            },
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
            if event.get("type") == "item.completed" and isinstance(item, dict) and _declined(item):
                found.append(words(item.get("tool") or item.get("command") or item.get("type"), 100))
        return tuple(name for name in found if name)[:MAX_DENIALS]


def _declined(item: dict[str, Any]) -> bool:
    """Whether the program itself refused this: no failure of a command, no refusal of our server's."""
    if item.get("status") == "declined":
        return True
    error = item.get("error")
    text = error.get("message") if isinstance(error, dict) else None
    return item.get("status") == "failed" and isinstance(text, str) and not text.startswith(_FAILED_CALL)


def _config(situation: Situation) -> dict[str, Any]:
    native = situation.native
    return {
        "model": situation.task.agent.model,
        "model_provider": "vestibule",
        "model_catalog_json": f"{_HOME}/{_MODELS}",
        "approval_policy": "never",
        "check_for_update_on_startup": False,
        "project_doc_max_bytes": 0,
        "web_search": "disabled",
        "analytics": {"enabled": False},
        "feedback": {"enabled": False},
        "history": {"persistence": "none"},
        **({"developer_instructions": told(situation.instructions)} if situation.instructions else {}),
        "agents": {"enabled": False},
        "skills": {"include_instructions": False, "bundled": {"enabled": False}},
        "features": {**dict.fromkeys(_OFF, False), **({} if native else dict.fromkeys(_OFF_IN_MCP, False))},
        "projects": {"/workspace": {"trust_level": "untrusted"}},
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


def _catalogue(model: str, *, native: bool) -> dict[str, Any]:
    """What the program is told of its one model, whatever it is called.

    Its own list gives newer models one tool that runs scripts, in which calls are hidden from whoever judges calls,
    and puts MCP servers' tools behind a search. Here every tool is offered by its name.
    """
    return {
        "models": [
            {
                "slug": model,
                "display_name": model,
                "description": "",
                "default_reasoning_level": "medium",
                "supported_reasoning_levels": [{"effort": "medium", "description": ""}],
                "shell_type": "shell_command",
                "visibility": "list",
                "supported_in_api": True,
                "priority": 0,
                "base_instructions": _SYSTEM,
                "supports_reasoning_summaries": False,
                "support_verbosity": False,
                "apply_patch_tool_type": "freeform" if native else None,
                "truncation_policy": {"mode": "tokens", "limit": 10000},
                "supports_parallel_tool_calls": True,
                "supports_search_tool": False,
                "experimental_supported_tools": [],
                "context_window": 200000,
            }
        ]
    }


def _toml(value: dict[str, Any], path: tuple[str, ...] = ()) -> str:
    """TOML of nested tables with plain values."""
    lines = [f"[{'.'.join(map(_value, path))}]"] if path else []
    lines += [f"{_value(key)} = {_value(item)}" for key, item in value.items() if not isinstance(item, dict)]
    tables = [_toml(item, (*path, key)) for key, item in value.items() if isinstance(item, dict)]
    return "\n".join((*lines, *tables)) + "\n"


def _value(value: object) -> str:
    """JSON's form is TOML's, but for escaped pairs of surrogates and the one control sign that JSON leaves as it is."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode().replace("\x7f", "\\u007f")
