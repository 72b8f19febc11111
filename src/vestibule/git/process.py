"""One git process: what it is told, what it may not do, and how its end is read.

Rules it keeps:
1. Hooks, filters, fsmonitor, external diff, pagers, editors, helpers and every protocol are off; system and user
   configuration is not read; a repository's own configuration cannot turn them on (the command line wins).
2. A missing object is an error, never fetched: no repository names a program that we start.
3. Output, time and arguments are bounded; a failure is `GitError`, a git that is not there `DependencyDown`.

Sources: git-config(1), git(1) environment, CVE-2022-24765, CVE-2024-32002, CVE-2025-48384.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from vestibule.core.errors import DependencyDown

MAX_OUTPUT = 512 << 20

OFF: tuple[str, ...] = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.pager=cat",
    "core.editor=false",
    "core.sshCommand=false",
    "core.askPass=false",
    "core.autocrlf=false",
    "core.eol=lf",
    "core.safecrlf=false",
    "core.symlinks=true",
    "core.protectNTFS=true",
    "core.protectHFS=true",
    "core.quotePath=false",
    "core.precomposeUnicode=false",
    "core.alternateRefsCommand=false",
    "credential.helper=",
    "diff.external=",
    "diff.renames=true",
    "diff.noprefix=false",
    "diff.mnemonicPrefix=false",
    "diff.submodule=short",
    "diff.ignoreSubmodules=none",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "fetch.fsckObjects=true",
    "receive.fsckObjects=true",
    "protocol.allow=never",
    "protocol.file.allow=always",
    "safe.bareRepository=explicit",
    "gc.auto=0",
    "maintenance.auto=false",
    "commit.gpgSign=false",
    "tag.gpgSign=false",
    "log.showSignature=false",
    "gpg.program=false",
    "interactive.diffFilter=",
    "uploadpack.packObjectsHook=",
    "advice.detachedHead=false",
    "init.defaultBranch=main",
    "init.templateDir=",
)


class GitError(Exception):
    """git said no. `stderr` is its message, for logs; callers turn it into an error for people."""

    def __init__(self, argv: Sequence[str], code: int, stderr: str) -> None:
        self.argv = list(argv)
        self.code = code
        self.stderr = stderr
        super().__init__(f"git {argv[0] if argv else ''} failed ({code}): {stderr.strip()[:500]}")


NULL_ENV = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_ASKPASS": "/bin/false",
    "GIT_EDITOR": "/bin/false",
    "GIT_PAGER": "cat",
    # No command here talks to another repository; one that reads a missing object of a partial clone would fetch it,
    # by a program that the repository's configuration names. Every protocol is off, and newer versions do not try.
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_NO_LAZY_FETCH": "1",
    "LC_ALL": "C.UTF-8",
    "HOME": "/nonexistent",
    "XDG_CONFIG_HOME": "/nonexistent",
    "PATH": "/usr/bin:/bin:/usr/local/bin",
}


def argv_of(argv: Sequence[str], prefix: Sequence[str], config: Sequence[str] = ()) -> list[str]:
    git = shutil.which("git", path=NULL_ENV["PATH"])
    if git is None:
        raise DependencyDown("git", "git is not installed.", person="Install git (`apt-get install git`).")
    settings: list[str] = []
    for item in (*OFF, *config):
        settings += ["-c", item]
    return [git, *prefix, *settings, *argv]


def env_of(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {**NULL_ENV, **(extra or {})}


def config_env(settings: Sequence[tuple[str, str]]) -> dict[str, str]:
    found = {"GIT_CONFIG_COUNT": str(len(settings))}
    for index, (key, value) in enumerate(settings):
        found |= {f"GIT_CONFIG_KEY_{index}": key, f"GIT_CONFIG_VALUE_{index}": value}
    return found


def execute(
    argv: Sequence[str],
    *,
    cwd: Path,
    prefix: Sequence[str] = (),
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    config: Sequence[str] = (),
    ok_codes: Sequence[int] = (0,),
    timeout: float = 300,
    overrules: Sequence[tuple[str, str]] = (),
) -> bytes:
    # safe.directory is honoured only from the environment or command scope; the caller named this repository.
    full_env = env_of(env) | config_env([("safe.directory", "*"), *overrules])
    try:
        done = subprocess.run(
            argv_of(argv, prefix, config),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=full_env,
            cwd=cwd,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DependencyDown("git", f"git {argv[0]} took longer than {timeout:.0f} s.") from None
    except OSError as error:
        raise DependencyDown("git", f"git could not be started: {error.strerror}.") from None
    if done.returncode not in ok_codes:
        raise GitError(argv, done.returncode, done.stderr.decode("utf-8", "replace"))
    if len(done.stdout) > MAX_OUTPUT:
        raise DependencyDown("git", f"git {argv[0]} printed more than {MAX_OUTPUT >> 20} MiB.")
    return done.stdout
