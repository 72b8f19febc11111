"""The launch server: a small single-threaded process that forks one keeper per sandbox. *Stdlib only; run as a script.*

Forking a supervisor with threads is unsafe, and a new interpreter for each sandbox costs more than the sandbox
(field measurement: 10 ms each). So one small process is started once, before it is needed, with an empty
environment and without site-packages, and forks from then on. It ends with its supervisor.

One keeper waits warm: moving a process into a control group takes the kernel a grace period (20 ms and more under
load), so the next launcher is in its group before it is asked for. It holds nothing of any run.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
from pathlib import Path


def main() -> None:
    """`server.py SOURCE-ROOT FD`: packets on that socket each carry one keeper's socket."""
    sys.path.insert(0, sys.argv[1])
    from vestibule.sandbox.local import keeper, limits, wire  # loaded once, before forking

    limits.own_place()  # read once here, for all keepers
    keeper.ENCLOSED = _leave_the_network()
    gc.disable()  # keepers are small and short; a collection would only copy pages that are shared
    gc.freeze()
    control = socket.socket(fileno=int(sys.argv[2]))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are not waited for
    limits.sweep()
    mounted: set[str] = set()
    warm = _warm_keeper(control)
    while True:
        try:
            message, fds = wire.receive(control)
        except wire.Gone:
            _unmount(mounted)
            return
        if message["op"] != "new":
            (mounted.add if message["op"] == "holds" else mounted.discard)(message["path"])
            continue
        try:
            wire.send(warm, {}, fds)
        except wire.Gone:  # it was killed while it waited
            warm = _warm_keeper(control)
            wire.send(warm, {}, fds)
        wire.close_all(fds)
        warm.close()
        warm = _warm_keeper(control)


def _leave_the_network() -> bool:
    """Move into an empty network namespace, whose loopback stays down; whether that worked.

    Nothing here needs a network, and each sandbox makes a namespace of its own. This one is around them all: were a
    sandbox ever left without its own, it would be here and not in the host's. Without root it takes a user namespace
    that maps our own uid alone; where that is forbidden (some machines allow it to bubblewrap only) we stay.
    """
    from vestibule.sandbox.local import limits, syscalls

    uid, gid = os.geteuid(), os.getegid()
    try:
        if uid == 0:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            return True
        syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNET)
    except OSError:
        return False
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        Path("/proc/self", name).write_text(text)
    limits.apart = os.getpid()
    return True


def _unmount(places: set[str]) -> None:
    """Workspaces' disks that our supervisor mounted: it died before it could unmount them."""
    from vestibule.sandbox.local import syscalls

    for place in places:
        with contextlib.suppress(OSError):
            while os.path.ismount(place):
                syscalls.umount(place, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)


def _warm_keeper(control: socket.socket) -> socket.socket:
    """Fork the next keeper; what is sent on the socket is its first and only supervisor's."""
    from vestibule.sandbox.local import keeper

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        try:
            control.close()
            ours.close()
            keeper.run(theirs)
        finally:
            os._exit(0)
    theirs.close()
    return ours


if __name__ == "__main__":
    main()
