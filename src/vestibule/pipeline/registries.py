"""Which hosts a package registry is, as the operator's own client is configured. Nothing of it is written down here.

Rules it keeps:
1. The operator's `network.registries` decides where it is given; else the client is asked, in the operator's
   environment, outside of any repository.
2. A registry whose client is not there, or says nothing usable, has no hosts: the plan says so, and it stays closed.
3. The client inside is pointed at the same index, by variables and files of its HOME. User names, passwords and tokens
   stay out: a URL is passed on without them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import urlsplit, urlunsplit

from vestibule.core.base import Noun
from vestibule.core.text.names import NameRefused, canonical_endpoint

CLIENT_SECONDS = 20.0
_URL = re.compile(r"https?://[^\s'\"\]|,]+")

_PIP = """
import subprocess, sys
from pip._internal.models.index import PyPI
done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
lines = [line for line in done.stdout.splitlines() if line.partition("=")[0].endswith(("index-url", "find-links"))]
print("\\n".join(lines))
if not any(line.partition("=")[0].endswith((".index-url")) for line in lines):
    print("built-in", PyPI.simple_url, "https://" + PyPI.file_storage_domain)
"""
"""pip's configured indexes, and its built-in one with its file host where none is configured."""


class Registry(Noun):
    """One registry: `name:port`s, and what its client inside is given to find it."""

    hosts: tuple[str, ...] = ()
    env: dict[str, str] = {}
    files: dict[str, bytes] = {}
    """Below HOME."""


def registries_of(
    names: Iterable[str], configured: Mapping[str, tuple[str, ...]], environ: Mapping[str, str]
) -> dict[str, Registry]:
    """Each registry that can be found out; the others are left out."""
    found = {}
    for name in dict.fromkeys(names):
        text = "\n".join(configured[name]) if name in configured else _asked(name, tuple(sorted(environ.items())))
        registry = read(name, text)
        if registry.hosts:
            found[name] = registry
    return found


def read(name: str, text: str) -> Registry:
    """What a client's answer, or the operator's list (one a line), says about the registry `name`. Pure."""
    urls = [url for item in _URL.findall(text) if (url := _bare(item))]
    hosts = dict.fromkeys(endpoints(text))
    if name == "go":
        hosts |= dict.fromkeys(_checksum_hosts(text))
    env, files = _client(name, text, urls)
    return Registry(hosts=tuple(hosts), env=env, files=files)


def endpoints(text: str) -> tuple[str, ...]:
    """`name:port` of every URL, and of every line that is one; addresses and what is no host name are left out."""
    found = []
    for item in (*_URL.findall(text), *(line.strip() for line in text.splitlines() if "://" not in line)):
        try:
            if "://" in item:
                parts = urlsplit(item)
                port = parts.port or (443 if parts.scheme == "https" else 80)
                item = f"{parts.hostname or ''}:{port}"  # noqa: PLW2901 - the same in its other form
            host, number = canonical_endpoint(item)
        except (ValueError, NameRefused):
            continue
        found.append(f"{host}:{number}")
    return tuple(dict.fromkeys(found))


def _client(name: str, text: str, urls: list[str]) -> tuple[dict[str, str], dict[str, bytes]]:
    """Variables and files for the client inside. Nothing where its own default is what the operator's client uses."""
    if not urls:
        return {}, {}
    match name:
        case "pip":
            if "built-in" in text:
                return {}, {}
            lines = text.splitlines()
            index = [url for line in lines if "extra-index-url" not in line and "find-links" not in line
                     for url in map(_bare, _URL.findall(line)) if url]  # fmt: skip
            extra = [
                url for line in lines if "extra-index-url" in line for url in map(_bare, _URL.findall(line)) if url
            ]
            links = [url for line in lines if "find-links" in line for url in map(_bare, _URL.findall(line)) if url]
            env = {"PIP_INDEX_URL": index[0], "UV_DEFAULT_INDEX": index[0]} if index else {}
            env |= {"PIP_EXTRA_INDEX_URL": " ".join(extra), "UV_INDEX": " ".join(extra)} if extra else {}
            return env | ({"PIP_FIND_LINKS": " ".join(links)} if links else {}), {}
        case "npm":
            return {"npm_config_registry": urls[0]}, {}
        case "go":
            sums = _checksum_hosts(text)
            return {"GOPROXY": ",".join(urls)} | ({"GOSUMDB": sums[0].rpartition(":")[0]} if sums else {}), {}
        case "cargo":
            source = urls[0] if urls[0].endswith("/") else urls[0] + "/"
            text = '[source.crates-io]\nreplace-with = "operator"\n\n[source.operator]\n'
            return {}, {".cargo/config.toml": f'{text}registry = "sparse+{source}"\n'.encode()}
        case "maven":
            mirror = f"<id>operator</id><mirrorOf>*</mirrorOf><url>{urls[0].replace('&', '&amp;')}</url>"
            settings = f"<settings><mirrors><mirror>{mirror}</mirror></mirrors></settings>\n"
            return {}, {".m2/settings.xml": settings.encode()}
    return {}, {}


def _bare(url: str) -> str:
    """A URL without user, password, query and fragment; "" for what is none."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    if not re.fullmatch(r"[A-Za-z0-9.-]+", host) or re.search(r"[<>\"'`$\\\s]", parts.path):
        return ""
    return urlunsplit((parts.scheme, host + port, parts.path, "", ""))


def _checksum_hosts(text: str) -> tuple[str, ...]:
    """The checksum database that `go env` names on a line of its own, as `name:443`."""
    found = []
    for line in text.splitlines():
        word = line.strip().partition("+")[0].partition(" ")[0]
        if "://" in line or "." not in word or ":" in word:
            continue
        try:
            host, _ = canonical_endpoint(f"{word}:443")
        except NameRefused:
            continue
        found.append(f"{host}:443")
    return tuple(found)


def _commands(name: str, path: str | None) -> Iterable[tuple[str, ...]]:
    match name:
        case "pip":
            for python in (sys.executable, shutil.which("python3", path=path)):
                if python:
                    yield (python, "-c", _PIP)
        case "npm" | "go":
            program = shutil.which(name, path=path)
            if program:
                yield (program, "config", "get", "registry") if name == "npm" else (
                    program, "env", "GOPROXY", "GOSUMDB",
                )  # fmt: skip


@lru_cache(maxsize=32)
def _asked(name: str, environ: tuple[tuple[str, str], ...]) -> str:
    """What the operator's client answers; asked once per process."""
    given = dict(environ)
    for command in _commands(name, given.get("PATH")):
        try:
            done = subprocess.run(
                command,
                env=given,
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=CLIENT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return done.stdout
    return ""
