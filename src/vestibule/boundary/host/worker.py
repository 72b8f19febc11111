"""The monitor's process: loads the programs, watches control groups, matches. *Stdlib only; run as a script.*

`worker.py SOURCE-ROOT FD OBJECT RING-BYTES SCRATCH-GROUP-PARENT`. Rules it keeps:
1. It is ready only when its own probe, in a control group of its own, was seen to execute, write and connect, and was
   refused every address but loopback.
2. It says that it lives four times a second; it ends when its supervisor is gone.
3. An event is hashed and kept in the order in which the ring gave it, before it is matched.
4. A group's events are drained before it is let go, and what the kernel could not hand over is told: never less.
5. Bytes of a record are data: one that cannot be read counts as dropped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vestibule.boundary.host.libbpf import Link, Object
    from vestibule.boundary.host.rules import Behaviour

BEAT_SECONDS = 0.25
PAUSE_SECONDS = 0.02
BATCH = 8192
MAX_EVENT_FILE = 64 << 20
MAX_HASHED = 256 << 20
PROGRAMS = ("on_exec", "on_exit", "on_state")
ADDRESS_PROGRAMS = ("on_connect4", "on_connect6", "on_sendmsg4", "on_sendmsg6")
_ADDRESSES = ((socket.AF_INET, "192.0.2.1", "127.0.0.1"), (socket.AF_INET6, "2001:db8::1", "::1"))


class Session:
    """One watched run: its groups, digest, file and matcher."""

    def __init__(self, behaviours: tuple[Behaviour, ...], writable: list[str], file: int) -> None:
        from vestibule.boundary.host.rules import Matcher

        self.matcher = Matcher(behaviours, writable)
        self.groups: dict[bytes, list[Link]] = {}
        self.count = 0
        self.drops = 0
        self.kinds: dict[int, int] = {}
        self.digest = hashlib.sha256()
        self.file = file
        self.room = MAX_EVENT_FILE if file >= 0 else 0
        self.cut = False
        self.waiting: list[bytes] = []
        self.inside: dict[bytes, tuple[int, int]] = {}
        self.hashes: dict[str, str] = {}

    def keep(self, record: bytes) -> None:
        self.waiting.append(len(record).to_bytes(4, "little"))
        self.waiting.append(record)
        self.count += 1

    def flush(self) -> None:
        """Hash what came, and write what there is room for."""
        if not self.waiting:
            return
        data = b"".join(self.waiting)
        self.waiting.clear()
        self.digest.update(data)
        if len(data) > self.room:
            self.cut = self.cut or self.file >= 0
            self.room = 0
            return
        self.room -= len(data)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self.file, view) :]
        except OSError:
            self.room, self.cut = 0, True


class Worker:
    """The loop."""

    def __init__(self, control: socket.socket, loaded: Object) -> None:
        self.control = control
        self.object = loaded
        self.watched = loaded.map_fd("watched")
        self.settings = loaded.map_fd("settings")
        self.level: int | None = None
        self.sessions: dict[str, Session] = {}
        self.by_group: dict[bytes, Session] = {}
        self.batch: list[bytes] = []
        self.ring = loaded.open_ring(self.batch.append)
        self.links = [loaded.attach(name) for name in PROGRAMS]
        self.machine = os.uname().machine
        self.behaviours: tuple[Behaviour, ...] = ()
        self.misses = 0

    def run(self) -> None:
        """Until the supervisor is gone."""
        poller = select.poll()
        poller.register(self.ring, select.POLLIN)
        poller.register(self.control, select.POLLIN)
        beat = 0.0
        while True:
            ready = {fd for fd, _ in poller.poll(BEAT_SECONDS * 1000)}
            if self.ring in ready and self.drain(BATCH) < BATCH // 64:
                time.sleep(PAUSE_SECONDS)  # a wake-up for each event would cost more than the event
            if self.control.fileno() in ready and not self.answer():
                return
            now = time.monotonic()
            if now - beat >= BEAT_SECONDS:
                beat = now
                self.say({"beat": 1, "down": self.lost()})

    def lost(self) -> dict[str, int]:
        """Sessions that lost events so far → how many."""
        found = {}
        for key, session in self.sessions.items():
            drops = session.drops + sum(self.counts(group)[1] for group in session.groups)
            if drops:
                found[key] = drops
        misses = sum(self.object.misses(name) for name in PROGRAMS)
        if misses > self.misses:  # nobody knows whose they were
            self.misses = misses
            for session in self.sessions.values():
                session.drops += 1
        return found

    def drain(self, most: int) -> int:
        """Take up to about `most` events; how many there were."""
        total = 0
        while total < most:
            found = self.object.consume()
            if not found:
                break
            total += found
            self.process()
        return total

    def process(self) -> None:
        from vestibule.boundary.host.events import EXEC, BadRecord, parse

        batch, self.batch[:] = self.batch[:], []
        told: list[dict[str, Any]] = []
        for record in batch:
            session = self.by_group.get(record[8:16])
            if session is None:
                continue
            session.keep(record)
            try:
                event = parse(record, self.machine)
            except (BadRecord, ValueError):
                session.drops += 1
                continue
            session.kinds[event.kind] = session.kinds.get(event.kind, 0) + 1
            matches = session.matcher.take(event)
            if event.kind == EXEC:
                self.hash(session, record[8:16], event)
            if matches:
                key = next(name for name, item in self.sessions.items() if item is session)
                told += [{"match": match._asdict(), "key": key} for match in matches]
        for message in told:
            self.say(message)
        for session in self.sessions.values():
            session.flush()

    def hash(self, session: Session, group: bytes, event: Any) -> None:
        """The digest of the file as executed, if it is still the same one; once for each file."""
        from vestibule.boundary.host.hashing import program_digest

        if group not in session.inside:
            return
        key = f"{event.device[0]}:{event.device[1]}:{event.inode} {event.path}"
        if key not in session.hashes and len(session.hashes) < 1024:
            session.hashes[key] = program_digest(session.inside[group][0], event, MAX_HASHED)

    def counts(self, group: bytes) -> tuple[int, int]:
        """(events, drops) as the kernel counted."""
        raw = self.object.get(self.watched, group, 16)
        return int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")

    def say(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        socket.send_fds(self.control, [json.dumps(message).encode("utf-8", "replace")], fds)

    # --- requests -----------------------------------------------------------------------------------------

    def answer(self) -> bool:
        """One request; False when nobody is there any more."""
        data, fds, _, _ = socket.recv_fds(self.control, 1 << 17, 1)
        if not data:
            return False
        request = json.loads(data)
        try:
            reply = getattr(self, f"do_{request['op']}")(request, fds)
        except (OSError, ValueError, KeyError) as error:
            reply = {"error": str(error) or type(error).__name__}
        given = reply.pop("fd", None)
        self.say({"id": request["id"], **reply}, () if given is None else (given,))
        if given is not None:
            os.close(given)
        return True

    def do_behaviours(self, request: dict[str, Any], _: list[int]) -> dict[str, Any]:
        from vestibule.boundary.host.rules import compile_behaviours

        self.behaviours = compile_behaviours(request["behaviours"])
        return {}

    def do_open(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        if request["key"] in self.sessions:
            raise ValueError("this run is watched already")
        session = Session(self.behaviours, request["writable"], fds[0] if fds else -1)
        self.sessions[request["key"]] = session
        return {}

    def do_add(self, request: dict[str, Any], _: list[int]) -> dict[str, Any]:
        session = self.sessions[request["key"]]
        inside = held(int(request["inside"]))
        try:
            group = self.watch(Path(request["group"]), session.groups)
        except BaseException:
            release(inside)
            raise
        session.inside[group] = inside
        self.by_group[group] = session
        return {"watched": int.from_bytes(group, "little")}

    def do_drop(self, request: dict[str, Any], _: list[int]) -> dict[str, Any]:
        self.let_go(self.sessions[request["key"]], int(request["watched"]).to_bytes(8, "little"))
        return {}

    def do_close(self, request: dict[str, Any], _: list[int]) -> dict[str, Any]:
        session = self.sessions[request["key"]]
        for group in list(session.groups):
            self.let_go(session, group)
        del self.sessions[request["key"]]
        if session.file >= 0:
            with contextlib.suppress(OSError):
                os.fsync(session.file)
            os.close(session.file)
        matcher = session.matcher
        summary = {
            "count": session.count,
            "kinds": session.kinds,
            "drops": session.drops,
            "sha256": session.digest.hexdigest(),
            "cut": session.cut,
            "full": matcher.full,
            "left_out": matcher.left_out,
            "writes": list(matcher.writes),
            "moved": list(matcher.moved),
            "gone": list(matcher.gone),
            "connects": [[*key, times] for key, times in matcher.connects.items()],
            "programs": [
                {"path": path, "sha256": session.hashes.get(f"{dev[0]}:{dev[1]}:{inode} {path}", ""), "times": times}
                for (path, inode, dev), times in list(matcher.programs.items())[:1024]
            ],
        }
        fd = os.memfd_create("summary", os.MFD_CLOEXEC)
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(json.dumps(summary).encode("utf-8", "replace"))
        os.lseek(fd, 0, os.SEEK_SET)
        return {"fd": fd}

    def watch(self, folder: Path, into: dict[bytes, list[Link]]) -> bytes:
        """From now on what processes of this group do is told, and they reach loopback only."""
        level = depth(folder)
        if self.level is None:
            self.object.put(self.settings, bytes(4), level.to_bytes(4, "little"))
            self.level = level
        if level != self.level:
            raise ValueError("control groups of different depth")
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            group = os.fstat(fd).st_ino.to_bytes(8, "little")
            self.object.put(self.watched, group, bytes(16))
            into[group] = [self.object.attach(name, fd) for name in ADDRESS_PROGRAMS]
        finally:
            os.close(fd)
        return group

    def let_go(self, session: Session, group: bytes) -> None:
        """Drain, take over the kernel's count, and forget a group whose processes are dead."""
        links = session.groups.pop(group)
        while self.drain(BATCH):
            pass
        _, drops = self.counts(group)
        session.drops += drops
        session.flush()
        self.by_group.pop(group, None)
        self.object.remove(self.watched, group)
        for link in links:
            link.close()
        release(session.inside.pop(group))

    # --- proof --------------------------------------------------------------------------------------------

    def prove(self, parent: Path, /) -> str:
        """Watch a probe process in a group of its own; what was seen, in words. Raises ValueError: it was not."""
        from vestibule.boundary.host import events

        folder = parent / f"vestibule-{os.getpid()}-monitor"
        folder.mkdir()
        try:
            groups: dict[bytes, list[Link]] = {}
            group = self.watch(folder, groups)
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                _probe(folder, write)
            os.close(write)
            with os.fdopen(read) as said:
                told = dict(line.split(" ", 1) for line in said.read().splitlines())
            _, status = os.waitpid(child, 0)
            while self.object.consume():
                pass
            seen = [events.parse(record, self.machine) for record in self.batch if record[8:16] == group]
            self.batch.clear()
            count, drops = self.counts(group)
            self.object.remove(self.watched, group)
            for link in groups[group]:
                link.close()
        finally:
            folder.rmdir()
        tests = {
            "the probe did not run": os.waitstatus_to_exitcode(status) == 0,
            "its program was not seen": any(item.kind == events.EXEC and item.path.endswith("true") for item in seen),
            "its file was not seen": any(item.kind == events.WRITE and item.path == told.get("file") for item in seen),
            "its removal of a file was not seen": any(
                item.kind == events.UNLINK and item.path == told.get("file") for item in seen
            ),
            "its connections were not seen": all(
                any(item.kind == events.CONNECT and item.address == address for item in seen)
                for _, *both in _ADDRESSES
                for address in both
                if told.get(f"connect_{address}") != "EAFNOSUPPORT"
            ),
            "an address outside was not refused": all(
                told.get(f"{how}_{outside}") in ("EPERM", "EAFNOSUPPORT")
                for _, outside, _ in _ADDRESSES
                for how in ("connect", "sendto")
            ),
            "loopback was refused": told.get("connect_127.0.0.1") == "ok",
            "events were lost": drops == 0 and count == len(seen),
        }
        failed = [what for what, held in tests.items() if not held]
        if failed:
            raise ValueError("; ".join(failed))
        return "a probe's exec, write, unlink and connects (4) were seen, none lost"


def _probe(folder: Path, told: int) -> None:
    """What the probe does: never returns."""
    try:
        (folder / "cgroup.procs").write_text("0")
        out = [
            f"{how}_{address} {_try(family, address, how)}"
            for family, *both in _ADDRESSES
            for address in both
            for how in ("connect", "sendto")
        ]
        name = f"/tmp/vestibule-monitor-{os.getpid()}"  # noqa: S108 - made exclusively below
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        out.append(f"file {Path(f'/proc/self/fd/{fd}').readlink()}")
        Path(name).unlink()
        os.write(told, "\n".join(out).encode())
        os.close(told)
        os.execv("/bin/true", ["true"])  # noqa: S606 - an absolute path and a list
    finally:
        os._exit(1)


def _try(family: int, address: str, how: str) -> str:
    import errno

    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            if how == "connect":
                sock.connect((address, 9))
            else:
                sock.sendto(b"", (address, 9))
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "error")
    return "ok"


def held(pid: int) -> tuple[int, int]:
    """Root and mounts of a sandbox's first process, kept so that its files can be read, and their paths be told, when
    its last process is dead. Raises OSError."""
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return root, os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except BaseException:
        os.close(root)
        raise


def release(inside: tuple[int, int]) -> None:
    """Let go what `held` gave."""
    for fd in inside:
        os.close(fd)


def depth(folder: Path) -> int:
    """How deep a control group lies below its tree's top. Raises OSError, ValueError."""
    level, at = 0, folder
    device = folder.stat().st_dev
    if not (folder / "cgroup.controllers").exists():
        raise ValueError(f"{folder} is no group of cgroup v2")
    while at.parent.stat().st_dev == device:
        level, at = level + 1, at.parent
    return level


def _programs(control: socket.socket, path: str, ring: int, parent: str) -> tuple[str, Worker, str]:
    from vestibule.boundary.host.libbpf import Library, Object

    if not parent:
        raise ValueError("there is no cgroup v2 tree here to tell sandboxes apart by")
    worker = Worker(control, Object(Library(), Path(path).read_bytes(), ring_bytes=ring or None))
    return "tracepoints", worker, worker.prove(Path(parent))


def _files(control: socket.socket, _path: str, _ring: int, parent: str) -> tuple[str, Worker, str]:
    from vestibule.boundary.host.fanotify import FileWorker

    worker = FileWorker(control)
    return "fanotify", worker, worker.prove(Path(parent))


def main() -> None:
    root, descriptor, path, ring, parent = sys.argv[1:6]
    sys.path.insert(0, root)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=int(descriptor))
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)  # who watches must not starve
    sys.modules["vestibule.boundary.host.worker"] = sys.modules["__main__"]
    failed: list[str] = []
    for rung in (_programs, _files):
        try:
            name, worker, proof = rung(control, path, int(ring), parent)
            break
        except (OSError, ValueError, KeyError) as error:
            failed.append(str(error) or type(error).__name__)
    else:
        control.send(json.dumps({"failed": "; ".join(failed)}).encode())
        return
    why = f" (no programs: {failed[0]})" if failed else ""
    worker.say({"ready": True, "rung": name, "proved_by": proof + why})
    with contextlib.suppress(BrokenPipeError, ConnectionError):
        worker.run()


if __name__ == "__main__":
    main()
