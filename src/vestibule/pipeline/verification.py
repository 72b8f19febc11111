"""Verify commands: after approval and only then, on exactly the approved tree, in a sandbox of their own.

The tree is materialised from the approved commit; nothing that runs here can reach the network, a gateway, the
forge or the result. A command that cannot run is a failure, never a pass. How each ended is in the log.
"""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

from vestibule.config.schema import RepoConfig
from vestibule.core.crossing import error_details
from vestibule.core.errors import DependencyDown
from vestibule.core.model import Finding, Scope
from vestibule.core.ports import Mount, SandboxSpec
from vestibule.core.text.sanitize import show_hidden
from vestibule.core.verdict import Ruling
from vestibule.pipeline.ceilings import disk_of, limits_of
from vestibule.pipeline.record import RunRecord
from vestibule.pipeline.results import result_repository
from vestibule.pipeline.services import Services
from vestibule.pipeline.toolchains import Prepared, prepare
from vestibule.pipeline.watched import run_watched
from vestibule.sandbox.quota import WorkspaceDisk, clear

VERIFY_SECONDS = 1800.0
VERIFY_ACTION = "verify.command"
"""The action of the events that say how a verify command ended: `details` hold its number, argv and the tree."""
_EVERYTHING = Scope(read=("**",), write=("**",))


def verify(services: Services, record: RunRecord, config: RepoConfig) -> Finding | None:
    """Run every command in order; the first failure as a finding, None when all passed.

    Raises:
        DependencyDown: no sandbox can be made.
    """
    for number, argv in enumerate(config.verify.commands, start=1):
        details = {"number": number, "argv": list(argv), "tree": record.tree}
        close = services.begin(record, VERIFY_ACTION, shlex.join(argv), details=details)
        try:
            code, output = _run(services, record, config, argv, services.folder(record.id) / "verify")
        except BaseException as error:
            close(False, error_details(error))
            raise
        close(code == 0, {"exit_code": code})
        if code != 0:
            return Finding(
                rule="verify.failed",
                severity="error",
                verdict=Ruling.DENY,
                message=f"The verify command `{shlex.join(argv)}` ended with {code}.",
                excerpt=output,
                tool="verify",
            )
    return None


def _run(
    services: Services, record: RunRecord, config: RepoConfig, argv: tuple[str, ...], folder: Path
) -> tuple[int, str]:
    _remove(folder)
    folder.mkdir(mode=0o700)
    with contextlib.ExitStack() as living:
        living.callback(_remove, folder)
        prepared = prepare(services, record, config)
        living.callback(prepared.close)
        disk = disk_of(services.operator.sandbox, folder)
        living.callback(disk.close)
        spec = _spec(services, record, argv, disk, prepared)
        sandbox = services.sandbox.create(spec)
        living.callback(sandbox.kill)
        services.require_walls(sandbox.report, services.minimum(config))
        result = run_watched(services, record, sandbox, "verify")
    output = (result.stdout + result.stderr)[-4000:].decode("utf-8", "replace")
    return (result.exit_code if result.reason == "exited" else result.exit_code or 124), show_hidden(output)


def _spec(
    services: Services, record: RunRecord, argv: tuple[str, ...], disk: WorkspaceDisk, prepared: Prepared
) -> SandboxSpec:
    """The approved tree on `disk`, and the command."""
    from vestibule.sandbox.view import materialise, mounts_for, project

    workspace = disk.workspace
    source = result_repository(services, record)
    view = project(source, record.head_commit, _EVERYTHING)
    materialise(source, view, workspace, uid=services.sandbox.workspace_uid(record.id))
    mounts: tuple[Mount, ...] = mounts_for(view, _EVERYTHING, workspace)
    return SandboxSpec(
        run=record.id,
        argv=argv,
        env={"CI": "true", "PYTHONDONTWRITEBYTECODE": "1", **prepared.env},
        path=prepared.path,
        mounts=(*mounts, *prepared.mounts),
        limits=limits_of(services.operator.sandbox, VERIFY_SECONDS),
        quota=disk.quota,
    )


def _remove(folder: Path) -> None:
    from vestibule.sandbox.removal import remove_tree

    try:
        clear(folder)
        remove_tree(folder)
    except OSError as error:
        raise DependencyDown("workspace", f"{folder} cannot be removed.", fact=error.strerror or "") from None
