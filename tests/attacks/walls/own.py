"""Cases that need a sandbox of their own, or a look from outside while it runs."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from tests.attacks.walls import results
from tests.attacks.walls.judge import judge
from vestibule.boundary.changes.export import export_workspace
from vestibule.core.errors import ConfigError, DependencyDown, UsageError
from vestibule.core.ports import Limits, Mount, SandboxSpec
from vestibule.sandbox.local import blueprint, own_workspace
from vestibule.sandbox.removal import remove_tree

if TYPE_CHECKING:
    from tests.attacks.walls.battery import Round

Result = dict[str, Any]
OWN: dict[str, Callable[[Round], Result]] = {}


def case(name: str) -> Callable[[Callable[[Round], Result]], Callable[[Round], Result]]:
    def register(function: Callable[[Round], Result]) -> Callable[[Round], Result]:
        OWN[name] = function
        return function

    return register


@contextlib.contextmanager
def plain_workspace(once: Round, at: Path | None = None) -> Any:
    """A workspace with a folder `src`, removed afterwards."""
    folder = at or once.work / "plain"
    (folder / "src").mkdir(parents=True)
    once.work.chmod(0o755)
    own_workspace(folder, once.uid)
    try:
        yield folder
    finally:
        remove_tree(folder)


def _one(once: Round, name: str, workspace: Path, **fields: Any) -> Result:
    streams = {key: fields.pop(key) for key in ("stdin",) if key in fields}
    said = once.attack(once.spec([name], workspace, **fields), **streams)
    return judge(name, said[name], once.outside, once.outside.changed(), {})


@case("F03")
def swapped_while_collected(once: Round) -> Result:
    """Exports again and again while files are swapped for links to a secret."""
    folder, view, _ = results.workspace(once.work, once.uid)
    opened: list[str] = []
    rounds = 0
    try:
        sandbox = once.backend.create(once.spec(["F03"], folder, given={"race_seconds": 0.5}))
        try:
            sandbox.go()
            done = threading.Event()

            def wait() -> None:
                sandbox.wait()
                done.set()

            threading.Thread(target=wait, daemon=True).start()
            while not done.is_set():
                export = export_workspace(folder, view)
                rounds += 1
                if any(item.content and once.outside.token.encode() in item.content for item in export.files):
                    opened.append("a secret of the host in the result")
                    break
            done.wait(20)
        finally:
            sandbox.kill()
    finally:
        results.remove(once.work)
    return {"opened": opened, "how": [f"{rounds} exports"]}


@case("F19")
def full_disk(once: Round) -> Result:
    """Fills a small disk with bytes, then with files: ended, and room is left for everybody else."""
    opened, how = [], []
    for what, command in {
        "bytes": "head -c 100000000 /dev/zero > /workspace/src/big; sleep 20",
        "files": "i=0; while [ $i -lt 4000 ]; do : > /workspace/src/f$i || break; i=$((i+1)); done; sleep 20",
    }.items():
        with plain_workspace(once, Path("/srv/small/workspace")) as folder:
            spec = SandboxSpec(
                run="r0walls",
                argv=("sh", "-c", command),
                mounts=(Mount(source=folder, target="/workspace", write=True),),
                limits=Limits(wall_seconds=8, memory_bytes=1 << 30, pids=64),
            )
            sandbox = once.backend.create(spec)
            try:
                sandbox.go()
                result = sandbox.wait()
                how.append(f"{what}: {result.reason}")
                if result.reason == "wall-clock":
                    opened.append(f"nobody stopped it from filling the disk with {what}")
            except DependencyDown as down:
                how.append(f"{what}: {down.refusal.rule}")
            finally:
                sandbox.kill()
    return {"opened": opened, "how": how}


@case("P05")
def typing(once: Round) -> Result:
    """Types into the terminal that it was given as standard input."""
    leader, follower = pty.openpty()
    try:
        with plain_workspace(once) as folder:
            found = _one(once, "P05", folder, stdin=follower)
        os.set_blocking(follower, False)
        try:
            typed = os.read(follower, 1000)
        except OSError:
            typed = b""
        if b"case=" in typed:
            found["opened"].append("typed into the supervisor's terminal")
    finally:
        os.close(leader)
        os.close(follower)
    return found


@case("P11")
def bomb(once: Round) -> Result:
    with plain_workspace(once) as folder:
        began = time.monotonic()
        found = _one(once, "P11", folder, limits=Limits(wall_seconds=30, memory_bytes=512 << 20, pids=64))
        if time.monotonic() - began > 20:
            found["opened"].append("the host was slowed down")
    return found


@case("P12")
def hog(once: Round) -> Result:
    with plain_workspace(once) as folder:
        spec = once.spec(["P12"], folder, limits=Limits(wall_seconds=30, memory_bytes=64 << 20, pids=64))
        try:
            said = once.attack(spec)["P12"]
        except RuntimeError as error:  # the kernel ended all of it
            return {"opened": [], "how": [str(error)[:200]]}
    return judge("P12", said, once.outside, {}, {})


@case("P13")
def outliving(once: Round) -> Result:
    with plain_workspace(once) as folder:
        found = _one(once, "P13", folder)
        alive = folder / "src" / "alive"
        size = alive.stat().st_size if alive.exists() else 0
        time.sleep(0.15)
        if alive.exists() and alive.stat().st_size > size:
            found["opened"].append("a process outlived its task")
            _end_strays()
    return found


def _end_strays() -> None:
    """Only those of a failed P13, so that they do not stay on this machine."""
    from tests.attacks.walls.residue import _descendants

    for pid, name in _descendants().items():
        if "/opt/attacks/main.py" in name:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


@case("P17")
def folder_of_a_descriptor(once: Round) -> Result:
    opened: list[str] = []
    how: list[str] = []
    with plain_workspace(once) as folder:
        for cwd in ("/proc/self/fd/3", "/proc/self/fd/5", "/proc/self/fd/7", "/proc/self/fd/8", "/proc/self/fd/9"):
            spec = SandboxSpec(
                run="r0walls",
                argv=("sh", "-c", "cat ../secret ../../house/secret ./srv/house/secret; pwd -P; ls"),
                cwd=cwd,
                mounts=(Mount(source=folder, target="/workspace", write=True),),
                limits=Limits(wall_seconds=8),
            )
            try:
                sandbox = once.backend.create(spec)
            except (DependencyDown, UsageError) as error:
                how.append(f"{cwd}: refused ({str(error)[:60]})")
                continue
            try:
                sandbox.go()
                result = sandbox.wait()
            finally:
                sandbox.kill()
            text = (result.stdout + result.stderr).decode("utf-8", "replace")
            how.append(f"{cwd}: exit {result.exit_code}")
            opened += [f"heard {label}" for label in sorted(once.outside.heard(text))]
    return {"opened": opened, "how": how}


@case("S01")
def impossible_settings(once: Round) -> Result:
    """Every one must be refused before a process exists."""
    opened, how = [], []
    with plain_workspace(once) as folder:
        given: dict[str, dict[str, Any]] = {
            "no program": {"argv": ()},
            "a NUL byte": {"argv": ("true\0",)},
            "a variable without a name": {"env": {"": "x"}},
            "a mount at the root": {"mounts": (Mount(source=folder, target="/"),)},
            "a mount that climbs": {"mounts": (Mount(source=folder, target="/workspace/../etc"),)},
            "a source that is not there": {"mounts": (Mount(source=folder / "none", target="/workspace"),)},
            "the state folder": {"mounts": (Mount(source=once.outside.house / "state", target="/x"),)},
            "all of the house": {"mounts": (Mount(source=once.outside.house, target="/x"),)},
            "an address as a name": {"names": ("127.0.0.1",)},
            "a name with a NUL byte": {"names": ("a.example.com\0.evil.example.com",)},
            "a port that is none": {"endpoints": (("a.example.com", 0),)},
            "a home file that climbs": {"home_files": {"../x": b""}},
        }
        for label, fields in given.items():
            values = {"run": "r0walls", "argv": ("true",), "cwd": "/", **fields}
            try:
                sandbox = once.backend.create(SandboxSpec.model_validate(values))
            except (UsageError, ConfigError, DependencyDown) as error:
                how.append(f"{label}: {type(error).__name__}")
                continue
            sandbox.kill()
            opened.append(f"{label} was accepted")
    return {"opened": opened, "how": how}


@case("S03")
def left_by_another(once: Round) -> Result:
    with plain_workspace(once) as folder:
        left = once.outside.canary("left")
        once.attack(once.spec(["S03-plant"], folder, given={"left": left}))
        return _one(once, "S03", folder)


@case("S04")
def no_bubblewrap(once: Round) -> Result:
    find = blueprint.find_bubblewrap

    def missing() -> str:
        with mock.patch.object(shutil, "which", return_value=None):
            return find()

    with mock.patch.object(blueprint, "find_bubblewrap", side_effect=missing):
        try:
            sandbox = once.backend.create(SandboxSpec(run="r0walls", argv=("true",), cwd="/"))
        except DependencyDown as down:
            return {"opened": [], "how": [down.refusal.rule]}
    sandbox.kill()
    return {"opened": ["a sandbox without bubblewrap"], "how": []}


@case("S06")
def not_cleared(once: Round) -> Result:
    """The run has read more than it may send: even an allowed host hears nothing."""
    with plain_workspace(once) as folder:
        spec = once.spec(["E-L1"], folder, endpoints=once.egress.plan.endpoints, resolver=True)
        sandbox = once.backend.create(spec)
        try:
            with once.egress.serving(sandbox, secret=True):
                sandbox.go()
                sandbox.wait()
        finally:
            sandbox.kill()
    arrived = sorted({where for _, where in once.outside.arrived})
    return {"opened": [f"reached {where}" for where in arrived], "how": ["labels"]}
