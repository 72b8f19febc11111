"""What an agent printed, kept as evidence: a file beside the run, its digest in the log.

Rules it keeps:
1. The file is written once, bounded, for the supervisor's user only (0600), before the event that names it: the
   outcome of `agent.start` holds its digest and size, so a transcript that was changed, cut or removed later is seen.
2. It decides nothing. It is the agent's own account: work is judged by the patch and the gateways' records.

What is kept is standard output and standard error. HOME is memory that goes with the sandbox: conversation files of
the program's own (`~/.claude/projects`) are not kept, for Claude Code's `stream-json` output holds the same turns.
A supervisor that was killed leaves no transcript; the log then has no outcome, or one that says `unknown`.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vestibule.core.base import Noun

if TYPE_CHECKING:
    from vestibule.audit.entry import Entry

MAX_TRANSCRIPT_BYTES = 32 << 20
"""Of one attempt; the middle is left out, and the file says so."""

_NAME = re.compile(r"transcript-[0-9]+-[0-9]+\.log\Z")


class Transcript(Noun):
    """A transcript as the log names it, and what became of the file: `kept`, `missing`, `changed` or `unreadable`."""

    attempt: int
    file: str
    sha256: str
    size: int
    cut: bool
    state: str


def transcript_of(stdout: bytes, stderr: bytes, *, cut: bool) -> tuple[bytes, bool]:
    """The bytes to keep, and whether something of what was printed is missing."""
    whole = stdout + (b"\n--- stderr ---\n" + stderr if stderr else b"")
    if len(whole) <= MAX_TRANSCRIPT_BYTES:
        return whole, cut
    half = MAX_TRANSCRIPT_BYTES // 2 - 64
    left_out = len(whole) - 2 * half
    return whole[:half] + b"\n--- %d bytes left out ---\n" % left_out + whole[-half:], True


def keep(folder: Path, name: str, data: bytes, *, cut: bool) -> dict[str, Any]:
    """Write `data` as `folder/name`, durably; what the log says of it.

    Raises:
        OSError: it could not be written. An earlier file of that name is replaced, never written through.
    """
    scratch = folder / f".{name}.tmp"
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(folder / name)
    return {"file": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "cut": cut}


def transcripts(folder: Path, entries: Iterable[Entry]) -> Iterator[Transcript]:
    """Every transcript that the log of a run names, compared with the file in the run's folder."""
    for entry in entries:
        event = entry.event
        if event.action != "agent.start" or event.phase != "outcome" or event.subject != "system":
            continue
        told = event.details.get("transcript")
        if not isinstance(told, dict) or not _NAME.match(str(told.get("file", ""))):
            continue
        yield Transcript(
            attempt=event.attempt,
            file=str(told["file"]),
            sha256=str(told.get("sha256", "")),
            size=int(told.get("size", 0)),
            cut=bool(told.get("cut", False)),
            state=_state(folder / str(told["file"]), str(told.get("sha256", "")), int(told.get("size", 0))),
        )


def _state(path: Path, sha256: str, size: int) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return "missing"
    except OSError:
        return "unreadable"
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_size != size:
        os.close(descriptor)
        return "changed"
    with os.fdopen(descriptor, "rb") as file:
        return "kept" if hashlib.file_digest(file, "sha256").hexdigest() == sha256 else "changed"
