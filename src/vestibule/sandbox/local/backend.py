"""Sandboxes on this machine behind `core.ports.SandboxBackend`.

Rules it keeps:
1. No bubblewrap, no user namespaces, no filter for this architecture: refused, never a weaker way.
2. The program starts only if the walls that every sandbox needs were attacked on this machine and stood.
3. `kill` and `wait` return when every process inside is gone; nothing of a sandbox stays behind.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from vestibule.core.errors import DependencyDown
from vestibule.core.model import WallsReport
from vestibule.core.ports import SandboxSpec
from vestibule.sandbox.local import argv, tools, uids, wire
from vestibule.sandbox.local.blueprint import draw, find_bubblewrap, plain
from vestibule.sandbox.local.capture import Streams
from vestibule.sandbox.local.client import SERVER
from vestibule.sandbox.local.reap import reap_record
from vestibule.sandbox.local.running import NEEDED, Running

_RECORDS = "sandboxes"
_HERE = Path(__file__).parent


class _Proofs:
    """Walls proved in this process, by what they were proved for. A proof with a needed wall down is not kept."""

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], WallsReport] = {}
        self._lock = threading.Lock()

    def of(self, sort: tuple[object, ...], prove: Callable[[], WallsReport]) -> WallsReport:
        with self._lock:
            if sort not in self._found:
                report = prove()
                if report.missing(NEEDED):
                    return report
                self._found[sort] = report
            return self._found[sort]


_PROOFS = _Proofs()


class LocalSandbox:
    """bubblewrap, seccomp, cgroups, empty network namespaces. Thread-safe; one per process is enough.

    `tools` are operator folders shown read-only at their own path. `state` is Vestibule's state folder: records of
    live sandboxes go there, and it is never shown inside. `forbidden` are further folders never shown.
    """

    _without: ClassVar[frozenset[str]] = frozenset()
    """Walls switched off: always empty here. Tests of what holds when a wall does not derive a class of their own;
    such a sandbox has no proof, so nothing that asks for a minimum of walls ever uses one."""

    def __init__(
        self,
        *,
        tools: Iterable[str | Path] = (),
        state: Path | None = None,
        forbidden: Iterable[Path] = (),
        output_limit: int = 16 << 20,
    ) -> None:
        self._tools = tuple(str(item) for item in tools)
        self._state = state
        self._forbidden = (*forbidden, *((state,) if state else ()))
        self._output_limit = output_limit
        self._leases: dict[str, uids.Lease] = {}
        self._lock = threading.Lock()
        self._walls: Future[WallsReport] | None = None

    # -- what the machine offers ------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Start what takes time in the background: the launch server, and the attacks that prove the walls."""
        SERVER.start()
        self._proof()

    def report(self) -> WallsReport:
        return self._proof().result()

    def close(self) -> None:
        """Wait for attacks that still run, so that their canaries are gone before a process ends abruptly."""
        with self._lock:
            proof = self._walls
        if proof is not None:
            proof.result()

    def _proof(self) -> Future[WallsReport]:
        with self._lock:
            if self._walls is None:
                found: Future[WallsReport] = Future()
                self._walls = found
                threading.Thread(target=self._prove, args=(found,), daemon=True, name="sandbox-walls").start()
            return self._walls

    def _prove(self, found: Future[WallsReport]) -> None:
        from vestibule.sandbox.local import walls

        try:
            found.set_result(_PROOFS.of(self._sort(), lambda: walls.prove(self)))
        except BaseException as error:  # noqa: BLE001 - whatever went wrong, nothing was proved
            found.set_result(walls.nothing_proved(f"{type(error).__name__}: {error}"))

    def _sort(self) -> tuple[object, ...]:
        """Everything that a proof is true for: the kernel that runs, and what every sandbox of ours is made of."""
        program = Path(find_bubblewrap())
        about = program.stat()
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        made = (program, about.st_ino, about.st_mtime_ns, *(item.stat().st_mtime_ns for item in _HERE.iterdir()))
        return (os.getpid(), os.geteuid(), kernel, *os.uname(), *made, self.tool_binds, self._without)

    @property
    def root(self) -> bool:
        """Whether sandboxes get an own uid."""
        return os.geteuid() == 0

    @cached_property
    def tool_binds(self) -> tuple[argv.Bind, ...]:
        """The operator's tools as mounts. Raises ConfigError for one that must not be shown."""
        return tools.check(self._tools, home=Path.home(), forbidden=self._forbidden)

    # -- uids and workspaces ----------------------------------------------------------------------------------

    def workspace_uid(self, run: str) -> int | None:
        """The uid that all sandboxes of `run` have and that must own its workspace; None: our own.

        Kept until `release(run)`.
        """
        if not self.root:
            return None
        with self._lock:
            if run not in self._leases:
                self._leases[run] = uids.lease()
            return self._leases[run].uid

    def release(self, run: str) -> None:
        """The run has no workspace any more; its uid may be used again once its sandboxes are gone."""
        with self._lock:
            held = self._leases.pop(run, None)
        if held:
            held.close()

    # -- sandboxes --------------------------------------------------------------------------------------------

    def create(
        self,
        spec: SandboxSpec,
        *,
        stdin: bytes | int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> Running:
        """See `core.ports.SandboxBackend.create`.

        Raises:
            DependencyDown: `sandbox`; something it is made of is missing or did not come up.
            UsageError: the specification asks for something that cannot be shown.
        """
        proof = None if self._without else self._proof()
        return self._create(spec, proof, stdin=stdin, stdout=stdout, stderr=stderr)

    def _create(
        self,
        spec: SandboxSpec,
        proof: Future[WallsReport] | None,
        *,
        stdin: bytes | int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        extra: tuple[argv.Bind, ...] = (),
    ) -> Running:
        began = time.perf_counter()
        name = f"vestibule-{plain(spec.run)}-{secrets.token_hex(4)}"
        lease = self._leases.get(spec.run) if self.root else None
        own_lease = uids.lease() if self.root and lease is None else None
        lease = lease or own_lease
        dedicated = lease is not None and "own_uid" not in self._without
        try:
            config = draw(
                spec,
                name=name,
                uid=lease.uid if lease and dedicated else None,
                record=self._record(name),
                tool_paths=self._tools,
                tool_binds=(*self.tool_binds, *extra),
                forbidden=self._forbidden,
                without=self._without,
            )
            streams = Streams(stdin, stdout, stderr, limit=self._output_limit)
            try:
                control = SERVER.keeper()
                packed = wire.memory_file(json.dumps(config).encode())
                try:
                    fds = [packed, *streams.fds, *((lease.fd,) if lease else ())]
                    wire.send(control, {"op": "start"}, fds)
                except wire.Gone:
                    control.close()
                    raise DependencyDown("sandbox", "The launcher of sandboxes died.") from None
                finally:
                    os.close(packed)
            except BaseException:
                streams.discard()
                raise
            streams.handed_over()
        finally:
            if own_lease:
                own_lease.close()  # the keeper holds the lock now
        return Running(control, spec, streams, proof, began=began, record=config["record"])

    def _record(self, name: str) -> str | None:
        if self._state is None:
            return None
        folder = self._state / _RECORDS
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise DependencyDown("sandbox", f"{folder} cannot be written.", fact=str(error.strerror)) from None
        return str(folder / f"{name}.json")

    def reap(self, run: str | None = None) -> list[str]:
        """Kill and remove what a dead supervisor left of `run` (None: of every run); names of what was found.

        Call only when no living supervisor has that run.
        """
        if self._state is None:
            return []
        prefix = "vestibule-" if run is None else f"vestibule-{plain(run)}-"
        found = []
        for path in sorted((self._state / _RECORDS).glob(f"{prefix}*.json")):
            reap_record(path)
            found.append(path.stem)
        return found
