"""The runtime monitor, seen from its supervisor: one process of ours that watches the control groups it is given.

Rules it keeps:
1. libbpf, the kernel's ring and everything read from it live in a process of their own, started before any sandbox;
   its death, its silence or a lost event ends every run that it watches (`on_down`), once and never in silence.
2. It is up only when it proved itself; each rung is tried by loading it, and the report names the one that stands.
3. Times are counted on the monotonic clock: a clock that is set changes nothing.
4. Whatever it says is data: texts come from programs inside and are untrusted.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from vestibule.boundary.host.rules import Match
from vestibule.boundary.host.seen import Standing, Summary
from vestibule.core.errors import DependencyDown

START_SECONDS = 15.0
ANSWER_SECONDS = 20.0
SILENCE_SECONDS = 5.0
"""So long without a word, and the monitor counts as dead. It says one four times a second."""

DECIDE_SECONDS = 30.0
MAX_WORD = 1 << 20
_HERE = Path(__file__).parent
_ROOT = str(_HERE.parent.parent.parent)


OnMatch = Callable[[Match], None]
OnDown = Callable[[str], None]


class Watch:
    """One run under watch. Thread-safe."""

    def __init__(self, monitor: Monitor, key: str, on_match: OnMatch, on_down: OnDown) -> None:
        self._monitor = monitor
        self.key = key
        self.on_match = on_match
        self._on_down = on_down
        self._down = ""
        self._lock = threading.Lock()
        self._matches: queue.SimpleQueue[Match | None] = queue.SimpleQueue()
        self._decider = threading.Thread(target=self._decide, daemon=True, name="monitor-matches")
        self._decider.start()

    def tell(self, match: Match | None) -> None:
        """A match, in its order; None: there are no more."""
        self._matches.put(match)

    def settle(self) -> None:
        """Every match that was told is decided when this returns."""
        self.tell(None)
        self._decider.join(DECIDE_SECONDS)
        if self._decider.is_alive():
            self.fail("a match was not decided in time")

    def _decide(self) -> None:
        while (match := self._matches.get()) is not None:
            try:
                self.on_match(match)
            except Exception as error:  # noqa: BLE001 - what cannot be decided ends the run
                self.fail(f"a match could not be decided: {type(error).__name__}")

    @property
    def down(self) -> str:
        """Why this watch cannot be believed any more; empty while it can."""
        return self._down

    def fail(self, why: str) -> None:
        """Told once."""
        with self._lock:
            if self._down:
                return
            self._down = why
        self._on_down(why)

    def add(self, group: Path | None, inside: int) -> int:
        """Watch a control group from now on; `inside` is the first process of its sandbox. A handle for `drop`.

        Raises DependencyDown: `monitor`.
        """
        return int(self._monitor.ask("add", key=self.key, group=str(group or ""), inside=inside)["watched"])

    def drop(self, watched: int) -> None:
        """Its processes are dead: take what is left and let it go. Raises DependencyDown: `monitor`."""
        self._monitor.ask("drop", key=self.key, watched=watched)

    def close(self) -> Summary:
        """Everything of it, when all processes are dead. Raises DependencyDown: `monitor`."""
        return self._monitor.close_watch(self)


class Monitor:
    """The monitor of this process. `start` begins in the background; `standing` waits for it."""

    def __init__(
        self,
        behaviours: Callable[[], Sequence[Mapping[str, Any]]],
        group_parent: Callable[[], Path | None],
        *,
        ring_bytes: int = 0,
    ) -> None:
        """`group_parent`: the cgroup v2 folder below which sandboxes' groups are made. `ring_bytes` 0: as built."""
        self._behaviours = behaviours
        self._parent = group_parent
        self._ring_bytes = ring_bytes
        self._started: Future[Standing] | None = None
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._replies: dict[int, Future[tuple[dict[str, Any], list[int]]]] = {}
        self._number = 0
        self._watches: dict[str, Watch] = {}
        self._dead = ""
        self._stopping = False

    # --- life ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, once."""
        with self._lock:
            if self._started is not None:
                return
            self._started = Future()
        threading.Thread(target=self._begin, daemon=True, name="monitor").start()

    def standing(self) -> Standing:
        """What stands; waits for the proof. Never raises."""
        self.start()
        assert self._started is not None  # noqa: S101 - set by start
        found = self._started.result()
        if self._dead:
            return Standing(rung="none", proved_by=self._dead)
        return found

    def stop(self) -> None:
        """End the process. Runs under watch are told."""
        self._stopping = True
        if self._started is None:
            return
        self._started.result()
        self._end("the monitor was stopped")

    @property
    def broken(self) -> bool:
        """Whether it stood once and does no more."""
        return bool(self._dead) and self._process is not None

    @property
    def pid(self) -> int:
        """Of its process; 0 without one."""
        return self._process.pid if self._process is not None else 0

    def _begin(self) -> None:
        assert self._started is not None  # noqa: S101 - set by start
        try:
            self._started.set_result(self._launch())
        except BaseException as error:  # noqa: BLE001 - whatever went wrong, there is no monitor
            self._end(f"{type(error).__name__}: {error}"[:300])
            self._started.set_result(Standing(rung="none", proved_by=self._dead))

    def _launch(self) -> Standing:
        if os.geteuid() != 0:
            return self._none("the supervisor is not root, so the kernel loads no programs of its")
        parent = self._parent()
        program = _HERE / "bpf" / f"monitor.{os.uname().machine}.o"
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = (sys.executable, "-I", "-S", "-B", str(_HERE / "worker.py"), _ROOT, str(theirs.fileno()))
        try:
            self._process = subprocess.Popen(
                [*command, str(program), str(self._ring_bytes), str(parent or "")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={},
                start_new_session=True,
            )
        finally:
            theirs.close()
        self._control = control
        control.settimeout(START_SECONDS)
        try:
            said = json.loads(control.recv(MAX_WORD) or b"{}")
        except TimeoutError:
            said = {"failed": f"it did not answer within {START_SECONDS:.0f} seconds"}
        except OSError as error:
            said = {"failed": error.strerror or "it died"}
        if not said.get("ready"):
            why = str(said.get("failed", "it died while it started"))[:300]
            self._end(why)
            return Standing(rung="none", proved_by=why)
        control.settimeout(SILENCE_SECONDS)
        threading.Thread(target=self._read, daemon=True, name="monitor-words").start()
        self.ask("behaviours", behaviours=list(self._behaviours()))
        return Standing(rung=str(said["rung"]), proved_by=str(said["proved_by"]))

    def _none(self, why: str) -> Standing:
        self._dead = why
        return Standing(rung="none", proved_by=why)

    def _read(self) -> None:
        """Hear what it says until it is gone or silent."""
        control = self._control
        assert control is not None  # noqa: S101 - set by _launch
        why = "the monitor died"
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(control, MAX_WORD, 1, socket.MSG_CMSG_CLOEXEC)
            except TimeoutError:
                why = f"the monitor said nothing for {SILENCE_SECONDS:.0f} seconds"
                break
            except OSError:
                break
            if not data:
                break
            self._heard(json.loads(data), fds)
        self._end(why)

    def _heard(self, said: dict[str, Any], fds: list[int]) -> None:
        if "match" in said:
            watch = self._watches.get(said["key"])
            if watch is not None:
                watch.tell(Match(**_texts(said["match"])))
        elif "id" in said:
            reply = self._replies.pop(said["id"], None)
            if reply is not None:
                reply.set_result((said, fds))
                return
        for key, drops in said.get("down", {}).items():
            watch = self._watches.get(key)
            if watch is not None:
                watch.fail(f"{drops} event(s) of it were lost")
        for fd in fds:
            os.close(fd)

    def _end(self, why: str) -> None:
        """It is over: whoever waits or is watched is told."""
        with self._lock:
            if not self._dead:
                self._dead = why
            replies, self._replies = self._replies, {}
            watches = list(self._watches.values())
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()
        if self._control is not None:
            self._control.close()
        for reply in replies.values():
            reply.set_exception(ConnectionError(why))
        for watch in watches:
            watch.fail(self._dead)

    # --- watching -----------------------------------------------------------------------------------------

    def watch(self, key: str, *, writable: Sequence[str], file: int = -1, on_match: OnMatch, on_down: OnDown) -> Watch:
        """Open a watch. `writable`: folders inside that may be written. `file`: takes the event stream, bounded.

        Raises DependencyDown: `monitor`.
        """
        watch = Watch(self, key, on_match, on_down)
        with self._lock:
            if key in self._watches:
                raise DependencyDown("monitor", "This run is under watch already.", fact=key)
            self._watches[key] = watch
        try:
            self.ask("open", fds=(file,) if file >= 0 else (), key=key, writable=list(writable))
        except BaseException:
            self._watches.pop(key, None)
            raise
        return watch

    def close_watch(self, watch: Watch) -> Summary:
        """See `Watch.close`."""
        try:
            _, fds = self._ask("close", (), key=watch.key)
        finally:
            self._watches.pop(watch.key, None)
            watch.settle()
        with os.fdopen(fds[0], "rb") as file:
            raw = _texts(json.loads(file.read()))
        names = ("protocol", "address", "port", "program", "refused", "count")
        raw["connects"] = [dict(zip(names, row, strict=True)) for row in raw["connects"]]
        found = Summary.model_validate(raw)
        if found.drops:
            watch.fail(f"{found.drops} event(s) of it were lost")
        return found

    def ask(self, op: str, fds: tuple[int, ...] = (), **request: Any) -> dict[str, Any]:
        """One request and its answer. Raises DependencyDown: `monitor`."""
        said, given = self._ask(op, fds, **request)
        for fd in given:
            os.close(fd)
        return said

    def _ask(self, op: str, fds: tuple[int, ...], **request: Any) -> tuple[dict[str, Any], list[int]]:
        reply: Future[tuple[dict[str, Any], list[int]]] = Future()
        with self._lock:
            if self._dead or self._control is None:
                raise _down(self._dead or "there is no monitor")
            self._number += 1
            number = self._number
            self._replies[number] = reply
        try:
            with self._sending:
                socket.send_fds(self._control, [json.dumps({"op": op, "id": number, **request}).encode()], fds)
            said, given = reply.result(timeout=ANSWER_SECONDS)
        except (OSError, TimeoutError) as error:
            self._replies.pop(number, None)
            raise _down(str(error) or type(error).__name__) from None
        if "error" in said:
            for fd in given:
                os.close(fd)
            raise _down(str(said["error"])[:300])
        return said, given


def _texts(found: Any) -> Any:
    """JSON with every text made one that can be written again: undecodable bytes are shown as such."""
    if isinstance(found, str):
        return found.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(found, list):
        return [_texts(item) for item in found]
    if isinstance(found, dict):
        return {_texts(key): _texts(value) for key, value in found.items()}
    return found


def _down(why: str) -> DependencyDown:
    return DependencyDown(
        "monitor",
        "The runtime monitor does not watch, so nothing that it should see may run.",
        fact=why,
        person="Run `vestibule doctor`: it says whether the monitor stands here, and why not.",
    )
