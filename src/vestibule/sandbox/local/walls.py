"""The walls report: each wall is up only because an attack on it, run inside a probe sandbox, failed.

Rules it keeps:
1. A wall is never inferred from what the kernel lists or from the arguments given: only from an attack's result.
2. An attack that did not run proves nothing: its wall is down, and the report says why.
3. What is not built is reported as down, by name.

The probe is an ordinary sandbox of the same build with small ceilings; it runs once per process. Canaries (a file, a
TCP and an abstract Unix listener of the supervisor's) are live while it runs, so a missing answer is a wall's doing.
"""

from __future__ import annotations

import ast
import contextlib
import os
import platform
import secrets
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vestibule.core.errors import VestibuleError
from vestibule.core.model import Wall, WallsReport
from vestibule.core.ports import Limits, Mount, SandboxSpec
from vestibule.sandbox.local import seccomp
from vestibule.sandbox.local.argv import Bind

if TYPE_CHECKING:
    from vestibule.sandbox.local.backend import LocalSandbox

PIDS, MEMORY = 10, 24 << 20
_PROBE = Path(__file__).with_name("probe_inside.py")
_NO_CAPS = "0" * 16

_EPERM_PROOF = (
    "ptrace",
    "process_vm_readv",
    "kcmp",
    "pidfd_getfd",
    "open_tree",
    "fsopen",
    "unshare",
    "setns",
    "io_uring_setup",
    "add_key",
    "keyctl",
    "userfaultfd",
    "open_by_handle_at",
    "name_to_handle_at",
)
"""Calls that, with zeros for arguments and no filter, answer otherwise than EPERM."""

NAMES = (
    "mounts",
    "network",
    "seccomp",
    "no_new_privs",
    "pids",
    "userns",
    "caps",
    "descriptors",
    "own_uid",
    "cgroup",
    "landlock",
    "first_process",
    "monitor",
)

_SCOPES = 6
"""Landlock's ABI from which on signals and abstract sockets stay inside."""

_NOT_BUILT = {
    "monitor": "a sandbox has none of its own; a run puts it under one",
}


def nothing_proved(why: str) -> WallsReport:
    """Every wall down. `why` is the sentence."""
    return WallsReport(tier="none", walls={name: Wall(state="down", proved_by=why) for name in NAMES})


def prove(backend: LocalSandbox) -> WallsReport:
    """Attack the walls of this machine. Never raises: what cannot be proved is down."""
    try:
        with _canaries() as canaries:
            found, ready = _attack(backend, canaries)
    except (VestibuleError, OSError, ValueError) as error:
        return nothing_proved(str(error)[:500] or type(error).__name__)
    tier: Literal["root", "user"] = "root" if backend.root else "user"
    return WallsReport(tier=tier, walls=judge(found, ready, root=backend.root), limits=held(ready))


def for_sandbox(report: WallsReport, ready: Mapping[str, Any]) -> WallsReport:
    """The report of one sandbox: the machine's walls, less those that this one did not get."""
    report = report.model_copy(update={"limits": held(ready)})
    if ready.get("mechanism") in ("cgroup1", "cgroup2") or report.walls["cgroup"].state == "down":
        return report
    walls = {**report.walls, "cgroup": Wall(state="down", proved_by="this sandbox got no control group, only rlimits")}
    return report.model_copy(update={"walls": walls})


def held(ready: Mapping[str, Any]) -> dict[str, str]:
    """What holds each ceiling of a sandbox, as its keeper said."""
    if not ready:
        return {}
    found = {name: ready.get(name, "none") for name in ("memory", "pids", "cpu", "io")}
    found |= {name: "rlimit" for name in ("memory", "pids") if found[name] == "none"}
    return {**found, "workspace": ready.get("workspace", "none")}


@contextlib.contextmanager
def _canaries() -> Iterator[dict[str, Any]]:
    """Things outside that must not be reached from inside, alive meanwhile."""
    _sweep()
    abstract = "vestibule-canary-" + secrets.token_hex(8)
    with (
        tempfile.TemporaryDirectory(prefix=f"vestibule-canary-{os.getpid()}-") as folder,
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind("\0" + abstract)
        unix.listen()
        for listener in (tcp, unix):
            threading.Thread(target=_sing, args=(listener,), daemon=True).start()
        file = Path(folder) / "canary"
        file.write_text("canary")
        workspace = Path(folder) / "workspace"
        workspace.mkdir(mode=0o755)
        try:
            yield {"canary": file, "tcp": tcp.getsockname()[1], "abstract": abstract, "workspace": workspace}
        finally:
            for listener in (tcp, unix):
                with contextlib.suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)  # wakes the singer


def _sweep() -> None:
    """Remove canaries of processes that were killed while they attacked."""
    for path in Path(tempfile.gettempdir()).glob("vestibule-canary-*-*"):
        pid = path.name.split("-")[2]
        with contextlib.suppress(OSError):
            if pid.isdigit() and not Path("/proc", pid).exists() and path.lstat().st_uid == os.geteuid():
                shutil.rmtree(path)


def _sing(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            with client:
                client.sendall(b"canary")


def _python() -> tuple[str, tuple[Bind, ...]]:
    """This interpreter, and what has to be shown for it to start inside."""
    program = os.path.realpath(sys.executable)
    prefix = os.path.realpath(sys.base_prefix)
    if Path(prefix) == Path("/usr"):
        return program, ()
    return program, (Bind(prefix, prefix, False),)


def _attack(backend: LocalSandbox, canaries: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    arch = seccomp.ARCHES.get(platform.machine())
    if arch is None:
        raise ValueError(f"no system call numbers for {platform.machine()}")
    numbers = {name: pair[arch.column] for name, pair in seccomp.DENIED.items()}
    numbers |= {"clone3": 435, "clone": (56, 220)[arch.column], "ioctl": (16, 29)[arch.column]}
    numbers |= {"getpid": (39, 172)[arch.column]}
    given = {
        "numbers": numbers,
        "abi_bit": arch.abi_bit,
        "eperm": _EPERM_PROOF,
        "supervisor": os.getpid(),
        "canary": str(canaries["canary"]),
        "home": str(Path.home()),
        "tcp": canaries["tcp"],
        "abstract": canaries["abstract"],
        "pids": PIDS,
        "memory": MEMORY,
    }
    program, shown = _python()
    spec = SandboxSpec(
        run="walls",
        argv=(program, "-I", "-S", "-B", "/home/agent/probe.py", repr(given)),
        mounts=(Mount(source=canaries["workspace"], target="/workspace"),),
        home_files={"probe.py": _PROBE.read_bytes()},
        limits=Limits(
            wall_seconds=10, memory_bytes=MEMORY, pids=PIDS, open_files=256, cpu_percent=10_000, io_bytes=1 << 40
        ),
    )
    sandbox = backend._create(spec, None, extra=shown)
    try:
        egress = sandbox.probe_egress()
        sandbox.go()
        result = sandbox.wait()
    finally:
        sandbox.kill()
    try:
        found = dict(ast.literal_eval(result.stdout.decode()))
    except (ValueError, SyntaxError):
        said = result.stderr.decode("utf-8", "replace").strip()[-300:]
        raise ValueError(f"the probe ended with {result.exit_code} ({result.reason}) and no report: {said}") from None
    # A tool below the home folder (an interpreter, say) makes its own parents visible, and nothing beside them.
    home = Path.home().resolve()
    targets = [Path(bind.target) for bind in (*shown, *backend.tool_binds)]
    home_shown = [path.relative_to(home).parts[0] for path in targets if home in path.parents]
    return {**found, "egress": egress, "home_shown": home_shown}, sandbox.ready


def judge(found: Mapping[str, Any], ready: Mapping[str, Any], *, root: bool) -> dict[str, Wall]:
    """Pure: attacks' results → walls. A missing result is a wall that is down."""
    forks, said = found.get("fork_bomb", [0, "missing"])
    checks: dict[str, tuple[dict[str, bool], str]] = {
        "mounts": (
            {
                "a host file was read": found.get("read_canary") == "ENOENT",
                "the home folder was read": set(found.get("home", ["?"])) <= set(found.get("home_shown", [])),
                "a read-only place was written": set(found.get("writes", {"": ""}).values())
                <= {"EROFS", "EACCES", "EPERM", "ENOENT"},
                "a sysctl was opened for writing": found.get("write_sysctl") in ("EROFS", "EACCES", "EPERM"),
                "the temporary folder was not writable": found.get("write_tmp") == "ok",
            },
            "read a host file and the home folder; wrote to /, /usr, /etc, /dev, /proc/sys, a read-only mount: refused",
        ),
        "network": (
            {
                "a listener of the host answered": found.get("tcp_canary") in ("ECONNREFUSED", "ENETUNREACH"),
                "an abstract socket of the host answered": found.get("abstract_canary") == "ECONNREFUSED",
                "there is a route": all(
                    found.get(f"route {item}") in ("ENETUNREACH", "EADDRNOTAVAIL")
                    for item in ("192.0.2.1", "2001:db8::1")
                ),
                "there are other interfaces": found.get("interfaces") == ["lo"],
                "a name was resolved": found.get("resolve") == "gaierror",
                "the namespace has a way out": bool(found.get("egress"))
                and "connected" not in found["egress"].values(),
            },
            "host TCP and abstract canaries, IPv4 and IPv6 literals, UDP, DNS: none answered; no interface but lo; "
            + (
                "a second empty network lies around it" if ready.get("enclosed") else "no second network lies around it"
            ),
        ),
        "seccomp": (
            {
                "no filter is on": found.get("seccomp_mode") == "2",
                "a denied call got through": set(found.get("denied", {"": ""}).values()) == {"EPERM"},
                "clone3 got through": found.get("clone3") == "ENOSYS",
                "TIOCSTI got through": found.get("tiocsti") == "EPERM",
                "a foreign ABI got through": found.get("x32") == "signal 31",
                "a denied socket family got through": set(found.get("sockets", {"": ""}).values()) == {"EPERM"},
            },
            f"{len(_EPERM_PROOF)} denied calls, clone3, TIOCSTI, 5 socket families: refused; foreign ABI: killed",
        ),
        "no_new_privs": (
            {
                "the flag is off": found.get("no_new_privs") == "1",
                "the flag could be cleared": found.get("clear_no_new_privs") not in (None, "ok"),
                "setuid(0) worked": found.get("setuid_0") in ("EPERM", "EINVAL"),
            },
            "the flag is on and could not be cleared; setuid(0) refused",
        ),
        "pids": (
            {
                "other processes are visible": 0 < found.get("processes", 0) <= 3,
                "the supervisor could be signalled": found.get("kill_supervisor") == "ESRCH",
            },
            "no process outside was visible; signalling the supervisor: no such process",
        ),
        "userns": (
            {"a user namespace was made": {found.get("unshare_user"), found.get("clone_user")} == {"EPERM"}},
            "unshare and clone of a user namespace: refused",
        ),
        "caps": (
            {
                "capabilities are left": set(found.get("caps", {"": ""}).values()) == {_NO_CAPS},
                "chroot worked": found.get("chroot") == "EPERM",
            },
            "all five capability sets are empty; chroot refused",
        ),
        "descriptors": (
            {"a descriptor leaked in": found.get("fds") == ["0", "1", "2"]},
            "descriptors found inside: 0, 1, 2",
        ),
        "landlock": (
            {
                "a place without a rule was listed": found.get("list_root") == "EACCES",
                "a process outside the domain was signalled": ready.get("landlock", 0) < _SCOPES
                or found.get("signal_first") == "EPERM",
            },
            f"ABI {ready.get('landlock')}: listed /, which no rule names, and signalled process 1: refused",
        ),
        "first_process": (
            {"the first process could be read": found.get("first_memory") == "EACCES"},
            "opened the memory of process 1: refused",
        ),
        "cgroup": (
            {
                "no control group holds memory and processes": ready.get("mechanism") in ("cgroup1", "cgroup2"),
                "a fork bomb went on": said == "EAGAIN" and forks < PIDS,
                "a memory hog went on": found.get("hog") == "signal 9",
            },
            f"{ready.get('mechanism')}: fork bomb ended at {forks} of {PIDS}, memory hog killed at {MEMORY >> 20} MiB",
        ),
    }
    walls = {}
    for name, (tests, proof) in checks.items():
        failed = [what for what, held in tests.items() if not held]
        walls[name] = Wall(
            state="down" if failed else "up", proved_by="; ".join(failed) if failed else f"attack: {proof}"
        )
    if not ready.get("landlock"):
        walls["landlock"] = Wall(state="down", proved_by="this kernel has no Landlock: mounts are the only file wall")
    if walls["cgroup"].state == "down" and said == "EAGAIN":
        walls["cgroup"] = Wall(
            state="down",
            proved_by=f"{walls['cgroup'].proved_by} (rlimits: forks ended at {forks}, hog: {found.get('hog')})",
        )
    walls["own_uid"] = Wall(
        state="up" if root else "down",
        proved_by="/proc showed every id of the first process as the dedicated uid"
        if root
        else "the supervisor is not root: processes inside have its own uid",
    )
    for name, why in _NOT_BUILT.items():
        walls[name] = Wall(state="down", proved_by=why)
    return walls
