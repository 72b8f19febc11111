"""Which agents there are: what is found, what is said to be verified, and that both are true."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from vestibule import __version__
from vestibule.agents import inventory as inventories
from vestibule.agents.inventory import Listed, inventory
from vestibule.agents.registry import ADAPTERS, adapter
from vestibule.agents.verified import CLAUDE_CODE
from vestibule.core.control_files import CONTROL_FILES

ROOT = Path(__file__).resolve().parents[3]


def _claude(folder: Path, version: str) -> Path:
    """A tool folder that holds a Claude Code of this version, laid out as npm does."""
    package = folder / "node_modules" / "@anthropic-ai" / "claude-code"
    (package / "bin").mkdir(parents=True)
    (package / "package.json").write_text(json.dumps({"version": version}))
    (package / "bin" / "claude.exe").write_text("#!/bin/sh\n")
    links = folder / "node_modules" / ".bin"
    links.mkdir()
    (links / "claude").symlink_to(package / "bin" / "claude.exe")
    return folder


def _one(name: str, *tools: Path) -> Listed:
    return next(item for item in inventory(tools) if item.adapter == name)


def test_every_adapter_is_listed_without_any_tool() -> None:
    found = {item.adapter: item.standing for item in inventory(())}
    installed = {"claude-code", "codex", "opencode", "gemini", "copilot"}
    assert found == {"command": "any program", "reference": "verified", **dict.fromkeys(installed, "not installed")}
    missing = _one("claude-code")
    assert missing.path == missing.version == ""
    assert "sandbox.tools" in missing.problem


def test_only_exactly_the_tested_version_is_verified(tmp_path: Path) -> None:
    tested = CLAUDE_CODE[0].version
    right = _one("claude-code", _claude(tmp_path / "a", tested))
    assert (right.standing, right.version) == ("verified", tested)
    assert right.path == str(tmp_path / "a/node_modules/.bin/claude")
    for number, version in enumerate((f"{tested}0", f"{tested}-beta", "99.0.0", "", "unknown")):
        assert _one("claude-code", _claude(tmp_path / f"b{number}", version)).standing == "not verified"


def test_a_program_whose_version_cannot_be_read_is_not_verified(tmp_path: Path) -> None:
    folder = _claude(tmp_path / "a", CLAUDE_CODE[0].version)
    (folder / "node_modules/@anthropic-ai/claude-code/package.json").write_text("{")
    found = _one("claude-code", folder)
    assert (found.standing, found.version) == ("not verified", "unknown")


def test_the_reference_agent_is_of_this_release() -> None:
    assert _one("reference").version == __version__


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("claude-code", "@anthropic-ai/claude-code"),
        ("codex", "@openai/codex"),
        ("opencode", "opencode-ai"),
    ],
)
def test_the_verified_version_is_the_one_that_the_tests_install(name: str, package: str) -> None:
    pinned = json.loads((ROOT / "tests/tools/package.json").read_text())["dependencies"]
    assert [item.version for item in adapter(name).about.verified] == [pinned[package]]


@pytest.mark.parametrize("name", ADAPTERS)
def test_tests_that_are_named_as_evidence_exist(name: str) -> None:
    for item in adapter(name).about.verified:
        assert item.tests
        assert set(item.modes) <= set(adapter(name).about.modes)
        for test in item.tests:
            path, _, function = test.partition("::")
            tree = ast.parse((ROOT / path).read_text("utf-8"))
            assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_control_file_that_an_adapter_knows_of_is_on_the_one_list(name: str) -> None:
    reads = adapter(name).about.reads
    assert set(reads) <= set(CONTROL_FILES)
    assert _one(name).control_files == tuple(entry for entry in CONTROL_FILES if entry in reads)


def test_listing_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    def started(*_args: object, **_more: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    assert inventories.inventory((_claude(tmp_path / "a", "1.0.0"),))
