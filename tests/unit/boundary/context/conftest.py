"""Fixtures of the context endpoint's tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from context_fake import Endpoint, fill, make_endpoint


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "workspace"
    found.mkdir()
    fill(found)
    return found


@pytest.fixture
def endpoint(folder: Path, loop: asyncio.AbstractEventLoop) -> Iterator[Endpoint]:
    found = make_endpoint(folder, loop)
    yield found
    found.workspace.close()
