"""The scripted provider speaks Chat Completions: read with the official SDK, through the real gateway."""

from __future__ import annotations

from typing import Any

import chat_wire
import openai
import pytest
from anthropic_wire import AnthropicWire
from hold_matrix import MARK, SCENARIOS, Player, Says, says_json
from models_house import MODEL, House, table

from vestibule.boundary.models.gateway import build_models_app
from vestibule.boundary.models.providers import Upstream
from vestibule.core.crossing import Crossing

SCRIPT = """
version: 1
tool_prefix: vestibule_
turns:
  - text: I look first.
    tools: [{name: look, input: {path: "ü.py"}}]
  - when: {last_result_contains: "refused"}
    text: I may not.
    otherwise: {text: Done.}
  - text: Not reached.
"""
RUN = "r00000000000000"


def client(house: House, script: str = SCRIPT) -> Any:
    """A client of a gateway whose only provider is scripted."""
    provider = house.scripted(script)
    address = f"http://127.0.0.1:{house.start(provider)}"
    house.ledger.open(RUN, house.budget)
    house.gateway = build_models_app(
        crossing=Crossing(decider=house.decider, audit=house.audit),
        authenticate=house.authenticate,
        upstreams=(Upstream("demo", "scripted", address, MODEL, lambda: house.provider_key, speaks=("chat",)),),
        ledger=house.ledger,
        prices=table(),
        task=house.task(),
    )
    return chat_wire.sdk(house.token, f"http://127.0.0.1:{house.start(house.gateway)}/openai/v1")


def ask(client: Any, *more: Any, **options: Any) -> Any:
    messages = [*chat_wire.ASK, *more]
    return client.chat.completions.create(model=MODEL, messages=messages, tools=chat_wire.OFFERED, **options)


def test_a_scripted_task_is_talked_through(house: House) -> None:
    made = client(house)
    first = ask(made).choices[0]
    assert first.finish_reason == "tool_calls"
    assert first.message.content == "I look first."
    (call,) = first.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("look", '{"path": "\\u00fc.py"}')
    result = {"role": "tool", "tool_call_id": call.id, "content": "text"}
    assert ask(made, first.message.model_dump(exclude_none=True), result).choices[0].message.content == "Done."
    refused = {**result, "content": "refused"}
    assert ask(made, first.message.model_dump(exclude_none=True), refused).choices[0].message.content == "I may not."


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_says_the_same_and_its_usage_to_who_asked(house: House, usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if usage else {}
    chunks = list(ask(client(house), stream=True, **options))
    words = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    pieces = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    assert words == "I look first."
    assert "".join(piece.function.arguments for piece in pieces) == '{"path": "\\u00fc.py"}'
    assert [chunk for chunk in chunks if chunk.usage is not None] == (chunks[-1:] if usage else [])
    house.drain()
    assert house.ledger.usage(RUN).output_tokens > 0


def test_a_refused_call_counts_as_a_turn(house: House) -> None:
    house.decider.denied_tools.add("look")
    found = ask(client(house)).choices[0]
    assert found.finish_reason == "stop"
    assert found.message.tool_calls is None
    assert found.message.content.startswith(f"I look first.\n\n{MARK}")
    house.drain()
    assert house.ledger.usage(RUN).requests == 2


def test_what_is_refused_is_said_with_its_rule(house: House) -> None:
    made = client(house)
    with pytest.raises(openai.PermissionDeniedError) as caught:
        ask(made, extra_body={"web_search_options": {}})
    assert caught.value.code == "model.field.web_search_options"
    assert "outside the walls" in str(caught.value)
    with pytest.raises(openai.AuthenticationError):
        made.with_options(api_key="wrong").chat.completions.create(model=MODEL, messages=chat_wire.ASK)


def test_the_models_are_listed_under_the_shared_prefix(house: House) -> None:
    assert [item.id for item in client(house).models.list()] == [MODEL]


def test_a_fallback_works_across_formats(house: House) -> None:
    """The first provider speaks Chat Completions and is overloaded; the second speaks the program's own format."""
    busy = b'{"error": {"message": "overloaded", "type": "server_error"}}'
    says = Says((busy,), kind="application/json", status="503 Busy", length=len(busy))
    answer = AnthropicWire().whole(SCENARIOS["text"]) or b""
    with Player(says) as first, Player(says_json(answer)) as second:
        house.ledger.open(RUN, house.budget)
        house.gateway = build_models_app(
            crossing=Crossing(decider=house.decider, audit=house.audit),
            authenticate=house.authenticate,
            upstreams=(
                Upstream("one", "openai", first.url, MODEL, lambda: "k", speaks=("chat",)),
                Upstream("two", "anthropic", second.url, MODEL, lambda: "k", speaks=("anthropic",)),
            ),
            ledger=house.ledger,
            prices=table(),
            task=house.task(),
        )
        url = f"http://127.0.0.1:{house.start(house.gateway)}/anthropic"
        reading = AnthropicWire().read(house, url, stream=False)
        house.drain()
    assert reading.error is None
    assert reading.text == "Hello there."
    assert (first.paths, second.paths) == (["/chat/completions"], ["/v1/messages"])
    assert house.ledger.usage(RUN).requests == 2
    assert house.ledger.usage(RUN).output_tokens == 9
