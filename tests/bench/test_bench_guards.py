"""What looking at the texts of a request costs: what is new, and what was sent before."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path
from typing import Any

import pytest

from vestibule.boundary.models.formats.base import Asked
from vestibule.boundary.models.guards.known import Known
from vestibule.boundary.models.guards.requests import Requests
from vestibule.boundary.models.guards.stream import Flow
from vestibule.core.labels import Label
from vestibule.core.text.secrets import KnownSecret

SOURCE = Path(__file__).parents[2] / "src/vestibule/boundary/models/gateway.py"


def talk(size: int) -> dict[str, Any]:
    text = (SOURCE.read_text() * 8)[:size]
    turns: list[dict[str, Any]] = []
    for at in range(0, size, 4000):
        call = {"type": "tool_use", "id": f"c{at}", "name": "read_file", "input": {"path": "a.py"}}
        result = {"type": "tool_result", "tool_use_id": f"c{at}", "content": f"{at} {text[at : at + 4000]}"}
        turns += [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    return {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "go"}, *turns]}


def spent(run: Any, times: int) -> float:
    """CPU milliseconds of one, the best of three."""
    best = float("inf")
    for _ in range(3):
        begun = time.process_time()
        for _ in range(times):
            run()
        best = min(best, (time.process_time() - begun) / times * 1000)
    return best


@pytest.mark.bench
def test_a_history_of_100_kb_costs_little_once_it_was_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    known = Known(KnownSecret(f"key {n}", secrets.token_urlsafe(32).encode()) for n in range(5))
    body = talk(100_000)
    guard = Requests(known, Label)
    asked = Asked("anthropic", "generate", "m", body, stream=False, most_output=1, messages=51)
    loop = asyncio.new_event_loop()
    begun = time.process_time()
    first = loop.run_until_complete(guard.review(asked))
    fresh = (time.process_time() - begun) * 1000
    assert first.refusal is None

    def again() -> None:
        assert loop.run_until_complete(guard.review(asked)).notes["new"] == 0

    resent = spent(again, 50)
    flow = Flow(known)
    words = SOURCE.read_text()[:12_000]

    def stream() -> None:
        for at in range(0, len(words), 15):
            flow.see(b"x", words[at : at + 15])

    frame = spent(stream, 1) / (len(words) / 15)
    loop.close()
    with capsys.disabled():
        print(
            f"\nguards, 5 values: 100 kB new {fresh:.1f} ms CPU, sent again {resent:.2f} ms, "
            f"streamed frame {frame * 1000:.1f} µs"
        )
    assert resent * 10 < fresh, "what was looked at is looked at again"
