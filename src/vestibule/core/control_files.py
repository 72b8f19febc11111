"""The one list of agent-control files: files that steer an agent, an IDE or a toolchain by being there.

Three parties use it: the view leaves them out, the guard refuses changes to them, the adapters check
that none is loaded. Each entry was seen to be obeyed by a tool headless, or is documented to be
(CVE-2025-59536, CVE-2026-21852, CVE-2025-54136; IDEsaster; "Rules File Backdoor").
Patterns are compared on folded paths (`paths.fold`).
"""

from __future__ import annotations

from vestibule.core.text.globs import first_match, literal_text
from vestibule.core.text.paths import fold

INSTRUCTIONS: tuple[str, ...] = (
    "**/agents.md",
    "**/agents.override.md",
    "**/agents.local.md",
    "**/agent.md",
    "**/claude.md",
    "**/claude.local.md",
    "codex.md",
    "crush.md",
    "crush.local.md",
    "**/gemini.md",
    "**/qwen.md",
    "warp.md",
    "**/skill.md",
    "**/.rules",
    "**/.cursorrules",
    "**/.windsurfrules",
    "**/.clinerules{,/**}",
    "**/.roorules*",
    "**/.roomodes",
    "**/.roo{,/**}",
    "**/.kilocodemodes",
    "**/.kilocode{,/**}",
    "**/.goosehints",
    "**/.aider*",
    "**/.openhands_instructions",
    "**/.{ai,claude,cline,codeium,copilot,cursor,cursorindexing,gemini,roo}ignore",
    "**/.aiexclude",
    ".github/copilot-instructions.md",
    ".github/copilot*{,/**}",
    ".github/instructions{,/**}",
    ".github/prompts{,/**}",
    ".github/chatmodes{,/**}",
    ".github/agents{,/**}",
    ".github/skills{,/**}",
    ".github/hooks{,/**}",
    ".github/extensions{,/**}",
)
"""Texts that agents read as instructions, or that say which files they shall not see.

A folder's own name stands beside what is in it (`{,/**}`): it names a link that would put another folder there.
"""

SETTINGS: tuple[str, ...] = (
    "**/.claude{,/**}",
    "**/.claude.json",
    "**/.claude-plugin{,/**}",
    "**/.mcp.json",
    "**/mcp.json",
    "**/.lsp.json",
    "**/.worktreeinclude",
    "**/.codex{,/**}",
    "**/.codex-plugin{,/**}",
    "**/.gemini{,/**}",
    "**/gemini-extension.json",
    "**/.opencode{,/**}",
    "**/{,.}opencode.json{,c}",
    "**/.copilot{,/**}",
    "**/.agents{,/**}",
    "**/.agent{,/**}",
    "**/.cursor{,/**}",
    "**/.cursor-plugin{,/**}",
    "**/.windsurf{,/**}",
    "**/.devin{,/**}",
    "**/.continue{,/**}",
    "**/.continuerc.json",
    "**/.crush{,/**}",
    "**/{,.}crush.json",
    "**/.kiro{,/**}",
    "**/.amazonq{,/**}",
    "**/.amp{,/**}",
    "**/.qwen{,/**}",
    "**/.goose{,/**}",
    "**/.squad{,/**}",
    "**/.bob{,/**}",
    "**/.bobignore",
    "**/.bobmodes",
    "**/.junie{,/**}",
    "**/.augment{,/**}",
    "**/.augment-guidelines",
    "**/.trae{,/**}",
    "**/.openhands{,/**}",
    "**/.factory{,/**}",
    "**/.vscode{,/**}",
    "**/.vs{,/**}",
    "**/.idea{,/**}",
    "**/.zed{,/**}",
    "**/.fleet{,/**}",
    "**/*.code-workspace",
    "**/.devcontainer{,/**}",
    "**/.devcontainer.json",
    "**/.gitpod.y{,a}ml",
    "**/.idx{,/**}",
    "**/.replit",
    "**/.exrc",
    "**/.vimrc",
    "**/.nvimrc",
    "**/.lvimrc",
    "**/.nvim.lua",
    "**/.dir-locals*.el",
)
"""Settings of agents, IDEs and editors: hooks, tool and language servers, endpoints, plugins, tasks run on open."""

CONTROL_FILES: tuple[str, ...] = INSTRUCTIONS + SETTINGS

PROTECTED: tuple[str, ...] = (
    ".vestibule/**",
    ".vestibule",
    # CI
    ".github{,/**}",
    "**/.gitlab-ci.yml",
    "**/.gitlab-ci.yaml",
    ".gitlab{,/**}",
    "**/jenkinsfile*",
    ".circleci{,/**}",
    "**/azure-pipelines*",
    ".buildkite{,/**}",
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
    "**/.husky{,/**}",
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
    "**/.cargo",
    "**/.cargo/config{,.toml}",
    "**/.mvn{,/**}",
    "**/gradle/wrapper{,/**}",
    # owners, licences, checks
    "**/codeowners",
    "licen[sc]e*",
    "**/.semgrepignore",
    "**/.bandit",
    "**/.coveragerc",
)
"""Always protected besides the control files: what decides, builds or checks elsewhere."""


_ABOVE = frozenset(
    "/".join(parts[:depth])
    for pattern in CONTROL_FILES
    if not pattern.startswith("**/")
    for parts in [pattern.split("/")]
    for depth in range(1, len(parts))
    if not set("".join(parts[:depth])) & set("*?{}[]")
)
"""Folders that control files have a fixed place in, such as `.github`."""

_TEXTS = tuple(dict.fromkeys(map(literal_text, CONTROL_FILES)))


def control_file(path: str) -> str | None:
    """The pattern that makes `path` an agent-control file, else None."""
    folded = fold(path)
    # Asked of every file of a repository: nearly all contain none of the texts that a match must contain.
    if not any(text in folded for text in _TEXTS):
        return None
    return first_match(folded, CONTROL_FILES)


def protected_path(path: str) -> str | None:
    """The shipped pattern that protects `path` (control files included), else None."""
    folded = fold(path)
    return first_match(folded, PROTECTED) or first_match(folded, CONTROL_FILES)


def control_link(path: str) -> str | None:
    """Why a link at `path` would put control files in place, whatever it leads to; else None.

    It is one of them, or it stands for a folder that they have a fixed place in: with `.github -> src/mine`,
    `src/mine/copilot-instructions.md` would be an instruction.
    """
    return control_file(path) or (fold(path) if fold(path) in _ABOVE else None)
