"""What policy was asked, kept so that a changed policy can be tried on it later (`vestibule policy replay`).

One file for each run in the run's own folder, 0600, one JSON object a line; it goes when that folder goes. Each input
is written before its decision is used. The audit log has the input's digest and not the input, so a line is worth
what its digest says: replay compares the two and names the decisions whose input is not there.

Rules it keeps:
1. An input is kept as it was judged; the file is only appended to, one write for each line.
2. A full disk or a full file never changes a decision: these are records for people, no evidence of a guard.
3. The file is bounded; beyond `MAX_INPUTS_BYTES` nothing more is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vestibule.core.canonical import canonical_json, digest
from vestibule.core.ports import Decider, PolicyInput
from vestibule.core.verdict import Verdict

FILE = "policy-inputs.jsonl"
MAX_INPUTS_BYTES = 64 * 1024 * 1024
MAX_SEEN = 65536


class KeepingDecider:
    """A decider that writes down what it is asked. Thread-safe."""

    def __init__(self, decider: Decider, folder: Path) -> None:
        from vestibule.policy import input_key  # with its engine, which not every command needs

        self._key = input_key
        self._decider = decider
        self._path = folder / FILE
        self._seen: set[int] = set()
        self._latest: PolicyInput | None = None
        self._lock = threading.Lock()

    @property
    def digest(self) -> str:
        return self._decider.digest

    def decide(self, request: PolicyInput) -> Verdict:
        """As the decider within; the input is kept first. Never raises."""
        # The decider denies what has no canonical form, and a disk that is full stops the audit log first.
        with contextlib.suppress(OSError, TypeError, ValueError, RecursionError):
            self._keep(request)
        return self._decider.decide(request)

    def _keep(self, request: PolicyInput) -> None:
        if request is self._latest:
            return  # the very input as last time: nouns do not change
        # The hash of equal inputs is equal; should it be that of another one too, one input is not kept, and replay
        # says so.
        seen = hash(self._key(request))
        if seen in self._seen or len(self._seen) >= MAX_SEEN:
            self._latest = request
            return
        line = canonical_json(request.model_dump(mode="json"))
        with self._lock:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                if os.fstat(descriptor).st_size + len(line) < MAX_INPUTS_BYTES:
                    os.write(descriptor, line + b"\n")
            finally:
                os.close(descriptor)
            self._seen.add(seen)


def kept_inputs(folder: Path) -> dict[str, PolicyInput]:
    """The inputs kept in a run's folder, by their digest. A line that cannot be read is left out: it has no digest
    that any decision names."""
    found: dict[str, PolicyInput] = {}
    for line in _lines(folder / FILE):
        try:
            document: Any = json.loads(line)
            found[digest(document)] = PolicyInput.model_validate(document)
        except (ValueError, TypeError, RecursionError):
            continue
    return found


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except FileNotFoundError:
        return
