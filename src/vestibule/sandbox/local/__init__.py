"""Sandboxes on this machine: bubblewrap, seccomp, cgroups, and a network namespace with nothing but our listeners.

Modules marked *stdlib only* also run in the launch server, which starts without site-packages so that it is small
and quick; this file therefore imports late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vestibule.sandbox.local.backend import LocalSandbox as LocalSandbox
    from vestibule.sandbox.local.uids import own_workspace as own_workspace

__all__ = ["LocalSandbox", "own_workspace"]


def __getattr__(name: str) -> object:
    if name == "LocalSandbox":
        from vestibule.sandbox.local.backend import LocalSandbox

        return LocalSandbox
    if name == "own_workspace":
        from vestibule.sandbox.local.uids import own_workspace

        return own_workspace
    raise AttributeError(name)
