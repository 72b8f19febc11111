"""The idle limit stops who does nothing, and nobody else."""

from __future__ import annotations

import asyncio
import threading

import pytest

from vestibule.config.schema import OperatorSandbox, RoleBudget
from vestibule.core.errors import DependencyDown
from vestibule.core.ports import Activity
from vestibule.pipeline.ceilings import limits_of
from vestibule.pipeline.idle import IdleWatch, Quiet, Requests


def still(cpu: float = 0.0, output: int = 0) -> Activity:
    return Activity(cpu_seconds=cpu, output_bytes=output)


def test_nothing_at_all_is_idle_and_timers_are_nothing() -> None:
    quiet, requests = Quiet(0.0), Requests()
    assert quiet.look(30, still(0.1), requests) == 30
    assert quiet.look(60, still(0.2), requests) == 60


@pytest.mark.parametrize(
    ("cpu", "output", "made", "under_way"),
    [(1.0, 0, 0, 0), (0.0, 1, 0, 0), (0.0, 0, 1, 0), (0.0, 0, 0, 1)],
    ids=["processor", "output", "request", "request under way"],
)
def test_each_kind_of_doing_counts(cpu: float, output: int, made: int, under_way: int) -> None:
    quiet, requests = Quiet(0.0), Requests()
    assert quiet.look(30, still(), requests) == 30
    requests.made, requests.under_way = made, under_way
    assert quiet.look(60, still(cpu, output), requests) == 0


def test_a_call_counts_while_it_runs_and_a_stream_that_listens_never() -> None:
    requests = Requests()
    seen: list[int] = []

    async def app(scope: object, receive: object, send: object) -> None:
        seen.append(requests.under_way)
        raise ConnectionError

    async def call(method: str) -> None:
        async def nothing(*_: object) -> dict[str, object]:
            return {}

        with pytest.raises(ConnectionError):
            await requests.counted(app)({"method": method}, nothing, nothing)  # type: ignore[arg-type]

    asyncio.run(call("POST"))
    asyncio.run(call("GET"))
    assert seen == [1, 0]
    assert (requests.made, requests.under_way) == (1, 0)


class Still:
    """A sandbox that does nothing; the first looks fail."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.looks = 0

    def activity(self) -> Activity:
        self.looks += 1
        if self.looks <= self.failures:
            raise DependencyDown("sandbox", "It does not answer.")
        return still()


def test_the_watch_says_it_once_and_a_sandbox_that_does_not_answer_is_not_idle() -> None:
    sandbox, said = Still(failures=3), threading.Event()
    watch = IdleWatch(sandbox, Requests(), seconds=0.2, idle=said.set)  # type: ignore[arg-type]
    watch.start()
    assert said.wait(5)
    assert sandbox.looks > 3


def test_a_watch_that_is_stopped_says_nothing() -> None:
    said = threading.Event()
    watch = IdleWatch(Still(failures=0), Requests(), seconds=0.5, idle=said.set)  # type: ignore[arg-type]
    watch.start()
    watch.stop()
    watch._thread.join(5)
    assert not said.is_set()


def test_ceilings_come_from_the_operator() -> None:
    found = limits_of(OperatorSandbox(cpus=1.5, io_mb=3, memory_mb=5, pids=7), 9)
    assert (found.cpu_percent, found.io_bytes, found.memory_bytes, found.pids) == (150, 3 << 20, 5 << 20, 7)
    assert limits_of(OperatorSandbox(), 9).cpu_percent is None
    assert RoleBudget().idle_minutes == 10
