"""From the workspace of a finished attempt to a commit in the run's own bare repository."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vestibule.core.errors import AgentFailed
from vestibule.core.ids import Sha
from vestibule.core.view import Export
from vestibule.git import Git
from vestibule.pipeline.record import RunRecord
from vestibule.pipeline.services import Services

if TYPE_CHECKING:
    from vestibule.boundary.changes.apply import Applied


def result_repository(services: Services, record: RunRecord) -> Git:
    """The run's own bare repository, where results are applied; nobody else writes there."""
    path: Path = services.folder(record.id) / "result.git"
    return Git(path) if (path / "HEAD").exists() else Git.init(path, bare=True)


def start_commit(services: Services, record: RunRecord) -> Sha:
    """What this round's view was projected from: the base, or what the last round that proposed something proposed."""
    return last_proposed(services, record) or record.base_commit


def last_proposed(services: Services, record: RunRecord) -> Sha | None:
    """The newest proposal of an earlier round; None when there was none: a round may end with a question instead.

    Raises:
        AgentFailed: there was one, and it is gone.
    """
    result = result_repository(services, record) if record.round > 1 else None
    for number in range(record.round - 1, 0, -1):
        found = result.commit_of(f"refs/vestibule/proposed-{number}") if result else None
        if found is not None:
            return found
    if record.branch and record.round > 1:
        raise AgentFailed(
            "What the last round proposed is gone from the run's folder.", next_step="Start the run anew."
        )
    return None


def source_of(services: Services, record: RunRecord) -> Git:
    """A repository of ours that holds the round's start commit."""
    result = result_repository(services, record)
    if result.commit_of(record.base_commit) is None:
        result.fetch_commit(Git.open(record.repo), record.base_commit)
        result.run(["update-ref", "refs/vestibule/base", record.base_commit])
    return result


def export_path(services: Services, record: RunRecord) -> Path:
    return services.folder(record.id) / f"export-{record.round}.json"


def save_export(services: Services, record: RunRecord, export: Export) -> None:
    """Durable before the attempt counts as done."""
    path = export_path(services, record)
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(export.model_dump_json().encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def apply_result(services: Services, record: RunRecord) -> tuple[Git, Applied]:
    """The repository and what was applied in it. Idempotent: the same export makes the same commit."""
    from vestibule.boundary.changes.apply import apply_export

    result = source_of(services, record)
    export = Export.model_validate_json(export_path(services, record).read_text("utf-8"))
    applied = apply_export(
        export,
        result,
        start_commit(services, record),
        message=_message(record),
        time=record.worked,
        trust_domain=services.operator.trust_domain,
    )
    result.run(["update-ref", f"refs/vestibule/result-{record.round}", applied.commit])
    return result, applied


def _message(record: RunRecord) -> str:
    from vestibule.core.text.sanitize import one_line

    title = one_line(record.spec.title if record.spec else record.id, 72)
    trailers = {"Run": record.id, "Round": record.round, "Agent": record.agent.version}
    return f"{title}\n\n" + "".join(f"Vestibule-{name}: {one_line(str(value))}\n" for name, value in trailers.items())
