"""What recording costs, beside the disk's own price; what verifying costs, beside hashing the same bytes."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vestibule.audit.entry import prepare
from vestibule.audit.log import AuditLog
from vestibule.audit.sequencer import Sequencer
from vestibule.audit.trust import Trust
from vestibule.audit.verify import verify
from vestibule.core.model import Event

pytestmark = pytest.mark.bench

ENTRIES = int(os.environ.get("VESTIBULE_BENCH_ENTRIES", "100000"))


def event(number: int) -> Event:
    return Event(
        run=f"r{number % 50}",
        phase="intent",
        action="context.read",
        resource=f"src/package/module_{number}.py",
        subject="agent",
        actor="spiffe://example.com/run/r0/agent/a",
        verdict="deny",
        reasons=("context.read.scope",),
    )


def fdatasync_rate(folder: Path, size: int, seconds: float = 0.7) -> float:
    """Appends of `size` bytes, each made durable, per second: the limit for one writer that does not share commits."""
    descriptor = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    data = b"x" * size
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        os.write(descriptor, data)
        os.fdatasync(descriptor)
        count += 1
    rate = count / (time.perf_counter() - start)
    os.close(descriptor)
    return rate


def produce(log: AuditLog, producers: int, seconds: float) -> tuple[float, list[float]]:
    """Appends per second by blocking producers, and every append's milliseconds."""
    taken: list[list[float]] = [[] for _ in range(producers)]
    until = time.perf_counter() + seconds

    def work(mine: list[float]) -> None:
        while (start := time.perf_counter()) < until:
            log.append(event(len(mine)))
            mine.append((time.perf_counter() - start) * 1000)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in taken]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - begin
    every = [item for mine in taken for item in mine]
    return len(every) / spent, every


def test_appends_beside_fdatasync(tmp_path: Path) -> None:
    size = len(prepare(event(1)).entry(1, "2026-01-01T00:00:00.000Z"))
    total = 0
    with AuditLog.open(tmp_path / "audit", tmp_path / "trust") as log:
        for producers in (1, 32):
            before = fdatasync_rate(tmp_path, size)
            rate, taken = produce(log, producers, 1.5)
            disk = statistics.mean((before, fdatasync_rate(tmp_path, size)))
            cuts = statistics.quantiles(taken, n=100)
            print(
                f"\naudit append, {producers:>2} producers: {rate:6.0f}/s  p50 {cuts[49]:.2f} ms  p99 {cuts[98]:.2f} ms"
                f"   fdatasync of the same {size} bytes: {disk:7.0f}/s   ratio {rate / disk:.2f}"
            )
            total += len(taken)
    result = verify(tmp_path / "audit", tmp_path / "trust")
    assert result.ok
    assert result.size == total


def test_verify_beside_sha256_and_opening(tmp_path: Path) -> None:
    sequencer = Sequencer(tmp_path / "audit", Trust(tmp_path / "trust"), trust_domain="example.com")
    start = time.perf_counter()
    for first in range(0, ENTRIES, 2000):
        sequencer.append([prepare(event(number)) for number in range(first, first + 2000)])
        sequencer.seal()
    filled = time.perf_counter() - start
    sequencer.close()

    start = time.perf_counter()
    result = verify(tmp_path / "audit", tmp_path / "trust")
    verified = time.perf_counter() - start
    assert result.ok
    assert result.size == ENTRIES

    with sqlite3.connect(tmp_path / "audit" / "log.db") as connection:
        bodies = [row[0] for row in connection.execute("SELECT body FROM entries ORDER BY seq")]
    start = time.perf_counter()
    for body in bodies:
        hashlib.sha256(body).digest()
    hashed = time.perf_counter() - start

    opened = []
    for _ in range(5):
        start = time.perf_counter()
        log = AuditLog.open(tmp_path / "audit", tmp_path / "trust")
        opened.append((time.perf_counter() - start) * 1000)
        log.close()

    code = "import time; t = time.perf_counter(); import vestibule.audit.log; print((time.perf_counter() - t) * 1000)"
    imported = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    print(
        f"\naudit fill of {ENTRIES}, 2000 a commit: {ENTRIES / filled:.0f}/s"
        f"\naudit verify of {ENTRIES}: {verified:.2f} s ({ENTRIES / verified:.0f}/s)   "
        f"sha256 of the same bytes: {hashed:.2f} s   ratio {verified / hashed:.1f}"
        f"\naudit open with {ENTRIES} entries: {min(opened):.1f} ms   import: {imported:.0f} ms"
    )
    assert min(opened) < 1000
