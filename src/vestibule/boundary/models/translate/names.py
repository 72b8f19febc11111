"""Names of tools that are too long for the other API. Pure."""

from __future__ import annotations

import hashlib

MAX_NAME = 64
"""Characters of a function's name at OpenAI; Anthropic allows 128."""


class Names:
    """Shortens names of one request, and gives the long ones back."""

    def __init__(self) -> None:
        self._long: dict[str, str] = {}

    def short(self, name: str) -> str:
        if len(name) <= MAX_NAME:
            return name
        found = f"{name[: MAX_NAME - 13]}_{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:12]}"
        self._long[found] = name
        return found

    def long(self, name: str) -> str:
        return self._long.get(name, name)
