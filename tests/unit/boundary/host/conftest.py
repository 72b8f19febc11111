"""A real monitor for the whole session, and groups under its watch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_cell import Cell, MakeCell, need

from vestibule.boundary.host.behaviours import shipped
from vestibule.boundary.host.monitor import Monitor
from vestibule.sandbox.local.limits import v2_folder


@pytest.fixture(scope="session")
def monitor() -> Iterator[Monitor]:
    found = Monitor(lambda: shipped().as_data(), v2_folder)
    need(found)
    yield found
    found.stop()


@pytest.fixture
def make_cell(tmp_path: Path) -> Iterator[MakeCell]:
    cells: list[Cell] = []

    def make(monitor: Monitor, writable: tuple[str, ...] = ("/",)) -> Cell:
        parent = v2_folder()
        assert parent is not None
        name = f"vestibule-{os.getpid()}-test{len(cells)}-{tmp_path.name[-12:].strip('_').replace('_', '-').lower()}"
        cells.append(Cell(monitor, parent / name, writable, tmp_path / f"events-{len(cells)}"))
        return cells[-1]

    yield make
    for cell in cells:
        cell.group.rmdir()


@pytest.fixture
def cell(monitor: Monitor, make_cell: MakeCell) -> Cell:
    return make_cell(monitor)
