"""One pass over a log's stored entries: tree, order, shape, pairing, time. Nothing stored is believed."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Any, Final

from vestibule.audit.database import BrokenLog
from vestibule.audit.entry import ms_of, parse_entry
from vestibule.audit.report import RESTORE, Findings
from vestibule.audit.tree import CompactRange, leaf_hash

SKEW_MS: Final = 1_000
_ENTRIES: Final = "SELECT seq, ms, run, action, phase, intent, hashes, body FROM entries ORDER BY seq"


@dataclass(slots=True)
class Replay:
    """What one pass over the entries finds out."""

    problems: Findings
    notices: Findings
    tree: CompactRange = field(default_factory=CompactRange)
    roots: dict[int, bytes] = field(default_factory=dict)
    intents: dict[int, tuple[str, str, str | None]] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)
    last_time: str = ""
    last_ms: int = 0


def replay(connection: sqlite3.Connection, state: Replay, wanted: set[int]) -> None:
    """One pass over all entries."""
    problems, tree = state.problems, state.tree
    expected = 1
    for row in connection.execute(_ENTRIES):
        seq, hashes, body = row[0], row[6], row[7]
        if type(hashes) is not bytes or type(body) is not bytes:
            raise BrokenLog(f"the row of entry {seq} holds other types than the schema allows")
        if seq != expected:
            problems.add("entry.sequence", f"Entry {expected} is missing: {seq} stands in its place.", seq=expected)
        expected = seq + 1
        completed = tree.append(leaf_hash(body))
        if b"".join(completed) != hashes:
            changed = completed[0] != hashes[:32]
            what = (
                "its bytes are not those that were hashed" if changed else "its tree nodes are not those of the entries"
            )
            problems.add(
                "entry.changed" if changed else "tree.nodes", f"Entry {seq}: {what}.", seq=seq, next_step=RESTORE
            )
        if tree.size in wanted:
            state.roots[tree.size] = tree.root()
        try:
            fields = parse_entry(body)
        except ValueError as error:
            problems.add("entry.malformed", f"Entry {seq}: {error}.", seq=seq)
            continue
        if fields["seq"] != seq:
            problems.add("entry.sequence", f"Entry {seq} says it is entry {fields['seq']}.", seq=seq)
        if row[2:6] != (fields["run"], fields["action"], fields["phase"], fields["intent"]):
            problems.add("entry.index", f"Entry {seq}: the search columns do not say what the entry says.", seq=seq)
        _check_pairing(state, seq, fields)
        _check_time(state, seq, row[1], fields)


def _check_pairing(state: Replay, seq: int, fields: dict[str, Any]) -> None:
    if fields["phase"] == "intent":
        state.intents[seq] = (fields["run"], fields["action"], fields["verdict"])
        return
    intent = fields["intent"]
    known = state.intents.get(intent)
    if known is None:
        what = "a later one" if intent >= seq else "no intent that exists"
        state.problems.add("outcome.orphan", f"Entry {seq} is an outcome of entry {intent}, {what}.", seq=seq)
    elif known[:2] != (fields["run"], fields["action"]):
        state.problems.add("outcome.mismatch", f"Entry {seq} closes entry {intent} of another run or action.", seq=seq)
    elif intent in state.closed:
        state.problems.add("outcome.doubled", f"Entry {seq} is a second outcome of entry {intent}.", seq=seq)
    elif known[2] == "deny" and fields["result"] == "ok":
        state.problems.add(
            "outcome.denied", f"Entry {seq} reports the effect of entry {intent}, which was denied.", seq=seq
        )
    state.closed.add(intent)


def _check_time(state: Replay, seq: int, stored_ms: int, fields: dict[str, Any]) -> None:
    moment, last = fields["time"], state.last_time
    clock = fields["action"] == "audit.clock" and fields["subject"] == "system"
    if clock:
        state.notices.add("clock.jump", f"Entry {seq} records that the clock jumped by {_jump(fields)} ms.", seq=seq)
    if moment == last:
        ms = state.last_ms
    else:
        try:
            ms = ms_of(moment)
        except ValueError:
            state.problems.add("entry.malformed", f"Entry {seq}: its time is no time.", seq=seq)
            return
    back = state.last_ms - ms
    state.last_time, state.last_ms = moment, ms
    if ms != stored_ms:
        state.problems.add("entry.index", f"Entry {seq}: the time column does not say what the entry says.", seq=seq)
    if back > SKEW_MS and not (clock and fields["details"].get("last") == last):
        state.problems.add(
            "entry.time", f"Entry {seq} is {back} ms earlier than the one before, without a note of it.", seq=seq
        )


def _jump(fields: dict[str, Any]) -> int:
    jump = fields["details"].get("jump_ms")
    return jump if type(jump) is int else 0


def check_indexes(connection: sqlite3.Connection, problems: Findings) -> None:
    """An index that hides rows would make `show --run` lie."""
    answer = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(3)")]
    if answer != ["ok"]:
        problems.add("log.damaged", f"The database is damaged: {'; '.join(answer)[:300]}.", next_step=RESTORE)
