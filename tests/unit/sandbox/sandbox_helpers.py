"""What the tests of sandboxes share: an interpreter inside, a small specification, a look for leftovers."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from vestibule.core.ports import Limits, Mount, SandboxResult, SandboxSpec

PREFIX = Path(sys.base_prefix).resolve()
PYTHON = os.path.realpath(sys.executable)
RUN = "r0tests"
_STARTED = time.time()


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
    """Records and control groups that stay of sandboxes of these tests. Another session's may go any moment."""
    deadline = time.monotonic() + 3
    while found := [str(path) for path in (state / "sandboxes").glob("*")] + _dead_groups():
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return found


def _dead_groups() -> list[str]:
    found = []
    for depth in ("*", "*/*", "*/*/*", "*/*/*/*"):
        for group in Path("/sys/fs/cgroup").glob(f"{depth}/vestibule-*"):
            keeper = group.name.split("-")[1]
            with contextlib.suppress(FileNotFoundError):
                about = group.stat()
                ours = about.st_uid == os.geteuid() and about.st_ctime > _STARTED
                if ours and keeper.isdigit() and not Path("/proc", keeper).exists():
                    found.append(str(group))
    return found
