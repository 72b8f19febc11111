"""The view: exactly the files a sandbox was given, and what came back."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vestibule.core.base import Noun
from vestibule.core.ids import Sha


class ViewFile(Noun):
    """One file of the view. `blob` is its object in the base repository, `mode` 100644, 100755 or 120000.

    Of a `partial` file a view rule shows a part: `content` is that part, `blob` and `size` are the part's own, and
    nothing here tells of the original.
    """

    path: str
    mode: Literal["100644", "100755", "120000"]
    blob: Sha
    size: int
    partial: bool = False
    content: bytes | None = Field(default=None, exclude=True, repr=False)


class View(Noun):
    """What was projected from `base_commit`. `omitted` counts files the scope or the control-file list hides.

    `unshowable` are files that are left out because no part of them can be shown as a view rule asks; people are told
    of them, the agent is not.
    """

    base_commit: Sha
    files: tuple[ViewFile, ...]
    omitted: int
    writable: tuple[str, ...]
    unshowable: tuple[str, ...] = ()

    @property
    def partial(self) -> tuple[str, ...]:
        """Paths of the files that are shown in part."""
        return tuple(item.path for item in self.files if item.partial)


class ExportedFile(Noun):
    """One change found in the workspace after every process was dead. `content` is None for a deletion.

    `partial`: the view showed a part of the file only, so whoever changed it cannot know what it replaces.
    """

    path: str
    status: Literal["added", "modified", "deleted"]
    mode: Literal["100644", "100755", "120000"]
    content: bytes | None
    partial: bool = False


class Export(Noun):
    """What leaves the sandbox: changes against the view, and what was left behind with the reason."""

    files: tuple[ExportedFile, ...]
    dropped: tuple[tuple[str, str], ...] = ()
