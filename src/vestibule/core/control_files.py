"""The lists of files that are special by their names: agent-control files, protected files, credential files.

Agent-control files steer an agent, an IDE or a toolchain by being there. Three parties use that list: the view leaves
them out, the guard refuses changes to them, the adapters check that none is loaded. Each entry was seen to be obeyed by
a tool headless, or is documented to be (CVE-2025-59536, CVE-2026-21852, CVE-2025-54136; IDEsaster; "Rules File
Backdoor"). Patterns are compared on folded paths (`paths.fold`).
"""

from __future__ import annotations

import re
from functools import lru_cache

from vestibule.core.text.globs import alternatives, first_match, literal_text, matches
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
    ".github/{lsp,plugin}.json",
    ".github/plugin{,/**}",
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


CREDENTIAL_SUFFIXES: tuple[str, ...] = (
    ".env",
    # private keys and key stores
    ".pem",
    ".key",
    ".p8",
    ".p12",
    ".pfx",
    ".ppk",
    ".jks",
    ".jceks",
    ".keystore",
    ".kdbx",
    ".keytab",
    # infrastructure
    ".tfvars",
    ".tfvars.json",
    ".tfstate",
    ".tfstate.backup",
    ".kubeconfig",
    "_rsa",
    "_ed25519",
    "_ecdsa",
)
"""How the names of files end whose purpose is to hold a secret."""

CREDENTIALS: tuple[str, ...] = (
    "**/.env[._-]*",
    "**/.envrc*",
    "**/secrets.{yml,yaml,json,toml,ini,properties}",
    "**/.secrets{,.*}",
    "**/*.tfstate.*",
    "**/id_{rsa,dsa,ecdsa,ed25519}*",
    "**/.ssh/**",
    "**/.gnupg/**",
    "**/[._]netrc",
    "**/.git-credentials",
    "**/.pypirc",
    "**/.htpasswd",
    "**/.pgpass",
    "**/.my.cnf",
    "**/.s3cfg",
    "**/.boto",
    "**/.dockercfg",
    "**/.docker/config.json",
    "**/.vault-token",
    "**/.kube/config",
    "**/kubeconfig{,.yml,.yaml,.json}",
    "**/.aws/credentials*",
    "**/.azure/accesstokens.json",
    "**/.azure/msal_token_cache*",
    "**/.config/gcloud/**",
    "**/credentials{,.json,.yml,.yaml,.csv,.db}",
    "**/.cargo/credentials.toml",
    "**/application_default_credentials.json",
    "**/client_secret*.json",
    "**/service{-,_}account*.json",
)
"""Others of them: globs on folded paths."""

_CREDENTIAL_TEXTS = tuple(dict.fromkeys(map(literal_text, CREDENTIALS)))
_TELLING = 3
_SAMPLES = frozenset({"example", "sample", "template", "dist"})

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


@lru_cache(maxsize=1 << 16)
def credential_file(path: str) -> str | None:
    """What makes `path` a credential file by its name, else None. Samples (`.env.example`) and public keys are none.

    What stands in a file is not looked at: a public certificate in `*.pem` is one, a secret in another file is none.
    """
    folded = fold(path)
    name = folded.rpartition("/")[2]
    found = None
    if name.endswith(CREDENTIAL_SUFFIXES):
        found = next(end for end in CREDENTIAL_SUFFIXES if name.endswith(end))
    elif any(text in folded for text in _CREDENTIAL_TEXTS):
        found = first_match(folded, CREDENTIALS)
    if found is None:
        return None
    words = re.split(r"[._-]", name)
    sample = words[-1] in _SAMPLES or (words[-1] == "env" and words[-2] in _SAMPLES)
    return None if sample or words[-1] == "pub" else found


def names_credential(path: str, glob: str) -> bool:
    """Whether `glob` matches the credential file `path` by its name and not by wildcards alone.

    `tests/.env`, `**/.env` and `certs/*.pem` do; `tests/**`, `**/*`, `**/*.*` and `tests/*e*` do not. Of
    several alternatives in braces the one that matches counts.
    """
    return any(_tells(one) and matches(path, one) for one in alternatives(glob))


def _tells(glob: str) -> bool:
    """Whether a reader of the last part sees what it is for: three letters or digits, or a known ending."""
    plain = re.sub(r"\[.*\]|[*?]", "", glob.rpartition("/")[2])
    return sum(map(str.isalnum, plain)) >= _TELLING or fold(plain).endswith(CREDENTIAL_SUFFIXES)


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
