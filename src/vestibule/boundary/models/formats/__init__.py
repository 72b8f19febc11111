"""The wire formats there are. Explicit: a package cannot add one by being installed."""

from __future__ import annotations

from vestibule.boundary.models.formats.anthropic import Anthropic
from vestibule.boundary.models.formats.base import Format
from vestibule.boundary.models.formats.chat import Chat
from vestibule.boundary.models.formats.gemini import Gemini
from vestibule.boundary.models.formats.responses import Responses

FORMATS: tuple[Format, ...] = (Anthropic(), Responses(), Chat(), Gemini())


def by_name(name: str) -> Format:
    """Raises `KeyError`."""
    return next(item for item in FORMATS if item.name == name)


def by_path(path: str) -> Format | None:
    """The format under whose prefix `path` lies. Of two that share one, the one that serves the path."""
    for item in FORMATS:
        if path == item.prefix or path.startswith(item.prefix + "/"):
            return item
    return None


__all__ = ["FORMATS", "Format", "by_name", "by_path"]
