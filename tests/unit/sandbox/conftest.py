"""A backend for the whole session, and a short way to run something inside."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_helpers import PREFIX, RUN, Inside, specification

from vestibule.core.ports import SandboxResult
from vestibule.sandbox.local import LocalSandbox, own_workspace


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="session")
def backend(state: Path) -> Iterator[LocalSandbox]:
    if shutil.which("bwrap") is None and not os.environ.get("CI"):
        pytest.skip("bubblewrap is not installed")
    found = LocalSandbox(tools=() if Path("/usr") == PREFIX else (PREFIX,), state=state)
    yield found
    found.release(RUN)


@pytest.fixture
def workspace(backend: LocalSandbox, tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "hello.txt").write_text("hello\n")
    own_workspace(folder, backend.workspace_uid(RUN))
    return folder


@pytest.fixture
def inside(backend: LocalSandbox, workspace: Path) -> Inside:
    """Run one program to its end; keyword arguments go into the specification."""

    def run(argv: tuple[str, ...] | str, *, stdin: bytes | None = None, **fields: object) -> SandboxResult:
        sandbox = backend.create(specification(argv, workspace, **fields), stdin=stdin)
        sandbox.go()
        return sandbox.wait()

    return run
