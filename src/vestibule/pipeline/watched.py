"""A program of the pipeline's own that runs under the runtime monitor: a verify command, a set-up command."""

from __future__ import annotations

import secrets
import threading

from vestibule.core.errors import Refused
from vestibule.core.ports import RunningSandbox, SandboxResult
from vestibule.pipeline.monitor import HostMonitor
from vestibule.pipeline.record import RunRecord
from vestibule.pipeline.services import Services


def run_watched(
    services: Services, record: RunRecord, sandbox: RunningSandbox, kind: str, *, writable: tuple[str, ...] = ()
) -> SandboxResult:
    """Start it, under the monitor where one stands; `writable` are places inside beside the usual ones.

    A behaviour that policy denies, and a monitor's loss, end it.

    Raises:
        Refused: what ended it.
    """
    troubles: list[Refused] = []

    def trouble(error: Refused) -> None:
        troubles.append(error)
        threading.Thread(target=sandbox.kill, name="end-of-sandbox", daemon=True).start()

    name = f"{kind}-{secrets.token_hex(4)}"
    monitor = HostMonitor(services, record, services.crossing(record), trouble, name=name, writable=writable)
    monitor.begin()
    try:
        monitor.watch(sandbox)
        sandbox.go()
        result = sandbox.wait()
        if not troubles:
            monitor.finish()
    finally:
        sandbox.kill()
        monitor.abandon()
    if troubles:
        raise troubles[0]
    return result
