"""The gateway with the official SDK over real sockets, the scripted provider behind it."""

from __future__ import annotations

import anthropic
import models_house
import pytest
from models_house import MODEL, RUN, House

HELLO = """
version: 1
turns:
  - text: Hello there.
    usage: {input_tokens: 11, output_tokens: 7, cache_read_input_tokens: 3, cache_creation_input_tokens: 2}
  - tools: [{name: read_file, input: {path: a.py}}]
"""
ASK = [{"role": "user", "content": "hi"}]


def sdk(house: House, url: str, **more: object) -> anthropic.Anthropic:
    return models_house.sdk(house.token, url, **more)  # type: ignore[no-any-return]


def test_message_goes_through_and_is_settled_from_reported_usage(house: House) -> None:
    client = sdk(house, house.open(house.scripted(HELLO)))
    message = client.messages.create(model=MODEL, max_tokens=100, messages=ASK)
    assert message.content[0].text == "Hello there."
    usage = house.ledger.usage(RUN)
    assert (usage.requests, usage.input_tokens, usage.output_tokens) == (1, 11, 7)
    assert (usage.cache_read_tokens, usage.cache_write_tokens) == (3, 2)
    # $2 in, $10 out, $0.2 cache read, $2.5 cache write per million tokens.
    assert usage.cost_nano_usd == 11 * 2000 + 7 * 10_000 + 3 * 200 + 2 * 2500


def test_stream_goes_through_and_books_are_settled_when_the_client_sees_its_end(house: House) -> None:
    client = sdk(house, house.open(house.scripted(HELLO)))
    with client.messages.stream(model=MODEL, max_tokens=100, messages=ASK) as stream:
        text = "".join(stream.text_stream)
        assert house.ledger.usage(RUN).output_tokens == 7
    assert text == "Hello there."


def test_tool_call_streams_whole(house: House) -> None:
    client = sdk(house, house.open(house.scripted(HELLO)))
    tools = [{"name": "mcp__vestibule__read_file", "description": "r", "input_schema": {"type": "object"}}]
    talk = [*ASK, {"role": "assistant", "content": "Hello there."}, {"role": "user", "content": "go on"}]
    with client.messages.stream(model=MODEL, max_tokens=100, messages=talk, tools=tools) as stream:
        final = stream.get_final_message()
    assert final.stop_reason == "tool_use"
    assert final.content[0].name == "mcp__vestibule__read_file"
    assert final.content[0].input == {"path": "a.py"}


def test_intent_is_recorded_before_and_outcome_after_with_integers_only(house: House) -> None:
    client = sdk(house, house.open(house.scripted(HELLO)))
    client.messages.create(model=MODEL, max_tokens=100, messages=ASK)
    house.drain()
    intent, outcome = house.audit.events
    assert (intent.phase, intent.action, intent.resource) == ("intent", "model.request", f"test/{MODEL}")
    assert outcome.intent == 1
    assert outcome.result == "ok"
    assert outcome.details["usage"]["output_tokens"] == 7
    assert outcome.details["prices"].startswith("sha256:")
    assert outcome.details["status"] == 200
    from vestibule.core.canonical import canonical_json

    canonical_json([intent.details, outcome.details])  # raises on a float


def test_token_is_taken_from_either_header_and_a_second_credential_is_refused(house: House) -> None:
    url = house.open(house.scripted(HELLO))
    bearer = f"Bearer {house.token}"
    assert _status(url, {"x-api-key": house.token}) == 200
    assert _status(url, {"authorization": bearer}) == 200
    assert _status(url, {"x-api-key": house.token, "authorization": bearer}) == 200
    assert _status(url, {"x-api-key": "someone-elses", "authorization": bearer}) == 401
    assert _status(url, {"x-api-key": house.token, "authorization": "Bearer someone-elses"}) == 401
    assert _status(url, {"authorization": f"Basic {house.token}"}) == 401
    assert _status(url, {}) == 401


def test_wrong_token_reaches_neither_policy_nor_books_nor_provider(house: House) -> None:
    provider = house.scripted(HELLO)
    url = house.open(provider)
    with pytest.raises(anthropic.AuthenticationError):
        anthropic.Anthropic(base_url=url, api_key="sk-attackers", max_retries=0).messages.create(
            model=MODEL, max_tokens=10, messages=ASK
        )
    assert provider.requests == 0
    assert not house.decider.asked
    assert not house.audit.events


def test_provider_side_tool_is_denied_before_dispatch_with_typed_refusal(house: House) -> None:
    provider = house.scripted(HELLO)
    client = sdk(house, house.open(provider))
    with pytest.raises(anthropic.PermissionDeniedError) as caught:
        client.messages.create(
            model=MODEL, max_tokens=10, messages=ASK, tools=[{"type": "web_search_20250305", "name": "web_search"}]
        )
    body = caught.value.body
    assert isinstance(body, dict)
    assert body["vestibule"]["rule"] == "model.field.tools.web_search"
    assert "[model.field.tools.web_search]" in body["error"]["message"]
    assert provider.requests == 0
    (event,) = house.audit.events
    assert event.reasons[0] == "model.field.tools.web_search"
    assert house.decider.asked[0].facts["field_rule"] == "model.field.tools.web_search"


def test_other_model_is_denied(house: House) -> None:
    provider = house.scripted(HELLO)
    client = sdk(house, house.open(provider))
    with pytest.raises(anthropic.PermissionDeniedError) as caught:
        client.messages.create(model="claude-opus-4-1", max_tokens=10, messages=ASK)
    assert "model.not_allowed" in str(caught.value)
    assert provider.requests == 0


def test_policy_can_deny_what_the_gateway_would_allow_and_the_hold_is_given_back(house: House) -> None:
    provider = house.scripted(HELLO)
    house.decider.deny = "org.no_models_today"
    client = sdk(house, house.open(provider))
    with pytest.raises(anthropic.PermissionDeniedError) as caught:
        client.messages.create(model=MODEL, max_tokens=10, messages=ASK)
    assert "org.no_models_today" in str(caught.value)
    assert provider.requests == 0
    assert house.ledger.usage(RUN).requests == 0
    assert _held(house) == (0, 0)


def test_models_list_names_exactly_the_tasks_model(house: House) -> None:
    client = sdk(house, house.open(house.scripted(HELLO)))
    assert [model.id for model in client.models.list()] == [MODEL]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/files"),
        ("GET", "/v1/files"),
        ("POST", "/v1/messages/batches"),
        ("POST", "/v1/messages?beta=true&x=1"),
        ("POST", "/v1/complete"),
        ("GET", "/v1/messages"),
        ("POST", "/v1/messages/../files"),
        ("POST", "//evil.example.com/v1/messages"),
    ],
)
def test_every_other_endpoint_is_refused_and_recorded(house: House, method: str, path: str) -> None:
    import http.client
    from urllib.parse import urlsplit

    provider = house.scripted(HELLO)
    url = urlsplit(house.open(provider))
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=10)
    connection.request(method, url.path + path, b"{}", {"x-api-key": house.token, "content-type": "application/json"})
    response = connection.getresponse()
    assert response.status == 404
    assert b"model.field.endpoint" in response.read()
    assert [event.phase for event in house.audit.events] == ["intent"]
    assert provider.requests == 0
    connection.close()


def test_root_answers_without_policy_so_that_agent_programs_start(house: House) -> None:
    import http.client
    from urllib.parse import urlsplit

    url = urlsplit(house.open(house.scripted(HELLO)))
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=10)
    for path in ("/anthropic", "/anthropic/"):
        connection.request("HEAD", path)
        response = connection.getresponse()
        response.read()
        assert response.status == 200
    assert not house.audit.events
    connection.close()


def test_agents_headers_do_not_leave(house: House) -> None:
    seen: list[dict[bytes, bytes]] = []
    inner = house.scripted(HELLO)

    async def spy(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        seen.append(dict(scope["headers"]))
        assert scope["path"] == "/v1/messages"
        await inner(scope, receive, send)

    client = sdk(
        house,
        house.open(spy),
        default_headers={"x-evil": "1", "cookie": "a=b", "anthropic-beta": "some-new-beta-2030-01-01"},
    )
    client.messages.create(model=MODEL, max_tokens=10, messages=ASK, metadata={"user_id": "device data"})
    names = set(seen[0])
    assert names <= {
        b"host",
        b"anthropic-version",
        b"anthropic-beta",
        b"accept",
        b"accept-encoding",
        b"content-type",
        b"content-length",
        b"user-agent",
        b"x-api-key",
    }
    assert seen[0][b"anthropic-beta"] == b"some-new-beta-2030-01-01"
    assert seen[0][b"x-api-key"] == house.provider_key.encode()
    assert seen[0][b"user-agent"].startswith(b"vestibule/")
    assert house.token.encode() not in b"".join(seen[0].values())


def test_budget_is_refused_before_dispatch(house: House) -> None:
    from vestibule.core.model import Budget

    house.budget = Budget(nano_usd=100_000)
    provider = house.scripted(HELLO)
    client = sdk(house, house.open(provider))
    with pytest.raises(anthropic.PermissionDeniedError) as caught:
        client.messages.create(model=MODEL, max_tokens=1000, messages=ASK)
    assert "budget.usd" in str(caught.value)
    assert provider.requests == 0
    assert house.decider.asked[0].facts["budget_rule"] == "budget.usd"


def test_unknown_price_is_refused(house: House) -> None:
    house.model = "some-model-nobody-priced"
    provider = house.scripted(HELLO)
    client = sdk(house, house.open(provider))
    with pytest.raises(anthropic.PermissionDeniedError) as caught:
        client.messages.create(model=house.model, max_tokens=10, messages=ASK)
    assert "model.unknown_price" in str(caught.value)
    assert provider.requests == 0


def test_racing_requests_are_admitted_exactly_as_many_as_fit(house: House) -> None:
    import concurrent.futures

    from vestibule.core.model import Budget

    slow = "version: 1\nlatency_ms: 300\nturns: [{text: a, usage: {input_tokens: 1, output_tokens: 1}}]\n"
    provider = house.scripted(slow)
    url = house.open(provider)
    house.parallel = 64
    client = sdk(house, url)
    client.messages.create(model=MODEL, max_tokens=50, messages=ASK)
    (first,) = house.audit.of("intent")
    each = first.details["reserved_nano_usd"]
    # A fresh gateway (its estimate starts the same) with room for exactly three holds.
    house.budget = Budget(nano_usd=house.ledger.usage(RUN).cost_nano_usd + 3 * each)
    provider.requests = 0
    url = house.open(provider)

    def one(_: int) -> bool:
        try:
            client.with_options(base_url=url).messages.create(model=MODEL, max_tokens=50, messages=ASK)
        except anthropic.PermissionDeniedError:
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        admitted = sum(pool.map(one, range(16)))
    assert admitted == provider.requests
    assert 3 <= admitted < 16
    limit = house.budget.nano_usd
    assert limit is not None
    assert house.ledger.usage(RUN).cost_nano_usd <= limit


def _status(url: str, headers: dict[str, str]) -> int:
    import http.client
    import json
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    body = json.dumps({"model": MODEL, "max_tokens": 5, "messages": ASK})
    connection.request("POST", parts.path + "/v1/messages", body, {"content-type": "application/json", **headers})
    status = connection.getresponse().status
    connection.close()
    return status


def _held(house: House) -> tuple[int, int]:
    from sqlalchemy import select

    from vestibule.store import tables

    with house.db.read() as connection:
        row = connection.execute(select(tables.budgets).where(tables.budgets.c.key == f"run:{RUN}")).one()
    return row.held_nano_usd, row.held_tokens
