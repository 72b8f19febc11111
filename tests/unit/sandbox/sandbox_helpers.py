"""What the tests of sandboxes share: an interpreter inside, a small specification, a look for leftovers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from vestibule.core.ports import Limits, Mount, SandboxResult, SandboxSpec

PREFIX = Path(sys.base_prefix).resolve()
PYTHON = os.path.realpath(sys.executable)
RUN = "r0tests"


def python(code: str) -> tuple[str, ...]:
    """The interpreter of the tests, as a program inside."""
    return (PYTHON, "-I", "-S", "-c", code)


Inside = Callable[..., SandboxResult]


def specification(argv: tuple[str, ...] | str, workspace: Path, **fields: object) -> SandboxSpec:
    """A small sandbox with a writable workspace; a string is a shell's."""
    values: dict[str, object] = {
        "run": RUN,
        "argv": ("sh", "-c", argv) if isinstance(argv, str) else argv,
        "mounts": (Mount(source=workspace, target="/workspace", write=True),),
        "limits": Limits(wall_seconds=20, memory_bytes=256 << 20, pids=64),
        **fields,
    }
    return SandboxSpec.model_validate(values)


def leftovers(state: Path) -> list[str]:
    """Records, control groups and processes of sandboxes of these tests."""
    found = [str(path) for path in (state / "sandboxes").glob("*")]
    groups = Path("/sys/fs/cgroup")
    for depth in ("*", "*/*", "*/*/*", "*/*/*/*"):
        found += [str(path) for path in groups.glob(f"{depth}/vestibule-r0tests-*")]
    return found
