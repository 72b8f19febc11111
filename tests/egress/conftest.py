"""One backend for the session, one world for each test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.egress.world import PREFIX, RUN, World, build_world
from vestibule.sandbox.local import LocalSandbox


@pytest.fixture(scope="session")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSandbox]:
    if shutil.which("bwrap") is None and not os.environ.get("CI"):
        pytest.skip("bubblewrap is not installed")
    tools = () if PREFIX.is_relative_to("/usr") else (PREFIX,)
    found = LocalSandbox(tools=tools, state=tmp_path_factory.mktemp("state"))
    yield found
    found.release(RUN)
    found.close()


@pytest.fixture
def world(backend: LocalSandbox, tmp_path: Path) -> World:
    return build_world(backend, tmp_path)
