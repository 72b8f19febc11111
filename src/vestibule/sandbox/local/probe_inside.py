"""The attacks of the probe sandbox. Runs inside, as its only program; prints what happened as one Python literal.

*Stdlib only; read as text by `walls.py`, never imported.* The attacks are benign on a machine without walls: each call
is one that would succeed, or fail with another error, if nothing stood in its way. It loads as little as it can: of
its processor time, most is an interpreter's start.
"""

from __future__ import annotations

# ruff: noqa: PTH108, PTH208, S108
import _socket as socket
import ctypes
import errno
import mmap
import os
import sys

MYPY = False
if MYPY:
    from collections.abc import Callable

SIGCHLD = 17
libc = ctypes.CDLL(None, use_errno=True)
given = eval(sys.argv[1], {})  # noqa: S307 - our own argument; a parser costs more to load
NR = given["numbers"]


def name_of(number: int | None) -> str:
    return errno.errorcode.get(number or 0, str(number))


def call(number: int, *args: int) -> str:
    """The error's name of a system call, or `ok`."""
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(item) for item in args])
    return name_of(ctypes.get_errno()) if result == -1 else "ok"


def attempt(action: Callable[[], object]) -> str:
    """The error's name of a Python call, or `ok`."""
    try:
        action()
    except OSError as error:
        return name_of(error.errno) if error.errno and error.errno > 0 else type(error).__name__
    return "ok"


def in_child(action: Callable[[], int]) -> int:
    """A child that does this."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(action() or 0)
        finally:
            os._exit(99)
    return pid


def end_of(pid: int) -> str:
    """How a child ended: `exit N` or `signal N`."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return f"signal {-code}" if code < 0 else f"exit {code}"


def listing(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def write_at(path: str) -> str:
    def action() -> None:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        os.unlink(path)

    return attempt(action)


def talk(family: int, address: tuple[str, int] | str) -> str:
    """Whether a canary's voice is heard: judged by what is read, not by a connect."""

    def action() -> None:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(1)
            sock.connect(address)
            if sock.recv(64) != b"canary":
                raise OSError(errno.EPROTO, "not the canary")
        finally:
            sock.close()

    return attempt(action)


def make_socket(family: int, kind: int, protocol: int) -> str:
    return attempt(lambda: socket.socket(family, kind, protocol).close())


def status() -> dict[str, str]:
    with open("/proc/self/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def fork_bomb() -> list[object]:
    """Children until the kernel says no: (how many there were, what it said)."""
    read, write = os.pipe()
    children = []
    said = "ok"
    for _ in range(given["pids"] + 8):
        try:
            pid = os.fork()
        except OSError as error:
            said = name_of(error.errno)
            break
        if pid == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        children.append(pid)
    os.close(write)
    for pid in children:
        os.waitpid(pid, 0)
    return [len(children), said]


def hog() -> int:
    # It is the one to be killed, not the attacker that is still at work.
    attempt(lambda: os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"1000"))
    # Filled by the kernel in one call, which is many times faster than page by page.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    with mmap.mmap(-1, given["memory"] * 2, flags=flags) as block:
        block[:] = b"x" * len(block)  # should populating have given up half-way
        return 0


def abi_32() -> int:
    libc.syscall(ctypes.c_long(NR["getpid"] | given["abi_bit"]))
    return 0


found = status()
visible = [int(item) for item in os.listdir("/proc") if item.isdigit()]
results: dict[str, object] = {
    "fds": sorted(os.listdir("/proc/self/fd"), key=int)[:-1],  # the last one is this listing's own
    "caps": {key: found[key] for key in ("CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh")},
    "seccomp_mode": found.get("Seccomp"),
    "no_new_privs": found.get("NoNewPrivs"),
    "clear_no_new_privs": name_of(ctypes.get_errno()) if libc.prctl(38, 0, 0, 0, 0) == -1 else "ok",
    "setuid_0": attempt(lambda: os.setuid(0)),
    "chroot": attempt(lambda: os.chroot("/")),
    "processes": len(visible),
    "list_root": attempt(lambda: os.listdir("/")),
    "signal_first": attempt(lambda: os.kill(1, 0)),
    "first_memory": attempt(lambda: open("/proc/1/mem", "rb").close()),
    "kill_supervisor": attempt(lambda: os.kill(given["supervisor"], 0)),
    "read_canary": attempt(lambda: open(given["canary"]).close()),
    "home": listing(given["home"]),
    "writes": {
        path: write_at(path) for path in ("/x", "/usr/x", "/etc/x", "/dev/x", "/workspace/x", "/proc/sys/kernel/x")
    },
    "write_sysctl": attempt(lambda: os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))),
    "write_tmp": write_at("/tmp/x"),
    "tcp_canary": talk(socket.AF_INET, ("127.0.0.1", given["tcp"])),
    "abstract_canary": talk(socket.AF_UNIX, "\0" + given["abstract"]),
    "interfaces": [item for _, item in socket.if_nameindex()],
    "denied": {key: call(NR[key], 0, 0, 0, 0, 0, 0) for key in given["eperm"]},
    "clone3": call(NR["clone3"], 0, 0),
    "unshare_user": call(NR["unshare"], 0x10000000),
    "clone_user": call(NR["clone"], 0x10000000 | SIGCHLD, 0, 0, 0, 0),
    "tiocsti": call(NR["ioctl"], 0, 0x5412, 0),
    "sockets": {
        key: make_socket(*value)
        for key, value in {
            "packet": (17, socket.SOCK_RAW, 0),
            "raw": (socket.AF_INET, socket.SOCK_RAW, 1),
            "vsock": (40, socket.SOCK_STREAM, 0),
            "alg": (38, socket.SOCK_SEQPACKET, 0),
            "audit": (16, socket.SOCK_RAW, 9),
        }.items()
    },
}
for target, address in {"192.0.2.1": socket.AF_INET, "2001:db8::1": socket.AF_INET6}.items():
    results["route " + target] = talk(address, (target, 443))
try:
    socket.getaddrinfo("example.com", 443)
    results["resolve"] = "ok"
except OSError as error:
    results["resolve"] = type(error).__name__
results["fork_bomb"] = fork_bomb()
# Nothing else meanwhile: who asks for memory while a process is being killed for it can be killed as well.
results["hog"] = end_of(in_child(hog))
results["x32"] = end_of(in_child(abi_32)) if given["abi_bit"] else "signal 31"
sys.stdout.write(repr(results))
