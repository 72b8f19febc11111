"""Operator tools: host folders shown read-only at the same path, and what is never shown.

Rules it keeps:
1. No home folder, no folder that contains one, nothing that holds keys or credentials, no folder of the running
   system's state is a tool; links are resolved before the question is asked.
2. No socket is shown: a Unix socket on a read-only mount can still be connected to (CVE-2019-16884 class, docker.sock).
3. The supervisor's own state and configuration are never shown.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from vestibule.core.errors import ConfigError
from vestibule.sandbox.local.argv import Bind

_NEVER = ("/", "/proc", "/sys", "/dev", "/run", "/var", "/etc", "/boot", "/tmp", "/home", "/root", "/mnt", "/media")  # noqa: S108
_NEVER_BELOW = ("/proc", "/sys", "/dev", "/run", "/var/run", "/var/lib/docker", "/etc", "/boot")
_SECRETS = (
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".config",
    ".netrc",
    ".git-credentials",
    ".npmrc",
    ".pypirc",
    ".password-store",
    ".claude",
    ".codex",
    ".gemini",
    ".vestibule",
)
_FIND = "/usr/bin/find"
SEARCH_SECONDS = 60


def check(tools: Iterable[str | Path], *, home: Path, forbidden: Iterable[Path] = ()) -> tuple[Bind, ...]:
    """The read-only mounts of these tools.

    Raises:
        ConfigError: a tool is missing or must not be shown; the sentence says why.
    """
    kept_away = [path.resolve() for path in forbidden]
    found = []
    for item in tools:
        path = Path(item)
        real = path.resolve()
        why = _refusal(real, home.resolve(), kept_away)
        if why:
            raise ConfigError(
                f"sandbox.tools: {path} cannot be shown inside sandboxes",
                why=why,
                next_step="Name the tool's own folder, such as /opt/node.",
            )
        if not _below(real, Path("/usr")):
            found.append(Bind(str(real), str(path), False))
    return tuple(found)


def bins(tools: Iterable[str | Path]) -> tuple[str, ...]:
    """Folders of programs, for PATH: `TOOL/bin` and `TOOL/node_modules/.bin` where they are, else the tool itself."""
    found: list[Path] = []
    for tool in map(Path, tools):
        inner = [tool / name for name in ("bin", "node_modules/.bin") if (tool / name).is_dir()]
        found += inner or ([tool] if tool.is_dir() else [])
    return tuple(map(str, found))


def _refusal(real: Path, home: Path, kept_away: list[Path]) -> str:
    if not real.exists():
        return "it does not exist"
    if str(real) in _NEVER or any(_below(real, Path(item)) for item in _NEVER_BELOW):
        return "it is part of the running system's state"
    if _below(home, real):
        return "it is or contains a home folder"
    for away in kept_away:
        if _below(away, real) or _below(real, away):
            return "it holds Vestibule's own state or configuration"
    for part in real.parts:
        if part in _SECRETS and _below(real, home):
            return f"{part} holds credentials"
    for name in _SECRETS:
        secret = home / name
        if secret.exists() and _below(secret.resolve(), real):
            return f"it contains {secret}"
    return _socket_in(real)


def _below(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


def _socket_in(real: Path) -> str:
    """Why a tool is refused for a socket in it or below, links not followed; empty when there is none.

    A program of its own searches: a Python installation has fifty thousand files, and they are gone through while
    this process loads what it needs.
    """
    try:
        found = subprocess.run(
            [_FIND, str(real), "-type", "s", "-print", "-quit"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SEARCH_SECONDS,
            env={"LC_ALL": "C"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it cannot be searched for sockets: {type(error).__name__}"
    if found.stdout:
        return "it contains the socket " + os.fsdecode(found.stdout).rstrip()
    if found.returncode != 0:
        return "it cannot be searched for sockets: " + os.fsdecode(found.stderr[:300]).strip()
    return ""
