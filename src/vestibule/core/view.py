"""The view: exactly the files a sandbox was given, and what came back."""

from __future__ import annotations

from typing import Literal

from vestibule.core.base import Noun
from vestibule.core.ids import Sha


class ViewFile(Noun):
    """One file of the view. `blob` is its object in the base repository, `mode` 100644, 100755 or 120000."""

    path: str
    mode: Literal["100644", "100755", "120000"]
    blob: Sha
    size: int


class View(Noun):
    """What was projected from `base_commit`. `omitted` counts files the scope or the control-file list hides."""

    base_commit: Sha
    files: tuple[ViewFile, ...]
    omitted: int
    writable: tuple[str, ...]


class ExportedFile(Noun):
    """One change found in the workspace after every process was dead. `content` is None for a deletion."""

    path: str
    status: Literal["added", "modified", "deleted"]
    mode: Literal["100644", "100755", "120000"]
    content: bytes | None


class Export(Noun):
    """What leaves the sandbox: changes against the view, and what was left behind with the reason."""

    files: tuple[ExportedFile, ...]
    dropped: tuple[tuple[str, str], ...] = ()
