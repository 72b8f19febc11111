"""The one list of agent-control files: files that steer an agent, an IDE or a toolchain by being there.

Three parties use it: the view leaves them out, the guard refuses changes to them, the adapters check
that none is loaded. Each entry was seen to be obeyed by a tool headless, or is documented to be
(CVE-2025-59536, CVE-2026-21852, CVE-2025-54136; IDEsaster; "Rules File Backdoor").
Patterns are compared on folded paths (`paths.fold`).
"""

from __future__ import annotations

from vestibule.core.text.globs import first_match
from vestibule.core.text.paths import fold

INSTRUCTIONS: tuple[str, ...] = (
    "**/agents.md",
    "**/agent.md",
    "**/claude.md",
    "**/claude.local.md",
    "**/gemini.md",
    "**/qwen.md",
    "**/skill.md",
    "**/.cursorrules",
    "**/.windsurfrules",
    "**/.clinerules{,/**}",
    "**/.roorules*",
    "**/.roo/**",
    "**/.aider*",
    ".github/copilot-instructions.md",
    ".github/copilot*",
    ".github/copilot*/**",
    ".github/instructions/**",
    ".github/prompts/**",
    ".github/chatmodes/**",
    ".github/agents/**",
    ".github/skills/**",
    ".github/hooks/**",
)
"""Texts that agents read as instructions."""

SETTINGS: tuple[str, ...] = (
    "**/.claude{,/**}",
    "**/.mcp.json",
    "**/mcp.json",
    "**/.codex{,/**}",
    "**/.gemini{,/**}",
    "**/.opencode{,/**}",
    "**/opencode.json{,c}",
    "**/.copilot{,/**}",
    "**/.agents/**",
    "**/.agent/**",
    "**/.cursor{,/**}",
    "**/.windsurf{,/**}",
    "**/.continue{,/**}",
    "**/.kiro/**",
    "**/.amazonq/**",
    "**/.qwen/**",
    "**/.goose{,/**}",
    "**/.squad/**",
    "**/.bob/**",
    "**/.bobignore",
    "**/.junie/**",
    "**/.augment/**",
    "**/.vscode{,/**}",
    "**/.idea{,/**}",
    "**/.zed/**",
    "**/.fleet/**",
    "**/*.code-workspace",
    "**/.devcontainer{,/**}",
    "**/.devcontainer.json",
)
"""Settings of agents and IDEs: hooks, tool servers, endpoints, tasks that run on open."""

CONTROL_FILES: tuple[str, ...] = INSTRUCTIONS + SETTINGS

PROTECTED: tuple[str, ...] = (
    ".vestibule/**",
    ".vestibule",
    # CI
    ".github/**",
    "**/.gitlab-ci.yml",
    "**/.gitlab-ci.yaml",
    ".gitlab/**",
    "**/jenkinsfile*",
    ".circleci/**",
    "**/azure-pipelines*",
    ".buildkite/**",
    ".woodpecker{,.yml,.yaml,/**}",
    ".drone.yml",
    "bitbucket-pipelines.yml",
    ".travis.yml",
    # git, hooks, environments
    "**/.gitattributes",
    "**/.gitmodules",
    "**/.gitconfig",
    "**/.gitleaksignore",
    "**/.lfsconfig",
    "**/.husky/**",
    "**/.pre-commit-config.yaml",
    "**/.pre-commit-hooks.yaml",
    "**/lefthook.y{,a}ml",
    "**/.envrc",
    "**/mise.toml",
    "**/.mise.toml",
    "**/.tool-versions",
    # package sources
    "**/.npmrc",
    "**/.yarnrc",
    "**/.yarnrc.yml",
    "**/.pnpmfile.cjs",
    "**/pip.conf",
    "**/uv.toml",
    "**/.pypirc",
    "**/.cargo/config{,.toml}",
    "**/.mvn/**",
    "**/gradle/wrapper/**",
    # owners, licences, checks
    "**/codeowners",
    "licen[sc]e*",
    "**/.semgrepignore",
    "**/.bandit",
    "**/.coveragerc",
)
"""Always protected besides the control files: what decides, builds or checks elsewhere."""


def control_file(path: str) -> str | None:
    """The pattern that makes `path` an agent-control file, else None."""
    return first_match(fold(path), CONTROL_FILES)


def protected_path(path: str) -> str | None:
    """The shipped pattern that protects `path` (control files included), else None."""
    folded = fold(path)
    return first_match(folded, PROTECTED) or first_match(folded, CONTROL_FILES)
