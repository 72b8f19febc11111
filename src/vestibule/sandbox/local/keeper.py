"""The keeper: one small process per sandbox; launches it, serves its network namespace, buries it. *Stdlib only.*

Rules it keeps:
1. It is bubblewrap's parent: when it dies, the sandbox dies (`--die-with-parent`).
2. When the supervisor dies, its socket closes; the keeper then kills the sandbox and removes what it made.
3. It reports ready only after it saw that every namespace is new, privileges are gone and the uid is the one meant;
   the program starts at `go`, never earlier, not even when the keeper itself is killed.
4. It reports the end only when no process is left inside.
5. No ceiling of the kernel holds what is written to a host folder, so it looks, and ends a sandbox that fills a disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vestibule.sandbox.local import ablation, calls, landlock, launch, limits, listeners, quota, syscalls, wire

NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
START_SECONDS = 10.0
DISK_SECONDS = 0.25
_NO_CAPS = "0" * 16


ENCLOSED = False
"""Whether the launch server, and so every keeper, left the host's network namespace (`server.py` sets it)."""


class StartFailed(RuntimeError):
    """The sandbox did not come up; the message says why."""


class Keeper:
    """State of one sandbox, from its configuration to its end."""

    def __init__(self) -> None:
        self.group = limits.Group(f"vestibule-{os.getpid()}-{os.urandom(4).hex()}")
        self.bwrap = 0
        self.bwrap_fd = -1
        self.inside_fd = -1
        self.inside = 0
        self.status_r = -1
        self.block_w = -1
        self.status = b""
        self.reason = "exited"
        self.deadline: float | None = None
        self.config: dict[str, Any] = {"record": None}
        self.calls: calls.Calls | None = None
        self.notify: socket.socket | None = None
        self.watch: quota.Watch | None = None
        self.floor: str | None = None
        self.passed = ""
        self.control: socket.socket

    def warm_up(self, gift: socket.socket) -> None:
        """What needs no configuration: groups, and the process that will become bubblewrap, inside them."""
        self.group.make()
        self.orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.bwrap = os.fork()
        if self.bwrap == 0:
            self.orders.close()
            gift.close()  # were it open here, what is given to a dead keeper would seem to arrive
            launch.launch(theirs, self.group)
        theirs.close()
        self.bwrap_fd = os.pidfd_open(self.bwrap)

    def start(self, control: socket.socket, fds: list[int]) -> None:
        """Raises StartFailed or OSError; `bury` cleans up in any case.

        `fds`: configuration, stdin, stdout, stderr; any further one is held until we exit (a uid's lock).
        """
        self.control = control
        self.config = json.loads(wire.read_whole(fds[0]))
        limit = self.config["quota"]
        self.watch = quota.Watch(limit) if limit else None
        self.floor = quota.floor_of(limit, self.config["disk"])
        own = {kind: _namespace("self", kind) for kind in ablation.namespaces(NAMESPACES, self.config["without"])}
        self._record()
        self.orders.settimeout(START_SECONDS)
        ready, _ = wire.receive(self.orders)
        without = frozenset(self.config["without"])
        if ready["entered"] and "cgroup" not in without:
            self.group.limit(limits.Ceilings(**self.config["ceilings"]))
        else:
            self.group.give_up()
        self.status_r, status_w = os.pipe2(os.O_CLOEXEC)
        block_r, block_w = os.pipe2(os.O_CLOEXEC)
        # Opened for reading and writing, the child's end never sees an end of file: without us it waits for ever
        # instead of starting the program.
        block = os.open(f"/proc/self/fd/{block_r}", os.O_RDWR | os.O_CLOEXEC)
        self.block_w = block_w
        report_r, report_w = os.pipe2(os.O_CLOEXEC)
        self.notify, notify = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        held = {**self.config, "memory": self.group.memory, "pids": self.group.pids}
        configured = wire.memory_file(json.dumps(held).encode())
        wire.send(self.orders, {}, [configured, *fds[1:4], status_w, block, notify.fileno(), report_w])
        self.orders.close()
        notify.close()
        for fd in (configured, status_w, block_r, block, report_w, *fds[:4]):
            os.close(fd)
        deadline = time.monotonic() + START_SECONDS
        failure = _read_all(report_r, deadline)
        os.close(report_r)
        if failure:
            raise StartFailed(failure.decode("utf-8", "replace"))
        self.inside = self._first_process(deadline)
        self.inside_fd = os.pidfd_open(self.inside)
        self._record()
        uid = os.geteuid()  # asked before we move: inside the sandbox's user namespace it reads otherwise
        self._all_new(own)  # before anything is bound in a network that might be the host's
        listeners.enter_network(self.inside, privileged=uid == 0)
        opened = {key: listeners.listen(address, port, kind) for key, kind, address, port in self.config["sockets"]}
        facts = self._settled(deadline) if "caps" not in without else ablation.settled(self.inside, deadline)
        self._all_new(own)  # mounts and users change once more while bubblewrap furnishes the root
        if facts.get("NoNewPrivs") != "1":
            raise StartFailed("no_new_privs is not set")
        expected = self.config["uid"] if self.config["uid"] is not None else uid
        if {int(item) for item in facts["Uid"].split()} != {_seen_uid(expected)}:
            raise StartFailed(f"the sandbox runs as uid {facts['Uid']}, not as {expected}")
        message = {
            "ready": True,
            "names": list(opened),
            "memory": self.group.memory,
            "pids": self.group.pids,
            "mechanism": self.group.mechanism,
            "cpu": self.group.cpu,
            "io": self.group.io,
            "workspace": quota.mechanism(self.config["quota"]),
            "enclosed": ENCLOSED,
            "landlock": landlock.abi() if self.config["landlock"] else 0,
            **self._entry(),
            "inside": self.inside,
            "bwrap": self.bwrap,
        }
        wire.send(self.control, message, [sock.fileno() for sock in opened.values()])
        for sock in opened.values():
            sock.close()

    def _all_new(self, own: dict[str, int]) -> None:
        shared = [kind for kind, before in own.items() if _namespace(self.inside, kind) == before]
        if shared:
            raise StartFailed(f"namespaces are not new: {', '.join(shared)}")

    def _first_process(self, deadline: float) -> int:
        """The pid of the sandbox's first process, from bubblewrap's status: read until the object is complete."""
        while b"}" not in self.status:
            if not _readable(self.status_r, deadline):
                raise StartFailed("bubblewrap did not answer in time")
            chunk = os.read(self.status_r, 4096)
            if not chunk:
                raise StartFailed("bubblewrap ended before the sandbox was up")
            self.status += chunk
        head, _, self.status = self.status.partition(b"}")
        return int(json.loads(head + b"}")["child-pid"])

    def _settled(self, deadline: float) -> dict[str, str]:
        """Wait until bubblewrap has furnished the root and dropped its last capability; the process's status then."""
        status = os.open(f"/proc/{self.inside}/status", os.O_RDONLY | os.O_CLOEXEC)
        pause = 0.0003
        while True:
            try:
                text = os.pread(status, 8192, 0).decode()
            except ProcessLookupError:
                raise StartFailed("bubblewrap could not furnish the sandbox") from None
            if f"\nCapPrm:\t{_NO_CAPS}\nCapEff:\t{_NO_CAPS}\n" in text:
                return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
            if "\nState:\tZ" in text or "\nState:\tX" in text:
                raise StartFailed("bubblewrap could not furnish the sandbox")
            if time.monotonic() > deadline:
                raise StartFailed("the sandbox was not furnished in time")
            time.sleep(pause)  # no event tells: the capabilities of another process can only be read
            pause = min(pause * 1.5, 0.01)

    def serve(self) -> None:
        """Answer until the sandbox ends or the supervisor is gone."""
        poller = select.poll()
        poller.register(self.control, select.POLLIN)
        poller.register(self.bwrap_fd, select.POLLIN)
        if self.notify is not None:
            poller.register(self.notify, select.POLLIN)
        while True:
            wait = None if self.deadline is None else max(0, (self.deadline - time.monotonic()) * 1000) + 1
            disk = self.floor if wait is not None else None
            events = poller.poll(wait if disk is None or wait is None else min(wait, DISK_SECONDS * 1000))
            ready = {fd for fd, _ in events}
            if self.calls is not None and (self.calls.fd, select.POLLHUP) in events:
                poller.unregister(self.calls.fd)  # the program is gone, and with it whoever could ask
                ready.discard(self.calls.fd)
            if self.bwrap_fd in ready:
                return
            if self.control.fileno() in ready and not self._answer():
                return
            self._refused_calls(poller, ready)
            if self.deadline is not None and time.monotonic() >= self.deadline:
                self.reason = "wall-clock"
                return
            if disk is not None and limits.disk_is_full(disk):
                self.reason = "disk"
                return
            if wait is not None and self.watch is not None:
                self.passed = self.watch.passed()
                if self.passed:
                    self.reason = "quota"
                    return

    def _refused_calls(self, poller: select.poll, ready: set[int]) -> None:
        """Take the listener when it comes, then answer the calls that the filter hands to it."""
        if self.notify is not None and self.notify.fileno() in ready:
            _, fds, _, _ = socket.recv_fds(self.notify, 1, 1, socket.MSG_CMSG_CLOEXEC)
            poller.unregister(self.notify)
            self.notify.close()
            self.notify = None
            if fds:
                self.calls = calls.Calls(fds[0], self.config["machine"])
                poller.register(self.calls.fd, select.POLLIN)
            return
        if self.calls is None or self.calls.fd not in ready:
            return
        if not self.calls.eager:
            time.sleep(calls.PAUSE_SECONDS)
        fresh = self.calls.answer()
        if fresh:
            with contextlib.suppress(wire.Gone):
                wire.send(self.control, {"calls": fresh})

    def _answer(self) -> bool:
        """One request; False when the sandbox has to end."""
        try:
            message, fds = wire.receive(self.control)
        except wire.Gone:
            self.reason = "killed"
            return False
        wire.close_all(fds)
        match message.get("op"):
            case "go":
                if self.block_w >= 0:
                    os.write(self.block_w, b"1")
                    os.close(self.block_w)
                    self.block_w = -1
                    self.deadline = time.monotonic() + self.config["wall_seconds"]
            case "kill":
                self.reason = "killed"
                return False
            case "connect":
                self._hand_out(lambda: self._connected(str(message.get("name"))))
            case "listen":
                self._hand_out(lambda: listeners.listen(str(message["address"]), int(message["port"])))
            case "cpu":
                wire.send(self.control, {"reply": {"seconds": self._cpu_seconds()}})
            case "probe":
                wire.send(self.control, {"reply": listeners.probe_egress()})
        return True

    def _cpu_seconds(self) -> float:
        """Processor time used inside; where no group counts it, of the processes that live."""
        counted = self.group.cpu_seconds()
        return limits.cpu_seconds_below(self.bwrap) if counted is None else counted

    def _connected(self, name: str) -> socket.socket:
        """A client socket from inside to a listener of ours."""
        address, port = next((item[2], item[3]) for item in self.config["sockets"] if item[0] == name)
        return listeners.connect(address, port)

    def _hand_out(self, make: Callable[[], socket.socket]) -> None:
        try:
            sock = make()
        except OSError as error:
            wire.send(self.control, {"reply": {}, "error": error.strerror or str(error)})
            return
        wire.send(self.control, {"reply": {}}, [sock.fileno()])
        sock.close()

    def bury(self) -> dict[str, Any]:
        """Kill everything, wait until it is gone, remove groups and record; how it ended."""
        for fd in (self.inside_fd, self.bwrap_fd):
            if fd >= 0 and (fd == self.inside_fd or self.reason != "exited"):
                _kill(fd)
        self.group.kill()
        code = 0
        if self.bwrap:
            if self.reason != "exited":
                _kill(self.bwrap_fd)
            _, raw = os.waitpid(self.bwrap, 0)
            code = os.waitstatus_to_exitcode(raw)
        gone = True
        if self.inside_fd >= 0:  # readable when the namespace's last process is gone
            gone = bool(select.select([self.inside_fd], [], [], 10)[0])
        clean = self.group.destroy() and gone
        told = self._told_exit_code()
        if clean and self.config["record"]:
            Path(self.config["record"]).unlink(missing_ok=True)
        started = told is not None
        if told is None and self.reason == "exited" and self.block_w < 0:
            code, started = 127, False
        return {
            "exit": code if code >= 0 else 128 - code,
            "reason": self.reason,
            "executed": started,
            "clean": clean,
            "passed": self.passed,
            "calls": self.calls.counts if self.calls else {},
        }

    def _told_exit_code(self) -> int | None:
        """bubblewrap tells an exit code only when the program was really executed."""
        if self.status_r < 0:
            return None
        os.set_blocking(self.status_r, False)
        try:
            while chunk := os.read(self.status_r, 4096):
                self.status += chunk
        except BlockingIOError:
            pass
        _, _, rest = self.status.partition(b"{")
        try:
            return int(json.loads(b"{" + rest)["exit-code"]) if rest else None
        except (ValueError, KeyError):
            return None

    def _entry(self) -> dict[str, Any]:
        return {
            "name": self.group.name,
            "folders": [str(folder) for folder in self.group.folders],
            "processes": [[pid, wire.start_time(pid)] for pid in (os.getpid(), self.bwrap, self.inside) if pid],
        }

    def _record(self) -> None:
        """What `reap` needs when everybody who could clean up is dead."""
        if not self.config["record"]:
            return
        entry = self._entry()
        temporary = Path(self.config["record"] + ".new")
        temporary.write_text(json.dumps(entry))
        temporary.replace(self.config["record"])


def run(gift: socket.socket) -> None:
    """The whole life of a keeper: warm up, get a socket to a supervisor's sandbox by `gift`, keep it, bury it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    syscalls.undumpable()
    keeper = Keeper()
    failure = ""
    control: socket.socket | None = None
    try:
        keeper.warm_up(gift)
        _, given = wire.receive(gift)
        gift.close()
        control = socket.socket(fileno=given[0])
        _, fds = wire.receive(control)
        keeper.start(control, fds)
        keeper.serve()
    except wire.Gone:
        keeper.reason = "killed"
    except (OSError, StartFailed, ValueError, KeyError) as error:
        failure = str(error) or type(error).__name__
        keeper.reason = "failed"
    end = keeper.bury()
    if control is not None:
        with contextlib.suppress(wire.Gone):
            wire.send(control, {"failed": failure, **end} if failure else {"end": end})


def _namespace(pid: int | str, kind: str) -> int:
    return Path(f"/proc/{pid}/ns/{kind}").stat().st_ino


def _kill(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return


def _readable(fd: int, deadline: float) -> bool:
    return bool(select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0])


def _read_all(fd: int, deadline: float) -> bytes:
    found = b""
    while _readable(fd, deadline):
        chunk = os.read(fd, 4096)
        if not chunk:
            return found
        found += chunk
    raise StartFailed("the launcher did not answer in time")


def _seen_uid(uid: int) -> int:
    """A uid as /proc shows it to us, who may have moved into the sandbox's user namespace."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        inside, outside, count = (int(item) for item in line.split())
        if outside <= uid < outside + count:
            return inside + uid - outside
    return 65534
