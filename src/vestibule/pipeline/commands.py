"""`run_command` for the context gateway: a fresh sandbox on the same workspace, with no network at all."""

from __future__ import annotations

from collections.abc import Sequence

from vestibule.core.ports import Limits, Mount, SandboxResult, SandboxSpec
from vestibule.pipeline.services import Services


class SandboxedCommands:
    """Implements `core.ports.CommandRunner`. Neither the token nor a gateway's name exists inside."""

    def __init__(self, services: Services, run: str, mounts: tuple[Mount, ...], limits: Limits) -> None:
        self.services = services
        self.run_id = run
        self.mounts = mounts
        self.limits = limits

    def run(self, argv: Sequence[str], *, timeout_seconds: float) -> SandboxResult:
        """Raises `DependencyDown("sandbox")` when no sandbox can be made."""
        limits = self.limits.model_copy(update={"wall_seconds": min(timeout_seconds, self.limits.wall_seconds)})
        spec = SandboxSpec(
            run=self.run_id,
            argv=tuple(argv),
            env={"PYTHONDONTWRITEBYTECODE": "1"},
            mounts=self.mounts,
            limits=limits,
        )
        sandbox = self.services.sandbox.create(spec)
        try:
            sandbox.go()
            return sandbox.wait()
        finally:
            sandbox.kill()
