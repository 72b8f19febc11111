"""Calls that the filter refuses and reports: answered with EPERM, counted by name. *Stdlib only; runs in the keeper.*

Rules it keeps:
1. Every call is refused, whatever is said about it: what is told of it is evidence, never a decision.
2. A program that makes such calls without end costs us no more than a fixed share: beyond a number they are answered
   in small portions with pauses, and only counted.

Source: seccomp_unotify(2).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import struct

from vestibule.sandbox.local import seccomp

_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND
_CALL = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")

AT_ONCE = 1000
"""Refused calls that are answered at once; later ones wait their turn."""
PORTION, PAUSE_SECONDS = 16, 0.01


class Calls:
    """The listener's end of one sandbox."""

    def __init__(self, listener: int, machine: str) -> None:
        self.fd = listener
        self.counts: dict[str, int] = {}
        self.total = 0
        self._machine = machine

    @property
    def eager(self) -> bool:
        """Whether calls are still answered as they come."""
        return self.total < AT_ONCE

    def answer(self) -> list[str]:
        """Answers what is there, at most a portion; names that were met for the first time."""
        fresh = []
        poller = select.poll()
        poller.register(self.fd, select.POLLIN)
        for _ in range(PORTION):
            # The ioctl waits, whatever the descriptor's flags say; before Linux 6.11 even when nobody is left who
            # could ask (POLLHUP, which select(2) does not tell from a call).
            if not any(found & select.POLLIN for _, found in poller.poll(0)):
                break
            name = self._one()
            if name is None:
                continue
            if name not in self.counts:
                fresh.append(name)
            self.counts[name] = self.counts.get(name, 0) + 1
            self.total += 1
        return fresh

    def _one(self) -> str | None:
        call = bytearray(_CALL.size)
        try:
            fcntl.ioctl(self.fd, _RECEIVE, call)
        except OSError:
            return None  # who asked is dead
        number, _, _, nr, *_ = _CALL.unpack(call)
        with contextlib.suppress(OSError):  # killed meanwhile
            fcntl.ioctl(self.fd, _SEND, _ANSWER.pack(number, 0, -errno.EPERM, 0))
        return seccomp.name_of(self._machine, nr)

    def close(self) -> None:
        os.close(self.fd)
