"""Offline verification of a whole log.

Rules it keeps:
1. Everything is worked out anew from the stored bytes: leaf, root, signature. Stored hashes are only compared.
2. The key is pinned or given. Nothing in the log says which key to believe; without one the answer is no.
3. What was once verified is remembered, and a log that is no extension of it is refused.
4. No network, no writing to the log. The evidence may be hostile: schema, sizes and shapes are checked before use.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from vestibule.audit.checkpoint import Checkpoint, open_checkpoint, peek
from vestibule.audit.database import FILE, BrokenLog, open_reader
from vestibule.audit.entry import ms_of
from vestibule.audit.note import BadNote, VerifyingKey
from vestibule.audit.replay import Replay, check_indexes, replay
from vestibule.audit.report import RESTORE, Findings, Verification, detects, does_not_detect
from vestibule.audit.trailers import TrailerHead, read_trailers
from vestibule.audit.trust import Trust, TrustError
from vestibule.core.errors import DependencyDown, UsageError
from vestibule.git import GitError

SEAL_GRACE_MS: Final = 10_000


def verify(
    folder: Path,
    trust: Path,
    *,
    keys: Sequence[str] = (),
    repo: Path | None = None,
    remember: bool = True,
    now_ms: int | None = None,
) -> Verification:
    """Verifies the log in `folder` (an audit folder, or a state folder that holds one).

    Args:
        trust: the folder of pins and remembered heads.
        keys: verifying keys in text form; given ones replace the pinned.
        repo: a repository whose merge commits name checkpoints.
        remember: whether a good result is remembered in `trust`.
        now_ms: the verifier's clock, in milliseconds since 1970.

    Raises:
        UsageError: there is no log and none is known there, a key is malformed, or `repo` is no repository.
    """
    folder = find_log(folder, Trust(trust))
    held = Trust(trust)
    given = given_keys(keys)
    trailers = _trailers(repo)
    problems, notices = Findings(), Findings()
    state = Replay(problems, notices)
    # Memory before the snapshot: what others append and remember meanwhile must not look like a rollback.
    memories = _memories(held, given)
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    try:
        with _snapshot(folder) as connection:
            notes = _checkpoint_notes(connection, problems)
            trusted = given or _pinned(held, folder, notes, problems)
            memory = _remembered(held, memories, trusted, problems)
            own_trailers = _own_trailers(trailers, trusted, problems, notices)
            wanted = {size for size, _ in notes} | {head.size for head in memory}
            wanted |= {item.checkpoint.size for item in own_trailers if item.checkpoint}
            replay(connection, state, wanted)
            check_indexes(connection, problems)
    except (sqlite3.Error, BrokenLog, OSError) as error:
        problems.add("log.unreadable", f"The log cannot be read: {error}.", next_step=RESTORE)
        return _result(state, None, [], [])
    signed, note = _check_checkpoints(state, notes, trusted)
    _check_memory(state, signed, memory)
    _check_trailers(state, signed, own_trailers)
    _check_tail(state, signed, now)
    for seq, (run, action, verdict) in state.intents.items():
        if verdict == "allow" and seq not in state.closed:
            notices.add(
                "intent.open",
                f"Entry {seq} ({action}, run {run or '-'}) allowed an effect whose outcome is not recorded.",
                seq=seq,
                next_step="It is under way, or was cut off; the next start closes what was cut off as unknown.",
            )
    key = next((item for item in trusted if signed and item.name == signed.origin), None)
    if remember and signed is not None and key is not None and not problems:
        _remember(held, note, key, problems, notices)
    return _result(state, signed, memory, own_trailers)


def find_log(folder: Path, trust: Trust) -> Path:
    """The audit folder meant by `folder`. Raises `UsageError` when there is no log and none is pinned there."""
    for candidate in (folder, folder / "audit"):
        if (candidate / FILE).exists():
            return candidate
    for candidate in (folder, folder / "audit"):
        with contextlib.suppress(TrustError):  # reported when the pins are needed
            if trust.pin_of_folder(candidate) is not None:
                return candidate
    raise UsageError(
        f"There is no audit log in {folder}.",
        why=f"Neither it nor its folder `audit` holds {FILE}.",
        next_step="Give the folder of the log, or run something first: the log begins with the first run.",
    )


@contextlib.contextmanager
def _snapshot(folder: Path) -> Iterator[sqlite3.Connection]:
    """The log in one read transaction. Of a folder that cannot be written, a copy: SQLite needs its `-shm`."""
    path = folder / FILE
    if not path.exists():
        raise BrokenLog(f"{path} is missing, though a log is known there")
    try:
        connection = open_reader(path)
    except sqlite3.OperationalError as error:
        if "unable to open" not in str(error) and "readonly" not in str(error):
            raise
        with tempfile.TemporaryDirectory(prefix="vestibule-verify-") as copy:
            for name in (FILE, FILE + "-wal"):
                if (folder / name).exists():
                    shutil.copyfile(folder / name, Path(copy) / name)
            with contextlib.closing(open_reader(Path(copy) / FILE)) as connection:
                yield connection
        return
    with contextlib.closing(connection):
        yield connection


def given_keys(texts: Sequence[str]) -> list[VerifyingKey]:
    """Verifying keys from their text form. Raises `UsageError`."""
    return [_given(text) for text in texts]


def _given(text: str) -> VerifyingKey:
    try:
        return VerifyingKey.parse(text.strip())
    except BadNote as error:
        raise UsageError(
            "The key given with --key is not a verifying key.",
            why=str(error),
            next_step="It has the form NAME+ID+BASE64, as `vestibule init` printed it.",
        ) from None


def _trailers(repo: Path | None) -> list[TrailerHead] | GitError | DependencyDown:
    if repo is None:
        return []
    try:
        return read_trailers(repo)
    except (GitError, DependencyDown) as error:
        return error


def _checkpoint_notes(connection: sqlite3.Connection, problems: Findings) -> list[tuple[int, str]]:
    notes = [
        (int(size), str(note)) for size, note in connection.execute("SELECT size, note FROM checkpoints ORDER BY size")
    ]
    if not notes:
        empty = connection.execute("SELECT 1 FROM entries LIMIT 1").fetchone() is None
        problems.add(
            "log.empty" if empty else "checkpoint.missing",
            "The log is empty: there is nothing to verify."
            if empty
            else "The log holds no signed checkpoint, so nothing vouches for its entries.",
            next_step="If it has only just begun, let its program run to its end; otherwise treat it as tampered with.",
        )
    return notes


def _pinned(held: Trust, folder: Path, notes: list[tuple[int, str]], problems: Findings) -> list[VerifyingKey]:
    """The pinned key: by this folder first, so that another valid log in its place is seen; else by origin."""
    claimed = ""
    if notes:
        with contextlib.suppress(BadNote):
            claimed = peek(notes[-1][1]).origin
    try:
        here = held.pin_of_folder(folder)
        by_origin = held.pin_for(claimed) if claimed else None
    except TrustError as error:
        problems.add(
            "trust.unreadable", f"The trust folder cannot be relied on: {error}.", next_step=f"See {held.folder}."
        )
        return []
    if here is not None and claimed and claimed != here.origin:
        problems.add(
            "log.exchanged",
            f"This folder is pinned as the log {here.origin}, but holds one that calls itself {claimed}.",
            next_step=RESTORE,
        )
    pin = here or by_origin
    if pin is None:
        problems.add(
            "key.unpinned",
            "No key is pinned for this log, and none was given, so its signatures prove nothing.",
            next_step="Get the verifying key from whoever runs the log, not from the log itself, and give it with "
            "--key; or run `vestibule init` on the machine that writes it.",
        )
        return []
    return [pin.key]


def _memories(held: Trust, given: Sequence[VerifyingKey]) -> dict[VerifyingKey, Checkpoint | TrustError | None]:
    """The heads remembered for the keys that may come to count."""
    found: dict[VerifyingKey, Checkpoint | TrustError | None] = {}
    try:
        keys = given or [pin.key for pin in held.pins()]
    except TrustError:  # said when the pin is looked up
        return found
    for key in keys:
        try:
            found[key] = held.head(key)
        except TrustError as error:
            found[key] = error
    return found


def _remembered(
    held: Trust,
    memories: dict[VerifyingKey, Checkpoint | TrustError | None],
    keys: Sequence[VerifyingKey],
    problems: Findings,
) -> list[Checkpoint]:
    found = []
    for key in keys:
        head = memories[key] if key in memories else _memories(held, [key])[key]  # a pin made this moment
        if isinstance(head, TrustError):
            problems.add("memory.unreadable", f"{head}.", next_step=f"Look into {held.folder}; do not just delete it.")
        elif head is not None:
            found.append(head)
    return found


def _own_trailers(
    trailers: list[TrailerHead] | GitError | DependencyDown,
    keys: Sequence[VerifyingKey],
    problems: Findings,
    notices: Findings,
) -> list[TrailerHead]:
    """Those of this log; another log's are none of ours."""
    if isinstance(trailers, (GitError, DependencyDown)):
        problems.add("repo.unreadable", f"The repository cannot be read: {trailers}.")
        return []
    origins = {key.name for key in keys}
    own = []
    for item in trailers:
        if item.checkpoint is None:
            problems.add(
                "repo.trailer", f"The checkpoint trailer of merge {item.commit[:12]} is malformed: {item.error}."
            )
        elif item.checkpoint.origin in origins:
            own.append(item)
        else:
            notices.add("repo.other", f"Merge {item.commit[:12]} names another log, {item.checkpoint.origin}.")
    return own


def _check_checkpoints(
    state: Replay, notes: list[tuple[int, str]], keys: Sequence[VerifyingKey]
) -> tuple[Checkpoint | None, str]:
    """Every checkpoint, against the key and the entries. The last good one, with its note."""
    best: tuple[Checkpoint | None, str] = (None, "")
    if not keys:
        return best
    for size, note in notes:
        try:
            head = open_checkpoint(note, keys)
        except BadNote as error:
            state.problems.add("checkpoint.signature", f"The checkpoint at {size} entries: {error}.", next_step=RESTORE)
            continue
        if head.size != size:
            state.problems.add("checkpoint.place", f"The checkpoint filed under {size} is one of {head.size} entries.")
        elif head.size > state.tree.size:
            state.problems.add(
                "log.truncated",
                f"A checkpoint covers {head.size} entries, but the log holds {state.tree.size}: its end was cut off.",
                next_step=RESTORE,
            )
        elif state.roots.get(size) != head.root:
            state.problems.add(
                "checkpoint.root", f"The first {size} entries are not the ones that were signed.", next_step=RESTORE
            )
        else:
            best = (head, note)
    return best


def _check_memory(state: Replay, signed: Checkpoint | None, memory: Sequence[Checkpoint]) -> None:
    for head in memory:
        _check_known(state, signed, head, "memory", "An earlier verification remembers")


def _check_trailers(state: Replay, signed: Checkpoint | None, trailers: Sequence[TrailerHead]) -> None:
    for item in trailers:
        if item.checkpoint is not None:
            _check_known(state, signed, item.checkpoint, "repo", f"Merge {item.commit[:12]} names")


def _check_known(state: Replay, signed: Checkpoint | None, head: Checkpoint, kind: str, who: str) -> None:
    if head.size > state.tree.size:
        message = (
            f"{who} a head of {head.size} entries; the log holds {state.tree.size}. It was cut off or rolled back."
        )
        state.problems.add(f"{kind}.rollback", message, next_step=RESTORE)
    elif head.size and state.roots.get(head.size) != head.root:
        message = f"{who} another root for the first {head.size} entries: the log was rewritten, or is a fork."
        state.problems.add(f"{kind}.fork", message, next_step=RESTORE)
    elif signed is not None and head.size > signed.size:
        message = f"{who} a head of {head.size} entries; the log's last valid checkpoint covers {signed.size}."
        state.problems.add(f"{kind}.checkpoint", message, next_step=RESTORE)


def _check_tail(state: Replay, signed: Checkpoint | None, now_ms: int) -> None:
    """Entries after the last checkpoint. A running log has some for a second; later they are a problem."""
    unsealed = state.tree.size - (signed.size if signed else 0)
    if signed is None or unsealed == 0:
        return
    message = f"The last {unsealed} entries are not covered by a signed checkpoint."
    try:
        young = abs(now_ms - ms_of(state.last_time)) <= SEAL_GRACE_MS
    except ValueError:
        young = False
    if young:
        state.notices.add("tail.unsealed", message, next_step="A running log signs them within a second.")
    else:
        state.problems.add(
            "tail.unsealed",
            message,
            next_step="A killed process leaves such an end; the next start signs it.",
        )


def _remember(held: Trust, note: str, key: VerifyingKey, problems: Findings, notices: Findings) -> None:
    try:
        held.remember(note, key)
    except TrustError as error:
        problems.add("memory.fork", f"{error}.", next_step=RESTORE)
    except OSError as error:
        notices.add("memory.unwritable", f"The head could not be remembered: {error.strerror}.")


def _result(
    state: Replay, signed: Checkpoint | None, memory: Sequence[Checkpoint], trailers: Sequence[TrailerHead]
) -> Verification:
    remembered = max((head.size for head in memory), default=0)
    merged = max((item.checkpoint.size for item in trailers if item.checkpoint), default=0)
    size = signed.size if signed else 0
    return Verification(
        origin=signed.origin if signed else "",
        size=size,
        root=signed.root_base64 if signed else "",
        entries=state.tree.size,
        unsealed=state.tree.size - size,
        problems=state.problems.all(),
        notices=state.notices.all(),
        detects=detects(size, remembered, merged),
        does_not_detect=does_not_detect(remembered, merged),
    )
