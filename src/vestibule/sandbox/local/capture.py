"""Standard streams of a sandbox: bounded capture, and relays that keep host files out of reach.

A program can open `/proc/self/fd/0` again with other rights than the descriptor has. Only terminals, pipes and
/dev/null therefore go in as they are; files, sockets and devices are copied through a pipe.

A program can also hand its end of a pipe to a process of another sandbox on the same workspace. The end of a sandbox
is therefore when its processes are dead, never when its pipes are closed.
"""

from __future__ import annotations

import os
import select
import stat
import threading

from vestibule.sandbox.local import wire

_CHUNK = 1 << 16
_PIPE = 1 << 20
"""The most that a pipe of a program without privileges holds (pipe(7), `pipe-max-size`)."""


class Capture:
    """Collects a stream up to `limit` bytes and throws the rest away, so that the program never blocks on us."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._chunks: list[bytes] = []
        self._size = 0
        self.seen = 0
        self.truncated = False
        self.read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC)
        self._dead = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._collect, daemon=True, name="sandbox-output")

    def start(self) -> None:
        """The writing end now belongs to the sandbox."""
        os.close(self.write_fd)
        self._thread.start()

    def finish(self) -> bytes:
        """What was written. Call once, when every process of the sandbox is dead."""
        os.eventfd_write(self._dead, 1)
        self._thread.join()
        os.close(self._dead)
        return b"".join(self._chunks)

    def discard(self) -> None:
        """The sandbox never started."""
        for fd in (self.read_fd, self.write_fd, self._dead):
            os.close(fd)

    def _collect(self) -> None:
        poller = select.poll()
        poller.register(self.read_fd, select.POLLIN)
        poller.register(self._dead, select.POLLIN)
        left = _PIPE
        try:
            while left > 0:
                ready = {fd for fd, _ in poller.poll()}
                if self.read_fd not in ready:
                    return  # all are dead, and all that they wrote is here
                chunk = os.read(self.read_fd, _CHUNK)
                if not chunk:
                    return
                if self._dead in ready:
                    left -= len(chunk)
                self.seen += len(chunk)
                room = self._limit - self._size
                if len(chunk) > room:
                    self.truncated = True
                    chunk = chunk[: max(0, room)]
                if chunk:
                    self._chunks.append(chunk)
                    self._size += len(chunk)
        finally:
            os.close(self.read_fd)


class Relay:
    """Copies between a host descriptor and a pipe."""

    def __init__(self, host_fd: int, *, inward: bool) -> None:
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        self.fd = read_fd if inward else write_fd  # the sandbox's end
        self._source = os.dup(host_fd) if inward else read_fd
        self._sink = write_fd if inward else os.dup(host_fd)
        self._thread = threading.Thread(target=self._copy, daemon=True, name="sandbox-relay")
        self._inward = inward

    def start(self) -> None:
        os.close(self.fd)
        self._thread.start()

    def finish(self) -> None:
        """Everything the program wrote has arrived. (A reader of our input may still wait for its source.)"""
        if not self._inward:
            self._thread.join()

    def discard(self) -> None:
        for fd in (self.fd, self._source, self._sink):
            os.close(fd)

    def _copy(self) -> None:
        try:
            while chunk := os.read(self._source, _CHUNK):
                view = memoryview(chunk)
                while view:
                    view = view[os.write(self._sink, view) :]
        except OSError:
            pass  # the other side is gone: nothing is left to copy
        finally:
            os.close(self._source)
            os.close(self._sink)


def passes_directly(fd: int) -> bool:
    """Whether a descriptor may go in as it is."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode):
        return True
    if stat.S_ISCHR(mode):
        return os.isatty(fd) or os.fstat(fd).st_rdev == os.makedev(1, 3)
    return False


class Streams:
    """The three standard streams of one sandbox, from the caller's wishes to what goes in."""

    def __init__(self, stdin: bytes | int | None, stdout: int | None, stderr: int | None, *, limit: int) -> None:
        self._relays: list[Relay] = []
        self._owned: list[int] = []
        self.out = Capture(limit) if stdout is None else None
        self.err = Capture(limit) if stderr is None else None
        self.fds = (
            self._input(stdin),
            self.out.write_fd if self.out else self._output(stdout),
            self.err.write_fd if self.err else self._output(stderr),
        )

    def _input(self, stdin: bytes | int | None) -> int:
        if isinstance(stdin, int):
            if passes_directly(stdin):
                return stdin
            self._relays.append(Relay(stdin, inward=True))
            return self._relays[-1].fd
        fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) if stdin is None else wire.memory_file(stdin)
        self._owned.append(fd)
        return fd

    def _output(self, fd: int | None) -> int:
        if fd is None or passes_directly(fd):
            return -1 if fd is None else fd
        self._relays.append(Relay(fd, inward=False))
        return self._relays[-1].fd

    @property
    def seen(self) -> int:
        """Bytes of output that came so far, as far as it is captured; thrown away or not."""
        return sum(item.seen for item in (self.out, self.err) if item)

    def handed_over(self) -> None:
        """The keeper has its copies."""
        for fd in self._owned:
            os.close(fd)
        for relay in self._relays:
            relay.start()
        for capture in (self.out, self.err):
            if capture:
                capture.start()

    def discard(self) -> None:
        """Nothing was handed over."""
        for fd in self._owned:
            os.close(fd)
        for item in (*self._relays, self.out, self.err):
            if item:
                item.discard()

    def finish(self) -> tuple[bytes, bytes, bool]:
        """(stdout, stderr, truncated) as far as captured; relays are flushed."""
        for relay in self._relays:
            relay.finish()
        out = self.out.finish() if self.out else b""
        err = self.err.finish() if self.err else b""
        return out, err, any(capture.truncated for capture in (self.out, self.err) if capture)
