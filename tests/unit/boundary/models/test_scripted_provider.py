"""The scripted provider: turns by the conversation, side calls use up nothing, scripts are read strictly."""

from __future__ import annotations

import json
import socket
from typing import Any

import anthropic
import pytest
from models_house import MODEL, House

from vestibule.boundary.models.canary import forbidden_call
from vestibule.boundary.models.scripted.anthropic import AnthropicRenderer
from vestibule.boundary.models.scripted.script import load_script
from vestibule.boundary.models.scripted.talk import MARK, Reply, reply_to
from vestibule.boundary.models.wire.sse import Frames
from vestibule.core.errors import ConfigError, DependencyDown

SCRIPT = b"""
version: 1
turns:
  - text: I read.
    tools: [{name: read_file, input: {path: a.py, ratio: 0.5}}]
  - when: {last_result_contains: refused}
    text: I may not.
    otherwise: {tools: [{name: write_file, input: {path: a.py, content: "x"}}]}
  - text: Done.
conversations:
  - when: {prompt_contains: asked for changes}
    turns: [{text: Corrected.}]
"""
TOOLS = [{"name": "mcp__vestibule__read_file"}, {"name": "mcp__vestibule__write_file"}]


RENDERER = AnthropicRenderer()


def reply(*messages: tuple[str, Any], tools: Any = TOOLS) -> Reply:
    request = {"model": "m", "messages": [{"role": role, "content": content} for role, content in messages]}
    request |= {"tools": tools} if tools is not None else {}
    return reply_to(load_script(SCRIPT, "s.yaml"), RENDERER.talk("/v1/messages", request))


def ask(*messages: tuple[str, Any], tools: Any = TOOLS) -> dict[str, Any]:
    return RENDERER.whole(reply(*messages, tools=tools))


def test_turns_are_counted_by_assistant_messages_so_that_repeats_use_up_nothing() -> None:
    first = ask(("user", "go"))
    assert ask(("user", "go")) == first
    assert first["content"][1]["name"] == "mcp__vestibule__read_file"
    assert first["content"][1]["input"] == {"path": "a.py", "ratio": 0.5}
    assert first["stop_reason"] == "tool_use"
    result = [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "fine"}]}]
    second = ask(("user", "go"), ("assistant", "x"), ("user", result))
    assert second["content"][0]["name"] == "mcp__vestibule__write_file"
    third = ask(("user", "go"), ("assistant", "x"), ("user", result), ("assistant", "y"), ("user", result))
    assert third["content"][0]["text"] == "Done."


def test_condition_looks_at_the_last_result() -> None:
    result = [{"type": "tool_result", "tool_use_id": "t", "content": "it was refused because"}]
    assert ask(("user", "go"), ("assistant", "x"), ("user", result))["content"][0]["text"] == "I may not."


def test_refused_call_within_an_answer_counts_as_a_turn() -> None:
    said = [{"type": "text", "text": f"{MARK}The call was not carried out."}, {"type": "text", "text": "y"}]
    assert ask(("user", "go"), ("assistant", said), ("user", "go on"))["content"][0]["text"] == "Done."


def test_refused_call_in_a_text_that_a_program_joined_counts_as_a_turn() -> None:
    said = [{"type": "text", "text": f"Let me see.{MARK}The call was not carried out.y"}]
    assert ask(("user", "go"), ("assistant", said), ("user", "go on"))["content"][0]["text"] == "Done."


def test_side_call_without_tools_gets_a_side_answer() -> None:
    found = ask(("user", "Write a title"), tools=None)
    assert found["stop_reason"] == "end_turn"
    assert "side" in found["content"][0]["text"]


def test_another_conversation_has_its_own_turns() -> None:
    assert ask(("user", "the reviewer asked for changes"))["content"][0]["text"] == "Corrected."


def test_script_that_ended_says_so() -> None:
    talk = [("user", "go")] + [("assistant", "x"), ("user", "y")] * 5
    assert "no further turn" in ask(*talk)["content"][0]["text"]


def test_tool_names_fit_what_is_offered() -> None:
    assert ask(("user", "go"), tools=[{"name": "read_file"}])["content"][1]["name"] == "read_file"
    assert ask(("user", "go"), tools=[{"name": "other"}])["content"][1]["name"] == "mcp__vestibule__read_file"


def test_estimate_reads_from_the_cache_what_stood_before_the_last_answer() -> None:
    mark = [{"type": "text", "text": "word " * 400, "cache_control": {"type": "ephemeral"}}]
    first = ask(("user", mark))["usage"]
    assert first["cache_read_input_tokens"] == 0
    assert first["cache_creation_input_tokens"] > 400
    second = ask(("user", mark), ("assistant", "x"), ("user", "y"))["usage"]
    assert second["cache_read_input_tokens"] > 400
    assert second["cache_creation_input_tokens"] < 100


def test_streamed_pieces_join_to_the_same_tool_input() -> None:
    data = b"".join(raw for raw, _ in RENDERER.events(reply(("user", "go"))))
    found = [json.loads(frame.data) for frame in Frames().feed(data)]
    pieces = [event["delta"]["partial_json"] for event in found if "partial_json" in event.get("delta", ())]
    assert json.loads("".join(pieces)) == {"path": "a.py", "ratio": 0.5}


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"version: 1\n", "turns"),
        (b"version: 1\nturns: []\n", "turns"),
        (b"version: 2\nturns: [{text: a}]\n", "version"),
        (b"version: 1\nturns: [{txt: a}]\n", "unknown key"),
        (b"version: 1\nturns: [{text: a}]\nturns: [{text: b}]\n", "twice"),
        (b"version: 1\nturns: [{text: !!python/name:os.system x}]\n", "tag"),
        (b"[]", "Input"),
        (b"version: 1\nturns: [{text: a, latency_ms: -5}]\n", "latency_ms"),
    ],
)
def test_scripts_are_read_strictly(data: bytes, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        load_script(data, "s.yaml")
    assert "s.yaml" in str(caught.value)


def test_scripted_provider_answers_only_who_knows_its_key(house: House) -> None:
    port = house.start(house.scripted("version: 1\nturns: [{text: a}]\n"))
    client = anthropic.Anthropic(base_url=f"http://127.0.0.1:{port}", api_key="guess", max_retries=0)
    with pytest.raises(anthropic.AuthenticationError):
        client.messages.create(model=MODEL, max_tokens=5, messages=[{"role": "user", "content": "x"}])
    client = anthropic.Anthropic(base_url=f"http://127.0.0.1:{port}", api_key=house.provider_key, max_retries=0)
    raw = client.messages.with_raw_response.create(
        model=MODEL, max_tokens=5, messages=[{"role": "user", "content": "x"}]
    )
    assert raw.headers["x-vestibule-scripted"] == "1"


# --- canary ---------------------------------------------------------------------------------------------


def _connect(url: str) -> socket.socket:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 0))


def test_forbidden_call_comes_back_refused_before_dispatch(house: House) -> None:
    provider = house.scripted("version: 1\nturns: [{text: a}]\n")
    url = house.open(provider)
    found = forbidden_call(_connect(url), house.token)
    assert found is not None
    assert found.rule == "model.field.tools.web_search"
    assert provider.requests == 0
    assert [event.phase for event in house.audit.events] == ["intent"]


def test_forbidden_call_tells_a_guard_that_is_down(house: House) -> None:
    """A gateway that lets it through, that rejects the token, or that is not there, proves nothing."""
    url = house.open(house.scripted("version: 1\nturns: [{text: a}]\n"))
    assert forbidden_call(_connect(url), "wrong") is None
    port = house.start(house.scripted("version: 1\nturns: [{text: a}]\n"))
    assert forbidden_call(_connect(f"http://127.0.0.1:{port}"), house.token) is None
    silent = socket.create_server(("127.0.0.1", 0))
    assert forbidden_call(_connect(f"http://127.0.0.1:{silent.getsockname()[1]}"), "t", seconds=0.1) is None
    silent.close()


def test_forbidden_call_is_not_satisfied_by_a_log_that_is_down(house: House) -> None:
    url = house.open(house.scripted("version: 1\nturns: [{text: a}]\n"))
    house.audit.broken = DependencyDown("audit", "full")
    assert forbidden_call(_connect(url), house.token) is None
