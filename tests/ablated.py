"""Sandboxes with one wall switched off, for tests only. Nothing under `src` makes one (tests/unit/sandbox)."""

from __future__ import annotations

from pathlib import Path

from vestibule.sandbox.local.backend import LocalSandbox


def without(*walls: str, tools: tuple[str | Path, ...] = (), state: Path | None = None) -> LocalSandbox:
    """A backend whose sandboxes lack `walls` (`vestibule.sandbox.local.ablation` says what each name means)."""
    kind = type("AblatedSandbox", (LocalSandbox,), {"_without": frozenset(walls)})
    backend: LocalSandbox = kind(tools=tools, state=state)
    return backend
