"""What the readers and writers of partial files share. Pure."""

from __future__ import annotations

from typing import Any

MAX_BYTES = 8 << 20
"""Of a file, and of what is shown of it."""
MAX_DEPTH = 64
MAX_NODES = 500_000
"""Values of one file, containers counted."""

Tree = Any
"""None, bool, int, float, str, date and time values, and lists and dictionaries (with text keys) of these."""


class CannotProject(Exception):
    """No part of the file can be shown as the rule asks, so none of it is. The text never holds a value of the file."""


def text_of(data: bytes) -> str:
    """UTF-8 without NUL, with or without a byte order mark."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CannotProject("The file is no UTF-8 text.") from None
    if "\0" in text:
        raise CannotProject("The file holds NUL characters.")
    return text


def check_size(tree: Tree) -> None:
    """Raises `CannotProject` for a tree that is too deep or too large."""
    level, depth, nodes = [tree], 0, 0
    while level:
        nodes += len(level)
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            raise CannotProject("The file is nested too deeply, or holds too many values.")
        below: list[Tree] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        level, depth = below, depth + 1
