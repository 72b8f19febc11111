"""Sandboxes on this machine behind `core.ports.SandboxBackend`.

Rules it keeps:
1. No bubblewrap, no user namespaces, no filter for this architecture: refused, never a weaker way.
2. The program starts only if the walls that every sandbox needs were attacked on this machine and stood.
3. `kill` and `wait` return when every process inside is gone; nothing of a sandbox stays behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import Any

from vestibule.core.errors import ConfigError, DependencyDown, UsageError
from vestibule.core.model import WallsReport
from vestibule.core.ports import Limits, SandboxResult, SandboxSpec
from vestibule.core.text.names import NameRefused, canonical_host, inside_address
from vestibule.sandbox.local import argv, etc, limits, seccomp, tools, uids, wire
from vestibule.sandbox.local.capture import Streams
from vestibule.sandbox.local.client import SERVER

NEEDED = ("mounts", "network", "seccomp", "no_new_privs", "pids", "userns", "caps")
"""Walls without which no program is started, whatever a configuration's minimum says."""

_READY_SECONDS = 20.0
_END_SECONDS = 30.0
_RECORDS = "sandboxes"


class LocalSandbox:
    """bubblewrap, seccomp, cgroups, empty network namespaces. Thread-safe; one per process is enough.

    `tools` are operator folders shown read-only at their own path. `state` is Vestibule's state folder: records of
    live sandboxes go there, and it is never shown inside. `forbidden` are further folders never shown.
    """

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
            found.set_result(walls.prove(self))
        except BaseException as error:  # noqa: BLE001 - whatever went wrong, nothing was proved
            found.set_result(walls.nothing_proved(f"{type(error).__name__}: {error}"))

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
        proof = self._proof()
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
        name = f"vestibule-{_plain(spec.run)}-{secrets.token_hex(4)}"
        lease = self._leases.get(spec.run) if self.root else None
        own_lease = uids.lease() if self.root and lease is None else None
        lease = lease or own_lease
        try:
            config = self._config(spec, name, lease, extra)
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
        return Running(control, spec, streams, proof, began, config["record"])

    def _config(
        self, spec: SandboxSpec, name: str, lease: uids.Lease | None, extra: tuple[argv.Bind, ...]
    ) -> dict[str, Any]:
        bwrap = shutil.which("bwrap", path="/usr/bin:/bin:/usr/local/bin")
        if bwrap is None:
            raise DependencyDown(
                "sandbox",
                "bubblewrap is not installed, and nothing weaker is used in its place.",
                person="Install bubblewrap 0.8 or later (`apt-get install bubblewrap`).",
            )
        try:
            program = seccomp.filter_program()
        except seccomp.UnknownArchitecture as error:
            raise DependencyDown("sandbox", f"There is no seccomp filter for this architecture ({error}).") from None
        addresses = _addresses(spec.names)
        binds = (*self.tool_binds, *extra)
        system, links = _system()
        plan = argv.Plan(
            argv=spec.argv,
            cwd=spec.cwd,
            env=argv.environment(spec.env, tools.bins(self._tools)),
            system=system,
            links=links,
            tools=binds,
            mounts=_mounts(spec, self._forbidden),
            etc_files={path: data.hex() for path, data in etc.files(addresses).items()},  # type: ignore[misc]
            home_files={_home_path(path): data.hex() for path, data in spec.home_files.items()},  # type: ignore[misc]
            tmp_bytes=min(1 << 30, max(1 << 20, spec.limits.memory_bytes // 4)),
        )
        _check_texts(spec)
        return {
            "name": name,
            "bwrap": bwrap,
            "uid": lease.uid if lease else None,
            "plan": plan._asdict(),
            "seccomp": program.hex(),
            "addresses": addresses,
            "ceilings": _ceilings(spec.limits)._asdict(),
            "wall_seconds": spec.limits.wall_seconds,
            "record": self._record(name),
        }

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
        prefix = "vestibule-" if run is None else f"vestibule-{_plain(run)}-"
        found = []
        for path in sorted((self._state / _RECORDS).glob(f"{prefix}*.json")):
            _reap(path)
            found.append(path.stem)
        return found


class Running:
    """`core.ports.RunningSandbox`: a live sandbox, seen from its supervisor."""

    def __init__(
        self,
        control: socket.socket,
        spec: SandboxSpec,
        streams: Streams,
        proof: Future[WallsReport] | None,
        began: float,
        record: str | None,
    ) -> None:
        self._control = control
        self._streams = streams
        self._proof = proof
        self._began = began
        self._record = record
        self._asking = threading.Lock()
        self._sending = threading.Lock()
        self._reply: Future[tuple[dict[str, Any], list[int]]] | None = None
        self._end: Future[dict[str, Any]] = Future()
        self._finished: Future[SandboxResult] = Future()
        self._finishing = threading.Lock()
        self._started = began
        self.ready: dict[str, Any] = {}
        self.listeners: Mapping[str, socket.socket] = {}
        control.settimeout(_READY_SECONDS)
        try:
            message, fds = wire.receive(control)
        except (wire.Gone, TimeoutError):
            control.close()
            self._clean_up_after_keeper()
            raise DependencyDown("sandbox", "The sandbox did not come up in time.") from None
        if "ready" not in message:
            wire.close_all(fds)
            control.close()
            _, stderr, _ = streams.finish()
            fact = "; ".join(filter(None, [str(message.get("failed", "")), stderr.decode("utf-8", "replace").strip()]))
            raise DependencyDown(
                "sandbox",
                "The sandbox could not be made, and nothing weaker is used in its place.",
                fact=fact[:1000],
                person="Run `vestibule doctor`; user namespaces must be allowed "
                "(sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns).",
            )
        control.settimeout(None)
        self.ready = message
        self.listeners = {name: socket.socket(fileno=fd) for name, fd in zip(message["names"], fds, strict=True)}
        self.start_ms = (time.perf_counter() - began) * 1000
        threading.Thread(target=self._read, daemon=True, name=f"sandbox-{spec.run}").start()

    def _read(self) -> None:
        """Dispatch what the keeper says until it is gone."""
        end: dict[str, Any] = {"exit": 137, "reason": "killed", "executed": False, "clean": False, "lost": True}
        while True:
            try:
                message, fds = wire.receive(self._control)
            except (wire.Gone, OSError):
                break
            if "reply" in message:
                reply = self._reply
                if reply is None or reply.done():
                    wire.close_all(fds)
                else:
                    reply.set_result((message, fds))
            else:
                wire.close_all(fds)
                end = message.get("end") or {**message, "reason": "failed"}
                break
        if end.get("lost"):
            self._clean_up_after_keeper()
        reply = self._reply
        if reply is not None and not reply.done():
            reply.set_exception(wire.Gone("the sandbox ended"))
        self._end.set_result(end)

    @property
    def report(self) -> WallsReport:
        from vestibule.sandbox.local import walls

        found = self._proof.result() if self._proof else walls.nothing_proved("this sandbox is the probe")
        return walls.for_sandbox(found, self.ready).model_copy(update={"start_ms": round(self.start_ms, 3)})

    def connect(self, name: str) -> socket.socket:
        if name not in self.listeners:
            raise KeyError(name)
        _, fds = self._ask({"op": "connect", "name": name})
        return socket.socket(fileno=fds[0])

    def probe_egress(self) -> dict[str, str]:
        message, _ = self._ask({"op": "probe"})
        return {str(key): str(value) for key, value in message["reply"].items()}

    def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        with self._asking:
            self._reply = reply = Future()
            try:
                with self._sending:
                    wire.send(self._control, request)
                message, fds = reply.result(timeout=_READY_SECONDS)
            except (wire.Gone, TimeoutError):
                raise DependencyDown("sandbox", "The sandbox ended or does not answer.") from None
            finally:
                self._reply = None
        if "error" in message or (request["op"] == "connect" and not fds):
            wire.close_all(fds)
            raise DependencyDown("sandbox", "A listener inside the sandbox cannot be reached.", fact=message["error"])
        return message, fds

    def go(self) -> None:
        """Start the program.

        Raises:
            DependencyDown: `sandbox`; a wall that every sandbox needs does not stand. The sandbox is gone then.
        """
        if self._proof is not None:
            missing = self.report.missing(NEEDED)
            if missing:
                self.kill()
                raise DependencyDown(
                    "sandbox",
                    f"These walls do not stand here: {', '.join(missing)}.",
                    fact="; ".join(f"{name}: {self.report.walls[name].proved_by}" for name in missing),
                )
        self._started = time.perf_counter()
        try:
            with self._sending:
                wire.send(self._control, {"op": "go"})
        except (wire.Gone, OSError):
            raise DependencyDown("sandbox", "The sandbox ended before its program started.") from None

    def wait(self) -> SandboxResult:
        """How it ended; returns when every process inside is gone."""
        end = self._end.result()
        with self._finishing:
            if not self._finished.done():
                self._finished.set_result(self._finish(end))
        return self._finished.result()

    def kill(self) -> None:
        with contextlib.suppress(wire.Gone, OSError), self._sending:
            wire.send(self._control, {"op": "kill"})
        try:
            self._end.result(timeout=_END_SECONDS)
        except TimeoutError:
            self._clean_up_after_keeper()
            raise DependencyDown("sandbox", "A sandbox could not be ended in time.") from None
        self.wait()

    def _finish(self, end: dict[str, Any]) -> SandboxResult:
        wall_ms = (time.perf_counter() - self._started) * 1000
        self._control.close()
        for sock in self.listeners.values():
            sock.close()
        stdout, stderr, truncated = self._streams.finish()
        code, reason = int(end.get("exit", 1)), str(end["reason"])
        if reason == "exited" and 128 < code < 193:
            reason = "signal"
        return SandboxResult(
            exit_code=code,
            reason=reason if reason in ("exited", "signal", "wall-clock") else "killed",
            stdout=stdout,
            stderr=stderr,
            truncated=truncated,
            wall_ms=round(wall_ms, 3),
            walls=self.report,
        )

    def _clean_up_after_keeper(self) -> None:
        """The keeper is dead: its bubblewrap died with it; end and remove what that leaves."""
        if self._record:
            _reap(Path(self._record))
        elif self.ready:
            name = Path(self.ready["folders"][0]).name if self.ready["folders"] else None
            if name:
                limits.Group.recorded(name, self.ready["folders"]).destroy()


def _reap(path: Path) -> None:
    try:
        entry = json.loads(path.read_text())
        group = limits.Group.recorded(entry["name"], entry["folders"])
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError) as error:
        raise DependencyDown("sandbox", f"The record {path} cannot be read.", fact=str(error)) from None
    for pid, started in entry["processes"]:
        _kill_exactly(pid, started)
    if not group.destroy():
        raise DependencyDown("sandbox", f"Processes of {entry['name']} cannot be ended.")
    path.unlink(missing_ok=True)


def _kill_exactly(pid: int, started: int | None) -> None:
    """SIGKILL one process, told from a later one with its number by its start; wait until it is gone."""
    try:
        fd = os.pidfd_open(pid)
    except (ProcessLookupError, OSError):
        return
    try:
        if started is not None and wire.start_time(pid) == started:
            import select
            import signal

            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                select.select([fd], [], [], 10)
    finally:
        os.close(fd)


def _plain(run: str) -> str:
    return "".join(char if char.isascii() and (char.isalnum() or char == "-") else "-" for char in run.lower())[:40]


def _addresses(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for position, name in enumerate(names):
        try:
            found[canonical_host(name)] = inside_address(position)
        except (NameRefused, ValueError) as error:
            raise UsageError(f"A sandbox cannot have the name {name!r}.", why=str(error)) from None
    return found


def _system() -> tuple[tuple[argv.Bind, ...], tuple[tuple[str, str], ...]]:
    """/usr, the folders or links beside it, and the few shown entries of /etc."""
    binds = [argv.Bind("/usr", "/usr", False)]
    links = []
    for name in ("bin", "sbin", "lib", "lib64", "lib32", "libx32"):
        path = Path("/") / name
        if path.is_symlink():
            links.append((str(path.readlink()), str(path)))
        elif path.is_dir():
            binds.append(argv.Bind(str(path), str(path), False))
    for name in etc.SHOWN:
        path = Path("/etc") / name
        if path.exists():
            binds.append(argv.Bind(str(path.resolve()), str(path), False))
    return tuple(binds), tuple(links)


def _mounts(spec: SandboxSpec, forbidden: tuple[Path, ...]) -> tuple[argv.Bind, ...]:
    found = []
    for mount in spec.mounts:
        target = mount.target
        if not target.startswith("/") or ".." in target.split("/") or target == "/" or "\0" in target:
            raise UsageError(f"{target!r} is no place inside a sandbox.")
        if not mount.source.is_absolute() or not os.path.lexists(mount.source):
            raise UsageError(f"{mount.source} does not exist, so it cannot be shown inside.")
        if mount.source.is_symlink():
            raise UsageError(f"{mount.source} is a symbolic link; a mount's source must not be one.")
        for away in forbidden:
            if mount.source == away or mount.source in away.parents:
                raise ConfigError(f"{mount.source} contains Vestibule's own state and is never shown inside.")
        found.append(argv.Bind(str(mount.source), target, mount.write))
    return tuple(found)


def _home_path(path: str) -> str:
    if path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
        raise UsageError(f"{path!r} is no path below HOME.")
    return path


def _check_texts(spec: SandboxSpec) -> None:
    if not spec.argv or any("\0" in item for item in (*spec.argv, spec.cwd, *spec.env, *spec.env.values())):
        raise UsageError("A program, its arguments and its environment contain no NUL bytes, and there is a program.")
    if any(not key or "=" in key for key in spec.env):
        raise UsageError("A variable's name is not empty and contains no '='.")


def _ceilings(given: Limits) -> limits.Ceilings:
    return limits.Ceilings(
        memory_bytes=given.memory_bytes,
        pids=given.pids,
        cpu_seconds=given.cpu_seconds,
        file_bytes=given.file_bytes,
        open_files=given.open_files,
    )
