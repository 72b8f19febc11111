"""The guards on answers behind every wire format, streamed or not, through the real gateway."""

from __future__ import annotations

import http.client
import json
from typing import Any

import models_house
import pytest
from models_house import MODEL, RUN, House

from vestibule.boundary.models.formats.base import FormatName
from vestibule.boundary.models.gateway import build_models_app
from vestibule.boundary.models.guards.desk import Guards, GuardSettings
from vestibule.boundary.models.guards.versions import VersionRules
from vestibule.boundary.models.providers import Upstream
from vestibule.core.crossing import Crossing
from vestibule.core.labels import Label
from vestibule.core.text.secrets import KnownSecret

VALUE = "Zq7Rt2Lw9Xc4Vb6Nm1Kj8Hg3Fd5Sa0PoIuYtReWq"


def body_of(form: FormatName, stream: bool, said: str) -> dict[str, Any]:
    if form == "gemini":
        return {"contents": [{"role": "user", "parts": [{"text": said}]}], "generationConfig": {"maxOutputTokens": 50}}
    if form == "responses":
        return {"model": MODEL, "stream": stream, "store": False, "max_output_tokens": 50, "input": said}
    return {
        "model": MODEL,
        "stream": stream,
        "max_completion_tokens": 50,
        "messages": [{"role": "user", "content": said}],
    }


def path_of(form: FormatName, stream: bool) -> str:
    if form == "gemini":
        return f"/gemini/v1beta/models/{MODEL}:" + ("streamGenerateContent?alt=sse" if stream else "generateContent")
    return "/openai/v1/responses" if form == "responses" else "/openai/v1/chat/completions"


def asked(house: House, form: FormatName, stream: bool, *, text: str, said: str = "hi", **more: Any) -> tuple[int, str]:
    provider = house.scripted(f"version: 1\nturns:\n  - text: {json.dumps(text)}\n")
    address = f"http://127.0.0.1:{house.start(provider)}"
    house.ledger.open(RUN, house.budget)
    secrets = (KnownSecret("the key", VALUE.encode()),)
    house.gateway = build_models_app(
        crossing=Crossing(decider=house.decider, audit=house.audit),
        authenticate=house.authenticate,
        upstreams=(Upstream("test", "scripted", address, MODEL, lambda: house.provider_key, speaks=(form,)),),
        guards=Guards(GuardSettings(secrets=secrets, **more), Label),
        ledger=house.ledger,
        prices=models_house.table(),
        task=house.task(),
    )
    connection = http.client.HTTPConnection("127.0.0.1", house.start(house.gateway), timeout=20)
    key = {"x-goog-api-key": house.token} if form == "gemini" else {"authorization": f"Bearer {house.token}"}
    body = json.dumps(body_of(form, stream, said))
    connection.request("POST", path_of(form, stream), body, {**key, "content-type": "application/json"})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
EACH = pytest.mark.parametrize("form", ["responses", "chat", "gemini"])


@BOTH
@EACH
def test_a_known_value_in_an_answer_is_cut(house: House, form: FormatName, stream: bool) -> None:
    _, data = asked(house, form, stream, text=f"The key is {VALUE}, ok.")
    assert "model.answer.secret" in data
    assert VALUE[:6] not in data


@BOTH
@EACH
def test_a_known_value_in_a_request_is_not_sent(house: House, form: FormatName, stream: bool) -> None:
    status, data = asked(house, form, stream, text="hello", said=f"send {VALUE[::-1]}")
    assert status == 403
    assert "model.secret" in data
    assert house.ledger.usage(RUN).requests == 0


@BOTH
@EACH
def test_a_text_that_does_not_fit_is_replaced(house: House, form: FormatName, stream: bool) -> None:
    rules = VersionRules("maven", {"org.example:*": "[1,2)"})
    status, data = asked(house, form, stream, text="use org.example:a:9.0 now", validators=(rules,))
    assert status == 200
    assert "model.answer.text" in data
    assert "use org.example:a:9.0 now" not in data
