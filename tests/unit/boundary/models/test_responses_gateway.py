"""Responses through the real gateway: the scripted provider, the official SDK, what is sent on, errors."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import openai
import pytest
from hold_matrix import FINAL, SCENARIOS, Player, later, open_house, says_json, says_stream
from models_house import MODEL, RUN, House
from responses_wire import OFFERED, ResponsesWire, sdk

from vestibule.boundary.models.call_rules import MARK
from vestibule.boundary.models.formats.responses import DEFAULT_OUTPUT_TOKENS

WIRE = ResponsesWire()
SCRIPT = """
version: 1
turns:
  - text: I look first.
    tools: [{name: read_file, input: {path: a.py}}, {name: apply_patch, input: {input: "*** Begin Patch"}}]
    usage: {input_tokens: 10, cache_read_input_tokens: 20, cache_creation_input_tokens: 5, output_tokens: 7}
  - when: {last_result_contains: "print"}
    text: Done.
    otherwise: {text: Nothing came.}
"""
TOOLS: Any = [
    {
        "type": "namespace",
        "name": "mcp__vestibule",
        "description": "d",
        "tools": [{"type": "function", "name": "read_file", "parameters": {"type": "object"}, "strict": False}],
    },
    {"type": "custom", "name": "apply_patch"},
]


def turn(client: openai.OpenAI, items: list[Any], *, stream: bool) -> Any:
    if stream:
        with client.responses.stream(model=MODEL, input=items, tools=TOOLS) as found:
            return found.get_final_response()
    return client.responses.create(model=MODEL, input=items, tools=TOOLS)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_scripted_conversation_with_namespaces_and_free_text(house: House, stream: bool) -> None:
    client = sdk(house.token, house.open(house.scripted(SCRIPT), form="responses"))
    items: list[Any] = [{"role": "user", "content": "go"}]
    first = turn(client, items, stream=stream)
    text, call, patch = first.output
    assert text.content[0].text == "I look first."
    assert (call.type, call.namespace, call.name) == ("function_call", "mcp__vestibule", "read_file")
    assert json.loads(call.arguments) == {"path": "a.py"}
    assert (patch.type, patch.name, patch.input) == ("custom_tool_call", "apply_patch", "*** Begin Patch")
    # Some programs put each result right behind its call: that is still one turn.
    items += [text, call]
    items += [{"type": "function_call_output", "call_id": call.call_id, "output": "print()"}]
    items += [patch, {"type": "custom_tool_call_output", "call_id": patch.call_id, "output": "ok"}]
    second = turn(client, items, stream=stream)
    assert second.output_text == "Done."
    assert first.usage.input_tokens == 35
    assert first.usage.input_tokens_details.cached_tokens == 20
    house.drain()
    outcome = next(event for event in house.audit.of("outcome") if event.action == "model.request")
    usage = outcome.details["usage"]
    assert (usage["input_tokens"], usage["cache_read_tokens"], usage["cache_write_tokens"]) == (10, 20, 5)
    calls = [event.details["spelling"] for event in house.audit.of("intent") if event.action == "model.tool_call"]
    assert calls == ["mcp__vestibule/read_file", "apply_patch"]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_the_provider_gets_a_bound_stores_nothing_and_is_shown_why(house: House, stream: bool) -> None:
    render = WIRE.stream if stream else WIRE.whole
    first, final = render(SCENARIOS["deny"]) or b"", render(FINAL) or b""
    says = (says_stream(first), says_stream(final)) if stream else (says_json(first), says_json(final))
    with Player(*says) as player:
        reading = WIRE.read(house, open_house(house, WIRE, player), stream=stream)
        assert player.paths == ["/responses", "/responses"]
        one, two = player.bodies
    assert reading.output_tokens == 18
    assert one["store"] is False
    assert one["max_output_tokens"] == DEFAULT_OUTPUT_TOKENS
    text, call, result = two["input"][-3:]
    assert text["content"][0]["text"] == "I do it. "
    assert (call["type"], call["name"]) == ("function_call", "harm")
    assert (result["type"], result["call_id"]) == ("function_call_output", call["call_id"])
    assert result["output"].startswith(MARK)
    assert {**two, "input": 0} == {**one, "input": 0}


def test_a_refused_request_is_an_error_of_the_api_and_reaches_no_provider(house: House) -> None:
    with Player(says_stream(b"")) as player:
        client = sdk(house.token, house.open(player.url, form="responses"))
        with pytest.raises(openai.PermissionDeniedError) as found:
            client.responses.create(model=MODEL, input="x", tools=[{"type": "web_search"}])
        assert player.requests == 0
    error = found.value
    assert error.code == "model.field.tools.web_search"
    assert "model.field.tools.web_search" in error.message
    assert error.response.json()["vestibule"]["rule"] == "model.field.tools.web_search"
    assert house.ledger.usage(RUN).requests == 0


def test_the_list_of_models_holds_the_runs_own(house: House) -> None:
    url = house.open(house.scripted(SCRIPT), form="responses")
    assert [model.id for model in sdk(house.token, url).models.list()] == [MODEL]
    with pytest.raises(openai.AuthenticationError):
        sdk("wrong", url).models.list()


def test_a_stream_that_breaks_ends_with_both_events_that_programs_heed(house: House) -> None:
    broken = WIRE.stream(SCENARIOS["dies"]) or b""
    with Player(says_stream(broken, then="cut")) as player:
        url = house.open(player.url, form="responses")
        body = json.dumps({"model": MODEL, "input": "go", "stream": True, "tools": OFFERED}).encode()
        head = {"authorization": f"Bearer {house.token}", "content-type": "application/json"}
        request = urllib.request.Request(f"{url}/responses", data=body, headers=head)
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = answer.read().decode()
    last = [json.loads(frame.partition("data: ")[2]) for frame in text.split("\n\n") if frame][-2:]
    assert [value["type"] for value in last] == ["error", "response.failed"]
    assert last[0]["vestibule"]["rule"] == "dependency.provider"
    assert last[1]["response"]["error"]["code"] == "server_error"
    assert "dependency.provider" in last[1]["response"]["error"]["message"]


def test_a_providers_failure_within_its_answer_is_shown_once_and_charged(house: House) -> None:
    data = (WIRE.stream(SCENARIOS["text"]) or b"").replace(b"response.completed", b"response.failed")
    data = data.replace(b'"status":"completed","model"', b'"status":"failed","model"')
    with Player(says_stream(data)) as player:
        client = sdk(house.token, house.open(player.url, form="responses"))
        events = [event.type for event in client.responses.create(model=MODEL, input="x", stream=True)]
    assert events[-1] == "response.failed"
    assert "error" not in events
    house.drain()
    later(lambda: house.ledger.usage(RUN).requests == 1)
    assert house.ledger.usage(RUN).output_tokens == 9
