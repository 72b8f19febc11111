"""The native export: entries as stored, each with its inclusion proof, under one signed checkpoint (JSON Lines).

The first line is `{"checkpoint": NOTE}`, a C2SP signed note; each further line is
`{"entry": TEXT, "proof": [BASE64, …]}`, where TEXT's UTF-8 bytes are the leaf, proved as RFC 9162's leaf `seq - 1`.
An export of one run proves each entry that it holds, not that it holds all of them.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vestibule.audit.checkpoint import Checkpoint, open_checkpoint, peek
from vestibule.audit.database import FILE, BrokenLog, node_reader, open_reader
from vestibule.audit.entry import parse_entry
from vestibule.audit.keys import audit_down
from vestibule.audit.log import down
from vestibule.audit.note import BadNote, VerifyingKey
from vestibule.audit.report import Findings, Verification
from vestibule.audit.tree import inclusion_proof, leaf_hash, verify_inclusion
from vestibule.audit.trust import Trust, TrustError

MAX_LINE = 1 << 20


def export(folder: Path, run: str | None = None) -> Iterator[str]:
    """Lines of the export, of one run or of all, as far as the last signed checkpoint goes.

    Raises:
        DependencyDown: `audit`: unreadable, or nothing is signed yet.
    """
    try:
        with contextlib.closing(open_reader(folder / FILE)) as connection:
            row = connection.execute("SELECT size, note FROM checkpoints ORDER BY size DESC LIMIT 1").fetchone()
            if row is None:
                raise audit_down("The audit log holds no signed checkpoint yet.", person="Let its program end first.")
            size, note = int(row[0]), str(row[1])
            yield _line({"checkpoint": note})
            read = node_reader(connection)
            query = "SELECT seq, body FROM entries WHERE seq <= ? AND (? IS NULL OR run = ?) ORDER BY seq"
            for seq, body in connection.execute(query, (size, run, run)):
                proof = [base64.b64encode(item).decode() for item in inclusion_proof(seq - 1, size, read)]
                yield _line({"entry": bytes(body).decode("utf-8"), "proof": proof})
    except (sqlite3.Error, OSError, BrokenLog, UnicodeDecodeError) as error:
        raise down(error, folder) from None


def verify_export(lines: Iterable[str], trust: Path, *, keys: Sequence[VerifyingKey] = ()) -> Verification:
    """Verifies an export offline, with the keys given or else the pinned one. Nothing is remembered."""
    problems = Findings()
    head: Checkpoint | None = None
    count = last = 0
    for number, line in enumerate(lines, start=1):
        try:
            record = _record(line)
            if number == 1:
                head = _head(record, trust, keys)
            elif head is not None:
                last = _check(record, head, last)
                count += 1
        except (BadNote, TrustError, ValueError) as error:
            problems.add("export.invalid", f"Line {number}: {error}.", seq=None)
            if number == 1:
                break
    if head is None and not problems:
        problems.add("export.invalid", "The export is empty.")
    return Verification(
        origin=head.origin if head else "",
        size=head.size if head else 0,
        root=head.root_base64 if head else "",
        entries=count,
        unsealed=0,
        problems=problems.all(),
        notices=(),
        detects=("an exported entry that was changed, invented or reordered, without the log's key",) if head else (),
        does_not_detect=(
            "entries left out of the export",
            "an action that was never recorded",
            "another history made with the log's key",
            "a wrong clock",
        ),
    )


def _head(record: dict[str, Any], trust: Path, keys: Sequence[VerifyingKey]) -> Checkpoint:
    note = record.get("checkpoint")
    if record.keys() != {"checkpoint"} or not isinstance(note, str):
        raise ValueError("the first line is no checkpoint")
    pin = None if keys else Trust(trust).pin_for(peek(note).origin)
    trusted = list(keys) or ([pin.key] if pin else [])
    if not trusted:
        raise ValueError("no key is pinned for this log; give the verifying key with --key")
    return open_checkpoint(note, trusted)


def _check(record: dict[str, Any], head: Checkpoint, last: int) -> int:
    text, proof = record.get("entry"), record.get("proof")
    if record.keys() != {"entry", "proof"} or not isinstance(text, str) or not isinstance(proof, list):
        raise ValueError("it is no entry with its proof")
    body = text.encode("utf-8")
    seq = parse_entry(body)["seq"]
    try:
        path = [base64.b64decode(item, validate=True) for item in proof]
    except (TypeError, binascii.Error):
        raise ValueError("its proof is malformed") from None
    if seq <= last:
        raise ValueError("it is out of order")
    if not verify_inclusion(seq - 1, head.size, leaf_hash(body), path, head.root):
        raise ValueError(f"entry {seq} is not in the signed tree")
    return int(seq)


def _record(line: str) -> dict[str, Any]:
    if len(line) > MAX_LINE:
        raise ValueError("it is too long")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    if not isinstance(record, dict):
        raise ValueError("it is no JSON object")
    return record


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"
