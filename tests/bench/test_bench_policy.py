"""A policy decision: cold (asked of the engine), remembered, and the floor: the same table in plain Python."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest

from vestibule.core.ports import PolicyInput
from vestibule.policy import PolicySet

FACTS: dict[str, Any] = {
    "path_ok": True,
    "path_rule": "",
    "tool_allowed": True,
    "in_write": True,
    "in_read_or_new": True,
    "protected": False,
    "control_file": False,
}
ROUNDS = 300


def _request(number: int) -> PolicyInput:
    path = f"src/module_{number}.py"
    return PolicyInput(
        action="context.write",
        subject={"id": "spiffe://example.com/run/r1/agent/a", "kind": "agent"},
        resource={"id": path, "path": path, "tool": "write_file"},
        task={
            "run": "r1",
            "role": "backend",
            "read": ["src/**", "tests/**", "pyproject.toml"],
            "write": ["src/**", "tests/**"],
            "tools": ["read_file", "list_files", "search_files", "write_file", "apply_patch", "run_command"],
            "commands": ["pytest", "ruff"],
            "agent": {"name": "a", "adapter": "command", "model": "", "version": "1"},
            "requester": "local:alice",
        },
        labels={"integrity": "member", "confidentiality": "internal"},
        facts=FACTS,
    )


def _plain(request: PolicyInput) -> bool:
    """What the bundle says of a write, without an engine: the floor for any policy engine in Python."""
    if request.action != "context.write":
        return False
    return all(name in request.facts and request.facts[name] == value for name, value in FACTS.items())


def _measure(work: Callable[[PolicyInput], bool], requests: list[PolicyInput]) -> tuple[float, float]:
    """Median and 99th percentile in microseconds."""
    times = []
    for request in requests:
        started = time.perf_counter()
        allowed = work(request)
        times.append((time.perf_counter() - started) * 1e6)
        assert allowed
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


@pytest.mark.bench
def test_bench_policy_decision(capsys: pytest.CaptureFixture[str]) -> None:
    started = time.perf_counter()
    policy = PolicySet.load()
    load_ms = (time.perf_counter() - started) * 1e3
    requests = [_request(number) for number in range(ROUNDS)]

    def decide(request: PolicyInput) -> bool:
        return policy.decide(request).allowed

    cold, cold_99 = _measure(decide, requests)
    warm, warm_99 = _measure(decide, requests)
    floor, floor_99 = _measure(_plain, requests)
    policy.close()
    with capsys.disabled():
        print(f"\npolicy: load and prove {load_ms:.1f} ms")
        print(
            f"policy: decision asked      p50 {cold:8.1f} us  p99 {cold_99:8.1f} us  {cold / floor:7.0f} x plain Python"
        )
        print(
            f"policy: decision remembered p50 {warm:8.1f} us  p99 {warm_99:8.1f} us  {warm / floor:7.0f} x plain Python"
        )
        print(f"policy: plain Python floor  p50 {floor:8.1f} us  p99 {floor_99:8.1f} us")
