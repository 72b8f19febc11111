"""The threads of tools: few at a time, nothing after the end, errors told; and who reads small files."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from context_fake import Endpoint, make_endpoint

from vestibule.boundary.context.limits import ContextLimits
from vestibule.boundary.context.workers import Workers


def test_what_a_tool_gives_or_raises_comes_back() -> None:
    workers = Workers(2, "t")

    async def work() -> None:
        assert await workers.run(lambda *found: found, 1, 2) == (1, 2)
        with pytest.raises(ZeroDivisionError):
            await workers.run(lambda: 1 // 0)
        assert await workers.run(threading.current_thread) is not threading.current_thread()

    asyncio.run(work())
    workers.shutdown()


def test_no_more_run_at_a_time_than_there_are_threads() -> None:
    workers, gate, lock = Workers(3, "t"), threading.Event(), threading.Lock()
    running: list[int] = []
    most = 0

    def tool(number: int) -> int:
        nonlocal most
        with lock:
            running.append(number)
            most = max(most, len(running))
            if len(running) == 3:
                gate.set()
        gate.wait(10)
        with lock:
            running.remove(number)
        return number

    async def work() -> list[int]:
        return await asyncio.gather(*(workers.run(tool, number) for number in range(9)))

    assert asyncio.run(work()) == list(range(9))
    assert most == 3
    workers.shutdown()


def test_after_the_end_nothing_runs_and_what_ran_was_waited_for() -> None:
    workers, started, released = Workers(1, "t"), threading.Event(), threading.Event()
    order: list[str] = []

    def tool() -> None:
        started.set()
        released.wait(10)
        order.append("tool")

    async def work() -> None:
        call = asyncio.create_task(workers.run(tool))
        await asyncio.to_thread(started.wait, 10)
        ending = asyncio.create_task(asyncio.to_thread(workers.shutdown))
        while not workers._closed:
            await asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            await workers.run(order.append, "late")
        released.set()
        await ending
        order.append("ended")
        await call

    asyncio.run(asyncio.wait_for(work(), 20))
    assert order == ["tool", "ended"]
    workers.shutdown()


def test_whoever_gave_up_waiting_ends_no_thread() -> None:
    workers, released = Workers(1, "t"), threading.Event()

    async def work() -> None:
        call = asyncio.create_task(workers.run(released.wait, 10))
        await asyncio.sleep(0)
        call.cancel()
        released.set()
        assert await workers.run(lambda: "next") == "next"

    asyncio.run(asyncio.wait_for(work(), 20))
    workers.shutdown()


@pytest.mark.parametrize(("size", "here"), [(100, True), (101, False)])
def test_only_small_files_are_read_by_the_event_loop(
    folder: Path, loop: Any, monkeypatch: pytest.MonkeyPatch, size: int, here: bool
) -> None:
    (folder / "src/size.txt").write_text("x" * size)
    endpoint = make_endpoint(folder, loop, limits=ContextLimits(quick_bytes=100))
    real, readers = endpoint.workspace.read, []

    def read(path: str, *, limit: int) -> bytes:
        found = real(path, limit=limit)
        readers.append(threading.current_thread() is threading.main_thread())
        return found

    monkeypatch.setattr(endpoint.workspace, "read", read)
    assert endpoint.call("read_file", path="src/size.txt").text == "x" * size
    assert readers == [here]
    endpoint.workspace.close()


def test_a_quick_call_is_refused_once_the_endpoint_is_closed(endpoint: Endpoint) -> None:
    assert endpoint.call("read_file", path="src/greet.py").status == 200
    endpoint.app.close()
    assert endpoint.call("read_file", path="src/greet.py").refusal["rule"] == "dependency.context"


def test_white_space_around_a_header_is_not_part_of_it(endpoint: Endpoint) -> None:
    padded = {"content-type": "application/json \t", "mcp-protocol-version": " 2025-11-25 "}
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_task"}}'
    assert endpoint.http(body, headers=padded).status == 200


def test_an_answer_that_nobody_asked_for_is_no_message(endpoint: Endpoint) -> None:
    for body in (b'{"jsonrpc":"2.0","id":1,"result":{}}', b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}'):
        assert endpoint.http(body).status == 400
    assert endpoint.log.events == []
