"""A second empty network around every sandbox: the launch server leaves the host's before any keeper exists."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from sandbox_helpers import specification

from vestibule.sandbox.local import LocalSandbox, limits


def _network(pid: int | str) -> int:
    return Path(f"/proc/{pid}/ns/net").stat().st_ino


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_keepers_are_in_neither_the_hosts_network_nor_the_sandboxs(backend: LocalSandbox, workspace: Path) -> None:
    sandbox = backend.create(specification("sleep 20", workspace))
    try:
        assert sandbox.ready["enclosed"]
        own, inside = _network("self"), _network(sandbox.ready["inside"])
        assert own != inside
        with contextlib.suppress(PermissionError):  # without root a keeper cannot be looked at
            server = _parent(_parent(sandbox.ready["bwrap"]))
            assert _network(server) not in (own, inside)
    finally:
        sandbox.kill()


def test_a_server_with_users_of_its_own_counts_what_is_below_it() -> None:
    everybody = limits._processes_of(os.getuid())
    limits.apart = os.getpid()
    try:
        mine = limits._processes_of(os.getuid())
    finally:
        limits.apart = 0
    assert 0 < mine <= everybody
