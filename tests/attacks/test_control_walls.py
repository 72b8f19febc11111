"""Whatever runs what an agent wrote needs the walls of the minimum: verify commands and `run_command` as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.control_world import CONFIG, World, make_world
from vestibule.core.errors import DependencyDown
from vestibule.core.model import Wall, WallsReport
from vestibule.core.ports import Limits, SandboxSpec
from vestibule.pipeline.commands import SandboxedCommands
from vestibule.pipeline.verification import verify


class _Sandbox:
    """A sandbox that could be made, without one of its walls."""

    def __init__(self) -> None:
        self.started = False
        stands = {name: Wall(state="up", proved_by="test") for name in ("mounts", "network", "seccomp", "no_new_privs")}
        self.report = WallsReport(tier="root", walls={**stands, "landlock": Wall(state="down", proved_by="test")})

    def create(self, _spec: SandboxSpec) -> _Sandbox:
        return self

    def workspace_uid(self, _run: str) -> int | None:
        return None

    def go(self) -> None:
        self.started = True

    def wait(self) -> object:
        raise AssertionError("it was started")

    def kill(self) -> None:
        return


@pytest.fixture
def sandbox(world: World, monkeypatch: pytest.MonkeyPatch) -> _Sandbox:
    made = _Sandbox()
    monkeypatch.setattr(world.services, "sandbox", made, raising=False)
    return made


@pytest.fixture
def world(tmp_path: Path) -> World:
    more = 'sandbox: {minimum: [landlock]}\nverify: {commands: [["true"]]}\n'
    return make_world(tmp_path, config=CONFIG + more)


def test_verify_commands_do_not_start_without_a_wall_of_the_minimum(world: World, sandbox: _Sandbox) -> None:
    with pytest.raises(DependencyDown) as found:
        verify(world.services, world.record, world.services.config_of(world.record))
    assert found.value.refusal.rule == "dependency.walls"
    assert not sandbox.started
    assert [event.result for event in world.events("verify.command")] == ["", "failed"]


def test_run_command_does_not_start_without_a_wall_of_the_minimum(world: World, sandbox: _Sandbox) -> None:
    minimum = world.services.minimum(world.services.config_of(world.record))
    commands = SandboxedCommands(world.services, world.run, (), Limits(), minimum)
    with pytest.raises(DependencyDown) as found:
        commands.run(["true"], timeout_seconds=5)
    assert found.value.refusal.rule == "dependency.walls"
    assert not sandbox.started
