"""The operator's file in `examples/operator`: what it says is what a run would meet."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from vestibule.agents.registry import adapter
from vestibule.boundary.models.routing import resolve
from vestibule.config.load import load_operator_config
from vestibule.config.schema import OperatorConfig
from vestibule.core.errors import ConfigError
from vestibule.core.labels import Confidentiality
from vestibule.cost.prices import PriceBook

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "operator"
HOUSE = [("own", "granite-4-h-small"), ("watsonx", "ibm/granite-4-h-small"), ("anthropic", "claude-sonnet-5")]


@pytest.fixture(scope="module")
def operator() -> OperatorConfig:
    return load_operator_config({"VESTIBULE_CONFIG": str(FOLDER / "config.yaml")})


@pytest.mark.parametrize(
    ("agent", "api"), [("claude-code", "anthropic"), ("reference", "anthropic"), ("opencode", "chat")]
)
def test_its_alias_serves_programs_of_both_apis_that_are_translated(
    operator: OperatorConfig, agent: str, api: str
) -> None:
    found, routes = resolve(operator.models, operator.model_aliases, "house", adapter(agent).about.apis)
    assert found == api
    assert [(route.name, route.model) for route in routes] == HOUSE


def test_a_program_that_is_not_translated_is_refused_before_it_starts(operator: OperatorConfig) -> None:
    with pytest.raises(ConfigError, match="not every provider of the model 'house'"):
        resolve(operator.models, operator.model_aliases, "house", adapter("codex").about.apis)


def test_every_model_of_it_has_a_price_and_only_the_own_one_is_free(operator: OperatorConfig, tmp_path: Path) -> None:
    files = tuple(FOLDER / name for name in operator.prices)
    book = PriceBook(tmp_path, files=files, providers=operator.models)
    free = []
    for provider, model in HOUSE:
        price = book.find(model, datetime(2026, 11, 1, tzinfo=UTC), provider)
        assert price is not None, model
        free.append(price.ceiling(1_000_000, 1000) == 0)
    assert free == [True, False, False]
    assert PriceBook(tmp_path, providers=operator.models).find("granite-4-h-small", datetime.now(UTC), "own") is None


def test_its_limits_and_keys_are_as_the_pages_say(operator: OperatorConfig) -> None:
    budget = operator.budget
    assert {(limit.per, limit.window) for limit in budget.limits} == {
        ("agent-version", "hour"),
        ("role", "day"),
        ("repository", "day"),
        ("model", "day"),
        ("organisation", "month"),
    }
    assert budget.usd_per_run == 5_000_000_000
    assert (budget.concurrent.run, budget.requests_per_minute.agent_version) == (8, 600)
    assert operator.models["watsonx"].clearance is Confidentiality.INTERNAL
    keys = {name: item.key for name, item in operator.models.items()}
    assert keys["own"] is None
    assert all(key.env and not key.file for key in keys.values() if key is not None)
