"""What a verifier knows beforehand: pinned keys and remembered heads, in a folder of its own.

Rules it keeps:
1. A pin is written once. A different key for the same origin, or another log in the same folder, is an error.
2. Nothing here is ever taken from the log that is verified, except a head after it verified.
3. A remembered head only grows. One that cannot be read is an error, not an empty memory.

Files: `<origin>.pin` (JSON) and `<origin>.head` (the checkpoint as a signed note), origin percent-encoded.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from vestibule.audit.checkpoint import Checkpoint, open_checkpoint
from vestibule.audit.note import BadNote, VerifyingKey


class TrustError(Exception):
    """The trust folder contradicts what was to be pinned, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Pin:
    """A key known beforehand. `folder` is where that log lives, so that another log in its place is seen."""

    key: VerifyingKey
    folder: str

    @property
    def origin(self) -> str:
        return self.key.name


class Trust:
    """A folder of pins and heads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def pins(self) -> list[Pin]:
        """All pins.

        Raises:
            TrustError: one of them cannot be read or is malformed.
        """
        if not self.folder.is_dir():
            return []
        return [_read_pin(path) for path in sorted(self.folder.glob("*.pin"))]

    def pin_for(self, origin: str) -> Pin | None:
        """Raises `TrustError`."""
        path = self._path(origin, ".pin")
        if not os.path.lexists(path):
            return None
        pin = _read_pin(path)
        if pin.origin != origin:
            raise TrustError(f"{path} pins {pin.origin!r}, not the origin it is named for")
        return pin

    def pin_of_folder(self, folder: Path) -> Pin | None:
        """The pin of the log that lives in `folder`. Raises `TrustError`."""
        wanted = str(folder.resolve())
        return next((pin for pin in self.pins() if pin.folder == wanted), None)

    def add(self, pin: Pin) -> None:
        """Pins once; again the same key is fine.

        Raises:
            TrustError: another key is pinned for the origin, or another origin for the folder.
            OSError: it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._lock():
            known = self.pin_for(pin.origin)
            if known is not None:
                if known.key != pin.key:
                    raise TrustError(f"another key is already pinned for {pin.origin}")
                return
            other = next((item for item in self.pins() if item.folder == pin.folder), None)
            if other is not None:
                raise TrustError(f"{pin.folder} is pinned as the log {other.origin}")
            data = {"version": 1, "vkey": pin.key.text(), "folder": pin.folder}
            write_durably(self._path(pin.origin, ".pin"), json.dumps(data, indent=1) + "\n", mode=0o644)

    def head(self, key: VerifyingKey) -> Checkpoint | None:
        """The head remembered for that key's origin.

        Raises:
            TrustError: there is one, but it is not readable, or not signed by that key.
        """
        path = self._path(key.name, ".head")
        try:
            note = path.read_text("utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise TrustError(f"the remembered head {path} cannot be read ({type(error).__name__})") from None
        try:
            return open_checkpoint(note, [key])
        except BadNote as error:
            raise TrustError(f"the remembered head {path} is not valid: {error}") from None

    def remember(self, note: str, key: VerifyingKey) -> None:
        """Remembers a checkpoint that has been verified, unless a larger one is remembered.

        Raises:
            TrustError: the present memory cannot be read, or says otherwise.
            OSError: it cannot be written.
        """
        new = open_checkpoint(note, [key])
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._lock():
            old = self.head(key)
            if old is not None and old.size == new.size and old.root != new.root:
                raise TrustError(f"another root is remembered for size {new.size} of {new.origin}")
            if old is None or old.size < new.size:
                write_durably(self._path(key.name, ".head"), note, mode=0o644)

    def _path(self, origin: str, suffix: str) -> Path:
        name = quote(origin, safe="")
        if len(name) > 200 or name.startswith("."):
            raise TrustError("the log's origin is too long or begins with a dot")
        return self.folder / (name + suffix)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with locked(self.folder / ".lock"):
            yield


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on `path` between processes and threads."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_durably(path: Path, text: str, *, mode: int) -> None:
    """Replaces a file whole: written apart, synced, renamed over. Raises `OSError`."""
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        try:
            os.fchmod(descriptor, mode)
            view = memoryview(text.encode("utf-8"))
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Makes renames in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_pin(path: Path) -> Pin:
    try:
        data = json.loads(path.read_text("utf-8"))
        if data["version"] != 1 or not isinstance(data["folder"], str):
            raise TrustError(f"the pin {path} is of an unknown form")
        return Pin(VerifyingKey.parse(data["vkey"]), data["folder"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrustError(f"the pin {path} cannot be read ({type(error).__name__})") from None
