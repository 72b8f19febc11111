"""Files that run by themselves: at interpreter start, test collection, install, build or deployment.

A table of names. Everything here waits for a person; a `.pth` line that Python executes is refused
(site.py runs lines that begin with `import`). A role whose write globs name a build file outright may change it,
as long as no added line reaches for the network.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

from vestibule.boundary.changes.changeset import Change, ChangeSet, decode_path
from vestibule.boundary.changes.guards.base import GuardContext, found
from vestibule.core.model import Finding
from vestibule.core.text.globs import first_match, matches
from vestibule.core.text.paths import fold
from vestibule.core.verdict import Ruling

STARTUP: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "change.startup.interpreter",
        "It runs at every start of an interpreter or shell",
        (
            "**/*.pth",
            "**/sitecustomize.py",
            "**/usercustomize.py",
            "**/.pythonrc*",
            "**/.bashrc",
            "**/.bash_profile",
            "**/.profile",
            "**/.zshrc",
            "**/.zshenv",
            "**/.node_repl*",
            "**/.irbrc",
            "**/.rspec",
            "**/.env",
            "**/.direnvrc",
        ),
    ),
    (
        "change.startup.tests",
        "It runs when tests are collected, or decides which tests run",
        (
            "**/conftest.py",
            "**/pytest.ini",
            "**/.pytest.ini",
            "**/tox.ini",
            "**/noxfile.py",
            "**/jest.config.*",
            "**/jest.setup.*",
            "**/vitest.config.*",
            "**/karma.conf.*",
            "**/.mocharc.*",
            "**/playwright.config.*",
            "**/cypress.config.*",
            "**/.nycrc*",
            "**/phpunit.xml*",
        ),
    ),
    (
        "change.startup.checks",
        "It decides what linters and scanners report",
        (
            "**/.eslintrc*",
            "**/eslint.config.*",
            "**/.eslintignore",
            "**/ruff.toml",
            "**/.ruff.toml",
            "**/.flake8",
            "**/mypy.ini",
            "**/.pylintrc",
            "**/sonar-project.properties",
            "**/.trivyignore*",
            "**/.snyk",
            "**/codecov.y{,a}ml",
            "**/.codecov.y{,a}ml",
            "**/.golangci.*",
            "**/.secrets.baseline",
            "**/osv-scanner.toml",
        ),
    ),
    (
        "change.startup.build",
        "It runs when the project is built or installed",
        (
            "**/makefile{,.*,-*}",
            "**/gnumakefile",
            "**/*.mk",
            "**/justfile",
            "**/taskfile.y{,a}ml",
            "**/rakefile",
            "**/dockerfile{,.*,-*}",
            "**/*.dockerfile",
            "**/containerfile{,.*,-*}",
            "**/docker-compose{,.*,-*}",
            "**/compose.y{,a}ml",
            "**/setup.py",
            "**/setup.cfg",
            "**/build.rs",
            "**/*.gradle*",
            "**/gradlew{,.bat}",
            "**/pom.xml",
            "**/build.xml",
            "**/cmakelists.txt",
            "**/*.cmake",
            "**/meson.build",
            "**/configure{,.ac}",
            "**/binding.gyp",
            "**/gruntfile.*",
            "**/gulpfile.*",
            "**/webpack.config.*",
            "**/vite.config.*",
            "**/rollup.config.*",
            "**/babel.config.*",
            "**/next.config.*",
            "**/build.sbt",
            "**/*.csproj",
            "**/directory.build.*",
            "**/*.gemspec",
            "**/mix.exs",
            "**/build.zig",
            "**/{,workspace,build,module}.bazel",
            "**/vagrantfile",
            "**/procfile",
            "**/tiltfile",
            "**/skaffold.y{,a}ml",
        ),
    ),
    (
        "change.startup.deployment",
        "It runs where the project is deployed or rendered",
        (
            "**/*.tf",
            "**/*.tf.json",
            "**/terragrunt.hcl",
            "**/helmfile{,.*}",
            "**/kustomization.y{,a}ml",
            "**/ansible.cfg",
            "**/*.service",
            "**/crontab{,.*}",
            "**/serverless.y{,a}ml",
            "**/chart.yaml",
        ),
    ),
)
"""(rule, why, globs on folded paths)."""

_NETWORK = re.compile(
    rb"(?i)\b(?:curl|wget|ncat?|netcat|socat|telnet|ssh|scp|rsync|ftp|invoke-webrequest|iwr|urlopen|requests\.|fetch\()"
    rb"|/dev/(?:tcp|udp)/|https?://"
)
_PTH_CODE = re.compile(rb"\s*import[ \t]")


def examine(changes: ChangeSet, context: GuardContext) -> Iterator[Finding]:
    for change in changes.changes:
        for raw in change.paths:
            yield from _named(change, decode_path(raw), context)
        yield from _manifests(change)


def _named(change: Change, name: str, context: GuardContext) -> Iterator[Finding]:
    folded = fold(name)
    if folded.endswith(".pth"):
        line = next((number for number, text in change.added if _PTH_CODE.match(text)), None)
        if line is not None:
            yield found(
                "change.startup.pth",
                Ruling.DENY,
                "A line of a .pth file that Python runs at every start.",
                change,
                line=line,
                fix="Leave .pth files out of the change.",
            )
            return
    for rule, why, globs in STARTUP:
        if first_match(folded, globs):
            network = next((number for number, text in change.added if _NETWORK.search(text)), None)
            named = any(pattern_names(pattern, name) for pattern in context.write)
            ruling = Ruling.ALLOW if named and network is None else Ruling.HOLD
            reach = " An added line reaches for the network." if network is not None else ""
            yield found(
                rule,
                ruling,
                f"{why}.{reach}",
                change,
                line=network,
                excerpt=name,
                fix="" if ruling is Ruling.ALLOW else "A person reads it before it runs anywhere.",
            )
            return


def pattern_names(pattern: str, name: str) -> bool:
    """Whether a write glob names this very file: its last segment has no wildcard."""
    return not any(char in pattern.rsplit("/", 1)[-1] for char in "*?[{") and matches(name, pattern)


def _manifests(change: Change) -> Iterator[Finding]:
    """Manifests whose commands run: npm scripts, Composer scripts, Python build back ends."""
    base = fold(change.name).rsplit("/", 1)[-1]
    if change.status == "D" or base not in _MANIFESTS:
        return
    keys, parse, what = _MANIFESTS[base]
    new = parse(change.new) if change.new is not None else None
    old = parse(change.old) if change.old is not None and change.status != "A" else {}
    if new is None or old is None:
        yield found("change.startup.manifest", Ruling.HOLD, "The manifest cannot be read.", change, excerpt=base)
        return
    for key in keys:
        if new.get(key) != old.get(key):
            yield found(
                "change.startup.manifest",
                Ruling.HOLD,
                f"{what} ({key}) change.",
                change,
                excerpt=key,
                fix="A person reads what will run at install, build or test.",
            )


def _json(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _toml(data: bytes) -> dict[str, Any] | None:
    try:
        value = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    tools = value.pop("tool", {})
    tools = tools if isinstance(tools, dict) else {}
    pytest = tools.get("pytest")
    return {"build-system": value.get("build-system"), "tool.pytest": pytest, "tool.coverage": tools.get("coverage")}


_MANIFESTS = {
    "package.json": (("scripts", "bin", "husky", "lint-staged", "config", "jest"), _json, "Commands of the package"),
    "composer.json": (("scripts",), _json, "Commands of the package"),
    "pyproject.toml": (("build-system", "tool.pytest", "tool.coverage"), _toml, "The build back end or test settings"),
}
