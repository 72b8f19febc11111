"""A console over runs in memory, new for each test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from console_fake import Console


@pytest.fixture
def console() -> Console:
    return Console()
