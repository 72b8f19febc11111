"""A future that a writer answers with many others: as a future to whoever blocks, cheap to whoever awaits."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from vestibule.core.crossing import durable
from vestibule.core.pending import Pending, Wake, answer_all


def test_who_blocks_gets_the_answer_whenever_it_comes() -> None:
    for _ in range(200):
        futures: list[Pending[int]] = [Pending() for _ in range(8)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            early = [pool.submit(future.result, 30) for future in futures[:4]]
            answer_all([(future, number, None) for number, future in enumerate(futures)])
            late = [pool.submit(future.result, 30) for future in futures[4:]]
            assert [got.result() for got in (*early, *late)] == list(range(8))


def test_an_error_is_raised_and_told() -> None:
    future: Pending[int] = Pending()
    answer_all([(future, None, KeyError("x"))])
    assert future.done()
    assert isinstance(future.exception(), KeyError)
    with pytest.raises(KeyError):
        future.result()


def test_who_waits_for_several_is_woken() -> None:
    futures: list[Pending[int]] = [Pending() for _ in range(3)]
    timer = threading.Timer(0.05, lambda: answer_all([(future, 1, None) for future in futures]))
    timer.start()
    assert concurrent.futures.wait(futures, timeout=30).done == set(futures)
    assert [future.result() for future in concurrent.futures.as_completed(futures)] == [1, 1, 1]


def test_waiting_ends_in_time_and_what_was_cancelled_is_not_begun() -> None:
    future: Pending[int] = Pending()
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(0.01)
    assert future.cancel()
    assert not future.set_running_or_notify_cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    begun: Pending[int] = Pending()
    assert begun.set_running_or_notify_cancel()
    assert not begun.cancel()
    answer_all([(begun, 5, None)])
    assert begun.result() == 5


@pytest.mark.parametrize("looked", [False, True])
def test_it_is_answered_once(looked: bool) -> None:
    future: Pending[int] = Pending()
    assert not (looked and future.cancelled())
    answer_all([(future, 1, None)])
    with pytest.raises(concurrent.futures.InvalidStateError):
        answer_all([(future, 2, None)])
    assert future.result() == 1


def test_a_callback_that_raises_takes_no_answer_from_the_others() -> None:
    one: Pending[int] = Pending()
    two: Pending[int] = Pending()
    seen: list[int] = []

    def bad(_: object) -> None:
        raise ValueError

    one.add_done_callback(bad)
    one.add_done_callback(lambda future: seen.append(future.result()))
    two.add_done_callback(lambda future: seen.append(future.result()))
    answer_all([(one, 1, None), (two, 2, None)])
    two.add_done_callback(lambda future: seen.append(future.result() + 1))
    assert seen == [1, 2, 3]


def test_a_loop_is_woken_once_for_a_batch() -> None:
    async def scenario() -> int:
        loop = asyncio.get_running_loop()
        woken = 0
        wake = loop.call_soon_threadsafe

        def counted(callback: Callable[..., Any], *values: Any, context: Any = None) -> Any:
            nonlocal woken
            woken += 1
            return wake(callback, *values, context=context)

        futures: list[Pending[int]] = [Pending() for _ in range(16)]
        waiting = [asyncio.ensure_future(durable(future)) for future in futures]
        gone = asyncio.ensure_future(durable(futures[0]))
        await asyncio.sleep(0)
        gone.cancel()
        loop.call_soon_threadsafe = counted  # type: ignore[method-assign]
        thread = threading.Thread(target=answer_all, args=([(f, n, None) for n, f in enumerate(futures)],))
        thread.start()
        assert await asyncio.wait_for(asyncio.gather(*waiting), 30) == list(range(16))
        thread.join()
        assert gone.cancelled()
        return woken

    assert asyncio.run(scenario()) == 1


def test_a_loop_that_is_closed_is_waited_for_by_nobody() -> None:
    loop = asyncio.new_event_loop()
    waiter = loop.create_future()
    loop.close()
    future: Pending[int] = Pending()
    future.add_done_callback(Wake(loop, waiter))
    plain: concurrent.futures.Future[int] = concurrent.futures.Future()
    plain.add_done_callback(Wake(loop, waiter))
    answer_all([(future, 1, None)])
    plain.set_result(1)
    assert future.result() == 1


def test_a_forked_child_can_answer() -> None:
    from vestibule.core import pending

    with pending._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            future: Pending[int] = Pending()
            answer_all([(future, 1, None)])
            os._exit(0 if future.result() == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
