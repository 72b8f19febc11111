"""A pre-receive rule for a bare repository: the protected branches and `vestibule/*` are not for pushes.

What it stops: `git push` over any transport that runs hooks (ssh, http, a path), to a protected branch, to a proposal's
branch, or to a symbolic ref that leads to one.

What it is no wall against: anyone who can write to the repository's files (they can move refs, or remove the hook);
`git update-ref`, `git fetch` into it and our own merges, which run no hooks; a server whose own configuration sets
`core.hooksPath`. On a forge with branch protection, use that as well.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from vestibule.core.errors import DependencyDown, UsageError
from vestibule.forges.rules import BRANCHES
from vestibule.git.repository import Git, valid_branch_ref

MARK = "# vestibule pre-receive v1"

HookState = Literal["installed", "absent", "foreign", "inactive"]

NO_WALL_AGAINST = (
    "anyone who can write the repository's files",
    "ref updates that run no hooks, such as git update-ref and fetches run inside the repository",
    "a server whose own configuration points core.hooksPath elsewhere",
)

_SCRIPT = """#!/bin/sh
{mark}
# Refuses pushes to protected branches and to proposals; merges are made by vestibule after review.
# It is no wall against anyone who can write this repository's files.
status=0
while read -r old new ref; do
    for name in "$ref" "$(git symbolic-ref -q "$ref" 2>/dev/null)"; do
        case "$name" in
        {protected})
            echo "vestibule: $ref takes changes through review only." >&2
            echo "vestibule: push to a branch of your own, and take it through your usual review." >&2
            status=1
            ;;
        refs/heads/{branches}*|refs/heads/{branch})
            echo "vestibule: $ref is written by vestibule only." >&2
            status=1
            ;;
        esac
    done
done
exit $status
"""


def hook_text(protected: Sequence[str]) -> str:
    """The script for these full branch names. Raises UsageError for a name we would never write."""
    if not protected:
        raise UsageError("No branch to protect was named.", next_step="Name the branch that changes merge into.")
    for ref in protected:
        if not valid_branch_ref(ref):
            raise UsageError(f"{ref!r} is no branch that can be protected.", next_step="Use a plain branch name.")
    return _SCRIPT.format(
        mark=MARK, protected="|".join(sorted(set(protected))), branches=BRANCHES, branch=BRANCHES.rstrip("/")
    )


def install_pre_receive(path: Path, protected: Sequence[str]) -> Path:
    """Put the hook into the bare repository at `path`; the hook's path. Installing the same twice is fine.

    Raises:
        UsageError: not a bare repository, a hook of somebody's is there, or the repository's hooks live elsewhere.
        DependencyDown: it cannot be written.
    """
    git = Git.open(path)
    if not git.bare:
        raise UsageError(
            f"{path} is a working clone, and nobody pushes to it.",
            next_step="Install the hook in the bare repository that people push to.",
        )
    text = hook_text(protected)
    hook = git.git_dir / "hooks" / "pre-receive"
    state = hook_state(git)
    if state == "inactive":
        raise UsageError(
            f"{path} runs hooks from another folder (core.hooksPath).",
            next_step=f"Add the rule there by hand, or run `git -C {path} config --unset core.hooksPath`.",
        )
    if state != "absent":
        if not hook.is_symlink() and hook.is_file() and hook.read_bytes() == text.encode():
            return hook
        raise UsageError(
            f"{hook} exists and is not replaced.",
            next_step="Call our rule from it, or move it away and install again.",
        )
    temporary = hook.with_name(f".pre-receive.{secrets.token_hex(8)}")
    try:
        hook.parent.mkdir(exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        try:
            # link, not rename: a hook that appeared meanwhile is never replaced.
            os.link(temporary, hook)
        except FileExistsError:
            raise UsageError(
                f"{hook} exists and is not replaced.", next_step="Install again after moving it."
            ) from None
    except OSError as error:
        raise DependencyDown("forge", f"The hook {hook} cannot be written.", fact=error.strerror or "") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return hook


def hook_state(git: Git) -> HookState:
    """`foreign`: a hook that is not ours, or ours changed; `inactive`: the repository runs hooks from elsewhere."""
    if git.run(["config", "--local", "--get", "core.hooksPath"], ok_codes=(0, 1)).strip():
        return "inactive"
    hook = git.git_dir / "hooks" / "pre-receive"
    if not os.path.lexists(hook):
        return "absent"
    try:
        mine = not hook.is_symlink() and hook.read_bytes().split(b"\n", 2)[1:2] == [MARK.encode()]
        return "installed" if mine and os.access(hook, os.X_OK) else "foreign"
    except OSError:
        return "foreign"
