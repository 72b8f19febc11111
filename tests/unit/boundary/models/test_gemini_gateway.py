"""Gemini behind the real gateway with the official SDK: paths, keys, counting, errors, heartbeats, continuing."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from gemini_wire import GeminiWire, call, content, event, sdk, text, usage
from google.genai import errors, types
from hold_matrix import INPUT_TOKENS, OUTPUT_TOKENS, Player, says_json, says_stream
from models_house import RUN, House

from vestibule.boundary.models.call_rules import MARK
from vestibule.boundary.models.formats import by_name
from vestibule.boundary.models.formats.base import Route
from vestibule.boundary.models.formats.gemini import Gemini
from vestibule.boundary.models.scripted.gemini import GeminiRenderer

MODEL = "gemini-2.5-pro"
HELLO = """
version: 1
turns:
  - text: Hello there.
    usage: {input_tokens: 11, output_tokens: 7, cache_read_input_tokens: 3}
  - text: I read.
    tools: [{name: read_file, input: {path: a.py}}, {name: harm, input: {path: b.py}}]
  - when: {last_result_contains: fine}
    text: Done.
"""
BODY: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


@pytest.fixture
def house(tmp_path: Path) -> Any:
    made = House(tmp_path, model=MODEL)
    yield made
    made.close()


def tools(*names: str) -> Any:
    declared = [types.FunctionDeclaration(name=name, parameters_json_schema={"type": "object"}) for name in names]
    return types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=declared)],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )


def ask(url: str, path: str, headers: dict[str, str], *, method: str = "POST", body: Any = None) -> tuple[int, Any]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    data = json.dumps(BODY if body is None else body)
    connection.request(method, parts.path + path, data, {"content-type": "application/json", **headers})
    response = connection.getresponse()
    found = response.read()
    connection.close()
    return response.status, json.loads(found)


# --- a whole conversation -------------------------------------------------------------------------------


def test_conversation_with_the_scripted_provider_goes_through_streamed_and_whole(house: House) -> None:
    house.decider.denied_tools.add("harm")
    provider = house.scripted(HELLO)
    client = sdk(house.token, house.open(provider, form="gemini"))
    first = client.models.generate_content(model=MODEL, contents="hi", config=tools("read_file", "harm"))
    assert first.text == "Hello there."
    spent = house.ledger.usage(RUN)
    assert (spent.input_tokens, spent.cache_read_tokens, spent.output_tokens) == (11, 3, 7)
    # $1.25 in, $10 out, $0.125 cache read per million tokens.
    assert spent.cost_nano_usd == 11 * 1250 + 7 * 10_000 + 3 * 125
    talk = [types.UserContent("hi"), types.ModelContent("Hello there."), types.UserContent("go on")]
    chunks = list(client.models.generate_content_stream(model=MODEL, contents=talk, config=tools("read_file", "harm")))
    found = [part for chunk in chunks for part in chunk.candidates[0].content.parts]  # type: ignore[index,union-attr]
    assert [part.function_call.name for part in found if part.function_call] == ["read_file"]
    said = "".join(part.text or "" for part in found)
    assert said.startswith("I read.")
    assert MARK in said
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP  # type: ignore[index]
    own = types.Content(role="model", parts=found)
    result = types.Part.from_function_response(name="read_file", response={"output": "fine"})
    # The refused call counts as a turn of the script, the answered one too.
    assert GeminiRenderer().talk("/v1beta/models/m:generateContent", _dumped([*talk, own, result])).answers == 3


def test_calls_denied_alone_are_continued_through_the_gateway(house: House) -> None:
    house.decider.denied_tools.add("harm")
    denied = call("harm", '{"path": "b"}', key="call_1", signature="c2ln")
    done = usage(OUTPUT_TOKENS)
    first = event(content(text("I do."))) + event(content(denied, reason="STOP", counted=done))
    last = event(content(text("Another way."), reason="STOP", counted=done))
    with Player(says_stream(first), says_stream(last)) as player:
        client = sdk(house.token, house.open(player.url, form="gemini"))
        chunks = list(client.models.generate_content_stream(model=MODEL, contents="go", config=tools("harm")))
        assert house.ledger.usage(RUN).requests == 2
        house.drain()
    said = "".join(chunk.text or "" for chunk in chunks)
    assert said.startswith(f"I do.{MARK}")
    assert said.endswith("Another way.")
    assert [c.candidates[0].finish_reason for c in chunks].count(types.FinishReason.STOP) == 1  # type: ignore[index]
    turn, answer = player.bodies[1]["contents"][-2:]
    assert turn == {"role": "model", "parts": [{"text": "I do."}, json.loads(denied)]}
    (result,) = answer["parts"]
    assert result["functionResponse"]["id"] == "call_1"
    assert result["functionResponse"]["response"]["error"].startswith(MARK)
    assert house.ledger.usage(RUN).output_tokens == 2 * OUTPUT_TOKENS


def test_books_are_settled_before_the_end_of_a_stream_is_seen(house: House) -> None:
    data = event(content(text("a"))) + event(content(text("b"), reason="STOP", counted=usage(OUTPUT_TOKENS)))
    with Player(says_stream(data)) as player:
        client = sdk(house.token, house.open(player.url, form="gemini"))
        for chunk in client.models.generate_content_stream(model=MODEL, contents="go"):
            if chunk.candidates[0].finish_reason:  # type: ignore[index]
                assert house.ledger.usage(RUN).output_tokens == OUTPUT_TOKENS
                break
        else:
            pytest.fail("the stream had no end")


def test_a_stream_that_breaks_raises_in_the_sdk_and_costs_the_most(house: House) -> None:
    data = event(content(text("a"), counted=usage(5)))
    with Player(says_stream(data, then="cut")) as player:
        client = sdk(house.token, house.open(player.url, form="gemini"))
        config = types.GenerateContentConfig(max_output_tokens=100)
        with pytest.raises(errors.ServerError) as caught:
            list(client.models.generate_content_stream(model=MODEL, contents="go", config=config))
        house.drain()
    assert caught.value.code == 503
    assert caught.value.details["vestibule"]["rule"] == "dependency.provider"
    spent = house.ledger.usage(RUN)
    assert (spent.input_tokens, spent.output_tokens) == (INPUT_TOKENS, 100)


def test_the_sdk_reads_over_heartbeats(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    from vestibule.boundary.models import exchange

    monkeypatch.setattr(exchange, "BEAT_SECONDS", 0.1)
    beat = by_name("gemini").heartbeat
    data = event(content(text("a"))), 0.5, event(content(text("b"), reason="STOP", counted=usage(OUTPUT_TOKENS)))
    with Player(says_stream(*data)) as player:
        url = house.open(player.url, form="gemini")
        client = sdk(house.token, url)
        chunks = list(client.models.generate_content_stream(model=MODEL, contents="go"))
        assert "".join(chunk.text or "" for chunk in chunks) == "ab"
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        path = f"{parts.path}/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
        headers = {"content-type": "application/json", "x-goog-api-key": house.token}
        connection.request("POST", path, json.dumps(BODY), headers)
        found = connection.getresponse().read()
        connection.close()
    assert found.startswith(data[0] + beat)  # type: ignore[operator]
    assert found.endswith(data[2])  # type: ignore[arg-type]


# --- other operations -----------------------------------------------------------------------------------


def test_counting_is_free_and_asks_the_provider(house: House) -> None:
    with Player(says_json(b'{"totalTokens": 31}')) as player:
        client = sdk(house.token, house.open(player.url, form="gemini"))
        assert client.models.count_tokens(model=MODEL, contents="hi").total_tokens == 31
        house.drain()
        assert player.paths == [f"/v1beta/models/{MODEL}:countTokens"]
    assert house.ledger.usage(RUN).cost_nano_usd == 0
    (outcome,) = house.audit.of("outcome")
    assert outcome.result == "ok"


def test_models_are_the_tasks_one(house: House) -> None:
    client = sdk(house.token, house.open(house.scripted(HELLO), form="gemini"))
    assert [model.name for model in client.models.list()] == [f"models/{MODEL}"]
    assert client.models.get(model=MODEL).name == f"models/{MODEL}"
    with pytest.raises(errors.ClientError) as caught:
        client.models.get(model="gemini-2.5-flash")
    assert caught.value.details["vestibule"]["rule"] == "model.not_allowed"


def test_a_providers_tool_is_refused_with_the_typed_refusal(house: House) -> None:
    provider = house.scripted(HELLO)
    client = sdk(house.token, house.open(provider, form="gemini"))
    config = types.GenerateContentConfig(tools=[types.Tool(google_search=types.GoogleSearch())])
    ask_for = client.models.generate_content, client.models.generate_content_stream
    for method in ask_for:
        with pytest.raises(errors.ClientError) as caught:
            tuple(method(model=MODEL, contents="hi", config=config))
        assert (caught.value.code, caught.value.status) == (403, "PERMISSION_DENIED")
        assert caught.value.details["vestibule"]["rule"] == "model.field.tools.google_search"
    assert provider.requests == 0


def test_an_array_stream_is_refused_in_words(house: House) -> None:
    provider = house.scripted(HELLO)
    url = house.open(provider, form="gemini")
    for query in ("", "?alt=json"):
        status, found = ask(
            url, f"/v1beta/models/{MODEL}:streamGenerateContent{query}", {"x-goog-api-key": house.token}
        )
        assert status == 403
        assert "alt=sse" in found["error"]["message"]
    assert provider.requests == 0


# --- keys -----------------------------------------------------------------------------------------------


def test_the_token_is_taken_from_each_place_and_a_second_one_is_refused(house: House) -> None:
    with Player(says_json(content(text("a"), reason="STOP", counted=usage(OUTPUT_TOKENS)).encode())) as player:
        url = house.open(player.url, form="gemini")
        path, token = f"/v1beta/models/{MODEL}:generateContent", house.token
        bearer = {"authorization": f"Bearer {token}"}
        good: list[tuple[str, dict[str, str]]] = [
            ("", {"x-goog-api-key": token}),
            ("", bearer),
            (f"?key={token}", {}),
            (f"?key={token}", {"x-goog-api-key": token, **bearer}),
        ]
        for query, headers in good:
            assert ask(url, path + query, headers)[0] == 200
        for query, headers in (
            ("", {}),
            ("?key=other", {"x-goog-api-key": token}),
            (f"?key={token}", {"x-goog-api-key": "other"}),
            (f"?key={token}", {"authorization": "Bearer other"}),
            ("?key=", {"x-goog-api-key": token}),
            ("?key=other", bearer),
        ):
            assert ask(url, path + query, headers)[0] == 401
        assert player.requests == len(good)
        assert all(token not in sent for sent in player.paths)
        assert set(player.paths) == {path}


@pytest.mark.parametrize(
    "query",
    [b"key=a&key=a", b"access_token=a", b"$httpMethod=DELETE", b"alt=sse", b"alt=media", b"key", b"prettyPrint=1"],
)
def test_other_parameters_are_not_served(query: bytes) -> None:
    assert Gemini().route("POST", f"/v1beta/models/{MODEL}:generateContent", query) is None


# --- the model in the path ------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["/v1", "/v1beta"])
def test_both_versions_of_the_api_are_served(version: str) -> None:
    found = Gemini().route("POST", f"{version}/models/{MODEL}:streamGenerateContent", b"alt=sse&key=k")
    assert found == Route("generate", MODEL, True, "alt=sse")
    assert Gemini().route("GET", f"{version}/models", b"pageSize=5") == Route("models")


@pytest.mark.parametrize(
    "path",
    [
        "/v1beta/models/../tunedModels/x:generateContent",
        "/v1beta/models/..:generateContent",
        "/v1beta/models/a/b/c:generateContent",
        "/v1beta/models//a:generateContent",
        "/v1beta/tunedModels/x:generateContent",
        "/v1beta/models/:generateContent",
        f"/v1beta/models/{MODEL}:generateContent:countTokens",
        f"/v1beta/models/{MODEL}:countTokens/x",
        f"/v1beta/models/{MODEL}:batchGenerateContent",
        f"/v1beta/models/{MODEL}:embedContent",
        f"/v1beta/models/{MODEL}:predict",
        f"/v1beta/models/{MODEL}",
        f"/v1beta/models/{MODEL}:generateContent/",
        f"/v1beta/models/{MODEL}:generateContent\n",
        f"/v1beta/models/{MODEL}?x:generateContent",
        f"/v1beta/models/{MODEL}#:generateContent",
        f"/v1beta/models/{MODEL}%2f..:generateContent",
        "/v1beta/cachedContents",
        "/v1beta/files",
        "/upload/v1beta/files",
        "/v1alpha/models/x:generateContent",
        "/v1beta1/projects/p/locations/l/publishers/google/models/x:generateContent",
        f"//evil.example.com/v1beta/models/{MODEL}:generateContent",
        "/v1beta/models/gemini\u2024pro:generateContent",
    ],
)
def test_other_paths_are_not_served(path: str) -> None:
    assert Gemini().route("POST", path, b"") is None
    assert Gemini().route("GET", f"{path}:generateContent", b"") is None


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/v1beta/models/{MODEL}%3AgenerateContent", 200),  # the same path, written otherwise
        (f"/v1beta/models/x%2F..%2F{MODEL}:generateContent", 404),
        ("/v1beta/models/..%2FtunedModels%2Fx:generateContent", 404),
        ("/v1beta/models/tunedModels%2Fx:generateContent", 403),
        (f"/v1beta/models/models%2F{MODEL}:generateContent", 403),
        (f"/v1beta/models/{MODEL.upper()}:generateContent", 403),
        (f"/v1beta/models/{MODEL}%00:generateContent", 404),
    ],
)
def test_whatever_the_path_says_the_provider_is_asked_for_the_tasks_model(house: House, path: str, status: int) -> None:
    with Player(says_json(content(text("a"), reason="STOP", counted=usage(OUTPUT_TOKENS)).encode())) as player:
        url = house.open(player.url, form="gemini")
        assert ask(url, path, {"x-goog-api-key": house.token})[0] == status
        assert set(player.paths) <= {f"/v1beta/models/{MODEL}:generateContent"}
        assert bool(player.requests) == (status == 200)


def test_a_models_name_is_one_segment_upstream() -> None:
    asked = Gemini().read(BODY, Route("generate", MODEL, True, "alt=sse"), run="r")
    found = Gemini().path(asked, "../../x?y#z:w")
    assert found == "/v1beta/models/..%2F..%2Fx%3Fy%23z%3Aw:streamGenerateContent?alt=sse"


def test_scripted_answers_keep_to_the_conversation() -> None:
    renderer = GeminiRenderer()
    assert renderer.serves(f"/v1beta/models/{MODEL}:countTokens")
    assert not renderer.serves("/v1/messages")
    assert GeminiWire().prefix == Gemini().prefix


def _dumped(contents: list[Any]) -> dict[str, Any]:
    items = [item if isinstance(item, types.Content) else types.Content(role="user", parts=[item]) for item in contents]
    return {"contents": [item.model_dump(mode="json", by_alias=True, exclude_none=True) for item in items]}
