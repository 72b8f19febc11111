"""The search of operator tools for sockets refuses when it cannot be made."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from vestibule.core.errors import ConfigError
from vestibule.sandbox.local import tools


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    (tmp_path / "tool" / "bin").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    return tmp_path / "tool"


def _check(tool: Path) -> None:
    tools.check([tool], home=tool.parent / "home")


def _program(folder: Path, text: str) -> str:
    path = folder / "find"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_tool_without_sockets_is_shown(tool: Path) -> None:
    _check(tool)


def test_a_socket_whose_name_is_hostile_is_found(tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tool / "bin")  # socket paths are short
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("-a\n\udcff")
        with pytest.raises(ConfigError, match="contains the socket"):
            _check(tool)


def test_links_are_not_followed(tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tool.parent)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("s")
        (tool / "link").symlink_to("../s")
        _check(tool)


def test_without_the_searching_program_nothing_is_shown(tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "_FIND", str(tool / "no such program"))
    with pytest.raises(ConfigError, match="cannot be searched"):
        _check(tool)


def test_a_search_that_failed_shows_nothing(tool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "_FIND", _program(tmp_path, "echo 'Permission denied' >&2; exit 1"))
    with pytest.raises(ConfigError, match="Permission denied"):
        _check(tool)


def test_a_search_that_does_not_end_shows_nothing(tool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "_FIND", _program(tmp_path, f"exec cat {tmp_path / 'pipe'}"))
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(tools, "SEARCH_SECONDS", 0.05)
    with pytest.raises(ConfigError, match="TimeoutExpired"):
        _check(tool)
