"""The supervisor's end of the launch server: start it once per process, ask it for keepers."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import vestibule
from vestibule.core.errors import DependencyDown
from vestibule.sandbox.local import wire

_SERVER = Path(__file__).with_name("server.py")
_SOURCE_ROOT = Path(vestibule.__file__).parent.parent


class LaunchServer:
    """One per process. Thread-safe; a server that died is started again, once per request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def start(self) -> None:
        """Start it if it does not run. Cheap to call early: the server gets ready in the background."""
        with self._lock:
            self._ensure()

    def keeper(self) -> socket.socket:
        """A socket to a fresh keeper.

        Raises:
            DependencyDown: `sandbox`; the server cannot be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with self._lock:
                for attempt in range(2):
                    control = self._ensure()
                    try:
                        wire.send(control, {"op": "new"}, [theirs.fileno()])
                        return ours
                    except wire.Gone:
                        self._stop()
                        if attempt:
                            break
        finally:
            theirs.close()
        ours.close()
        raise DependencyDown("sandbox", "The launch server of sandboxes does not stay up.")

    def holds(self, path: str) -> None:
        """The server unmounts `path` should we die. Raises DependencyDown: `sandbox`."""
        self._tell("holds", path)

    def released(self, path: str) -> None:
        """Nothing is mounted at `path` any more."""
        with contextlib.suppress(DependencyDown):
            self._tell("released", path)

    def _tell(self, op: str, path: str) -> None:
        with self._lock:
            try:
                wire.send(self._ensure(), {"op": op, "path": path})
            except wire.Gone:
                self._stop()
                raise DependencyDown("sandbox", "The launch server of sandboxes does not stay up.") from None

    def stop(self) -> None:
        """End the server; keepers that live go on."""
        with self._lock:
            self._stop()

    def _ensure(self) -> socket.socket:
        if self._control is not None and self._owner == os.getpid():
            return self._control
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [sys.executable, "-I", "-S", "-B", str(_SERVER), str(_SOURCE_ROOT), str(theirs.fileno())]
        try:
            self._process = subprocess.Popen(
                argv,
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a Ctrl-C at the terminal is the supervisor's to handle
            )
        except OSError as error:
            ours.close()
            raise DependencyDown(
                "sandbox", "The launch server of sandboxes cannot be started.", fact=str(error.strerror)
            ) from None
        finally:
            theirs.close()
        self._control, self._owner = ours, os.getpid()
        return ours

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        self._control = None
        if self._process is not None and self._owner == os.getpid():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        self._process = None


SERVER = LaunchServer()
