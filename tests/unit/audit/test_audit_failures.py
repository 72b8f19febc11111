"""Whatever the log depends on breaks: nothing is acknowledged that is not durable, and everything later is refused."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from audit_helpers import Place, event, outcome, rules

from vestibule.audit.database import BrokenLog, open_writer
from vestibule.audit.entry import prepare
from vestibule.audit.keys import HEAD_FILE, KEY_FILE, ensure_key, pin_key
from vestibule.audit.log import AuditLog
from vestibule.audit.note import SigningKey
from vestibule.audit.sequencer import Sequencer
from vestibule.audit.trust import Pin, Trust, TrustError
from vestibule.core.errors import DependencyDown

AS_ROOT = os.geteuid() == 0


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def refused(log: AuditLog) -> DependencyDown:
    error = log.submit(event(verdict="deny")).exception(timeout=20)
    assert isinstance(error, DependencyDown)
    assert error.refusal.rule == "dependency.audit"
    assert error.refusal.next.person
    return error


def fill_until_refused(log: AuditLog) -> tuple[int, DependencyDown]:
    """The last acknowledged place, and the refusal."""
    last = 0
    for _ in range(5_000):
        future = log.submit(event(verdict="deny", details={"pad": "x" * 8_000}))
        error = future.exception(timeout=20)
        if error is not None:
            assert isinstance(error, DependencyDown)
            return last, error
        last = future.result().seq
    raise AssertionError("the disk never filled")


def test_a_full_database_refuses_now_and_later_and_loses_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from vestibule.audit import sequencer

    def limited(path: Path, *, busy_ms: int) -> sqlite3.Connection:
        connection = open_writer(path, busy_ms=busy_ms)
        connection.execute("PRAGMA max_page_count=60")
        return connection

    monkeypatch.setattr(sequencer, "open_writer", limited)
    log = place.open()
    last, error = fill_until_refused(log)
    assert "disk is full" in error.refusal.reason
    refused(log)
    with pytest.raises(DependencyDown):
        log.checkpoint()
    log.close()
    monkeypatch.setattr(sequencer, "open_writer", open_writer)
    with place.open() as again:
        assert again.append(event(verdict="deny")).seq == last + 1
    assert place.verify().ok


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    if not AS_ROOT:
        pytest.skip("mounting a small file system needs root")
    where = tmp_path / "small"
    where.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(where)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("mounting is not permitted here")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


def test_a_full_disk_refuses_now_and_later_and_loses_nothing(small_disk: Path) -> None:
    place = Place(small_disk)
    log = place.open()
    last, error = fill_until_refused(log)
    assert "disk is full" in error.refusal.reason
    assert last > 10
    refused(log)
    log.close()
    with sqlite3.connect(f"file:{place.db}?mode=ro", uri=True) as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone()[0] >= last
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    with place.open() as again:
        assert again.append(event(verdict="deny")).seq == last + 1
    assert place.verify().ok


def test_a_locked_database_is_refused_and_stays_refused_until_reopened(place: Place) -> None:
    log = place.open(busy_ms=50)
    with contextlib.closing(sqlite3.connect(place.db, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "locked" in refused(log).refusal.reason
        other.execute("ROLLBACK")
    refused(log)
    log.close()
    with place.open() as again:
        assert again.append(event(verdict="deny")).seq == 1


@pytest.mark.parametrize("damage", ["header", "page", "empty", "garbage"])
def test_a_damaged_file_is_refused_by_writer_and_verifier(place: Place, damage: str) -> None:
    place.fill(200)
    data = bytearray(place.db.read_bytes())
    if damage == "header":
        data[:16] = b"no database here"
    elif damage == "page":
        for page in range(1, len(data) // 4096):
            data[page * 4096 : page * 4096 + 64] = os.urandom(64)
    else:
        data = bytearray(b"" if damage == "empty" else os.urandom(8192))
    place.db.write_bytes(data)
    with pytest.raises(DependencyDown):
        place.open().append(event())
    result = place.verify()
    assert not result.ok


def test_damage_under_a_running_log_is_refused(place: Place) -> None:
    log = place.open()
    log.append(event(verdict="deny"))
    with contextlib.closing(sqlite3.connect(place.db)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    place.db.write_bytes(os.urandom(place.db.stat().st_size))
    refused(log)
    refused(log)
    log.close()


@pytest.mark.parametrize("how", ["deleted", "exchanged"])
def test_a_log_whose_file_vanished_is_refused(place: Place, how: str) -> None:
    log = place.open()
    log.append(event(verdict="deny"))
    copy = place.root / "other.db"
    shutil.copy(place.db, copy)
    place.db.unlink()
    if how == "exchanged":
        copy.rename(place.db)
    refused(log)
    refused(log)
    log.close()


def test_a_log_that_got_shorter_meanwhile_is_refused(place: Place) -> None:
    log = place.open()
    for _ in range(3):
        log.append(event(verdict="deny"))
    with contextlib.closing(sqlite3.connect(place.db, isolation_level=None)) as other:
        other.execute("DROP TRIGGER entries_no_delete")
        other.execute("DELETE FROM entries WHERE seq = 3")
    assert "not the log it was" in refused(log).refusal.reason
    log.close()


def test_a_closed_log_is_refused_and_closing_twice_is_fine(place: Place) -> None:
    log = place.open()
    log.append(event(verdict="deny"))
    log.close()
    log.close()
    assert "closed" in refused(log).refusal.reason
    with pytest.raises(DependencyDown):
        log.checkpoint()


def test_a_folder_that_cannot_be_written_is_refused(place: Place, tmp_path: Path) -> None:
    place.fill(4)
    script = f"""
        import os, sys
        from pathlib import Path
        from vestibule.audit.log import AuditLog
        from vestibule.core.errors import DependencyDown
        try:
            AuditLog.open(Path({str(place.folder)!r}), Path({str(place.trust)!r}))
        except DependencyDown as error:
            sys.exit(7 if error.refusal.rule == "dependency.audit" else 8)
    """
    argv = [sys.executable, "-c", textwrap.dedent(script)]
    if AS_ROOT:
        mount = f'mount --bind {place.folder} {place.folder} && mount -o remount,ro,bind {place.folder} && exec "$@"'
        argv = ["unshare", "-m", "sh", "-c", mount, "sh", *argv]
    else:
        place.folder.chmod(0o500)
    done = subprocess.run(argv, check=False, capture_output=True)
    place.folder.chmod(0o700)
    assert done.returncode == 7, done.stderr


def test_evidence_on_read_only_media_verifies(place: Place) -> None:
    log = place.open()
    for _ in range(10):
        log.append(event(verdict="deny"))
    log.checkpoint()
    copy = place.copy()  # with its write-ahead log, not yet merged
    (copy / "log.db-shm").unlink()
    log.close()
    script = f"""
        import sys
        from pathlib import Path
        from vestibule.audit.verify import verify
        result = verify(Path({str(copy)!r}), Path({str(place.trust)!r}))
        print(result.problems)
        sys.exit(0 if result.ok and result.size == 10 else 1)
    """
    argv = [sys.executable, "-c", textwrap.dedent(script)]
    if AS_ROOT:
        mount = f'mount --bind {copy} {copy} && mount -o remount,ro,bind {copy} && exec "$@"'
        argv = ["unshare", "-m", "sh", "-c", mount, "sh", *argv]
    else:
        copy.chmod(0o500)
    done = subprocess.run(argv, check=False, capture_output=True)
    copy.chmod(0o700)
    assert done.returncode == 0, (done.stdout, done.stderr)


def test_verifying_opens_no_socket_and_starts_no_program(place: Place) -> None:
    place.fill(10)
    script = f"""
        import sys
        from pathlib import Path
        seen = []
        outside = ("socket.", "subprocess.", "os.exec", "os.posix_spawn", "os.fork", "os.system")
        sys.addaudithook(lambda name, args: name.startswith(outside) and seen.append(name))
        from vestibule.audit.verify import verify
        result = verify(Path({str(place.folder)!r}), Path({str(place.trust)!r}))
        sys.exit(0 if result.ok and not seen else 1)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False).returncode == 0


WRITER = """
    import sys
    from pathlib import Path
    from audit_helpers import event
    from vestibule.audit.log import AuditLog
    log = AuditLog.open(Path(sys.argv[1]), Path(sys.argv[2]), busy_ms=60_000)
    number = 0
    while len(sys.argv) < 4 or number < int(sys.argv[3]):
        pending = [log.submit(event(run=f"r{n}", verdict="deny", resource=str(number))) for n in range(8)]
        for future in pending:
            sys.stdout.write(f"{future.result().seq}\\n")
        sys.stdout.flush()
        number += 1
    log.close()
"""


def writer(place: Place, *extra: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    argv = [sys.executable, "-c", textwrap.dedent(WRITER), str(place.folder), str(place.trust), *extra]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env)


def test_a_killed_writer_loses_no_acknowledged_entry(place: Place) -> None:
    known = 0
    for turn in range(5):
        process = writer(place)
        assert process.stdout is not None
        acknowledged = []
        for line in process.stdout:
            acknowledged.append(int(line))
            if len(acknowledged) >= 30 + 17 * turn:
                break
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        acknowledged += [
            int(line) for line in rest.splitlines() if rest.endswith("\n") or line != rest.splitlines()[-1]
        ]
        assert acknowledged == list(range(acknowledged[0], acknowledged[0] + len(acknowledged)))
        assert acknowledged[0] > known
        known = acknowledged[-1]
        result = place.verify()
        assert rules(result) <= {"checkpoint.missing", "tail.unsealed"}
        assert result.entries >= known
    with place.open() as log:
        log.append(event(verdict="deny"))
    result = place.verify(remember=True)
    assert result.ok, result.problems
    assert result.size > known


def test_a_killed_process_leaves_an_end_that_the_next_one_seals(place: Place) -> None:
    with place.open() as log:
        log.append(event(verdict="deny"))
    sequencer = Sequencer(place.folder, Trust(place.trust), trust_domain="example.com")
    sequencer.append([prepare(event(verdict="deny"))])
    sequencer.close()  # as if killed before sealing
    late = 4_000_000_000_000
    assert rules(place.verify(now_ms=late)) == {"tail.unsealed"}
    assert [item.rule for item in place.verify().notices] == ["tail.unsealed"]
    place.open().close()
    assert place.verify(now_ms=late).ok


def test_eight_processes_write_one_history_without_forks_or_gaps(place: Place) -> None:
    place.open().close()
    processes = [writer(place, "12") for _ in range(8)]
    seqs: list[int] = []
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        seqs += [int(line) for line in out.split()]
    assert sorted(seqs) == list(range(1, 8 * 12 * 8 + 1))
    result = place.verify()
    assert result.ok, result.problems
    assert result.size == len(seqs)


def test_eight_processes_that_begin_at_once_make_one_key_and_one_log(place: Place) -> None:
    processes = [writer(place, "1") for _ in range(8)]
    assert [process.communicate(timeout=120) and process.returncode for process in processes] == [0] * 8
    assert len(list(place.trust.glob("*.pin"))) == 1
    assert place.verify().size == 64


def test_commits_wait_for_the_disk(tmp_path: Path) -> None:
    with contextlib.closing(open_writer(tmp_path / "log.db", busy_ms=1_000)) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_many_that_open_a_new_log_at_the_same_moment_all_succeed(tmp_path: Path) -> None:
    errors: list[str] = []

    def open_one(path: Path, gate: threading.Barrier) -> None:
        gate.wait()
        try:
            open_writer(path, busy_ms=20_000).close()
        except (sqlite3.Error, BrokenLog) as error:
            errors.append(str(error))

    for turn in range(25):
        (tmp_path / str(turn)).mkdir()
        gate = threading.Barrier(8)
        path = tmp_path / str(turn) / "log.db"
        threads = [threading.Thread(target=open_one, args=(path, gate)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []


def test_a_missing_write_ahead_log_is_found_when_what_it_held_was_signed(place: Place) -> None:
    log = place.open()
    for _ in range(20):
        log.append(event(verdict="deny"))
    log.checkpoint()
    copy = place.copy()
    log.close()
    place.restore(copy)
    (place.folder / "log.db-wal").unlink()
    (place.folder / "log.db-shm").unlink()
    with pytest.raises(DependencyDown):
        place.open()


def test_a_torn_write_ahead_log_keeps_whole_transactions_only(place: Place) -> None:
    sequencer = Sequencer(place.folder, Trust(place.trust), trust_domain="example.com")
    for _ in range(20):
        sequencer.append([prepare(event(verdict="deny"))])
    copy = place.copy()
    sequencer.close()
    place.restore(copy)
    (place.folder / "log.db-shm").unlink()
    wal = place.folder / "log.db-wal"
    wal.write_bytes(wal.read_bytes()[:-1_000])
    with place.open() as again:
        assert again.append(event(verdict="deny")).seq == 20  # the twentieth was torn, and is not half there
    assert place.verify().ok


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_key_that_others_can_read_is_not_used(place: Place, mode: int) -> None:
    place.fill(2)
    (place.folder / KEY_FILE).chmod(mode)
    with pytest.raises(DependencyDown) as caught:
        place.open()
    assert "chmod 600" in caught.value.refusal.fact


@pytest.mark.parametrize("name", [KEY_FILE, HEAD_FILE])
@pytest.mark.parametrize("content", ["", "nonsense\n", "\x00\x01"])
def test_a_damaged_key_or_head_is_refused(place: Place, name: str, content: str) -> None:
    place.fill(2)
    (place.folder / name).write_text(content)
    (place.folder / name).chmod(0o600)
    with pytest.raises(DependencyDown):
        place.open()


def test_a_key_behind_a_link_is_not_followed(place: Place) -> None:
    place.fill(2)
    key = place.folder / KEY_FILE
    key.rename(place.root / "elsewhere")
    key.symlink_to(place.root / "elsewhere")
    with pytest.raises(DependencyDown):
        place.open()


def test_the_key_and_its_folder_are_private_and_the_key_is_pinned_at_first_use(place: Place) -> None:
    key = ensure_key(place.folder, Trust(place.trust), trust_domain="corp.example.com")
    assert (place.folder / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert place.folder.stat().st_mode & 0o777 == 0o700
    assert key.name.startswith("corp.example.com/")
    pin = Trust(place.trust).pin_for(key.name)
    assert pin is not None
    assert pin.key == key.verifier
    assert ensure_key(place.folder, Trust(place.trust)) == key


def test_a_pin_is_never_overwritten(place: Place) -> None:
    place.fill(2)
    (pin_file,) = place.trust.glob("*.pin")
    before = pin_file.read_bytes()
    other = SigningKey.generate(place.key().name)
    with pytest.raises(TrustError):
        Trust(place.trust).add(Pin(other.verifier, "/elsewhere"))
    (place.folder / KEY_FILE).write_text(other.text())
    for again in (place.open, lambda: pin_key(place.folder, Trust(place.trust))):
        with pytest.raises(DependencyDown):
            again()
    assert pin_file.read_bytes() == before


def test_a_key_of_another_origin_in_a_pinned_folder_is_refused(place: Place) -> None:
    place.fill(2)
    (place.folder / KEY_FILE).write_text(SigningKey.generate("example.com/other").text())
    with pytest.raises(DependencyDown):
        place.open()


def test_a_log_without_a_pin_is_not_pinned_silently_but_by_init(place: Place) -> None:
    place.fill(2)
    (pin_file,) = place.trust.glob("*.pin")
    pin_file.unlink()
    place.fill(2)
    assert rules(place.verify()) == {"key.unpinned"}
    assert pin_key(place.folder, Trust(place.trust)) == place.key().verifier.text()
    assert place.verify().ok


@pytest.mark.parametrize("suffix", [".pin", ".head"])
def test_a_damaged_memory_is_an_error_not_an_empty_memory(place: Place, suffix: str) -> None:
    place.fill(4)
    assert place.verify(remember=True).ok
    (file,) = place.trust.glob("*" + suffix)
    file.write_text("nonsense")
    assert not place.verify().ok
    with pytest.raises(DependencyDown):
        place.open()


def test_a_head_that_cannot_be_remembered_is_said(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.fill(2)

    def fail(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("vestibule.audit.trust.write_durably", fail)
    result = place.verify(remember=True)
    assert result.ok
    assert [item.rule for item in result.notices] == ["memory.unwritable"]


def test_the_head_is_remembered_before_the_signature_leaves(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vestibule.audit.sequencer.write_signed_head", fail)
    log = place.open()
    log.append(event(verdict="deny"))
    with pytest.raises(DependencyDown):
        log.checkpoint()
    refused(log)
    log.close()
    with sqlite3.connect(place.db) as connection:
        assert connection.execute("SELECT count(*) FROM checkpoints").fetchone() == (0,)


def test_an_outcome_is_refused_too_when_the_log_is_down(place: Place) -> None:
    log = place.open()
    intent = log.append(event())
    log.close()
    assert isinstance(log.submit(outcome(intent.seq)).exception(), DependencyDown)
