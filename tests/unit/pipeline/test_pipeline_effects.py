"""Results, commands, verify commands and live guards: what the segments do, with a sandbox that is played."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.attacks.control_world import World

from vestibule.boundary.changes.gateway import Changes
from vestibule.boundary.context import canary as context_canary
from vestibule.boundary.host.seen import Standing
from vestibule.boundary.models import canary as models_canary
from vestibule.boundary.network import canary as network_canary
from vestibule.boundary.network.rules import plan
from vestibule.config.load import load_repo_config
from vestibule.config.schema import DEFAULT_MINIMUM
from vestibule.core.errors import AgentFailed, DependencyDown
from vestibule.core.model import Wall, WallsReport
from vestibule.core.ports import Limits, SandboxResult
from vestibule.core.view import Export, ExportedFile
from vestibule.pipeline.commands import SandboxedCommands
from vestibule.pipeline.live_guards import prove
from vestibule.pipeline.reader import Reader
from vestibule.pipeline.results import apply_result, export_path, result_repository, save_export, start_commit
from vestibule.pipeline.services import Services
from vestibule.pipeline.verification import verify

NAMES = plan((), hosts=("docs.example.com:443",))
WALLS = WallsReport(tier="user", walls={name: Wall(state="up", proved_by="a test") for name in DEFAULT_MINIMUM})


class Played:
    """A sandbox whose program ends when told, or with the code it is given."""

    def __init__(self, backend: PlayedBackend, spec: Any) -> None:
        self.backend = backend
        self.spec = spec
        self.report = backend.walls
        self.ended = threading.Event()
        self.killed = 0
        self.egress: dict[str, str] = {"192.0.2.1:443": "ENETUNREACH"}

    def go(self) -> None:
        self.backend.started.append(self.spec.argv)
        self.backend.any_started.set()
        self.backend.seen.append(sorted(str(p.relative_to(w)) for w in self._places() for p in w.rglob("*.py")))

    def _places(self) -> list[Path]:
        return [mount.source for mount in self.spec.mounts if mount.target == "/workspace"]

    def wait(self) -> SandboxResult:
        if self.backend.hold:
            assert self.ended.wait(10)
            return SandboxResult(exit_code=-9, reason="killed", walls=WALLS)
        code = self.backend.codes.pop(0) if self.backend.codes else 0
        return SandboxResult(exit_code=code, reason="exited", stdout=b"out \x1b[31m", stderr=b"err", walls=WALLS)

    def kill(self) -> None:
        self.killed += 1
        self.ended.set()

    def connect(self, name: str) -> socket.socket:
        return socket.socket()

    def probe_egress(self) -> dict[str, str]:
        return self.egress


class PlayedBackend:
    def __init__(self, *codes: int, hold: bool = False, down: bool = False) -> None:
        self.codes = list(codes)
        self.hold = hold
        self.down = down
        self.walls = WALLS
        self.any_started = threading.Event()
        self.started: list[tuple[str, ...]] = []
        self.seen: list[list[str]] = []
        self.made: list[Played] = []

    def create(self, spec: Any, **_: Any) -> Played:
        if self.down:
            raise DependencyDown("sandbox", "bubblewrap is not installed.")
        self.made.append(Played(self, spec))
        return self.made[-1]

    def workspace_uid(self, run: str) -> None:
        return None

    def report(self) -> WallsReport:
        return WALLS

    def reap(self, run: str) -> int:
        return 0

    def release(self, run: str) -> None:
        return None


@pytest.fixture(autouse=True)
def nothing_to_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that is played has no control group, so there is nothing for a monitor to watch."""
    monkeypatch.setattr(
        Services, "monitor", SimpleNamespace(standing=lambda: Standing(rung="none", proved_by="played"))
    )


def play(world: World, backend: PlayedBackend) -> PlayedBackend:
    world.services.__dict__["sandbox"] = backend
    return backend


# --- results ----------------------------------------------------------------------------------------------


def exported(content: bytes) -> Export:
    return Export(files=(ExportedFile(path="src/app.py", status="modified", mode="100644", content=content),))


def test_the_same_export_applied_twice_is_the_same_commit(world: World) -> None:
    record = world.services.runs.set(world.run, worked="2026-01-02T03:04:05.000Z")
    save_export(world.services, record, exported(b"three\n"))
    repository, first = apply_result(world.services, record)
    again = world.reopened()
    _, second = apply_result(again.services, again.record)
    assert first.commit == second.commit
    assert repository.blob(first.commit, "src/app.py") == b"three\n"
    assert repository.commit_of("refs/vestibule/result-1") == first.commit
    message = repository.text(["log", "-1", "--format=%B", first.commit])
    assert f"Vestibule-Run: {record.id}" in message
    again.services.close()


def test_an_export_is_whole_or_not_there(world: World) -> None:
    record = world.record
    save_export(world.services, record, exported(b"1\n"))
    save_export(world.services, record, exported(b"2\n"))
    folder = export_path(world.services, record).parent
    assert [path.name for path in folder.glob("export-*")] == ["export-1.json"]


def test_the_second_round_starts_from_what_the_first_proposed(world: World) -> None:
    assert start_commit(world.services, world.record) == world.record.base_commit
    second = world.services.runs.set(world.run, round=2)
    assert start_commit(world.services, second) == world.record.head_commit
    save_export(world.services, second, exported(b"three\n"))
    repository, applied = apply_result(world.services, second.model_copy(update={"worked": "2026-01-02T03:04:05.000Z"}))
    assert repository.text(["rev-parse", f"{applied.commit}^"]) == world.record.head_commit


def test_a_round_whose_start_is_gone_fails_and_does_not_start_from_elsewhere(world: World) -> None:
    result_repository(world.services, world.record).run(["update-ref", "-d", "refs/vestibule/proposed-1"])
    with pytest.raises(AgentFailed):
        start_commit(world.services, world.services.runs.set(world.run, round=2))


# --- run_command ------------------------------------------------------------------------------------------


def commands(world: World) -> SandboxedCommands:
    return SandboxedCommands(world.services, world.run, (), Limits(wall_seconds=60))


def test_a_command_gets_no_token_no_name_and_the_shorter_time(world: World) -> None:
    backend = play(world, PlayedBackend())
    assert commands(world).run(["true"], timeout_seconds=5).exit_code == 0
    commands(world).run(["true"], timeout_seconds=900)
    for made, seconds in zip(backend.made, (5, 60), strict=True):
        assert made.spec.names == ()
        assert set(made.spec.env) == {"PYTHONDONTWRITEBYTECODE"}
        assert made.spec.limits.wall_seconds == seconds
        assert made.killed == 1


def test_stopping_ends_what_runs_and_refuses_what_comes_later(world: World) -> None:
    backend = play(world, PlayedBackend(hold=True))
    runner = commands(world)
    found: list[SandboxResult] = []
    thread = threading.Thread(target=lambda: found.append(runner.run(["sleep", "60"], timeout_seconds=60)))
    thread.start()
    assert backend.any_started.wait(10)
    runner.stop()
    thread.join(10)
    assert found[0].reason == "killed"
    with pytest.raises(DependencyDown) as caught:
        runner.run(["true"], timeout_seconds=1)
    assert caught.value.name == "sandbox"
    assert backend.started == [("sleep", "60")]
    assert all(made.killed for made in backend.made), "nothing that was made lives on"


def test_a_command_without_a_sandbox_is_refused(world: World) -> None:
    play(world, PlayedBackend(down=True))
    with pytest.raises(DependencyDown) as caught:
        commands(world).run(["true"], timeout_seconds=1)
    assert caught.value.name == "sandbox"


def without(wall: str) -> WallsReport:
    return WALLS.model_copy(update={"walls": {**WALLS.walls, wall: Wall(state="down", proved_by="a test")}})


@pytest.mark.parametrize("wall", DEFAULT_MINIMUM)
def test_neither_a_command_nor_a_verify_command_starts_without_a_wall_of_the_minimum(world: World, wall: str) -> None:
    backend = play(world, PlayedBackend())
    backend.walls = without(wall)
    for act in (
        lambda: commands(world).run(["true"], timeout_seconds=1),
        lambda: verify(world.services, world.record, configured()),
    ):
        with pytest.raises(DependencyDown) as caught:
            act()
        assert caught.value.name == "walls"
        assert wall in caught.value.refusal.fact
    assert backend.started == []
    assert all(made.killed for made in backend.made)


# --- verify commands --------------------------------------------------------------------------------------

VERIFYING = """\
version: 1
roles: {fixer: {read: ["src/**"], write: ["src/**"]}}
verify: {commands: [["pytest", "-q"], ["ruff", "check", "a b"]]}
"""


def configured() -> Any:
    return load_repo_config(VERIFYING.encode(), "config.yaml")


def test_every_command_runs_on_the_approved_tree_and_its_end_is_in_the_log(world: World) -> None:
    backend = play(world, PlayedBackend())
    assert verify(world.services, world.record, configured()) is None
    assert backend.started == [("pytest", "-q"), ("ruff", "check", "a b")]
    assert backend.seen == [["src/app.py"], ["src/app.py"]]
    outcomes = [event for event in world.events("verify.command") if event.phase == "outcome"]
    assert [event.result for event in outcomes] == ["ok", "ok"]
    assert not (world.services.folder(world.run) / "verify").exists()


def test_the_first_failure_ends_it_and_is_a_deny(world: World) -> None:
    backend = play(world, PlayedBackend(7))
    failure = verify(world.services, world.record, configured())
    assert failure is not None
    assert failure.verdict.value == "deny"
    assert "`pytest -q` ended with 7" in failure.message
    assert "\x1b" not in failure.excerpt
    assert len(backend.started) == 1
    assert [event.result for event in world.events("verify.command") if event.phase == "outcome"] == ["failed"]


def test_a_command_that_cannot_run_is_never_a_pass(world: World) -> None:
    play(world, PlayedBackend(down=True))
    with pytest.raises(DependencyDown):
        verify(world.services, world.record, configured())
    (outcome,) = [event for event in world.events("verify.command") if event.phase == "outcome"]
    assert outcome.result == "failed"
    assert outcome.details["error"] == "dependency.sandbox"


# --- live guards ------------------------------------------------------------------------------------------


@pytest.fixture
def alive(world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    """All guards live, and a sandbox to prove them through."""
    monkeypatch.setattr(context_canary, "forbidden_call", lambda *_: object())
    monkeypatch.setattr(models_canary, "forbidden_call", lambda *_: object())
    monkeypatch.setattr(network_canary, "refuses_name", lambda *_: True)
    monkeypatch.setattr(network_canary, "refuses_connection", lambda *_: True)
    return Played(PlayedBackend(), None)


def test_live_guards_are_noted_and_count_for_nothing(world: World, alive: Any) -> None:
    prove(world.services, world.record, alive, "token", NAMES)
    (noted,) = [event for event in world.events("guards.live") if event.phase == "intent"]
    assert noted.subject == "system"
    probes = [event for event in world.events() if event.subject == "probe"]
    assert probes
    view = Reader(world.services).get_run(world.run)
    assert view is not None
    assert (view.counts.allow, view.counts.deny) == (0, 0)


@pytest.mark.parametrize("dead", ["context", "models", "network", "network by name", "network by handshake", "changes"])
def test_one_dead_guard_is_a_refusal_that_names_it(
    world: World, alive: Any, monkeypatch: pytest.MonkeyPatch, dead: str
) -> None:
    if dead == "context":
        monkeypatch.setattr(context_canary, "forbidden_call", lambda *_: None)
    elif dead == "models":
        monkeypatch.setattr(models_canary, "forbidden_call", lambda *_: None)
    elif dead == "network":
        alive.egress = {"192.0.2.1:443": "connected"}
    elif dead == "network by name":
        monkeypatch.setattr(network_canary, "refuses_name", lambda *_: False)
    elif dead == "network by handshake":
        monkeypatch.setattr(network_canary, "refuses_connection", lambda *_: False)
    else:

        def silent(*_: object) -> None:
            raise DependencyDown("changes", "A guard let a forbidden change pass.")

        monkeypatch.setattr(Changes, "canary", silent)
    with pytest.raises(DependencyDown) as caught:
        prove(world.services, world.record, alive, "token", NAMES)
    assert dead.partition(" ")[0] in caught.value.what or caught.value.name == dead
    assert not world.events("guards.live")
