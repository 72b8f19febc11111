"""The base commit and the role of a call that starts no run: what `check` and `sandbox exec` share.

Rules it keeps:
1. The base is named, the remote's default branch, `main` or `master`; never silently what is checked out.
2. Configuration comes from the base's tip; where there is none at all, the shipped role is used, and said so.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from vestibule.config.schema import RepoConfig, RoleConfig
    from vestibule.core.ids import Sha
    from vestibule.git import Git


def top(path: Path) -> Path:
    """The repository's top folder when called from inside one without naming it."""
    here = path.absolute()
    if path == Path():
        for folder in (here, *here.parents):
            if (folder / ".git").exists():
                return folder
    return here


def base_of(git: Git, asked: str, unclear: str) -> tuple[str, Sha]:
    """Name and commit of the base. `unclear` is the sentence for when nothing names one.

    Raises:
        UsageError: exit 2, saying what is missing and how to name it.
    """
    from vestibule.core.errors import UsageError

    if asked:
        commit = git.commit_of(asked)
        if commit is None:
            raise UsageError(
                f"--base {asked!r} is no commit of this repository.",
                next_step="Fetch it, or name a branch, tag or commit.",
            )
        return asked, commit
    found = git.default_branch_commit()
    if found is None:
        raise UsageError(
            unclear,
            why="The remote names no default branch, and there is neither main nor master.",
            next_step="Name it with --base.",
        )
    return found


def rights_of(
    git: Git, tip: Sha, base: str, role: str, say: Callable[[str], None]
) -> tuple[str, RoleConfig, RepoConfig | None]:
    """The role's name, the role, and the configuration it is from; None is the shipped role.

    Raises:
        UsageError: there is no such role. ConfigError: the configuration cannot be used.
    """
    from vestibule.config.load import shipped_role
    from vestibule.config.roles import choose_role
    from vestibule.core.errors import UsageError

    config = repo_config(git, tip)
    if config is not None:
        return (*choose_role(config, role), config)
    if role:
        raise UsageError(
            f"There is no role {role!r}: {base} has no .vestibule/config.yaml.",
            next_step="Run `vestibule init` and commit what it writes, or leave --role out.",
        )
    say(f"{base} has no .vestibule/: using the shipped role (every file but the protected and agent-control ones).")
    return "shipped", shipped_role(), None


def repo_config(git: Git, tip: Sha) -> RepoConfig | None:
    """The configuration of the base's tip; None when there is no `.vestibule/` at all.

    Raises:
        ConfigError: there is one and it cannot be used.
    """
    from vestibule.config.load import REPO_CONFIG_PATH, load_repo_config
    from vestibule.config.strict_yaml import MAX_BYTES
    from vestibule.core.errors import ConfigError

    if not git.run(["ls-tree", "-z", "--name-only", "--full-tree", tip, "--", ".vestibule"]):
        return None
    data = git.blob(tip, REPO_CONFIG_PATH, limit=MAX_BYTES)
    if data is None:
        raise ConfigError(
            "the file is missing or is no regular file",
            where=REPO_CONFIG_PATH,
            why=".vestibule/ exists in the base, so a shipped role would be looser than what was meant.",
            next_step="Run `vestibule init` and commit what it writes.",
        )
    return load_repo_config(data)
