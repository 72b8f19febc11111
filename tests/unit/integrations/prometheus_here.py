"""Prometheus and promtool: below `build/prometheus`, or on the PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BUILT = ROOT / "build" / "prometheus" / "usr" / "bin"


def program(name: str) -> str:
    """The program; skips where there is none, fails in CI."""
    found = str(BUILT / name) if (BUILT / name).is_file() else shutil.which(name)
    if found is None:
        reason = f"no {name}: `make prometheus` fetches it"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def promtool(*arguments: str, given: str = "", folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("promtool"), *arguments],
        input=given,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"HOME": "/nonexistent", "PATH": "/usr/bin:/bin"},
    )
