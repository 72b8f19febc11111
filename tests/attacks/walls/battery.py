"""The battery: every case in real sandboxes, judged outside, residue looked for after each sandbox.

Started by `stage.py` as `battery TIER RESULT [only] [WALL…]`; writes one JSON object to the descriptor RESULT:
`{"all": {case: result}, "<wall>": {…}, "control": {…}, "residue": {…}, "seconds": {…}}`. A wall's name means: once more
with that wall switched off; `only`: not with all walls before. A result is
`{"opened": [what it got], "how": [errors it met]}`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.ablated import without
from tests.attacks.walls import own, results
from tests.attacks.walls.cases import Case, here
from tests.attacks.walls.egress import Egress
from tests.attacks.walls.judge import judge
from tests.attacks.walls.outside import Outside, subreaper
from tests.attacks.walls.residue import MADE, Residue
from vestibule.core.ports import Limits, Mount, SandboxSpec
from vestibule.sandbox.local import LocalSandbox, seccomp
from vestibule.sandbox.local.running import Running
from vestibule.sandbox.local.syscall_numbers import NUMBERS

INSIDE = Path(__file__).with_name("inside")
RUN = "r0walls"
PYTHON = os.path.realpath(sys.executable)
NOT_IN_THE_CONTROL = frozenset({"P11", "P12", "P13", "P10", "B-sudo", "B-mounts", "E-TAMPER", "B-iptables"})
"""Attacks that are not run where no wall is: they would harm the machine, or prove nothing there."""

Found = dict[str, dict[str, Any]]


class Round:
    """One time through the cases, with all walls or without one."""

    def __init__(self, tier: str, outside: Outside, wall: str) -> None:
        self.tier = tier
        self.outside = outside
        self.wall = wall
        tools = () if Path(sys.base_prefix).resolve() == Path("/usr") else (os.path.realpath(sys.base_prefix),)
        state = outside.house / "state"
        self.backend: LocalSandbox = without(*([wall] if wall else []), tools=tools, state=state)
        setattr(self.backend, "create", partial(_made, self.backend.create))  # noqa: B010 - an instance's own
        self.egress = Egress(outside)
        self.work = outside.house / "work"

    @property
    def uid(self) -> int | None:
        return None if self.wall == "own_uid" else self.backend.workspace_uid(RUN)

    def spec(self, attacks: list[str], workspace: Path, **fields: Any) -> SandboxSpec:
        """A sandbox whose program runs those attacks."""
        given = self.outside.given(attacks, numbers=numbers(), **fields.pop("given", {}))
        order = json.dumps(given).encode()
        values: dict[str, Any] = {
            "run": RUN,
            "argv": (PYTHON, "-I", "-S", "-B", "/opt/attacks/main.py", f"{HOME}/order.json"),
            "mounts": (
                Mount(source=workspace, target="/workspace", write=True),
                Mount(source=INSIDE, target="/opt/attacks"),
            ),
            "home_files": {"order.json": order},
            "env": {"LD_LIBRARY_PATH": f"{sys.base_prefix}/lib"},
            "limits": Limits(wall_seconds=100, memory_bytes=1 << 30, pids=400),
            **fields,
        }
        return SandboxSpec.model_validate(values)

    def attack(self, spec: SandboxSpec, **streams: Any) -> Found:
        """Runs it; what each attack says that it got."""
        sandbox = self.backend.create(spec, **streams)
        try:
            sandbox.go()
            result = sandbox.wait()
        finally:
            sandbox.kill()
        try:
            return dict(json.loads(result.stdout))
        except ValueError:
            said = (result.stdout + result.stderr)[-600:].decode("utf-8", "replace")
            raise RuntimeError(f"the attacks ended with {result.exit_code} ({result.reason}): {said}") from None

    def batch(self, cases: list[Case]) -> Found:
        """All cases that share a sandbox, the egress gateway behind it."""
        workspace, view, base = results.workspace(self.work, self.uid)
        try:
            said = self._batch(workspace, [case.id for case in cases])
            after = results.collect(self.outside, self.work, workspace, view, base)
        finally:
            results.remove(self.work)
        changed = self.outside.changed()
        return {name: judge(name, said[name], self.outside, changed, after) for name in said}

    def _batch(self, workspace: Path, names: list[str]) -> Found:
        plan = self.egress.plan
        spec = self.spec(names, workspace, names=plan.names, endpoints=plan.endpoints, resolver=True)
        with self.other_task():
            sandbox = self.backend.create(spec)
            try:
                with self.egress.serving(sandbox):
                    sandbox.go()
                    result = sandbox.wait()
            finally:
                sandbox.kill()
        try:
            return dict(json.loads(result.stdout))
        except ValueError:
            text = (result.stdout[-300:] + result.stderr[-600:]).decode("utf-8", "replace")
            raise RuntimeError(f"the batch ended with {result.exit_code} ({result.reason}): {text}") from None

    @contextlib.contextmanager
    def other_task(self) -> Iterator[None]:
        """Another task's sandbox, with a name of its own, alive meanwhile."""
        spec = SandboxSpec(run="r0other", argv=("sleep", "100"), cwd="/", endpoints=(("other.example.com", 443),))
        sandbox = self.backend.create(spec) if self.wall != "network" else None  # its address would be taken
        try:
            if sandbox is None:
                yield
                return
            sandbox.go()
            with self.egress.serving(sandbox, hosts=("other.example.com:443",)):
                yield
        finally:
            if sandbox is not None:
                sandbox.kill()

    def alone(self, case: Case) -> dict[str, Any]:
        """A case with a sandbox of its own."""
        return own.OWN[case.id](self)

    def close(self) -> None:
        self.backend.release(RUN)
        self.backend.close()


def _made(create: Callable[..., Running], *given: Any, **streams: Any) -> Running:
    """A sandbox, its control groups written down for the look at what is left."""
    sandbox = create(*given, **streams)
    MADE.update(sandbox.ready["folders"])
    return sandbox


HOME = "/home/agent"


def numbers() -> dict[str, int]:
    arch = seccomp.ARCHES[os.uname().machine]
    found = ((name, pair[arch.column]) for name, pair in NUMBERS.items())
    return {name: number for name, number in found if number is not None}


def main() -> None:
    tier, out, *walls = sys.argv[1:]
    subreaper()
    outside = Outside()
    residue = Residue(outside.house)
    found: dict[str, Any] = {"tier": tier, "residue": {}, "seconds": {}, "failed": {}}
    try:
        for wall in walls[1:] if walls[:1] == ["only"] else ["", *walls]:
            began = time.monotonic()
            found[wall or "all"] = _round(tier, outside, wall, residue, found)
            found["seconds"][wall or "all"] = round(time.monotonic() - began, 2)
            if not wall:
                found["control"] = _control(outside, [case.id for case in here(tier) if case.runs == "batch"])
    finally:
        outside.close()
        with os.fdopen(int(out), "w") as file:
            json.dump(found, file)


def _round(tier: str, outside: Outside, wall: str, residue: Residue, found: dict[str, Any]) -> Found:
    label = wall or "all"
    once = Round(tier, outside, wall)
    cases = here(tier)
    told: Found = {}
    outside.reset()

    def guarded(name: str, action: Callable[[], Found]) -> None:
        began = time.monotonic()
        try:
            told.update(action())
        except Exception:
            found["failed"][f"{label} {name}"] = traceback.format_exc()[-2000:]
        finally:
            found["seconds"][f"{label} {name}"] = round(time.monotonic() - began, 2)
            left = residue.found()
            if left:
                found["residue"][f"{label} {name}"] = left

    try:
        once.uid  # noqa: B018 - leased for the whole round
        residue.settle(once.backend)
        guarded("batch", lambda: once.batch([case for case in cases if case.runs == "batch"]))
        for case in (case for case in cases if case.runs == "own"):
            outside.reset()
            guarded(case.id, lambda case=case: {case.id: once.alone(case)})  # type: ignore[misc]
    finally:
        once.close()
    return told


def _control(outside: Outside, names: list[str]) -> Found:
    """The same attacks where no wall is, as this user: those that succeed are proof that they work."""
    outside.reset()
    folder = outside.house / "work" / "control"
    (folder / "src").mkdir(parents=True)
    names = [name for name in names if name not in NOT_IN_THE_CONTROL]
    given = outside.given(names, numbers=numbers(), workspace=str(folder), names=_CONTROL_NAMES)
    order = folder / "order.json"
    order.write_text(json.dumps(given))
    argv = [sys.executable, "-I", "-S", "-B", str(INSIDE / "main.py"), str(order)]
    environment = {**os.environ, "SSH_AUTH_SOCK": "/tmp/ssh-agent/agent.1"}
    done = subprocess.run(
        argv, capture_output=True, check=False, timeout=120, close_fds=False, cwd=folder, env=environment
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode()[-1000:])
    said = json.loads(done.stdout)
    changed = outside.changed()
    return {name: judge(name, said[name], outside, changed, {}) for name in names}


_CONTROL_NAMES = {
    "docs.example.com": "11.22.33.44",
    "denied.example.com": "11.22.33.55",
    "bulk.example.com": "11.22.33.44",
    "inner.example.com": "127.0.0.1",
    "rebind.example.com": "127.0.0.1",
    "context.vestibule.internal": "11.22.33.44",
}

if __name__ == "__main__":
    main()
