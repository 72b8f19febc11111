"""`run_command` for the context gateway: a fresh sandbox on the same workspace, with no network at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from vestibule.config.schema import DEFAULT_MINIMUM
from vestibule.core.errors import DependencyDown
from vestibule.core.ports import Limits, Mount, Quota, RunningSandbox, SandboxResult, SandboxSpec
from vestibule.pipeline.services import Services
from vestibule.pipeline.toolchains import Prepared


class SandboxedCommands:
    """Implements `core.ports.CommandRunner`. Neither the token nor a gateway's name exists inside.

    `stop` ends what still runs and refuses what comes later: a command never outlives the agent, for it could
    write to the workspace while the result is read.
    """

    def __init__(
        self,
        services: Services,
        run: str,
        mounts: tuple[Mount, ...],
        limits: Limits,
        minimum: tuple[str, ...] = DEFAULT_MINIMUM,
        *,
        quota: Quota | None = None,
        prepared: Prepared | None = None,
        watch: Callable[[RunningSandbox], Callable[[], None]] | None = None,
    ) -> None:
        """`minimum` names the walls without which no command starts; `quota` is the workspace's."""
        self.prepared = prepared or Prepared()
        self.services = services
        self.minimum = minimum
        self.watch = watch
        self.run_id = run
        self.mounts = mounts
        self.limits = limits
        self.quota = quota
        self._lock = threading.Lock()
        self._live: set[RunningSandbox] = set()
        self._stopped = False

    def run(self, argv: Sequence[str], *, timeout_seconds: float) -> SandboxResult:
        """Raises `DependencyDown`: `sandbox`, none can be made; `walls`, it lacks one of the minimum."""
        limits = self.limits.model_copy(update={"wall_seconds": min(timeout_seconds, self.limits.wall_seconds)})
        spec = SandboxSpec(
            run=self.run_id,
            argv=tuple(argv),
            env={"PYTHONDONTWRITEBYTECODE": "1", **self.prepared.env},
            path=self.prepared.path,
            mounts=(*self.mounts, *self.prepared.mounts),
            limits=limits,
            quota=self.quota,
        )
        sandbox = self.services.sandbox.create(spec)
        ended: Callable[[], None] | None = None
        try:
            self.services.require_walls(sandbox.report, self.minimum)
            with self._lock:
                if self._stopped:
                    raise DependencyDown("sandbox", "The agent has ended; no command starts any more.")
                self._live.add(sandbox)
            ended = self.watch(sandbox) if self.watch is not None else None
            sandbox.go()
            return sandbox.wait()
        finally:
            sandbox.kill()
            if ended is not None:
                ended()
            with self._lock:
                self._live.discard(sandbox)

    def stop(self) -> None:
        """End every command. None runs and none starts when it returns."""
        with self._lock:
            self._stopped = True
            live = list(self._live)
        for sandbox in live:
            sandbox.kill()
