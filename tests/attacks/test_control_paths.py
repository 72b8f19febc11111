"""Whatever stands in the folder a person works in is data: none of it runs as the supervisor."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.attacks.control_world import World
from vestibule.pipeline import drive


def test_the_console_runs_no_python_of_the_folder_it_was_started_in(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m` puts the working directory on the import path; a merged change could hold `click.py`."""
    work = tmp_path / "work"
    work.mkdir()
    mark = tmp_path / "executed"
    for name in ("click", "yaml", "pydantic", "vestibule"):
        (work / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def popen(*args: object, **kwargs: object) -> subprocess.Popen[bytes]:
        process = real(*args, **kwargs)  # type: ignore[call-overload]
        started.append(process)
        return process  # type: ignore[no-any-return]

    monkeypatch.chdir(work)
    monkeypatch.setattr(subprocess, "Popen", popen)
    drive.spawn_resume(world.services, world.run)
    assert len(started) == 1
    assert started[0].wait(60) == 3, (world.services.folder(world.run) / "resume.log").read_text()
    assert not mark.exists()
