"""From the keeper's fork to bubblewrap: groups, limits, staging, own uid, exec. *Stdlib only.*

Rules it keeps:
1. When the supervisor is root, bubblewrap and everything below it run as a dedicated uid: nothing inside is uid 0
   outside, whatever a user namespace says.
2. Sources that lie under folders which that uid may not enter are shown through a private mount namespace with a
   staging folder; the host's own permissions are not touched.
3. The last component of a mount source is never followed as a symbolic link.
4. Signals are at their defaults: what we ignore, the program must not ignore by inheritance.
5. Only the descriptors bubblewrap needs survive; it closes them before the program starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from vestibule.sandbox.local import ablation, argv, landlock, limits, quota, syscalls, wire

_OCTAL = re.compile(rb"\\([0-7]{3})")
"""How mountinfo writes blanks. No codec is used for it: what is not loaded yet may be covered by the stage."""
_STAGES = ("/mnt", "/media", "/srv", "/opt", "/home")


class LaunchFailed(RuntimeError):
    """What could not be set up, in words."""


class _Told(NamedTuple):
    """Descriptors of bubblewrap's status, of what it waits for, and of the socket that takes the filter's listener."""

    status: int
    block: int
    notify: int


def launch(orders: socket.socket, group: limits.Group) -> NoReturn:
    """Become the sandbox; never returns.

    Enters the groups first and says whether that worked: this waits for the kernel (tens of milliseconds on a busy
    machine), so it is done before there is anything to launch. Then waits for orders: descriptors of the
    configuration, the three streams, status, block and report. What fails is written to the last, which closes on
    success.
    """
    try:
        try:
            group.enter()
            entered = True
        except OSError:
            entered = False
        wire.send(orders, {"entered": entered})
        _, fds = wire.receive(orders)
    except (wire.Gone, OSError):
        os._exit(127)
    try:
        orders.close()
        configured, stdin, stdout, stderr, *told, report = fds
        config = json.loads(wire.read_whole(configured))
        if not entered:
            group.give_up()
        group.memory, group.pids = config["memory"], config["pids"]
        _launch(config, group, (stdin, stdout, stderr), _Told(*told))
    except BaseException as error:  # noqa: BLE001 - a forked child must never return into its parent's code
        message = f"{error}" if isinstance(error, (OSError, LaunchFailed)) else f"{type(error).__name__}: {error}"
        os.write(report, message.encode("utf-8", "replace")[:4000])
    os._exit(127)


def _launch(config: dict[str, Any], group: limits.Group, stdio: tuple[int, int, int], told: _Told) -> NoReturn:
    status, block, notify = told
    uid = config["uid"]
    plan = argv.Plan(**config["plan"])
    tools = tuple(argv.Bind(*item) for item in plan.tools)
    mounts = tuple(argv.Bind(*item) for item in plan.mounts)
    ceilings = limits.Ceilings(**config["ceilings"])
    if uid is not None:
        tools, mounts = _stage(tools, mounts)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        if 0 in (*os.getresuid(), *os.getresgid()):
            raise LaunchFailed("the dedicated uid did not take")
    syscalls.no_new_privs()
    limits.apply_rlimits(ceilings, group=group, dedicated_uid=uid is not None)
    for number, source in enumerate(stdio):
        os.dup2(source, number, inheritable=True)
    kept: list[int] = []

    def content(data: bytes) -> int:
        fd = wire.memory_file(data)
        kept.append(fd)
        return fd

    plan = plan._replace(
        system=tuple(argv.Bind(*item) for item in plan.system),
        links=tuple((target, link) for target, link in plan.links),
        tools=tools,
        mounts=mounts,
        etc_files=_bytes(config["plan"]["etc_files"]),
        home_files=_bytes(config["plan"]["home_files"]),
    )
    fds = argv.Descriptors(status=status, block=block)
    inside = argv.Inside(
        notify=notify if config["notify"] else -1,
        filter=content(bytes.fromhex(config["seccomp"])),
        own=content(bytes.fromhex(config["own_seccomp"])),
        landlock=landlock.ruleset(argv.places(plan), landlock.abi() if config["landlock"] else 0),
        program=bytes.fromhex(config["inside"]),
    )
    if config["notify"]:
        kept.append(notify)
    options, program = argv.build(plan, fds, inside, content)
    arguments = content(b"".join(os.fsencode(item) + b"\0" for item in options))
    for fd in (status, block, *kept):
        os.set_inheritable(fd, True)
    for signal_number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError):  # real-time signals that the C library keeps for itself
            signal.signal(signal_number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if plan.without:
        ablation.leak(plan.without)
    os.chdir("/")
    os.umask(0o022)
    os.execve(  # noqa: S606 - an absolute path and a list
        config["bwrap"], ["bwrap", "--args", str(arguments), "--", *program], {}
    )


def _bytes(files: dict[str, str]) -> dict[str, bytes]:
    return {name: bytes.fromhex(data) for name, data in files.items()}


def _let_go_of_disks() -> None:
    """Copies, in our mount namespace, of the disks of workspaces: else those of other runs would live as long as we."""
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        place = os.fsdecode(_OCTAL.sub(lambda found: bytes([int(found[1], 8)]), line.split()[4]))
        if place.endswith("/" + quota.DISK):
            with contextlib.suppress(OSError):
                syscalls.umount(place, syscalls.MNT_DETACH)


def _stage(
    tools: tuple[argv.Bind, ...], mounts: tuple[argv.Bind, ...]
) -> tuple[tuple[argv.Bind, ...], tuple[argv.Bind, ...]]:
    """The same binds with sources that any uid can reach, in a mount namespace of our own."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    # Opened in the new namespace (the kernel binds only its own mounts) and before the stage covers anything.
    sources = [os.open(bind.source, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC) for bind in (*tools, *mounts)]
    stage = next((folder for folder in _STAGES if Path(folder).is_dir() and not Path(folder).is_symlink()), None)
    if stage is None:
        raise LaunchFailed("no folder to stage mounts on (/mnt is missing)")
    syscalls.mount("tmpfs", stage, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0711,size=64k,nr_inodes=1k")
    staged: list[argv.Bind] = []
    for number, (bind, fd) in enumerate(zip((*tools, *mounts), sources, strict=True)):
        target = f"{stage}/{number}"
        if os.path.isdir(f"/proc/self/fd/{fd}"):  # noqa: PTH112 - a magic link of an O_PATH descriptor
            Path(target).mkdir(mode=0o711)
        else:
            Path(target).touch(mode=0o600)
        syscalls.mount(f"/proc/self/fd/{fd}", target, None, syscalls.MS_BIND | syscalls.MS_REC)
        staged.append(bind._replace(source=target))
        os.close(fd)
    _let_go_of_disks()
    return tuple(staged[: len(tools)]), tuple(staged[len(tools) :])
