"""A run's row and its lease: no write is lost, no second process gets in, nothing damaged is believed."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.attacks.control_world import World

from vestibule.core.errors import DependencyDown, UsageError
from vestibule.core.model import State
from vestibule.pipeline.lease import Lease, holder
from vestibule.pipeline.record import RunRecord, RunStore
from vestibule.store.database import Database


def test_eight_writers_at_once_lose_no_write(world: World) -> None:
    """Each adds to what it read, over a connection of its own, as processes would."""
    stores = [RunStore(Database.open(world.home, world.env)) for _ in range(8)]
    before = world.record.version

    def write(store: RunStore) -> None:
        for _ in range(5):
            store.change(world.run, lambda old: {"attempt": old.attempt + 1})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, stores))
    for store in stores:
        store.db.close()
    assert world.record.attempt == 1 + 40
    assert world.record.version == before + 40


def test_a_change_of_nothing_writes_nothing(world: World) -> None:
    before = world.record
    assert world.services.runs.change(world.run, lambda _: {}) == before
    assert world.record == before


def test_a_change_that_raises_leaves_the_row(world: World) -> None:
    before = world.record

    def change(_: RunRecord) -> dict[str, object]:
        raise UsageError("No.")

    with pytest.raises(UsageError):
        world.services.runs.change(world.run, change)
    assert world.record == before


@pytest.mark.parametrize("document", ["", "{", "{}", '{"id": "x"}', "[]", "\x00", '{"state": "unheard of"}'])
def test_a_damaged_row_is_refused_everywhere_and_never_skipped(world: World, document: str) -> None:
    with world.services.db.write() as connection:
        connection.execute(text("UPDATE runs SET document = :d"), {"d": document})
    for read in (
        lambda: world.services.runs.find(world.run),
        world.services.runs.all,
        lambda: world.services.runs.set(world.run, note="x"),
    ):
        with pytest.raises(DependencyDown) as caught:
            read()
        assert caught.value.name == "database"


def test_a_run_is_found_by_an_unambiguous_beginning_only(world: World) -> None:
    runs = world.services.runs
    assert runs.get(world.run[:12]).id == world.run
    twin = world.run[:-1] + ("0" if world.run[-1] != "0" else "1")
    runs.create(world.record.model_copy(update={"id": twin}))
    assert runs.get(world.run).id == world.run
    with pytest.raises(UsageError):
        runs.get(world.run[:12])


@pytest.mark.parametrize("name", ["", "%", "r%", "_", "nonsense", "r' OR 1=1 --", "../x", "r" * 500])
def test_what_names_no_run_is_a_usage_error(world: World, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        world.services.runs.get(name)
    assert caught.value.next_step


def test_a_run_that_is_not_there_is_not_changed_into_being(world: World) -> None:
    with pytest.raises(UsageError):
        world.services.runs.set("r00000000000000", state=State.MERGED)


def test_a_second_holder_of_the_lease_is_refused_at_once_with_the_firsts_number(tmp_path: Path) -> None:
    with Lease(tmp_path, "r1"):
        assert holder(tmp_path) == os.getpid()
        with pytest.raises(UsageError) as caught:
            Lease(tmp_path, "r1")
        assert str(os.getpid()) in caught.value.what
        assert "vestibule cancel r1" in caught.value.next_step
    assert holder(tmp_path) is None
    Lease(tmp_path, "r1").close()


def test_a_kill_releases_the_lease(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from vestibule.pipeline.lease import Lease\n"
        "lease = Lease(Path(sys.argv[1]), 'r1'); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        assert holder(tmp_path) == child.pid
        child.kill()
    assert holder(tmp_path) is None


def test_a_lease_behind_a_link_is_not_taken(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("mine")
    (tmp_path / "lease").symlink_to(target)
    with pytest.raises(OSError):
        Lease(tmp_path, "r1")
    assert target.read_text() == "mine"


def test_nobody_holds_a_lease_that_was_never_taken(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    assert holder(tmp_path / "nothing") is None
