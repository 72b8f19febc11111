"""The seccomp filter: an allow list as classic BPF, emitted without a library. *Stdlib only; pure.*

Rules it keeps:
1. A system call of another architecture or ABI (32-bit, x32) kills the process: their numbers mean other calls.
2. Only calls on the list pass. What a later kernel adds does not exist (ENOSYS), what is known and not listed is
   refused (EPERM).
3. What reaches other processes, changes namespaces or mounts, loads code into the kernel, or opens kernel interfaces
   with a history of privilege escalation is refused and reported: no ordinary program makes these calls.
4. `clone3` gets ENOSYS, so that C libraries use `clone`, whose flags the filter can read.
5. Sockets, alone or in pairs, are AF_UNIX, and TCP or UDP over AF_INET and AF_INET6; NETLINK_ROUTE stays, for
   `getaddrinfo` and `getifaddrs` (it is empty-handed in an empty network namespace without capabilities).
6. Terminal injection (`TIOCSTI`, `TIOCLINUX`), line disciplines (`TIOCSETD`) and upper-layer protocols of TCP
   (`TCP_ULP`) are refused.

Sources: seccomp(2), linux/filter.h, CVE-2017-5226 (TIOCSTI), CVE-2014-9357 class (`open_by_handle_at`), the default
profile of container engines for the list's extent.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

from vestibule.sandbox.local.syscall_numbers import NUMBERS

ALLOW = 0x7FFF0000
KILL = 0x80000000  # SECCOMP_RET_KILL_PROCESS
NOTIFY = 0x7FC00000  # SECCOMP_RET_USER_NOTIF
_ERRNO = 0x00050000
EPERM, ENOSYS, EPROTONOSUPPORT, EAFNOSUPPORT = 1, 38, 93, 97

_LD_ABS, _JA, _JEQ, _JGE, _JSET, _AND, _RET = 0x20, 0x05, 0x15, 0x35, 0x45, 0x54, 0x06
_NR, _ARCH = 0, 4


def _arg(index: int) -> int:
    """Offset of the low 32 bits of an argument (both architectures are little-endian)."""
    return 16 + 8 * index


class Arch(NamedTuple):
    """An architecture: its audit number, its column in `NUMBERS`, and its x32-like ABI bit if it has one."""

    name: str
    audit: int
    column: int
    abi_bit: int


ARCHES = {
    "x86_64": Arch("x86_64", 0xC000003E, 0, 0x40000000),
    "aarch64": Arch("aarch64", 0xC00000B7, 1, 0),
}


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ALLOWED = _names(
    # files
    "access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64 "
    "fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr file_getattr flistxattr "
    "flock fremovexattr fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd getdents getdents64 getxattr "
    "getxattrat "
    "lchown lgetxattr link linkat listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat mkdir mkdirat "
    "mknod mknodat newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead "
    "readlink readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir sendfile setxattr setxattrat "
    "splice stat statfs statx symlink symlinkat sync sync_file_range syncfs tee truncate umask unlink unlinkat utime "
    "utimensat utimes vmsplice write writev cachestat "
    # waiting and watching
    "epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 inotify_add_watch "
    "inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit "
    "pause pipe pipe2 poll ppoll pselect6 select signalfd signalfd4 timerfd_create timerfd_gettime timerfd_settime "
    # memory
    "brk get_mempolicy madvise map_shadow_stack membarrier memfd_create mincore mlock mlock2 mlockall mmap mprotect "
    "mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect shmat shmctl shmdt shmget "
    # processes, threads, signals
    "alarm arch_prctl capget capset execve execveat exit exit_group fork futex futex_requeue futex_wait futex_waitv "
    "futex_wake get_robust_list getcpu getegid geteuid getgid getgroups getitimer getpgid getpgrp getpid getppid "
    "getpriority getresgid getresuid getrlimit getrusage getsid gettid getuid ioprio_get ioprio_set kill "
    "landlock_add_rule landlock_create_ruleset landlock_restrict_self pidfd_open pidfd_send_signal prctl prlimit64 "
    "process_mrelease restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn "
    "rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity "
    "sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr "
    "sched_setparam sched_setscheduler sched_yield seccomp set_robust_list set_tid_address setfsgid setfsuid setgid "
    "setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setuid sigaltstack "
    "tgkill tkill vfork wait4 waitid "
    # time and the machine
    "clock_getres clock_gettime clock_nanosleep getrandom gettimeofday nanosleep sysinfo time timer_create "
    "timer_delete timer_getoverrun timer_gettime timer_settime times uname "
    # messages and sockets
    "accept accept4 bind connect getpeername getsockname getsockopt listen mq_getsetattr mq_notify mq_open "
    "mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd recvfrom recvmmsg recvmsg semctl semget semop "
    "semtimedop sendmmsg sendmsg sendto shutdown"
)
"""Calls that pass whatever their arguments. Those that depend on arguments stand in `_JUDGED`."""

REPORTED = _names(
    # other processes
    "ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd process_madvise "
    # mounts
    "mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr statmount "
    "listmount open_tree_attr "
    # namespaces
    "unshare setns "
    # asynchronous calls that no filter sees
    "io_uring_setup io_uring_enter io_uring_register "
    # code and keys in the kernel
    "bpf perf_event_open add_key request_key keyctl userfaultfd kexec_load kexec_file_load create_module init_module "
    "delete_module finit_module get_kernel_syms query_module memfd_secret "
    # the machine
    "reboot swapon swapoff quotactl quotactl_fd acct syslog settimeofday clock_settime clock_adjtime adjtimex "
    "sethostname setdomainname vhangup nfsservctl iopl ioperm modify_ldt uselib _sysctl "
    # files by handle, watches on whole mounts
    "open_by_handle_at name_to_handle_at lookup_dcookie fanotify_init fanotify_mark "
    # other machines' address layouts
    "migrate_pages move_pages"
)
"""Calls that are refused and reported."""

DENIED: dict[str, tuple[int | None, int | None]] = {name: NUMBERS.get(name, (None, None)) for name in REPORTED}

NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (NEWTIME is for unshare and clone3 only)."""

TIOCSTI, TIOCLINUX, TIOCSETD = 0x5412, 0x541C, 0x5423
_PLAIN_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_IPPROTO_TCP, _TCP_ULP = 6, 31


class UnknownArchitecture(RuntimeError):
    """No system call numbers are known for this machine, so no filter can be made."""


def _op(code: int, k: int, jt: int = 0, jf: int = 0) -> bytes:
    return struct.pack("<HBBI", code, jt, jf, k)


def _ret(action: int) -> bytes:
    return _op(_RET, action)


def _errno(number: int) -> bytes:
    return _ret(_ERRNO | number)


def _clone(refuse: bytes) -> list[bytes]:
    return [_op(_LD_ABS, _arg(0)), _op(_JSET, NAMESPACE_FLAGS, 0, 1), refuse, _ret(ALLOW)]


def _clone3(_: bytes) -> list[bytes]:
    return [_errno(ENOSYS)]


def _ioctl(refuse: bytes) -> list[bytes]:
    return [
        _op(_LD_ABS, _arg(1)),
        _op(_JEQ, TIOCSTI, 2, 0),
        _op(_JEQ, TIOCLINUX, 1, 0),
        _op(_JEQ, TIOCSETD, 0, 1),
        refuse,
        _ret(ALLOW),
    ]


def _setsockopt(refuse: bytes) -> list[bytes]:
    return [
        _op(_LD_ABS, _arg(1)),
        _op(_JEQ, _IPPROTO_TCP, 0, 3),
        _op(_LD_ABS, _arg(2)),
        _op(_JEQ, _TCP_ULP, 0, 1),
        refuse,
        _ret(ALLOW),
    ]


def _personality(refuse: bytes) -> list[bytes]:
    body = [_op(_LD_ABS, _arg(0))]
    for index, value in enumerate(_PLAIN_PERSONALITIES):
        body.append(_op(_JEQ, value, len(_PLAIN_PERSONALITIES) - index, 0))
    return [*body, refuse, _ret(ALLOW)]


def _socket(refuse: bytes) -> list[bytes]:
    inet = [
        _op(_LD_ABS, _arg(1)),
        _op(_AND, 0xF),  # without SOCK_CLOEXEC and SOCK_NONBLOCK
        _op(_JEQ, 1, 2, 0),  # SOCK_STREAM
        _op(_JEQ, 2, 1, 0),  # SOCK_DGRAM
        refuse,
        _op(_LD_ABS, _arg(2)),
        _op(_JEQ, 0, 3, 0),
        _op(_JEQ, 6, 2, 0),  # IPPROTO_TCP
        _op(_JEQ, 17, 1, 0),  # IPPROTO_UDP
        _errno(EPROTONOSUPPORT),
        _ret(ALLOW),
    ]
    netlink = [_op(_LD_ABS, _arg(2)), _op(_JEQ, 0, 0, 1), _ret(ALLOW), refuse]
    return [
        _op(_LD_ABS, _arg(0)),
        _op(_JEQ, _AF_UNIX, 0, 1),
        _ret(ALLOW),
        _op(_JEQ, _AF_NETLINK, 0, len(netlink)),
        *netlink,
        _op(_JEQ, _AF_INET, 2, 0),
        _op(_JEQ, _AF_INET6, 1, 0),
        refuse,
        *inet,
    ]


def _socketpair(refuse: bytes) -> list[bytes]:
    """The kernel makes both sockets, and loads their family's module, before it asks whether they can be a pair."""
    return [_op(_LD_ABS, _arg(0)), _op(_JEQ, _AF_UNIX, 0, 1), _ret(ALLOW), refuse]


_JUDGED = {
    "clone": _clone,
    "clone3": _clone3,
    "ioctl": _ioctl,
    "setsockopt": _setsockopt,
    "personality": _personality,
    "socket": _socket,
    "socketpair": _socketpair,
}
"""Calls whose arguments decide: name → body for a given way to refuse."""

_OWN = ("wait4", "exit_group", "exit", "write", "rt_sigreturn", "restart_syscall")
"""What the sandbox's first process needs while it waits."""


@lru_cache(maxsize=8)
def filter_program(machine: str, *, notify: bool = False) -> bytes:
    """The program's filter for `machine` (as `platform.machine()` names it): an array of `struct sock_filter`.

    `notify`: calls that are refused and reported go to the filter's listener, who answers EPERM; else they get EPERM.

    Raises:
        UnknownArchitecture: neither x86_64 nor aarch64; the caller refuses.
    """
    arch = _arch(machine)
    refuse = _ret(NOTIFY) if notify else _errno(EPERM)
    bodies: dict[int, list[bytes]] = {}
    for name, numbers in NUMBERS.items():
        number = numbers[arch.column]
        if number is not None:
            bodies[number] = _body(name, refuse)
    return _assembled(arch, bodies, [_errno(ENOSYS)])


def everything() -> bytes:
    """A filter that lets everything pass: for tests of what holds without one."""
    return _ret(ALLOW)


@lru_cache(maxsize=2)
def own_program(machine: str) -> bytes:
    """The filter of the sandbox's first process once the program runs: it waits, and anything else kills it."""
    arch = _arch(machine)
    numbers = [NUMBERS[name][arch.column] for name in _OWN]
    return _assembled(arch, {number: [_ret(ALLOW)] for number in numbers if number is not None}, [_ret(KILL)])


def name_of(machine: str, number: int) -> str:
    """The name of a call by its number; the number itself when it has none."""
    column = _arch(machine).column
    return next((name for name, pair in NUMBERS.items() if pair[column] == number), str(number))


def _arch(machine: str) -> Arch:
    arch = ARCHES.get(machine)
    if arch is None:
        raise UnknownArchitecture(machine)
    return arch


def _body(name: str, refuse: bytes) -> list[bytes]:
    judged = _JUDGED.get(name)
    if judged is not None:
        return judged(refuse)
    if name in _ALLOWED_SET:
        return [_ret(ALLOW)]
    return [refuse] if name in DENIED else [_errno(EPERM)]


_ALLOWED_SET = frozenset(ALLOWED)


def _assembled(arch: Arch, bodies: dict[int, list[bytes]], default: list[bytes]) -> bytes:
    program = [_op(_LD_ABS, _ARCH), _op(_JEQ, arch.audit, 1, 0), _ret(KILL), _op(_LD_ABS, _NR)]
    if arch.abi_bit:
        program += [_op(_JGE, arch.abi_bit, 0, 1), _ret(KILL)]
    ranges: list[tuple[int, list[bytes]]] = []
    for number in range(max(bodies) + 2):
        body = bodies.get(number, default)
        if not ranges or ranges[-1][1] != body:
            ranges.append((number, body))
    return b"".join([*program, *_tree(ranges)])


def _tree(ranges: list[tuple[int, list[bytes]]]) -> list[bytes]:
    """A balanced search for the loaded number; each range begins at its number and ends where the next begins."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    low, high = _tree(ranges[:middle]), _tree(ranges[middle:])
    start = ranges[middle][0]
    if len(low) <= 255:
        return [_op(_JGE, start, len(low), 0), *low, *high]
    return [_op(_JGE, start, 0, 1), _op(_JA, len(low)), *low, *high]
