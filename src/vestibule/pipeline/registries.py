"""Which hosts a package registry is, as the operator's own client is configured. Nothing of it is written down here.

Rules it keeps:
1. The operator's `network.registries` decides where it is given; else the client is asked, in the operator's
   environment, outside of any repository.
2. A registry whose client is not there, or says nothing usable, has no hosts: the plan says so, and it stays closed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

from vestibule.core.text.names import NameRefused, canonical_endpoint

CLIENT_SECONDS = 20.0
_URL = re.compile(r"https?://[^\s'\"\]|,]+")

_PIP = """
import subprocess, sys
from pip._internal.models.index import PyPI
done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
lines = [line for line in done.stdout.splitlines() if line.partition("=")[0].endswith(("index-url", "find-links"))]
print("\\n".join(lines))
if not any(line.partition("=")[0].endswith(".index-url") for line in lines):
    print(PyPI.simple_url, "https://" + PyPI.file_storage_domain)
"""
"""pip's configured indexes, and its built-in one with its file host where none is configured."""

_COMMANDS: dict[str, Callable[[], tuple[str, ...] | None]] = {
    "pip": lambda: (sys.executable, "-c", _PIP),
    "npm": lambda: ("npm", "config", "get", "registry"),
    "go": lambda: ("go", "env", "GOPROXY"),
}


def registry_hosts(
    names: Iterable[str], configured: Mapping[str, tuple[str, ...]], environ: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """`name:port`s of each registry; those that cannot be found out are left out."""
    found = {}
    for name in dict.fromkeys(names):
        hosts = tuple(configured[name]) if name in configured else _asked(name, environ)
        if hosts:
            found[name] = hosts
    return found


def _asked(name: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    command = _COMMANDS.get(name, lambda: None)()
    if command is None or shutil.which(command[0], path=environ.get("PATH")) is None:
        return ()
    try:
        done = subprocess.run(
            command,
            env=dict(environ),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CLIENT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return endpoints(done.stdout) if done.returncode == 0 else ()


def endpoints(text: str) -> tuple[str, ...]:
    """`name:port` of every URL in a client's answer; addresses and what is no host name are left out."""
    found = []
    for url in _URL.findall(text):
        try:
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
            host, port = canonical_endpoint(f"{parts.hostname or ''}:{port}")
        except (ValueError, NameRefused):
            continue
        found.append(f"{host}:{port}")
    return tuple(dict.fromkeys(found))
