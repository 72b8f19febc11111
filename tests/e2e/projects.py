"""Real projects and programs for whole runs, brought from the package registry when a test asks for them.

The machine's own pip configuration says which registry that is. What is downloaded is pinned by version and hash.
Missing tools: skipped on a laptop, a failure in CI.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from tests.e2e.conftest import House

ROOT = Path(__file__).resolve().parents[2]
NODE_MODULES = ROOT / "build" / "tools" / "node_modules"
PIP_SECONDS = 240


class Project(NamedTuple):
    """A source distribution."""

    name: str
    version: str
    sha256: str

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.version}"


CACHETOOLS = Project("cachetools", "4.2.0", "3796e1de094f0eaca982441c92ce96c68c89cced4cd97721ab297ea4b16db90e")
"""A public report of January 2021, answered by 4.2.1: a value that `__missing__` makes up without storing it is kept
in the order of use, and is evicted as if it were stored: KeyError."""


def missing(what: str) -> NoReturn:
    """End a test that lacks a tool."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def source_tree(project: Project, folder: Path) -> Path:
    """The unpacked source distribution of `project` below `folder`."""
    tree = folder / project.folder
    if tree.exists():
        return tree
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{project.name}=={project.version} --hash=sha256:{project.sha256}\n")
    # Only this project from source: what pip needs to look into it may be built already.
    argv = ["download", "--quiet", "--no-deps", "--no-binary", project.name, "-r", str(wanted), "-d", str(folder)]
    _pip(argv, f"The source of {project.folder} cannot be downloaded")
    archive = next(folder.glob(f"{project.folder}*.tar.gz"))
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return tree


def python_with(folder: Path, *names: str) -> Path:
    """A Python environment in `folder` with these packages, at the versions that this one has."""
    if (folder / "bin" / names[0]).exists():
        return folder
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    wanted = [f"{name}=={importlib.metadata.version(name)}" for name in names]
    argv = ["--python", str(folder / "bin" / "python"), "install", "--quiet", *wanted]
    _pip(argv, f"{', '.join(wanted)} cannot be installed")
    return folder


def python_prefix() -> list[str]:
    """The folder of this Python, when it is not the system's."""
    prefix = Path(sys.base_prefix).resolve()
    return [] if prefix.is_relative_to("/usr") else [str(prefix)]


def claude_code_modules() -> Path:
    """The folder of installed programs that holds the unmodified Claude Code CLI."""
    if not (NODE_MODULES / ".bin" / "claude").exists():
        missing("The Claude Code CLI is not installed: make build/tools/.installed")
    return NODE_MODULES


def adopt(house: House, tree: Path, config: str, more: dict[str, str] | None = None) -> None:
    """Make `tree` the house's repository: one commit of what the project published, one that adds Vestibule."""
    for item in sorted(tree.iterdir()):
        item.rename(house.repo / item.name)
    house.git("add", "-A")
    house.git("commit", "-q", "-m", f"The source of {tree.name}")
    house.commit({".vestibule/config.yaml": config, **(more or {})}, "Let agents work here")


def _pip(argv: list[str], problem: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *argv],
        capture_output=True,
        text=True,
        timeout=PIP_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        missing(f"{problem}: {done.stderr.strip()[-600:]}")
