"""Several upstreams for one request: what the first one told of its usage pays for nothing of the second's."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from models_house import RUN, House, table
from sqlalchemy import select

from vestibule.boundary.models.formats import by_name
from vestibule.boundary.models.formats.base import FormatName
from vestibule.boundary.models.gateway import build_models_app
from vestibule.boundary.models.providers import Upstream
from vestibule.core.crossing import Crossing
from vestibule.store import tables

USED = {"input_tokens": 10, "output_tokens": 5}
COUNTED = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
ASKED: dict[FormatName, tuple[str, str, str, dict[str, Any]]] = {
    "anthropic": (
        "anthropic",
        "claude-sonnet-5",
        "/v1/messages",
        {"max_tokens": 100, "messages": [{"role": "user", "content": "x"}]},
    ),
    "chat": (
        "openai",
        "gpt-5",
        "/chat/completions",
        {"max_completion_tokens": 100, "messages": [{"role": "user", "content": "x"}]},
    ),
    "responses": ("openai", "gpt-5", "/responses", {"max_output_tokens": 100, "input": "x"}),
}
UNUSABLE: dict[FormatName, dict[str, Any]] = {
    "anthropic": {"type": "message", "role": "assistant", "content": [{"type": "never"}], "usage": USED},
    "chat": {"choices": [{"index": 0, "message": {"role": "assistant", "content": 5}}], "usage": COUNTED},
    "responses": {"object": "response", "status": "completed", "output": [{"type": "never"}], "usage": USED},
}
"""Answers that tell their usage and cannot be passed on."""


def answering(body: bytes) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


@pytest.mark.parametrize("form", list(ASKED))
def test_the_usage_of_an_unusable_answer_does_not_settle_the_next_upstreams(form: FormatName, tmp_path: Path) -> None:
    api, model, path, body = ASKED[form]
    house = House(tmp_path, model=model)
    try:
        ports = [house.start(answering(item)) for item in (json.dumps(UNUSABLE[form]).encode(), b"no answer")]
        house.ledger.open(RUN, house.budget)
        house.gateway = build_models_app(
            crossing=Crossing(decider=house.decider, audit=house.audit),
            authenticate=house.authenticate,
            upstreams=[
                Upstream(f"u{port}", api, f"http://127.0.0.1:{port}", model, lambda: "k", speaks=(form,))
                for port in ports
            ],
            ledger=house.ledger,
            prices=table(),
            task=house.task(),
        )
        url = f"http://127.0.0.1:{house.start(house.gateway)}{by_name(form).prefix}{path}"
        headers = {"content-type": "application/json", "authorization": f"Bearer {house.token}"}
        data = json.dumps({"model": model, **body}).encode()
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(urllib.request.Request(url, data=data, headers=headers), timeout=20)
        assert caught.value.code == 502
        house.drain()
        holds = tables.holds.c
        query = select(holds.state, holds.nano_usd, holds.cost_nano_usd, holds.output_tokens).order_by(holds.id)
        with house.db.read() as connection:
            first, second = connection.execute(query)
    finally:
        house.close()
    assert (first.state, first.output_tokens) == ("settled", 5)
    assert (second.state, second.cost_nano_usd) == ("charged", second.nano_usd)
