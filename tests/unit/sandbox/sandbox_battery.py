"""What a hijacked agent tries from inside. Runs in a sandbox as one program; prints attack → what happened."""

from __future__ import annotations

# ruff: noqa: PTH101, PTH115, PTH207, PTH208, SIM115
# mypy: ignore-errors
import ctypes
import errno
import fcntl
import glob
import json
import os
import signal
import socket
import subprocess
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
given = json.loads(sys.argv[1])
NR = given["numbers"]
found: dict[str, object] = {}


def name_of(number):
    return errno.errorcode.get(number or 0, str(number))


def attempt(action):
    try:
        result = action()
    except OSError as error:
        return name_of(error.errno) if error.errno and error.errno > 0 else type(error).__name__
    return "ok" if result is None else result


def call(name, *args):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(NR[name]), *[ctypes.c_long(item) for item in args])
    return name_of(ctypes.get_errno()) if result == -1 else "ok"


def voice(family, kind, address, send=b""):
    """What is heard from the other side: a score at the application layer."""

    def action():
        with socket.socket(family, kind) as sock:
            sock.settimeout(1)
            sock.connect(address)
            if send:
                sock.sendall(send)
            return "heard " + sock.recv(64).decode("latin-1")

    return attempt(action)


def timed(action):
    began = time.monotonic()
    result = action()
    return [result, round(time.monotonic() - began, 2)]


def child(action):
    pid = os.fork()
    if pid == 0:
        try:
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# network -----------------------------------------------------------------------------------------------------------
for host in ("192.0.2.1", "169.254.169.254", "10.0.0.1", "127.1.2.3", "255.255.255.255"):
    found[f"tcp {host}"] = voice(socket.AF_INET, socket.SOCK_STREAM, (host, 80))
for host in ("2001:db8::1", "fd00:ec2::254", "::ffff:192.0.2.1", "fe80::1"):
    found[f"tcp {host}"] = voice(socket.AF_INET6, socket.SOCK_STREAM, (host, 80))
found["host loopback"] = voice(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", given["tcp"]))
found["host loopback v6-mapped"] = voice(socket.AF_INET6, socket.SOCK_STREAM, ("::ffff:127.0.0.1", given["tcp"]))
found["host abstract socket"] = voice(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + given["abstract"])
found["host path socket"] = voice(socket.AF_UNIX, socket.SOCK_STREAM, given["path_socket"])
found["udp dns"] = voice(socket.AF_INET, socket.SOCK_DGRAM, ("192.0.2.53", 53), b"x")
found["resolve"] = timed(lambda: attempt(lambda: str(socket.getaddrinfo("example.com", 443))))
found["resolve own resolver"] = timed(lambda: voice(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 53), b"x" * 40))
found["resolve rebound hosts"] = attempt(lambda: open("/etc/hosts", "a").close())
found["packet socket"] = attempt(lambda: socket.socket(17, socket.SOCK_RAW, 3).close())
found["raw icmp"] = attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close())
found["ping icmp"] = attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1).close())
pair = (ctypes.c_int * 2)()
for label, family in {"vsock": 40, "alg": 38, "tipc": 30, "bluetooth": 31, "can": 29, "xdp": 44}.items():
    found[f"family {label}"] = attempt(lambda family=family: socket.socket(family, socket.SOCK_STREAM).close())
    found[f"family {label}, a pair"] = call("socketpair", family, socket.SOCK_STREAM, 0, ctypes.addressof(pair))
found["netlink route"] = attempt(lambda: socket.socket(16, socket.SOCK_RAW, 0).close())
found["netlink netfilter"] = attempt(lambda: socket.socket(16, socket.SOCK_RAW, 12).close())

# descriptors and sockets -------------------------------------------------------------------------------------------
found["fds"] = sorted(item for item in os.listdir("/proc/self/fd"))[:-1]
found["sockets in sight"] = [
    path for path in glob.glob("/run/**", recursive=True) + glob.glob("/var/run/**") if path != "/run/"
]

# files -------------------------------------------------------------------------------------------------------------
found["canary"] = attempt(lambda: open(given["canary"]).read())
for path in ("/proc/1/root", "/proc/self/root", "/proc/1/cwd"):
    found[f"canary by {path}"] = attempt(lambda path=path: open(path + given["canary"]).read())
for path in ("/x", "/usr/bin/x", "/etc/x", "/etc/ld.so.preload", "/dev/x", "/home/x", "/var/x", "/run/x"):
    found[f"write {path}"] = attempt(lambda path=path: open(path, "w").close())
for path in ("/etc/passwd", "/etc/hosts", "/usr/bin/env", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"):
    found[f"overwrite {path}"] = attempt(lambda path=path: os.close(os.open(path, os.O_WRONLY)))
for path in ("/proc/kcore", "/proc/kmsg", "/etc/shadow", "/sys/kernel", "/dev/mem", "/dev/kvm"):
    found[f"read {path}"] = attempt(lambda path=path: os.close(os.open(path, os.O_RDONLY)))
found["read 1/environ"] = attempt(lambda: open("/proc/1/environ").read())
found["read 1/cmdline"] = attempt(lambda: open("/proc/1/cmdline").read())
with open("/proc/1/status") as file:
    found["first process"] = [
        value
        for key, value in (line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        if key in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")
    ]
found["first process fds"] = attempt(lambda: [os.readlink(f"/proc/1/fd/{fd}") for fd in os.listdir("/proc/1/fd")])
found["rebind root"] = attempt(lambda: os.chmod("/usr", 0o777))
found["device node"] = attempt(lambda: os.mknod("/tmp/d", 0o20600, os.makedev(1, 1)))
found["cgroup move"] = attempt(lambda: open("/sys/fs/cgroup/cgroup.procs", "w").close())
found["write tmp"] = attempt(lambda: open("/tmp/x", "w").close())
found["write home"] = attempt(lambda: open(os.environ["HOME"] + "/x", "w").close())
found["write workspace"] = attempt(lambda: open("/workspace/x", "w").close())
found["write shm"] = attempt(lambda: open("/dev/shm/x", "w").close())

# processes ---------------------------------------------------------------------------------------------------------
found["processes"] = len([item for item in os.listdir("/proc") if item.isdigit()])
found["signal supervisor"] = attempt(lambda: os.kill(given["supervisor"], signal.SIGKILL))
found["signal all"] = attempt(lambda: os.kill(-1, 0))
found["ptrace parent"] = call("ptrace", 16, 1, 0, 0)
found["process_vm_readv"] = call("process_vm_readv", os.getpid(), 0, 0, 0, 0, 0)
found["process_vm_writev"] = call("process_vm_writev", os.getpid(), 0, 0, 0, 0, 0)
found["setuid 0"] = attempt(lambda: os.setuid(0))
found["setgroups"] = attempt(lambda: os.setgroups([0]))
found["chroot"] = attempt(lambda: os.chroot("/tmp"))
found["setuid program"] = subprocess.run(
    [sys.executable, "-I", "-S", "-c", "import os; print(os.getresuid())"], capture_output=True, text=True, check=False
).stdout.strip()
os.chmod("/tmp/x", 0o4755)
found["no_new_privs"] = [libc.prctl(39, 0, 0, 0, 0), libc.prctl(38, 0, 0, 0, 0)]
with open("/proc/self/status") as file:
    status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
found["caps"] = [status[key] for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")]
found["uid_map"] = open("/proc/self/uid_map").read().split()

# kernel ------------------------------------------------------------------------------------------------------------
for label, flag in {"user": 0x10000000, "mnt": 0x20000, "net": 0x40000000, "pid": 0x20000000, "time": 0x80}.items():
    found[f"unshare {label}"] = call("unshare", flag)
for label, flag in {"user": 0x10000000, "net": 0x40000000, "cgroup": 0x2000000}.items():
    found[f"clone {label}"] = call("clone", flag | signal.SIGCHLD, 0, 0, 0, 0)
found["clone3"] = call("clone3", 0, 0)
found["setns"] = call("setns", os.open("/proc/self/ns/net", os.O_RDONLY), 0)
for name in given["denied"]:
    found[f"call {name}"] = call(name, 0, 0, 0, 0, 0, 0)
found["tiocsti"] = attempt(lambda: fcntl.ioctl(0, 0x5412, b"x"))
found["tiocsti high bits"] = call("ioctl", 0, 0x5412 | (1 << 32), 0)
found["tioclinux"] = attempt(lambda: fcntl.ioctl(0, 0x541C, b"\x02"))
found["personality"] = call("personality", 0x0040000)
found["clone flags high bits"] = call("clone", (1 << 32) | 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
if given["abi_bit"]:
    found["x32"] = child(lambda: libc.syscall(ctypes.c_long(NR["getpid"] | given["abi_bit"])))
print(json.dumps(found))
