"""The launch server: a small single-threaded process that forks one keeper per sandbox. *Stdlib only; run as a script.*

Forking a supervisor with threads is unsafe, and a new interpreter for each sandbox costs more than the sandbox
(field measurement: 10 ms each). So one small process is started once, before it is needed, with an empty
environment and without site-packages, and forks from then on. It ends with its supervisor.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys


def main() -> None:
    """`server.py SOURCE-ROOT FD`: packets on that socket each carry one keeper's socket."""
    sys.path.insert(0, sys.argv[1])
    from vestibule.sandbox.local import keeper, limits, wire

    limits.own_place()  # read once here, for all keepers
    gc.disable()  # keepers are small and short; a collection would only copy pages that are shared
    gc.freeze()
    control = socket.socket(fileno=int(sys.argv[2]))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are not waited for
    while True:
        try:
            _, fds = wire.receive(control)
        except wire.Gone:
            return
        if os.fork() == 0:
            try:
                control.close()
                keeper.run(socket.socket(fileno=fds[0]))
            finally:
                os._exit(0)
        wire.close_all(fds)


if __name__ == "__main__":
    main()
