"""A role's set-up commands: run once in a sandbox of their own, before any model is asked; the result is read-only.

Rules it keeps:
1. Commands and the list of lock files come from the protected base commit's configuration, lock files from the base
   commit; nothing an agent wrote, and nothing of the workspace, is seen by them.
2. They run behind the same walls as an agent, with the set-up's own names and registries and no others, no task token
   and no gateway of ours. What packages run there reaches no more than that.
3. A command that fails, runs too long, or leaves something that cannot be kept ends the attempt (`setup.failed`).
4. The result is found by everything it was made from: commands, lock files, names, the machine and the operator's
   tools. It is verified before each use (`sandbox.toolchain`), and every use is in the log with its digest.
"""

from __future__ import annotations

import contextlib
import platform
import shlex
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vestibule.config.schema import RepoConfig, SetupConfig
from vestibule.core.canonical import digest, digest_bytes
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.ports import Mount, Quota, SandboxResult, SandboxSpec
from vestibule.core.refusal import refusal
from vestibule.core.text.sanitize import show_hidden
from vestibule.git import Git
from vestibule.pipeline.ceilings import disk_of, limits_of
from vestibule.pipeline.egress import RunNetwork, egress_of, network_of
from vestibule.pipeline.hosting import GatewayHost
from vestibule.pipeline.record import RunRecord
from vestibule.pipeline.services import Services
from vestibule.pipeline.watched import run_watched
from vestibule.sandbox.local import own_workspace
from vestibule.sandbox.quota import clear
from vestibule.sandbox.removal import remove_tree
from vestibule.sandbox.toolchain import SETUP, Store, Toolchain, Unusable

SETUP_SECONDS = 900.0
"""One set-up command; what runs longer is ended, and the attempt is refused."""

MAX_LOCK_BYTES = 32 << 20
"""One lock file."""

SETUP_ACTION = "toolchain.setup"
USE_ACTION = "toolchain.use"
_VERSION = 1


class Prepared:
    """What the sandboxes of an attempt get of a set-up. Empty for a role without one."""

    def __init__(self, toolchain: Toolchain | None = None, store: Store | None = None) -> None:
        self.toolchain = toolchain
        self._store = store

    @property
    def mounts(self) -> tuple[Mount, ...]:
        return (Mount(source=self.toolchain.tree, target=SETUP),) if self.toolchain else ()

    @property
    def path(self) -> tuple[str, ...]:
        """Folders of programs, before the others on PATH."""
        return self._existing("bin", "node_modules/.bin", "python/bin")

    @property
    def env(self) -> dict[str, str]:
        """Where Python and Node look for modules."""
        found = {"PYTHONPATH": self._existing("python"), "NODE_PATH": self._existing("node_modules")}
        return {name: folders[0] for name, folders in found.items() if folders}

    def close(self) -> None:
        if self._store is not None:
            self._store.close()

    def _existing(self, *names: str) -> tuple[str, ...]:
        tree = self.toolchain.tree if self.toolchain else None
        return tuple(f"{SETUP}/{name}" for name in names if tree is not None and (tree / name).is_dir())


def prepare(services: Services, record: RunRecord, config: RepoConfig) -> Prepared:
    """The set-up of the run's role, made or found.

    Raises:
        Refused: `setup.failed`; a command failed, or left what cannot be kept.
        DependencyDown: `toolchain`, `sandbox`, `walls`, `workspace`, `gateway`, `audit`.
    """
    role = config.roles.get(record.role)
    if role is None or role.setup is None:
        return Prepared()
    setup = role.setup
    locks = _lock_files(record, setup)
    scope = record.scope.model_copy(
        update={"hosts": setup.endpoints, "registries": setup.registries, "host_programs": {}}
    )
    narrow = record.model_copy(update={"scope": scope, "egress": "named"})
    network = network_of(services, narrow, ())
    if network.plan.denied:
        refused = network.plan.denied[0]
        raise _failed("The set-up needs a name that it cannot have.", refused.sentence())
    inputs = _inputs(services, setup, locks, network)
    key = digest(inputs).rpartition(":")[2]
    store = Store(services.home / "toolchains")
    making = _Making(services, narrow, services.minimum(config), network, store)
    try:
        found = store.find(key)
        if found is None:
            services.say("Setting up the role's tools; this is done once.")
            found = making.make(setup.commands, locks, key, inputs)
        services.note(record, USE_ACTION, key, details={"digest": found.digest, "files": found.files})
    except BaseException:
        store.close()
        raise
    store.prune()
    return Prepared(found, store)


def _lock_files(record: RunRecord, setup: SetupConfig) -> dict[str, bytes]:
    """Content by path, from the base commit."""
    git = Git.open(record.repo)
    regular = {entry.path for entry in git.tree(record.base_commit) if entry.mode in ("100644", "100755")}
    found = {}
    for path in setup.lockfiles:
        data = git.blob(record.base_commit, path, limit=MAX_LOCK_BYTES) if path in regular else None
        if data is None:
            raise _failed("A lock file of the set-up is no file of the base commit.", path)
        found[path] = data
    return found


def _inputs(services: Services, setup: SetupConfig, locks: Mapping[str, bytes], network: RunNetwork) -> dict[str, Any]:
    """Everything a result depends on."""
    return {
        "version": _VERSION,
        "commands": [list(argv) for argv in setup.commands],
        "lockfiles": {path: digest_bytes(data) for path, data in locks.items()},
        "names": sorted(rule.key for rule in network.plan.rules),
        "env": network.env,
        "files": {name: digest_bytes(data) for name, data in network.home_files.items()},
        "machine": platform.machine(),
        "system": [_state("/etc/os-release"), _state("/var/lib/dpkg/status"), _state("/usr/bin"), _state("/usr/lib")],
        "tools": {
            str(tool): [_state(item) for item in (tool, f"{tool}/bin")] for tool in services.operator.sandbox.tools
        },
    }


def _state(path: str) -> list[int]:
    """Which file or folder it is and when it was last changed: installing a program changes its folder."""
    try:
        about = Path(path).stat()
    except OSError:
        return []
    return [about.st_dev, about.st_ino, about.st_mtime_ns]


@dataclass(frozen=True, slots=True)
class _Making:
    """One set-up of one run. `record` has the set-up's names for its scope."""

    services: Services
    record: RunRecord
    minimum: tuple[str, ...]
    network: RunNetwork
    store: Store

    def make(
        self, commands: tuple[tuple[str, ...], ...], locks: Mapping[str, bytes], key: str, inputs: Mapping[str, Any]
    ) -> Toolchain:
        """Run the commands, keep what they left. Nothing else of them stays."""
        folder = self.services.folder(self.record.id) / "setup"
        run = f"{self.record.id}-setup"
        with contextlib.ExitStack() as living:
            _remove(folder)
            folder.mkdir(mode=0o700)
            living.callback(_remove, folder)
            living.callback(self.services.sandbox.release, run)
            uid = self.services.sandbox.workspace_uid(run)
            disk = disk_of(self.services.operator.sandbox, folder)
            living.callback(disk.close)
            disk.workspace.mkdir(mode=0o755)
            own_workspace(disk.workspace, uid)
            _lay_out(folder / "files", locks, uid)
            mounts = (
                Mount(source=folder / "files", target="/workspace"),
                Mount(source=disk.workspace, target=SETUP, write=True),
            )
            with self.services.recorded(self.record, SETUP_ACTION, key, dict(inputs)) as told:
                spec = self._spec(run, mounts, disk.quota)
                for argv in commands:
                    result = self._run(spec.model_copy(update={"argv": argv}))
                    if result.reason != "exited" or result.exit_code != 0:
                        raise _failed(f"`{shlex.join(argv)}` {_how(result)}.", _tail(result))
                try:
                    found = self.store.keep(key, disk.workspace)
                except Unusable as error:
                    raise _failed("What the set-up left cannot be kept.", str(error)) from None
                told.update({"digest": found.digest, "files": found.files})
            return found

    def _spec(self, run: str, mounts: tuple[Mount, ...], quota: Quota) -> SandboxSpec:
        return SandboxSpec(
            run=run,
            argv=("true",),
            env={"CI": "true", "PYTHONDONTWRITEBYTECODE": "1", **self.network.env},
            path=(f"{SETUP}/bin", f"{SETUP}/node_modules/.bin"),
            mounts=mounts,
            home_files=self.network.home_files,
            endpoints=self.network.plan.endpoints,
            resolver=True,
            limits=limits_of(self.services.operator.sandbox, SETUP_SECONDS),
            quota=quota,
        )

    def _run(self, spec: SandboxSpec) -> SandboxResult:
        """One command, with the set-up's own egress."""
        died: list[str] = []
        sandbox = self.services.sandbox.create(spec)

        def gone(name: str) -> None:
            died.append(name)
            threading.Thread(target=sandbox.kill, name="end-of-setup", daemon=True).start()

        with contextlib.ExitStack() as living:
            living.callback(sandbox.kill)
            self.services.require_walls(sandbox.report, self.minimum)
            host = GatewayHost(gone)
            living.callback(host.stop)
            crossing = self.services.crossing(self.record)
            gateway = egress_of(self.services, self.record, self.network, crossing, sandbox)
            host.run("network", gateway.serve(dict(sandbox.listeners)))
            gateway.begin()
            result = run_watched(self.services, self.record, sandbox, "setup", writable=(SETUP,))
        if died:
            raise DependencyDown("gateway", "The network gateway ended while the set-up ran, so it was stopped.")
        return result


def _lay_out(folder: Path, files: Mapping[str, bytes], uid: int | None) -> None:
    folder.mkdir(mode=0o755)
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    own_workspace(folder, uid)


def _how(result: SandboxResult) -> str:
    if result.reason == "wall-clock":
        return f"was stopped after {SETUP_SECONDS:.0f} seconds"
    if result.reason == "quota":
        return "took more room or more files than it may"
    return f"ended with {result.exit_code}" + ("" if result.reason == "exited" else f" ({result.reason})")


def _tail(result: SandboxResult) -> str:
    return show_hidden((result.stdout + result.stderr)[-1500:].decode("utf-8", "replace")).strip()


def _failed(reason: str, fact: str) -> Refused:
    return Refused(
        refusal(
            "setup.failed",
            f"The role's set-up failed, so no agent was started. {reason}",
            fact=fact,
            agent="Stop here; a person has to repair the set-up.",
            person="Correct roles.ROLE.setup or the lock files on the base branch, then start the run anew.",
        )
    )


def _remove(folder: Path) -> None:
    try:
        clear(folder)
        remove_tree(folder)
    except OSError as error:
        raise DependencyDown("workspace", f"{folder} cannot be removed.", fact=error.strerror or "") from None
