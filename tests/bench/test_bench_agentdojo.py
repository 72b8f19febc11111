"""The whole AgentDojo replay against its page, and what provenance costs beside the decision that it serves."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from tests.attacks.agentdojo import replay, report

from vestibule.boundary.context.catalogue import Tool
from vestibule.boundary.context.provenance import Trusted, trusted_arguments
from vestibule.core.ports import PolicyInput


@pytest.mark.bench
def test_the_page_holds_every_number_of_the_replay() -> None:
    table = report.table()
    print(f"\n{table}")
    assert table in report.PAGE.read_text(encoding="utf-8")


def _p50(run: Callable[[int], object], times: int = 300) -> float:
    """Microseconds of the median run."""
    took = []
    for number in range(times):
        start = time.perf_counter()
        run(number)
        took.append(time.perf_counter() - start)
    return sorted(took)[times // 2] * 1e6


@pytest.mark.bench
def test_cost_of_provenance_beside_the_decision() -> None:
    """A ticket of 48 KiB (the largest) and a call of ten values, one of them a body of 2,000 characters."""
    line = "Pay $1,200.50 to ann@example.com by May 15th, 2024, see https://docs.example.com/guide and room-7.\n"
    text = "".join(f"{number}: {line}" for number in range(480))
    trusted = Trusted([text])
    schema = {"properties": {name: {} for name in "abcdefghij"}}
    tool = Tool("send", "", schema, read_only=False)
    body = "\n".join(text.splitlines()[-20:])
    call = dict.fromkeys("abcdefgh", "ann@example.com") | {"i": 1200.5, "j": body}
    assert trusted_arguments(tool, call, trusted).trusted
    assert not trusted_arguments(tool, {**call, "a": "eve@example.com"}, trusted).trusted

    policy = replay.shipped()

    def decide(number: int) -> None:
        facts = {"tool_known": True, "tool_allowed": True}
        policy.decide(
            PolicyInput(action="context.call", subject={"id": str(number)}, resource={"id": "x"}, facts=facts)
        )

    read = _p50(lambda _: Trusted([text]), 20)
    judged, decided = _p50(lambda _: trusted_arguments(tool, call, trusted)), _p50(decide)
    print(
        f"\nprovenance: {judged:.0f} us a call of 10 values, {judged / decided:.2f} x an uncached decision "
        f"({decided:.0f} us); once a task {read / 1000:.1f} ms to read 48 KiB"
    )
    policy.close()
