"""Metrics of this installation: the ledger's sums and the log's counts on one page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vestibule.config.load import state_dir
from vestibule.cost.metrics import Decision, Metrics
from vestibule.store.database import Database


class _Decisions:
    """What was decided since the last call, from the audit log. Reads only; needs no key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = 0

    def __call__(self) -> list[Decision]:
        from vestibule.audit.counts import decisions_after

        self._seen, found = decisions_after(self._folder, self._seen)
        return found


def metrics_here(db: Database, environ: Mapping[str, str] | None = None) -> Metrics:
    """The metrics of the state folder and database in use."""
    return Metrics(db, _Decisions(state_dir(environ) / "audit"))
