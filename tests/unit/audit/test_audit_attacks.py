"""Every attack on the log at every tier, with what is expected to see it, and what honestly cannot."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_helpers import Adversary, Place, Row, event, rules

from vestibule.audit.checkpoint import Checkpoint
from vestibule.audit.database import FILE, SCHEMA
from vestibule.audit.keys import HEAD_FILE, KEY_FILE
from vestibule.audit.log import AuditLog, read_entries
from vestibule.audit.note import SigningKey
from vestibule.core.errors import DependencyDown
from vestibule.git.repository import Git

SIZE = 40
FAR = 4_000_000_000_000
"""A moment long after any test."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A log of 40 entries with signed checkpoints at 20 and 40."""
    made = Place(tmp_path)
    made.fill(SIZE // 2)
    made.fill(SIZE // 2)
    assert made.verify().ok
    return made


def edit(rows: list[Row]) -> None:
    rows[9].fields["resource"] = "src/other.py"


def delete(rows: list[Row]) -> None:
    del rows[8:10]


def insert(rows: list[Row]) -> None:
    extra = dict(rows[8].fields, resource="src/never.py", verdict="deny")
    rows.insert(30, Row(31, extra))


def reorder(rows: list[Row]) -> None:
    rows[10].fields["resource"], rows[12].fields["resource"] = "src/x.py", "src/y.py"
    rows[10].fields, rows[12].fields = rows[12].fields, rows[10].fields


def truncate(rows: list[Row]) -> None:
    del rows[30:]


def fork(rows: list[Row]) -> None:
    rows[-1].fields["resource"] = "src/fork.py"


def fix_pairs(change: Callable[[list[Row]], None]) -> Callable[[list[Row]], None]:
    """An adversary careful enough to keep intents and outcomes paired after the change."""

    def careful(rows: list[Row]) -> None:
        change(rows)
        open_at = 0
        for number, row in enumerate(rows, start=1):
            if row.fields["phase"] == "outcome":
                row.fields["intent"] = open_at
            elif row.fields["verdict"] == "allow":
                open_at = number

    return careful


CHANGES = [edit, delete, insert, reorder, truncate, fork]


@pytest.mark.parametrize("change", CHANGES)
def test_rewriting_without_the_key_is_found_by_the_signature_alone(
    place: Place, change: Callable[[list[Row]], None]
) -> None:
    Adversary(place).rewrite(fix_pairs(change), renumber=True)
    assert rules(place.verify()) & {"checkpoint.root", "log.truncated"}


@pytest.mark.parametrize("change", CHANGES)
def test_rewriting_with_the_key_is_not_found_without_memory_and_that_is_said(
    place: Place, change: Callable[[list[Row]], None]
) -> None:
    Adversary(place).rewrite(fix_pairs(change), renumber=True, sign=True)
    result = place.verify()
    assert result.ok, result.problems
    assert any("by someone with the log's key: any entry" in line for line in result.does_not_detect)


@pytest.mark.parametrize("change", CHANGES)
def test_rewriting_with_the_key_is_found_against_a_remembered_head(
    place: Place, change: Callable[[list[Row]], None]
) -> None:
    assert place.verify(remember=True).ok
    Adversary(place).rewrite(fix_pairs(change), renumber=True, sign=True)
    result = place.verify()
    assert rules(result) & {"memory.fork", "memory.rollback"}
    assert any("remembered head" in line for line in result.detects)


@pytest.mark.parametrize("change", CHANGES)
def test_rewriting_with_the_key_is_found_against_a_merge_commit(
    place: Place, change: Callable[[list[Row]], None], tmp_path: Path
) -> None:
    repo = merged_repo(tmp_path / "repo", place)
    assert place.verify(repo=repo).ok
    Adversary(place).rewrite(fix_pairs(change), renumber=True, sign=True)
    result = place.verify(repo=repo)
    assert rules(result) & {"repo.fork", "repo.rollback"}
    assert any("merge commits" in line for line in result.detects)


def merged_repo(path: Path, place: Place) -> Path:
    """A repository whose merge commit carries the log's head in its trailers."""
    git = Git.init(path)
    tree = git.write_tree([])
    who = {"name": "A", "email": "a@example.com", "time": "1700000000 +0000"}
    base = git.commit_tree(tree, [], "base\n", **who)
    with place.open() as log:
        trailer = log.head().trailer()
    message = f"Merge\n\nVestibule-Run: r0\nVestibule-Decision: d-1\nVestibule-Checkpoint: {trailer}\n"
    side = git.commit_tree(tree, [base], "side\n\nVestibule-Checkpoint: forged 1 nonsense\n", **who)
    merge = git.commit_tree(tree, [base, side], message, **who)
    git.update_ref("refs/heads/elsewhere", merge, None)
    return path


@pytest.mark.parametrize("change", [edit, fork])
def test_an_edit_that_is_not_rehashed_is_found_at_its_entry(place: Place, change: Callable[[list[Row]], None]) -> None:
    Adversary(place).rewrite(change, rehash=False)
    result = place.verify()
    assert "entry.changed" in rules(result)
    assert [item.seq for item in result.problems if item.rule == "entry.changed"] == [10 if change is edit else SIZE]


def test_a_deleted_row_leaves_a_gap_that_is_named(place: Place) -> None:
    Adversary(place).run("DELETE FROM entries WHERE seq = 7")
    result = place.verify()
    assert "entry.sequence" in rules(result)
    assert 7 in [item.seq for item in result.problems]


def test_a_cut_end_is_found_while_its_checkpoint_stands(place: Place) -> None:
    Adversary(place).run(f"DELETE FROM entries WHERE seq > {SIZE - 3}")
    assert "log.truncated" in rules(place.verify())


def test_rollback_to_an_older_copy_is_found_by_memory_only(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.fill(10)
    old = place.copy()
    place.fill(10)
    assert place.verify(remember=True).ok
    place.restore(old)
    result = place.verify()
    assert rules(result) == {"memory.rollback"}
    (trust_head,) = place.trust.glob("*.head")
    trust_head.unlink()
    assert place.verify().ok  # nothing else could know


def test_an_end_whose_checkpoint_was_dropped_is_not_believed(place: Place) -> None:
    Adversary(place).run(f"DELETE FROM checkpoints WHERE size = {SIZE}")
    result = place.verify(now_ms=FAR)
    assert rules(result) == {"tail.unsealed"}
    assert result.size == SIZE // 2


def test_a_log_without_checkpoints_is_not_believed(place: Place) -> None:
    Adversary(place).run("DELETE FROM checkpoints")
    assert "checkpoint.missing" in rules(place.verify())


def test_signing_with_another_key_is_found(place: Place) -> None:
    other = SigningKey.generate(place.key().name)
    with sqlite3.connect(place.db) as connection:
        size, note = connection.execute("SELECT size, note FROM checkpoints ORDER BY size DESC LIMIT 1").fetchone()
    root = Checkpoint("x", size, _root_of(note)).root
    forged = Checkpoint(other.name, size, root).signed(other)
    with Adversary(place).database() as db:
        db.execute("UPDATE checkpoints SET note = ? WHERE size = ?", (forged, size))
    assert "checkpoint.signature" in rules(place.verify())


def _root_of(note: str) -> bytes:
    from vestibule.audit.checkpoint import peek

    return peek(note).root


def test_another_valid_log_in_its_place_is_found(place: Place, tmp_path: Path) -> None:
    other = Place(tmp_path / "other")
    AuditLog.open(other.folder, place.trust).close()  # pinned on the same machine
    with AuditLog.open(other.folder, place.trust) as log:
        log.append(event(verdict="deny"))
    shutil.rmtree(place.folder)
    shutil.copytree(other.folder, place.folder)
    assert "log.exchanged" in rules(place.verify())


def test_a_whole_log_deleted_is_found(place: Place) -> None:
    shutil.rmtree(place.folder)
    assert rules(place.verify()) == {"log.unreadable"}


def test_an_unpinned_log_proves_nothing_and_its_own_key_is_not_taken(place: Place, tmp_path: Path) -> None:
    elsewhere = Place(tmp_path / "elsewhere")
    elsewhere.root.mkdir()
    shutil.copytree(place.folder, elsewhere.folder)
    result = elsewhere.verify(remember=True)
    assert rules(result) == {"key.unpinned"}
    assert result.size == 0
    (problem,) = result.problems
    assert "--key" in problem.next
    assert place.key().verifier.text() not in json.dumps(result.as_json())
    assert not elsewhere.trust.exists()
    assert elsewhere.verify(keys=[place.key().verifier.text()]).ok


def test_a_given_key_that_is_not_the_logs_is_refused(place: Place) -> None:
    other = SigningKey.generate(place.key().name).verifier.text()
    assert "checkpoint.signature" in rules(place.verify(keys=[other]))
    foreign = SigningKey.generate("example.com/other").verifier.text()
    assert "checkpoint.signature" in rules(place.verify(keys=[foreign]))


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TRIGGER entries_no_delete",
        "DROP INDEX one_outcome",
        "CREATE VIEW lies AS SELECT * FROM entries",
        "ALTER TABLE entries ADD COLUMN extra TEXT",
    ],
)
def test_a_changed_schema_is_found_by_the_verifier_and_by_the_writer(place: Place, statement: str) -> None:
    with sqlite3.connect(place.db) as connection:
        connection.execute(statement)
    assert rules(place.verify()) == {"log.unreadable"}
    with pytest.raises(DependencyDown):
        place.open()


def test_search_columns_that_lie_are_found(place: Place) -> None:
    for column, value in (("run", "'r9'"), ("action", "'x'"), ("ms", "1"), ("intent", "NULL")):
        copy = place.copy()
        Adversary(place).run(f"UPDATE entries SET {column} = {value} WHERE seq = 6")
        assert "entry.index" in rules(place.verify()), column
        place.restore(copy)
        shutil.rmtree(copy)


def test_stored_tree_nodes_that_lie_are_found(place: Place) -> None:
    Adversary(place).run(
        "UPDATE entries SET hashes = CAST(substr(hashes, 1, 32) || zeroblob(length(hashes) - 32) AS BLOB) WHERE seq = 8"
    )
    assert rules(place.verify()) == {"tree.nodes"}


def test_a_backdated_entry_is_found_even_when_signed(place: Place) -> None:
    def backdate(rows: list[Row]) -> None:
        rows[-1].fields["time"] = "2020-01-01T00:00:00.000Z"

    Adversary(place).rewrite(backdate, sign=True)
    assert rules(place.verify()) == {"entry.time"}


def _orphan(rows: list[Row]) -> None:
    rows[1].fields["intent"] = 4_000


def _later(rows: list[Row]) -> None:
    rows[1].fields["intent"] = 3
    rows[3].fields["intent"] = 1


def _of_an_outcome(rows: list[Row]) -> None:
    rows[3].fields["intent"] = 2


def _doubled(rows: list[Row]) -> None:
    rows[3].fields["intent"] = 1
    rows[3].intent_column = False


def _denied(rows: list[Row]) -> None:
    rows[0].fields["verdict"] = "deny"


def _other_run(rows: list[Row]) -> None:
    rows[1].fields["run"] = "r9"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (_orphan, "outcome.orphan"),
        (_later, "outcome.orphan"),
        (_of_an_outcome, "outcome.orphan"),
        (_doubled, "outcome.doubled"),
        (_denied, "outcome.denied"),
        (_other_run, "outcome.mismatch"),
    ],
)
def test_a_broken_pairing_is_found_even_when_signed(
    place: Place, change: Callable[[list[Row]], None], rule: str
) -> None:
    def careful(rows: list[Row]) -> None:
        for row in rows[2:]:
            row.fields["verdict"] = "allow"
        change(rows)

    with Adversary(place).database() as connection:
        connection.execute("DELETE FROM entries WHERE seq > 4")
    Adversary(place).rewrite(careful, sign=True)
    assert rule in rules(place.verify())


def test_an_entry_of_another_shape_is_found_even_when_signed(place: Place) -> None:
    def bend(rows: list[Row]) -> None:
        rows[4].fields["extra"] = 1
        rows[6].fields["verdict"] = "perhaps"
        rows[8].fields["attempt"] = True

    Adversary(place).rewrite(bend, sign=True)
    assert [item.seq for item in place.verify().problems if item.rule == "entry.malformed"] == [5, 7, 9]


def test_a_merge_commit_of_another_log_is_only_noticed(place: Place, tmp_path: Path) -> None:
    other = Place(tmp_path / "other")
    other.fill(2)
    repo = merged_repo(tmp_path / "repo", other)
    result = place.verify(repo=repo)
    assert result.ok
    assert [item.rule for item in result.notices] == ["repo.other"]


def test_the_writer_itself_refuses_a_log_that_was_rolled_back(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.fill(6)
    old = place.copy()
    place.fill(6)
    shutil.copy(old / FILE, place.db)  # the database alone: the signed head beside it remembers
    with pytest.raises(DependencyDown) as caught:
        place.open()
    assert "rolled back" in caught.value.refusal.fact


def test_the_writer_refuses_a_whole_folder_rolled_back_once_it_was_verified(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.fill(6)
    old = place.copy()
    place.fill(6)
    assert place.verify(remember=True).ok
    place.restore(old)
    with pytest.raises(DependencyDown):
        place.open()


def test_the_writer_refuses_to_extend_a_rewritten_log(place: Place) -> None:
    Adversary(place).rewrite(fix_pairs(edit), renumber=True)
    with pytest.raises(DependencyDown) as caught:
        place.open()
    assert "changed" in caught.value.refusal.fact


@pytest.mark.parametrize("name", [KEY_FILE, HEAD_FILE])
def test_a_missing_key_or_head_is_refused_not_made_anew(place: Place, name: str) -> None:
    (place.folder / name).unlink()
    with pytest.raises(DependencyDown) as caught:
        place.open()
    assert caught.value.refusal.rule == "dependency.audit"


def test_a_deleted_folder_does_not_start_a_new_history(place: Place) -> None:
    shutil.rmtree(place.folder)
    with pytest.raises(DependencyDown) as caught:
        place.open()
    assert "missing" in caught.value.refusal.fact


def test_triggers_stop_what_is_not_an_append(place: Place) -> None:
    with sqlite3.connect(place.db) as connection:
        for statement in (
            "UPDATE entries SET run = 'x' WHERE seq = 1",
            "DELETE FROM entries WHERE seq = 1",
            "INSERT OR REPLACE INTO entries SELECT * FROM entries WHERE seq = 1",
            "INSERT INTO entries SELECT 99, ms, run, action, phase, NULL, hashes, body FROM entries WHERE seq = 1",
            "UPDATE checkpoints SET note = ''",
            "DELETE FROM checkpoints",
            "INSERT OR REPLACE INTO checkpoints SELECT * FROM checkpoints",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)


@pytest.mark.parametrize("body", ["x'00'", "zeroblob(20000000)", "x'5b5b'"])
def test_hostile_rows_are_found_and_never_crash_the_verifier(place: Place, body: str) -> None:
    Adversary(place).run(f"UPDATE entries SET body = {body} WHERE seq = 3")
    assert not place.verify().ok


def test_a_row_of_other_types_than_the_schema_allows_is_found(place: Place) -> None:
    """A hostile file need not have been written through SQLite's own checks."""
    loose = SCHEMA[0].replace(") STRICT", ")")
    with Adversary(place).database() as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'entries'", (loose,))
        connection.execute("PRAGMA writable_schema=RESET")
        connection.execute("UPDATE entries SET body = 'text', hashes = 5 WHERE seq = 3")
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'entries'", (SCHEMA[0],))
        connection.execute("PRAGMA writable_schema=RESET")
    assert rules(place.verify()) == {"log.unreadable"}


def test_a_running_log_signs_nothing_that_does_not_extend_what_was_signed(place: Place) -> None:
    log = place.open()
    key = place.key()
    (place.folder / HEAD_FILE).write_text(Checkpoint(key.name, SIZE + 100, b"\x01" * 32).signed(key))
    log.append(event(verdict="deny"))
    with pytest.raises(DependencyDown) as caught:
        log.checkpoint()
    assert "rolled back" in caught.value.refusal.fact
    log.close()


def test_a_running_log_signs_nothing_after_its_rows_were_rewritten(place: Place) -> None:
    log = place.open()
    Adversary(place).rewrite(fix_pairs(edit), renumber=True)
    log.append(event(verdict="deny"))
    with pytest.raises(DependencyDown) as caught:
        log.checkpoint()
    assert "changed" in caught.value.refusal.fact
    log.close()


def test_an_index_that_hides_entries_from_a_search_is_found(place: Place) -> None:
    with Adversary(place).database() as connection:
        connection.execute("CREATE INDEX part ON entries (run, seq) WHERE seq < 10")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'part'").fetchone()
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET rootpage = ? WHERE name = 'entries_by_run'", (page,))
        connection.execute("DELETE FROM sqlite_master WHERE name = 'part'")
        connection.execute("PRAGMA writable_schema=RESET")
    assert len(list(read_entries(place.folder, "r0"))) == 9
    assert rules(place.verify()) == {"log.damaged"}


def test_a_log_whose_key_is_gone_gets_no_new_one_even_unpinned(place: Place) -> None:
    shutil.rmtree(place.trust)
    (place.folder / KEY_FILE).unlink()
    with pytest.raises(DependencyDown) as caught:
        place.open()
    assert "key is missing" in caught.value.refusal.fact
    assert not (place.folder / KEY_FILE).exists()


def test_the_writer_refuses_another_whole_log_in_its_place(place: Place, tmp_path: Path) -> None:
    other = Place(tmp_path / "other")
    other.fill(4)  # pinned elsewhere only
    shutil.rmtree(place.folder)
    shutil.copytree(other.folder, place.folder)
    with pytest.raises(DependencyDown) as caught:
        place.open()
    assert "is pinned as the log" in caught.value.refusal.fact


def test_an_entry_that_bears_another_number_is_found_even_when_signed(place: Place) -> None:
    def swap(rows: list[Row]) -> None:
        rows[4].fields["seq"] = 7

    Adversary(place).rewrite(swap, sign=True)
    assert rules(place.verify()) == {"entry.sequence"}
