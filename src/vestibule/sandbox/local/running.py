"""A live sandbox, seen from its supervisor."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from vestibule.core.errors import DependencyDown
from vestibule.core.model import WallsReport
from vestibule.core.ports import Activity, SandboxResult, SandboxSpec
from vestibule.sandbox.local import wire
from vestibule.sandbox.local.capture import Streams
from vestibule.sandbox.local.reap import end as end_recorded
from vestibule.sandbox.local.reap import reap_record

NEEDED = ("mounts", "network", "seccomp", "no_new_privs", "pids", "userns", "caps", "descriptors", "first_process")
"""Walls without which no program is started, whatever a configuration's minimum says."""

_READY_SECONDS = 20.0
_END_SECONDS = 30.0


class Running:
    """`core.ports.RunningSandbox`: a live sandbox, seen from its supervisor."""

    def __init__(
        self,
        control: socket.socket,
        spec: SandboxSpec,
        streams: Streams,
        proof: Future[WallsReport] | None,
        *,
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
        self.refused_calls: dict[str, int] = {}
        """Calls that the filter refused and reported, by name; exact counts once it has ended."""
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
            elif "calls" in message:
                wire.close_all(fds)
                self.refused_calls |= dict.fromkeys(message["calls"], 1)
            else:
                wire.close_all(fds)
                end = message.get("end") or {**message, "reason": "failed"}
                break
        if end.get("lost"):
            end["clean"] = self._clean_up_after_keeper()
        reply = self._reply
        if reply is not None and not reply.done():
            reply.set_exception(wire.Gone("the sandbox ended"))
        self._end.set_result(end)

    @property
    def report(self) -> WallsReport:
        from vestibule.sandbox.local import walls

        found = self._proof.result() if self._proof else walls.nothing_proved("this sandbox is the probe")
        return walls.for_sandbox(found, self.ready).model_copy(update={"start_ms": round(self.start_ms, 3)})

    @property
    def place(self) -> tuple[Path | None, int]:
        folders = (Path(item) for item in self.ready.get("folders", ()))
        return next((item for item in folders if (item / "cgroup.controllers").exists()), None), int(
            self.ready.get("inside", 0)
        )

    def connect(self, name: str) -> socket.socket:
        if name not in self.listeners:
            raise KeyError(name)
        _, fds = self._ask({"op": "connect", "name": name})
        return socket.socket(fileno=fds[0])

    def programs_of(self, client: tuple[str, int], server: tuple[str, int]) -> tuple[str, ...]:
        from vestibule.sandbox.local import whose

        return whose.programs_of(int(self.ready["inside"]), client, server)

    def listen(self, address: str, port: int) -> socket.socket:
        _, fds = self._ask({"op": "listen", "address": address, "port": port})
        return socket.socket(fileno=fds[0])

    def probe_egress(self) -> dict[str, str]:
        message, _ = self._ask({"op": "probe"})
        return {str(key): str(value) for key, value in message["reply"].items()}

    def activity(self) -> Activity:
        message, _ = self._ask({"op": "cpu"})
        return Activity(cpu_seconds=message["reply"]["seconds"], output_bytes=self._streams.seen)

    def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        with self._asking:
            reply: Future[tuple[dict[str, Any], list[int]]] = Future()
            self._reply = reply
            try:
                with self._sending:
                    wire.send(self._control, request)
                message, fds = reply.result(timeout=_READY_SECONDS)
            except (wire.Gone, OSError):  # a time-out is one, and so is our socket when the sandbox is buried
                raise DependencyDown("sandbox", "The sandbox ended or does not answer.") from None
            finally:
                self._reply = None
        if "error" in message or (request["op"] in ("connect", "listen") and not fds):
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
        """How it ended; returns when every process inside is gone.

        Raises:
            DependencyDown: `sandbox`; something of it could not be ended or removed. `disk`; it filled one.
        """
        result = self._ended()
        if self._end.result()["reason"] == "disk":
            raise DependencyDown(
                "disk",
                "A sandbox was ended because the disk that it writes to is almost full.",
                agent="Write less; keep what is temporary in /tmp.",
                person="Make room on the disk that holds VESTIBULE_HOME.",
            )
        return result

    def _ended(self) -> SandboxResult:
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
        self._ended()

    def _finish(self, end: dict[str, Any]) -> SandboxResult:
        wall_ms = (time.perf_counter() - self._started) * 1000
        self._control.close()
        for sock in self.listeners.values():
            sock.close()
        if not end.get("clean", False):
            raise DependencyDown("sandbox", "A sandbox could not be wholly ended and removed.", fact=str(self._record))
        stdout, stderr, truncated = self._streams.finish()
        self.refused_calls |= end.get("calls", {})
        code, reason = int(end.get("exit", 1)), str(end["reason"])
        if reason == "exited" and 128 < code < 193:
            reason = "signal"
        return SandboxResult(
            exit_code=code,
            reason=reason if reason in ("exited", "signal", "wall-clock", "quota") else "killed",
            stdout=stdout,
            stderr=stderr,
            truncated=truncated,
            wall_ms=round(wall_ms, 3),
            refused_calls=self.refused_calls,
            walls=self.report,
        )

    def _clean_up_after_keeper(self) -> bool:
        """The keeper is dead: its bubblewrap died with it; end and remove what that leaves. Whether nothing does."""
        try:
            if self._record:
                reap_record(Path(self._record))
            elif self.ready:
                end_recorded(self.ready)
        except DependencyDown:
            return False
        return True
