"""From a model's name to upstreams, and who of several is asked first."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from vestibule.boundary.models.formats.base import FormatName
from vestibule.boundary.models.providers import upstream_for
from vestibule.boundary.models.routing import Breaker, Route, choose_format, resolve, upstream_format
from vestibule.config.parts import KeySource
from vestibule.config.providers import Provider
from vestibule.core.errors import ConfigError, DependencyDown

ANTHROPIC = Provider(api="anthropic", base_url="https://models.example.com", key=KeySource(env="MODEL_KEY"))
LISTED = Provider(api="anthropic", base_url="https://other.example.com/", models=("acme-*",))
SCRIPTED = Provider(api="scripted", script="s.yaml", models=("demo",))


CHAT = Provider(api="openai", base_url="https://chat.example.com/v1", speaks=("chat",))
BOTH = Provider(api="openai", base_url="https://openai.example.com/v1")


def _one(table: dict[str, Provider], model: str) -> Route:
    return resolve(table, {}, model)[1][0]


def test_model_names_choose_a_provider() -> None:
    table = {"anthropic": ANTHROPIC, "acme": LISTED, "demo": SCRIPTED}
    assert _one(table, "claude-sonnet-5").name == "anthropic"
    assert _one(table, "acme-1").name == "acme"
    assert _one(table, "demo").name == "demo"
    found = _one(table, "demo/claude-sonnet-5")
    assert (found.name, found.model) == ("demo", "claude-sonnet-5")


@pytest.mark.parametrize(
    ("table", "model", "what"),
    [
        ({}, "claude", "no provider serves"),
        ({"a": SCRIPTED}, "claude", "no provider serves"),
        ({"a": ANTHROPIC, "b": ANTHROPIC}, "claude", "several providers"),
        ({"a": LISTED, "b": LISTED}, "acme-1", "several providers"),
        ({"a": ANTHROPIC}, "", "needs a model"),
    ],
)
def test_what_cannot_be_resolved_names_what_to_configure(table: dict[str, Provider], model: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        _one(table, model)
    assert caught.value.next_step


def test_upstream_address_is_the_operators_and_its_key_is_read_late() -> None:
    environ: dict[str, str] = {}
    upstream = upstream_for({"acme": ANTHROPIC}, "acme", "m", environ=environ)
    assert upstream.base_url == "https://models.example.com"
    with pytest.raises(DependencyDown) as caught:
        upstream.key()
    assert caught.value.name == "provider_key"
    environ["MODEL_KEY"] = "k"
    assert upstream.key() == "k"
    with pytest.raises(ConfigError):
        upstream_for({}, "acme", "m")
    with pytest.raises(ConfigError):
        upstream_for({"demo": SCRIPTED}, "demo", "m")


def test_an_alias_is_a_list_of_models_in_their_order() -> None:
    table = {"a": ANTHROPIC, "chat": CHAT}
    form, routes = resolve(table, {"work": ("a/claude-sonnet-5", "chat/granite")}, "work", ("anthropic",))
    assert form == "anthropic"
    assert [(route.name, route.model) for route in routes] == [("a", "claude-sonnet-5"), ("chat", "granite")]
    assert routes[1].upstream_format(form) == "chat"


def test_a_format_that_every_upstream_serves_itself_is_preferred_to_a_translation() -> None:
    table = {"both": BOTH, "chat": CHAT}
    routes = resolve(table, {"w": ("both/x", "chat/y")}, "w", ("anthropic", "responses", "chat"))[1]
    assert choose_format(("anthropic", "responses", "chat"), routes) == "chat"
    assert choose_format(("responses",), routes) is None
    assert upstream_format(("responses",), "anthropic") is None


@pytest.mark.parametrize(
    ("table", "aliases", "formats", "what"),
    [
        ({"both": BOTH}, {"w": ("both/x",)}, ("gemini",), "not every provider"),
        ({"chat": CHAT}, {"w": ("chat/x",)}, ("responses",), "not every provider"),
        ({"a": ANTHROPIC, "s": SCRIPTED}, {"w": ("s/x", "a/y")}, ("anthropic",), "mixes a scripted provider"),
    ],
)
def test_an_alias_that_cannot_be_served_is_found_out_before_the_run(
    table: dict[str, Provider], aliases: dict[str, tuple[str, ...]], formats: tuple[FormatName, ...], what: str
) -> None:
    with pytest.raises(ConfigError, match=what):
        resolve(table, aliases, "w", formats)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_breaker_leaves_who_fails_alone_for_longer_each_time_and_asks_the_last_resort() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    assert breaker.order(("a", "b")) == [0, 1]
    assert [breaker.failed("a", allowed=3, pause=10) for _ in range(3)] == [False, False, True]
    assert breaker.order(("a", "b")) == [1, 0]
    assert breaker.order(("a",)) == [0]
    clock.now = 10.5
    assert breaker.order(("a", "b")) == [0, 1]
    assert breaker.failed("a", allowed=3, pause=10)
    clock.now = 25
    assert breaker.resting("a")
    clock.now = 31
    assert not breaker.resting("a")
    breaker.worked("a")
    assert not breaker.failed("a", allowed=3, pause=10)


@pytest.mark.parametrize(
    "found",
    [
        {"api": "openai", "base_url": "http://models.example.com/v1"},
        {"api": "openai", "base_url": "https://user@models.example.com/v1"},
        {"api": "openai", "base_url": "https://models.example.com/v1?key=x"},
        {"api": "openai", "base_url": "https://models.example.com/v1", "speaks": ["gemini"]},
        {"api": "watsonx", "base_url": "https://models.example.com"},
        {"api": "watsonx", "base_url": "https://models.example.com", "project": "p", "space": "s"},
        {"api": "vertex", "base_url": "https://models.example.com", "project": "p"},
        {"api": "azure", "base_url": "https://models.example.com", "api_version": "x/../y"},
    ],
)
def test_providers_that_cannot_work_are_refused_when_they_are_read(found: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Provider.model_validate(found)


def test_without_tls_only_here_or_where_the_operator_says_so() -> None:
    assert Provider(api="openai", base_url="http://127.0.0.1:8000/v1", speaks=("chat",)).formats == ("chat",)
    assert Provider(api="openai", base_url="http://vllm.example.com:8000/v1", private=True)
