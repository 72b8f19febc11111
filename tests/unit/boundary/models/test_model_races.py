"""Budgets over real sockets: exactly what fits reaches the provider, and what does not is told why."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from models_house import MODEL, RUN, House, table
from sqlalchemy import select

from vestibule.config.spending import OperatorBudget
from vestibule.core.model import Budget
from vestibule.core.money import NANO
from vestibule.cost.ledger import Ledger
from vestibule.cost.prices import CeilingPrices
from vestibule.store import tables

BODY = {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": "Hello."}]}
ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": MODEL,
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "content": [{"type": "text", "text": "ok"}],
    "usage": {"input_tokens": 10, "output_tokens": 2},
}


class Waiting:
    """A provider that counts what reaches it and answers when it is told to."""

    def __init__(self) -> None:
        self.reached = 0
        self.open = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.loop = asyncio.get_running_loop()
        while (await receive()).get("more_body"):
            pass
        self.reached += 1
        await self.open.wait()
        body = json.dumps(ANSWER).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    def let_go(self) -> None:
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.open.set)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    found = House(tmp_path, parallel=64)
    yield found
    found.close()


async def post(session: aiohttp.ClientSession, house: House, url: str, body: dict[str, Any]) -> tuple[int, Any, str]:
    headers = {"x-api-key": house.token, "anthropic-version": "2023-06-01"}
    async with session.post(f"{url}/v1/messages", json=body, headers=headers) as answer:
        return answer.status, await answer.json(), answer.headers.get("retry-after", "")


def many(house: House, url: str, provider: Waiting, count: int) -> list[tuple[int, Any, str]]:
    """`count` requests at once; the provider answers when everyone else was refused, or all are with it."""

    async def run() -> list[tuple[int, Any, str]]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            tasks = [asyncio.create_task(post(session, house, url, BODY)) for _ in range(count)]
            deadline = asyncio.get_running_loop().time() + 60
            while provider.reached + sum(task.done() for task in tasks) < count:
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            provider.let_go()
            return await asyncio.gather(*tasks)

    return asyncio.run(run())


def held(house: House) -> list[tuple[int, int]]:
    with house.db.read() as connection:
        rows = connection.execute(select(tables.holds.c.nano_usd, tables.holds.c.cost_nano_usd)).all()
    return [(row[0], row[1]) for row in rows]


def test_of_64_racing_requests_exactly_the_ten_that_fit_reach_the_provider(house: House) -> None:
    provider = Waiting()
    url = house.open(provider)
    # The second is held by what the first one showed of tokens and bytes, as all that follow are.
    for _ in range(2):
        assert [status for status, _, _ in many(house, url, provider, 1)] == [200]
        house.drain()
        provider.reached = 0
    cost = held(house)[0][1]
    nano_usd = min(hold for hold, _ in held(house))
    house.ledger.open(RUN, Budget(nano_usd=2 * cost + 10 * nano_usd + nano_usd - 1))
    provider.open.clear()
    answers = many(house, url, provider, 64)
    assert provider.reached == 10
    assert sorted(status for status, _, _ in answers) == [200] * 10 + [403] * 54
    refused = next(body for status, body, _ in answers if status == 403)
    assert "budget.usd" in str(refused)
    house.drain()
    standing = house.ledger.standing(RUN)
    assert standing is not None
    assert (standing.held_nano_usd, standing.held_requests) == (0, 0)
    assert standing.spent_nano_usd == 12 * cost


def test_more_requests_at_a_time_than_allowed_are_asked_to_come_again(house: House) -> None:
    house.ledger = Ledger(house.db, OperatorBudget.model_validate({"concurrent": {"run": 2}}))
    provider = Waiting()
    url = house.open(provider)
    answers = many(house, url, provider, 5)
    assert provider.reached == 2
    assert sorted(status for status, _, _ in answers) == [200, 200, 429, 429, 429]
    status, body, retry = next(item for item in answers if item[0] == 429)
    assert (status, retry) == (429, "5")
    assert "budget.concurrent" in str(body)


def test_a_model_without_a_price_is_refused_and_nothing_is_held(tmp_path: Path) -> None:
    house = House(tmp_path, model="granite-of-nobody")
    try:
        provider = Waiting()
        url = house.open(provider)
        ((status, body, _),) = asyncio.run(_one(house, url))
        assert (status, provider.reached) == (403, 0)
        assert "model.unknown_price" in str(body)
        assert held(house) == []
    finally:
        house.close()


def test_a_model_without_a_price_holds_and_costs_the_operators_ceiling(tmp_path: Path) -> None:
    house = House(tmp_path, model="granite-of-nobody", budget=Budget(nano_usd=NANO))
    house.prices = CeilingPrices(table(), NANO * 2 // 5)
    try:
        provider = Waiting()
        provider.open.set()
        url = house.open(provider)
        statuses = [asyncio.run(_one(house, url))[0][0] for _ in range(3)]
        assert (statuses, provider.reached) == ([200, 200, 403], 2)
        house.drain()
        assert held(house) == [(NANO * 2 // 5, NANO * 2 // 5)] * 2
    finally:
        house.close()


def test_a_known_model_keeps_its_price_beside_a_ceiling() -> None:
    now = datetime.now(UTC)
    assert CeilingPrices(table(), NANO).find(MODEL, now) == table().find(MODEL, now)


async def _one(house: House, url: str) -> list[tuple[int, Any, str]]:
    async with aiohttp.ClientSession() as session:
        return [await post(session, house, url, {**BODY, "model": house.model})]
